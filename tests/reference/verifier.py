"""A second verifier of evidence bundles, written from docs/ledger.md alone; it shares no code with fedsparse.

It leaves to the first one the values inside deltas, and what entries say of them.

Usage: verifier.py BUNDLE CA.pem [HUB-RECEIPTS.jsonl]
"""

import base64
import hashlib
import io
import json
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

Fields = dict[int, list[Any]]
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def need(holds: Any, otherwise: str) -> None:
    if not holds:
        raise ValueError(otherwise)


def parse(data: bytes, most: int) -> Fields:
    """Read a canonical Protocol Buffers message of so many fields: varints as numbers, the rest as bytes."""
    fields: Fields = {}
    at = last = 0
    value: Any
    while at < len(data):
        tag, at = varint(data, at)
        number, kind = tag >> 3, tag & 7
        need(max(last, 1) <= number <= most, "fields are unknown, or out of order")
        if kind == 0:
            value, at = varint(data, at)
        else:
            size, at = varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = data[at : at + size], at + size
        says = kind == 2 or (value if kind == 0 else any(value))
        need(at <= len(data) and says, "a field is cut short, or says nothing")
        fields.setdefault(number, []).append(value)
        last = number
    return fields


def varint(data: bytes, at: int) -> tuple[int, int]:
    value, shift, byte = 0, 0, 128
    while byte > 127:
        byte = data[at] if at < len(data) else 256
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        need(byte < 256 and shift <= 70 and (byte or shift <= 7) and not value >> 64, "no varint, or a longer one")
    return value, at


def one(fields: Fields, number: int, default: Any = 0) -> Any:
    values = fields.get(number, [default])
    need(len(values) == 1 and (values != [b""] or number not in fields), f"field {number} is there twice or empty")
    return values[0]


def root(leaves: list[bytes]) -> bytes:
    if len(leaves) <= 1:
        return leaves[0] if leaves else sha(b"")
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return sha(b"\x01" + root(leaves[:half]) + root(leaves[half:]))


def b64(text: str) -> bytes:
    data = base64.b64decode(text, validate=True)
    need(base64.b64encode(data).decode() == text, "no canonical base64")
    return data


def signed_line(line: str, key: bytes, kind: int, name: str) -> bytes:
    """Return what follows the key's identifier in a signature line of a note."""
    blob = b64(line.removeprefix(f"— {name} ").removesuffix("\n"))
    named = sha(name.encode() + bytes([10, kind]) + key)[:4]
    need(line[-1:] == "\n" and blob[:4] == named, "no signature line, or another key's")
    return blob[4:]


def chain(der: bytes, ca: list[x509.Certificate], role: str, unix_ms: int) -> tuple[Any, str]:
    """Return key and name of a chain that leads to a trusted root, is of a role, and was valid at a time."""
    at = datetime.fromtimestamp(unix_ms / 1000, UTC)
    certificates = []
    while der:
        size = 4 + int.from_bytes(der[2:4], "big") if der[:2] == b"\x30\x82" else 0
        certificates.append(x509.load_der_x509_certificate(der[:size]))
        der = der[size:]
    roots = [root for root in ca if issued(certificates[-1], root)]
    chained = roots and certificates[-1] not in ca and all(map(issued, certificates, certificates[1:]))
    need(chained, "a certificate was not issued by the given CA")
    valid = [one.not_valid_before_utc <= at <= one.not_valid_after_utc for one in [*certificates, roots[0]]]
    need(all(valid), "a certificate was not valid at that time")
    names = certificates[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    key = certificates[0].public_key()
    fit = uri.startswith(f"urn:fedsparse:{role}:") and isinstance(getattr(key, "curve", None), ec.SECP256R1)
    need(fit, f"it is no {role}'s certificate")
    return key, uri.split(":", 3)[3]


def issued(below: x509.Certificate, above: x509.Certificate) -> bool:
    with suppress(ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        below.verify_directly_issued_by(above)
        return bool(above.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    return False


def pack(members: dict[str, bytes]) -> bytes:
    file, rest = io.BytesIO(), sorted(name for name in members if "/" in name)
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in ["checkpoint", "entries", "receipts", *rest]:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(members[name]), 0o600
            archive.addfile(info, io.BytesIO(members[name]))
    return file.getvalue()


def fingerprint(space: bytes) -> bytes:
    fields = json.loads(space)
    told = b"fedsparse adapter space 1\0" + (base := bytes.fromhex(fields["base_fingerprint"]))
    for name, shape in ((tensor["name"].encode(), tensor["shape"]) for tensor in fields["tensors"]):
        told += len(name).to_bytes(8, "big") + name + b"".join(n.to_bytes(8, "big") for n in [len(shape), *shape])
    return sha(told) if json.dumps(fields | {"base_fingerprint": base.hex()}, indent=1).encode() == space else b""


def split(data: bytes) -> list[bytes]:
    items, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "big")
        items.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    need(at == len(data), "a list ends in the middle of an item")
    return items


def attempt(where: str, check: Callable[..., None], *arguments: Any) -> Iterator[str]:
    try:
        check(*arguments)
    except Exception as error:  # whatever a stranger's bytes make fail
        yield f"{where}: {error!r}"


class Verifier:
    def __init__(self, bundle: bytes, ca: bytes) -> None:
        self.ca = x509.load_pem_x509_certificates(ca)
        self.bundle, self.members, self.key, self.origin = bundle, dict[str, bytes](), b"", ""
        with tarfile.open(fileobj=io.BytesIO(bundle), mode="r:") as archive:
            for info in archive:
                plain = info.type == tarfile.REGTYPE and 0 <= info.size <= len(bundle)
                need(plain, f"the member {info.name!r} is no plain file, or of an impossible size")
                self.members[info.name] = archive.extractfile(info).read()  # type: ignore[union-attr]
        self.entries = split(self.members["entries"])
        self.leaves = [sha(b"\x00" + entry) for entry in self.entries]
        self.sent: dict[int, tuple[bytes, bytes, bytes]] = {}
        self.needed, self.kept = {"checkpoint", "entries", "receipts"}, set[int]()
        receipts = [(int.from_bytes(item[:8], "big"), item[8:]) for item in split(self.members["receipts"])]
        self.filed, self.ordered = dict(receipts), sorted(dict(receipts).items()) == receipts

    def problems(self, hub: bytes | None) -> Iterator[str]:
        if pack(self.members) != self.bundle or not self.ordered:
            yield "the bundle has bytes that its contents do not determine, or receipts out of order"
        erased = dict(self.erasures())
        for number, entry in enumerate(self.entries, 1):
            yield from attempt(f"entry {number}", self.check_entry, number, entry, erased)
        yield from attempt(f"entry {len(self.entries)}: checkpoint", self.check_checkpoint)
        for number, receipt in self.filed.items():
            yield from attempt(f"entry {number}: receipt", self.check_receipt, number, receipt)
        for name in sorted(self.members.keys() - self.needed):
            yield f"the member {name!r} is needed by no entry"
        if hub is not None:
            for count, line in enumerate(hub.split(b"\n")[:-1], 1):
                yield from attempt(f"the hub's receipt {count}", self.check_kept, count, line)
            for number in sorted(self.filed.keys() - self.kept):
                yield f"entry {number}: the hub's record lacks its receipt: it is older than that, or not whole"

    def payload(self, digest: bytes) -> bytes:
        data = self.members[f"payloads/{digest.hex()}"]
        need(sha(data) == digest, "the payload was altered")
        return data

    def erasures(self) -> Iterator[tuple[bytes, int]]:
        for number, entry in enumerate(self.entries, 1):
            with suppress(Exception):  # told of where the entry itself is checked
                if one(fields := parse(entry, 18), 5) == 9:
                    yield one(parse(self.payload(one(fields, 15)), 3), 1), number

    def check_entry(self, number: int, data: bytes, erased: dict[bytes, int]) -> None:
        entry = parse(data, 18)
        previous = self.leaves[number - 2] if number > 1 else bytes(32)
        kind, size, digest = one(entry, 5), one(entry, 14), one(entry, 15)
        placed = [one(entry, field) for field in (1, 2, 4)] == [2, number, previous]
        need(placed and 1 <= kind <= 9, "format, number, kind or chain is wrong")
        need(one(entry, 3) < 253_402_300_800_000, "it is dated at no possible time")
        need(kind not in ((4, 5) if size else (1, 2)), "it has a payload, or none, which its kind cannot have")
        need(size or digest == sha(b""), "it has no payload, but the digest of one")
        if size and erased.get(digest, 0) <= number:
            payload = self.payload(digest)
            self.needed |= {f"payloads/{digest.hex()}"}
            need(len(payload) == size, "the payload has another size")
            if kind in (1, 2):
                self.check_update(entry, kind, parse(payload, 7))
            elif kind == 3:
                with suppress(Exception):  # what was stopped may be anything
                    self.need_space(parse(payload, 7))
            elif kind == 6:
                self.check_opening(entry, parse(payload, 7))
            elif kind in (8, 9):
                parse(payload, 6 if kind == 8 else 3)
        if kind in (1, 2):
            self.sent[number] = (one(entry, 8, b""), digest, self.leaves[number - 1])

    def check_update(self, entry: Fields, kind: int, update: Fields) -> None:
        said = [one(entry, field) for field in (9, 10, 11, 12)]
        same = said == [one(update, field) for field in (2, 3, 4, 6)] and (kind == 1) == (said[-1] == 0)
        need(same, "round, version, samples or reason are others than in the payload")
        need(entry.get(17, []) == update.get(7, []), "metrics are others than in the payload")
        self.need_space(update)

    def need_space(self, update: Fields) -> None:
        if delta := one(update, 5, b""):
            name = f"spaces/{one(parse(delta, 6), 2).hex()}.json"
            self.needed |= {name}
            need(name == f"spaces/{fingerprint(self.members[name]).hex()}.json", "the adapter space is another")

    def check_opening(self, entry: Fields, opening: Fields) -> None:
        origin, key = one(opening, 1, b"").decode(), one(opening, 2, b"")
        plant, name = chain(one(opening, 3, b""), self.ca, "plant", one(entry, 3))
        statement = f"fedsparse ledger key 1\n{origin}\n{key.hex()}\n".encode()
        plant.verify(one(opening, 4, b""), statement, ec.ECDSA(hashes.SHA256()))
        same = origin == f"fedsparse/{name}/{sha(key).hex()[:16]}" and self.key in (b"", key)
        need(same, "it names another ledger, or one that is not this plant's and key's")
        self.key, self.origin = key, origin

    def check_checkpoint(self) -> None:
        text, gap, line = self.members["checkpoint"].decode().rpartition("\n\n")
        expected = f"{self.origin}\n{len(self.leaves)}\n{base64.b64encode(root(self.leaves)).decode()}"
        need(gap and text == expected, "it is of other entries")
        blob = signed_line(line, self.key, 1, self.origin)
        ed25519.Ed25519PublicKey.from_public_bytes(self.key).verify(blob, (text + "\n").encode())

    def check_receipt(self, number: int, data: bytes) -> None:
        receipt = parse(data, 4)
        body = parse(one(receipt, 1), 12)
        said = one(body, 2, b""), one(body, 3), one(body, 4)
        need(said == self.sent[number], "it is for something else")
        need(one(body, 12) == sha(one(receipt, 3)), "it names another certificate than it shows")
        size, witnessed = one(body, 9), (one(body, 7, b"").decode(), one(body, 8, b""), one(body, 10))
        same = size <= len(self.leaves) and witnessed == (self.origin, self.key, root(self.leaves[:size]))
        need(same, "it witnesses another ledger or history")
        hub, name = chain(one(receipt, 3), self.ca, "hub", one(body, 6))
        hub.verify(one(receipt, 2), one(receipt, 1), ec.ECDSA(hashes.SHA256()))
        need(2 * decode_dss_signature(one(receipt, 2))[1] <= ORDER, "its signature is not in its lower form")
        blob = signed_line(one(receipt, 4).decode(), one(body, 11), 4, f"fedsparse/{name}")
        checkpoint = f"{self.origin}\n{size}\n{base64.b64encode(one(body, 10)).decode()}\n"
        said = f"cosignature/v1\ntime {int.from_bytes(blob[:8], 'big')}\n{checkpoint}"
        ed25519.Ed25519PublicKey.from_public_bytes(one(body, 11)).verify(blob[8:], said.encode())

    def check_kept(self, count: int, line: bytes) -> None:
        data = b64(json.loads(line)["receipt"])
        body = parse(one(parse(data, 4), 1), 12)
        (number,) = (number for number, said in self.sent.items() if said[2] == one(body, 4))
        self.kept |= {number}
        self.check_receipt(number, data)
        need(one(body, 5) == count, "what stood before it is gone")
        need(self.filed.get(number, data) == data, "the plant has filed another")


def main(arguments: list[str]) -> int:
    bundle, ca, *hub = [Path(path).read_bytes() for path in arguments] if arguments[1:] else sys.exit(__doc__)
    try:
        x509.load_pem_x509_certificates(ca)
    except ValueError:
        sys.exit(f"{arguments[1]} holds no PEM certificate")
    try:
        found = list(Verifier(bundle, ca).problems(hub[0] if hub else None))
    except Exception as error:
        found = [f"this is no evidence bundle: {error!r}"]
    print("\n".join(found) or "verified")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

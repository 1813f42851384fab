"""A second verifier of evidence bundles, written from docs/ledger.md alone; it shares no code with fedsparse.

It leaves to the first one the values inside deltas, and what entries say of them.

Usage: verifier.py BUNDLE CA.pem [HUB-RECEIPTS.jsonl]
"""

import base64
import hashlib
import io
import json
import struct
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


def parse(data: bytes, most: int) -> Fields:
    """Read a canonical Protocol Buffers message of so many fields: varints as numbers, the rest as bytes."""
    fields: Fields = {}
    at = last = 0
    value: Any
    while at < len(data):
        tag, at = varint(data, at)
        number, kind = tag >> 3, tag & 7
        if not max(last, 1) <= number <= most:
            raise ValueError("fields are unknown, or out of order")
        if kind == 0:
            value, at = varint(data, at)
        else:
            size, at = varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
            value, at = data[at : at + size], at + size
        if at > len(data) or (kind != 2 and not (value if kind == 0 else any(value))):
            raise ValueError("a field is cut short, or says nothing")
        fields.setdefault(number, []).append(value)
        last = number
    return fields


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at] if at < len(data) else 256
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte > 255 or shift > 70 or (byte == 0 and shift > 7) or value >> 64:
            raise ValueError("no varint in its shortest form")
        if byte < 128:
            return value, at


def one(fields: Fields, number: int, default: Any = 0) -> Any:
    values = fields.get(number, [default])
    if len(values) != 1 or (values == [b""] and number in fields):
        raise ValueError(f"field {number} is there twice, or empty")
    return values[0]


def root(leaves: list[bytes]) -> bytes:
    if len(leaves) <= 1:
        return leaves[0] if leaves else sha(b"")
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return sha(b"\x01" + root(leaves[:half]) + root(leaves[half:]))


def b64(text: str) -> bytes:
    if base64.b64encode(data := base64.b64decode(text, validate=True)).decode() != text:
        raise ValueError("no canonical base64")
    return data


def signed_line(line: str, key: bytes, kind: int, name: str) -> bytes:
    """Return what follows the key's identifier in a signature line of a note."""
    blob = b64(line.removeprefix(f"— {name} ").removesuffix("\n"))
    if line[-1:] != "\n" or blob[:4] != sha(name.encode() + bytes([10, kind]) + key)[:4]:
        raise ValueError("no signature line, or another key's")
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
    if not roots or certificates[-1] in ca or not all(map(issued, certificates, certificates[1:])):
        raise ValueError("a certificate was not issued by the given CA")
    if not all(one.not_valid_before_utc <= at <= one.not_valid_after_utc for one in [*certificates, roots[0]]):
        raise ValueError("a certificate was not valid at that time")
    names = certificates[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    key = certificates[0].public_key()
    if not uri.startswith(f"urn:fedsparse:{role}:") or getattr(key, "curve", ec.SECP384R1()).name != "secp256r1":
        raise ValueError(f"it is no {role}'s certificate")
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
        told += struct.pack(">Q", len(name)) + name + struct.pack(f">{len(shape) + 1}Q", len(shape), *shape)
    return sha(told) if json.dumps(fields | {"base_fingerprint": base.hex()}, indent=1).encode() == space else b""


def split(data: bytes) -> list[bytes]:
    items, at = [], 0
    while at < len(data):
        (size,) = struct.unpack(">Q", data[at : at + 8])
        items.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    if at != len(data):
        raise ValueError("a list ends in the middle of an item")
    return items


def attempt(where: str, check: Callable[..., None], *arguments: Any) -> Iterator[str]:
    try:
        check(*arguments)
    except Exception as error:  # whatever a stranger's bytes make fail
        yield f"{where}: {error!r}"


class Verifier:
    def __init__(self, bundle: bytes, ca: bytes) -> None:
        self.ca = x509.load_pem_x509_certificates(ca)
        with tarfile.open(fileobj=io.BytesIO(bundle), mode="r:") as archive:
            self.members = {info.name: archive.extractfile(info).read() for info in archive}  # type: ignore[union-attr]
        self.bundle = bundle
        self.entries = split(self.members["entries"])
        self.leaves = [sha(b"\x00" + entry) for entry in self.entries]
        self.key, self.origin = b"", ""
        self.sent: dict[int, tuple[bytes, bytes, bytes]] = {}
        self.needed = {"checkpoint", "entries", "receipts"}
        receipts = split(self.members["receipts"])
        self.filed = {int.from_bytes(item[:8], "big"): item[8:] for item in receipts}
        self.ordered = sorted(self.filed) == [int.from_bytes(item[:8], "big") for item in receipts]

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
        for count, line in enumerate(() if hub is None else hub.splitlines(), 1):
            yield from attempt(f"the hub's receipt {count}", self.check_kept, count, line)

    def payload(self, digest: bytes) -> bytes:
        data = self.members[f"payloads/{digest.hex()}"]
        if sha(data) != digest:
            raise ValueError("the payload was altered")
        return data

    def erasures(self) -> Iterator[tuple[bytes, int]]:
        for number, entry in enumerate(self.entries, 1):
            with suppress(Exception):  # told of where the entry itself is checked
                if one(fields := parse(entry, 18), 5) == 9:
                    yield one(parse(self.payload(one(fields, 15)), 3), 1), number

    def check_entry(self, number: int, data: bytes, erased: dict[bytes, int]) -> None:
        entry = parse(data, 18)
        previous = self.leaves[number - 2] if number > 1 else bytes(32)
        if [one(entry, field) for field in (1, 2, 4)] != [2, number, previous] or not 1 <= one(entry, 5) <= 9:
            raise ValueError("format, number, kind or chain is wrong")
        kind, size, digest = one(entry, 5), one(entry, 14), one(entry, 15)
        if not size:
            if digest != sha(b""):
                raise ValueError("it has no payload, but the digest of one")
        elif erased.get(digest, 0) <= number:
            payload = self.payload(digest)
            self.needed |= {f"payloads/{digest.hex()}"}
            if len(payload) != size:
                raise ValueError("the payload has another size")
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
        if said != [one(update, field) for field in (2, 3, 4, 6)] or (kind == 1) != (said[-1] == 0):
            raise ValueError("round, version, samples or reason are others than in the payload")
        if entry.get(17, []) != update.get(7, []):
            raise ValueError("metrics are others than in the payload")

        self.need_space(update)

    def need_space(self, update: Fields) -> None:
        if delta := one(update, 5, b""):
            name = f"spaces/{one(parse(delta, 6), 2).hex()}.json"
            self.needed |= {name}
            if name != f"spaces/{fingerprint(self.members[name]).hex()}.json":
                raise ValueError("the adapter space is another")

    def check_opening(self, entry: Fields, opening: Fields) -> None:
        origin, key = one(opening, 1, b"").decode(), one(opening, 2, b"")
        plant, name = chain(one(opening, 3, b""), self.ca, "plant", one(entry, 3))
        statement = f"fedsparse ledger key 1\n{origin}\n{key.hex()}\n".encode()
        plant.verify(one(opening, 4, b""), statement, ec.ECDSA(hashes.SHA256()))
        if origin != f"fedsparse/{name}/{sha(key).hex()[:16]}" or self.key not in (b"", key):
            raise ValueError("it names another ledger, or one that is not this plant's and key's")
        self.key, self.origin = key, origin

    def check_checkpoint(self) -> None:
        text, gap, line = self.members["checkpoint"].decode().rpartition("\n\n")
        expected = f"{self.origin}\n{len(self.leaves)}\n{base64.b64encode(root(self.leaves)).decode()}"
        if not gap or text != expected:
            raise ValueError("it is of other entries")
        blob = signed_line(line, self.key, 1, self.origin)
        ed25519.Ed25519PublicKey.from_public_bytes(self.key).verify(blob, (text + "\n").encode())

    def check_receipt(self, number: int, data: bytes) -> None:
        receipt = parse(data, 4)
        body = parse(one(receipt, 1), 12)
        said = one(body, 2, b""), one(body, 3), one(body, 4)
        if said != self.sent[number] or one(body, 12) != sha(one(receipt, 3)):
            raise ValueError("it is for something else")
        size, witnessed = one(body, 9), (one(body, 7, b"").decode(), one(body, 8, b""), one(body, 10))
        if size > len(self.leaves) or witnessed != (self.origin, self.key, root(self.leaves[:size])):
            raise ValueError("it witnesses another ledger or history")
        hub, name = chain(one(receipt, 3), self.ca, "hub", one(body, 6))
        hub.verify(one(receipt, 2), one(receipt, 1), ec.ECDSA(hashes.SHA256()))
        if 2 * decode_dss_signature(one(receipt, 2))[1] > ORDER:
            raise ValueError("its signature is not in its lower form")
        blob = signed_line(one(receipt, 4).decode(), one(body, 11), 4, f"fedsparse/{name}")
        checkpoint = f"{self.origin}\n{size}\n{base64.b64encode(one(body, 10)).decode()}\n"
        said = f"cosignature/v1\ntime {int.from_bytes(blob[:8], 'big')}\n{checkpoint}"
        ed25519.Ed25519PublicKey.from_public_bytes(one(body, 11)).verify(blob[8:], said.encode())

    def check_kept(self, count: int, line: bytes) -> None:
        data = b64(json.loads(line)["receipt"])
        body = parse(one(parse(data, 4), 1), 12)
        (number,) = (number for number, said in self.sent.items() if said[2] == one(body, 4))
        self.check_receipt(number, data)
        if one(body, 5) != count or self.filed.get(number, data) != data:
            raise ValueError("what stood before it is gone, or the plant has filed another")


def main(arguments: list[str]) -> int:
    contents = [Path(path).read_bytes() for path in arguments]
    try:
        found = list(Verifier(*contents[:2]).problems(contents[2] if contents[2:] else None))
    except Exception as error:
        found = [f"this is no evidence bundle: {error!r}"]
    print("\n".join(found) or "verified")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

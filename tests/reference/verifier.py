"""A second verifier of evidence bundles, written from docs/ledger.md alone; it shares no code with fedsparse.

It leaves to the first one the values inside deltas, and what entries say of them.

Usage: verifier.py BUNDLE CA.pem [HUB-RECEIPTS.jsonl]
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import sys
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

Fields = dict[int, list[Any]]


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def parse(data: bytes) -> Fields:
    """Read a canonical Protocol Buffers message: varints as numbers, the rest as bytes."""
    fields: Fields = {}
    at = last = 0
    while at < len(data):
        tag, at = varint(data, at)
        number, kind = tag >> 3, tag & 7
        if number < last or number == 0:
            raise ValueError("fields out of order")
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


def only(fields: Fields, last: int) -> Fields:
    if max(fields, default=0) > last:
        raise ValueError("unknown fields")
    return fields


def root(leaves: list[bytes]) -> bytes:
    if len(leaves) <= 1:
        return leaves[0] if leaves else sha(b"")
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return sha(b"\x01" + root(leaves[:half]) + root(leaves[half:]))


def b64(text: str) -> bytes:
    if base64.b64encode(data := base64.b64decode(text, validate=True)).decode() != text:
        raise ValueError("no canonical base64")
    return data


def signed_line(line: str, key: bytes, kind: int, named: str = "") -> tuple[str, bytes]:
    """Return the name in a signature line of a note, and what follows the key's identifier."""
    dash, name, encoded = line.split(" ")
    blob = b64(encoded)
    if dash != "—" or named not in ("", name) or blob[:4] != sha(name.encode() + bytes([10, kind]) + key)[:4]:
        raise ValueError("no signature line, or another key's")
    return name, blob[4:]


def chain(der: bytes, ca: list[x509.Certificate], role: str, unix_ms: int) -> tuple[Any, str]:
    """Return key and name of a chain that leads to a trusted root, is of a role, and was valid at a time."""
    at = datetime.fromtimestamp(unix_ms / 1000, UTC)
    certificates = []
    while der:
        size = 4 + int.from_bytes(der[2:4], "big") if der[:2] == b"\x30\x82" else 0
        certificates.append(x509.load_der_x509_certificate(der[:size]))
        der = der[size:]
    roots = [root for root in ca if issued(certificates[-1], root)]
    if not roots or not all(map(issued, certificates, certificates[1:])):
        raise ValueError("a certificate was not issued by the given CA")
    for certificate in [*certificates, roots[0]]:
        if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
            raise ValueError("a certificate was not valid at that time")
    names = certificates[0].extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    if not uri.startswith(f"urn:fedsparse:{role}:"):
        raise ValueError(f"it is no {role}'s certificate")
    return certificates[0].public_key(), uri.split(":", 3)[3]


def issued(below: x509.Certificate, above: x509.Certificate) -> bool:
    try:
        below.verify_directly_issued_by(above)
        return bool(above.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
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
    told = b"fedsparse adapter space 1\0" + bytes.fromhex(fields["base_fingerprint"])
    for name, shape in ((tensor["name"].encode(), tensor["shape"]) for tensor in fields["tensors"]):
        told += struct.pack(">Q", len(name)) + name + struct.pack(f">{len(shape) + 1}Q", len(shape), *shape)
    return sha(told) if json.dumps(fields, indent=1).encode() == space else b""


def split(data: bytes) -> list[bytes]:
    items, at = [], 0
    while at < len(data):
        (size,) = struct.unpack(">Q", data[at : at + 8])
        items.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    if at != len(data):
        raise ValueError("a list ends in the middle of an item")
    return items


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

    def problems(self, hub: bytes | None) -> Iterator[str]:
        if pack(self.members) != self.bundle:
            yield "the bundle has bytes that its contents do not determine"
        for name in self.members:
            if name.startswith("spaces/") and name != f"spaces/{fingerprint(self.members[name]).hex()}.json":
                yield f"{name} is no adapter space, or another"
        erased = dict(self.erasures())
        for number, entry in enumerate(self.entries, 1):
            try:
                self.check_entry(number, parse(entry), erased)
            except Exception as error:  # whatever a stranger's bytes make fail
                yield f"entry {number}: {error!r}"
        try:
            self.check_checkpoint()
        except Exception as error:
            yield f"entry {len(self.entries)}: checkpoint: {error!r}"
        filed = [(int.from_bytes(item[:8], "big"), item[8:]) for item in split(self.members["receipts"])]
        if [number for number, _ in filed] != sorted({number for number, _ in filed}):
            yield "receipts are out of order, or twice"
        for number, receipt in filed:
            try:
                self.check_receipt(number, receipt)
            except Exception as error:
                yield f"entry {number}: receipt: {error!r}"
        if hub is not None:
            yield from self.check_hub(hub)

    def payload(self, digest: bytes) -> bytes:
        data = self.members[f"payloads/{digest.hex()}"]
        if sha(data) != digest:
            raise ValueError("the payload was altered")
        return data

    def erasures(self) -> Iterator[tuple[bytes, int]]:
        for number, entry in enumerate(self.entries, 1):
            with suppress(Exception):  # told of where the entry itself is checked
                if one(fields := parse(entry), 5) == 9:
                    yield one(only(parse(self.payload(one(fields, 15))), 3), 1), number

    def check_entry(self, number: int, entry: Fields, erased: dict[bytes, int]) -> None:
        only(entry, 18)
        previous = self.leaves[number - 2] if number > 1 else bytes(32)
        if [one(entry, field) for field in (1, 2, 4)] != [2, number, previous] or not 1 <= one(entry, 5) <= 9:
            raise ValueError("format, number, kind or chain is wrong")
        kind, size, digest = one(entry, 5), one(entry, 14), one(entry, 15)
        if not size:
            if digest != sha(b""):
                raise ValueError("it has no payload, but the digest of one")
        elif f"payloads/{digest.hex()}" in self.members or erased.get(digest, 0) <= number:
            payload = self.payload(digest)
            if len(payload) != size:
                raise ValueError("the payload has another size")
            if kind in (1, 2):
                self.check_update(entry, kind, parse(payload))
            elif kind == 6:
                self.check_opening(entry, only(parse(payload), 7))
            elif kind in (8, 9):
                only(parse(payload), 6)
        if kind in (1, 2):
            self.sent[number] = (one(entry, 8, b""), digest, self.leaves[number - 1])

    def check_update(self, entry: Fields, kind: int, update: Fields) -> None:
        said = [one(entry, field) for field in (9, 10, 11, 12)]
        if said != [one(update, field) for field in (2, 3, 4, 6)] or (kind == 1) != (said[-1] == 0):
            raise ValueError("round, version, samples or reason are others than in the payload")
        if entry.get(17, []) != update.get(7, []):
            raise ValueError("metrics are others than in the payload")

    def check_opening(self, entry: Fields, opening: Fields) -> None:
        origin, key = one(opening, 1, b"").decode(), one(opening, 2, b"")
        if (self.key or key, self.origin or origin) != (key, origin):
            raise ValueError("it names another ledger")
        self.key, self.origin = key, origin
        plant, name = chain(one(opening, 3, b""), self.ca, "plant", one(entry, 3))
        statement = f"fedsparse ledger key 1\n{origin}\n{key.hex()}\n".encode()
        plant.verify(one(opening, 4, b""), statement, ec.ECDSA(hashes.SHA256()))
        if origin != f"fedsparse/{name}/{sha(key).hex()[:16]}":
            raise ValueError("the origin is not this plant's and key's")

    def check_checkpoint(self) -> None:
        text, gap, line = self.members["checkpoint"].decode().rpartition("\n\n")
        expected = f"{self.origin}\n{len(self.leaves)}\n{base64.b64encode(root(self.leaves)).decode()}"
        if not gap or text != expected or line[-1:] != "\n":
            raise ValueError("it is of other entries")
        _, blob = signed_line(line[:-1], self.key, 1, self.origin)
        ed25519.Ed25519PublicKey.from_public_bytes(self.key).verify(blob, (text + "\n").encode())

    def check_receipt(self, number: int, data: bytes) -> None:
        receipt = only(parse(data), 4)
        body = only(parse(one(receipt, 1)), 11)
        if (one(body, 2, b""), one(body, 3), one(body, 4)) != self.sent[number]:
            raise ValueError("it is for something else")
        size, witnessed = one(body, 9), (one(body, 7, b"").decode(), one(body, 8, b""), one(body, 10))
        if size > len(self.leaves) or witnessed != (self.origin, self.key, root(self.leaves[:size])):
            raise ValueError("it witnesses another ledger or history")
        hub, _ = chain(one(receipt, 3), self.ca, "hub", one(body, 6))
        hub.verify(one(receipt, 2), one(receipt, 1), ec.ECDSA(hashes.SHA256()))
        line = one(receipt, 4).decode()
        _, blob = signed_line(line[:-1] if line[-1:] == "\n" else "", one(body, 11), 4)
        checkpoint = f"{self.origin}\n{size}\n{base64.b64encode(one(body, 10)).decode()}\n"
        said = f"cosignature/v1\ntime {int.from_bytes(blob[:8], 'big')}\n{checkpoint}"
        ed25519.Ed25519PublicKey.from_public_bytes(one(body, 11)).verify(blob[8:], said.encode())

    def check_hub(self, kept: bytes) -> Iterator[str]:
        numbers = {leaf: number for number, (_, _, leaf) in self.sent.items()}
        for count, line in enumerate(kept.splitlines(), 1):
            try:
                body = parse(one(parse(data := b64(json.loads(line)["receipt"])), 1))
                self.check_receipt(numbers[one(body, 4)], data)
                if one(body, 5) != count:
                    raise ValueError("what stood before it is gone")
            except Exception as error:
                yield f"the hub's receipt {count}: {error!r}"


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

"""A bundle taken apart, changed, and put together again; the bytes are those of docs/ledger.md."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedsparse.audit import Checkpoint, merkle
from fedsparse.audit.notes import sign_checkpoint
from fedsparse.v1 import ledger_pb2
from tests.reference.verifier import pack, split


@dataclass
class Parts:
    """What a bundle holds; ``receipts`` pairs each with its entry's number."""

    entries: list[bytes]
    receipts: list[tuple[int, bytes]]
    checkpoint: bytes
    files: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, bundle: bytes) -> Parts:
        """Take a bundle apart."""
        with tarfile.open(fileobj=io.BytesIO(bundle), mode="r:") as archive:
            members = {info.name: archive.extractfile(info).read() for info in archive}  # type: ignore[union-attr]
        receipts = [(int.from_bytes(item[:8], "big"), item[8:]) for item in split(members.pop("receipts"))]
        return cls(split(members.pop("entries")), receipts, members.pop("checkpoint"), members)

    def copy(self) -> Parts:
        """Return a copy that can be changed."""
        return Parts(list(self.entries), list(self.receipts), self.checkpoint, dict(self.files))

    def bundle(self) -> bytes:
        """Put it together."""
        receipts = [struct.pack(">Q", number) + one for number, one in self.receipts]
        members = {"checkpoint": self.checkpoint, "entries": _join(self.entries), "receipts": _join(receipts)}
        return pack(members | self.files)

    def edit(self, number: int, change: Callable[[ledger_pb2.LedgerEntry], None]) -> None:
        """Change an entry."""
        entry = ledger_pb2.LedgerEntry.FromString(self.entries[number - 1])
        change(entry)
        self.entries[number - 1] = entry.SerializeToString(deterministic=True)

    def rechain(self, start: int) -> None:
        """Renumber the entries from ``start`` on, and let each name the one before: no hash shows a seam."""
        for number in range(start, len(self.entries) + 1):
            before = merkle.leaf_hash(self.entries[number - 2]) if number > 1 else bytes(32)

            def change(entry: ledger_pb2.LedgerEntry, number: int = number, before: bytes = before) -> None:
                entry.sequence, entry.previous_hash = number, before

            self.edit(number, change)

    def sign(self, key: Ed25519PrivateKey, origin: str) -> None:
        """Sign a checkpoint over the entries as they are."""
        leaves = [merkle.leaf_hash(entry) for entry in self.entries]
        root = merkle.roots_at(leaves, {len(leaves)})[len(leaves)]
        self.checkpoint = sign_checkpoint(Checkpoint(origin, len(leaves), root), key)

    def payloads(self) -> list[str]:
        """Return the names of the payload files."""
        return sorted(name for name in self.files if name.startswith("payloads/"))

    def put(self, payload: bytes) -> bytes:
        """Add a payload; return its digest."""
        digest = sha256(payload).digest()
        self.files[f"payloads/{digest.hex()}"] = payload
        return digest


def _join(items: list[bytes]) -> bytes:
    return b"".join(struct.pack(">Q", len(item)) + item for item in items)

"""The proof that one entry is in a ledger, for somebody who may see no other; and how that is checked."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from google.protobuf.message import DecodeError

from fedsparse.audit.entry import EntryKind
from fedsparse.audit.evidence import Evidence
from fedsparse.audit.merkle import includes, inclusion_proof, leaf_hash
from fedsparse.audit.notes import Checkpoint, check_note
from fedsparse.audit.opening import Opened
from fedsparse.audit.receipt import Receipted, check_receipt
from fedsparse.audit.verify import Roots, parse_entry
from fedsparse.audit.views import View
from fedsparse.errors import LedgerError
from fedsparse.v1 import ledger_pb2, link_pb2

_FORMAT = "fedsparse proof 1"
_HOW = (
    "fedsparse audit check-proof THIS.json --ca ca.pem; or by hand, with docs/ledger.md and docs/audit.md:",
    "1. The SHA-256 of 0x00 and the entry is its leaf hash. With inclusion_proof (RFC 6962, 2.1.1) it leads to "
    "the root in the checkpoint, as leaf leaf_index, from 0, of a tree of tree_size leaves.",
    "2. The checkpoint (C2SP signed-note, Ed25519) is signed by ledger_key.",
    "3. The opening's entry leads to the same root; the payload_sha256 in it is that of the opening's payload, an "
    "Opening, in which the key of the plant's certificate signs for ledger_key. The certificate must lead to the "
    "federation's CA, which you bring yourself: without it the ledger may be anybody's.",
    "4. The receipt, where there is one, is the hub's signature for this entry; ledger.md says over what.",
    "5. What left is not in here. Whoever hands it over: its SHA-256 must be payload_sha256.",
)


@dataclass(frozen=True)
class Proved:
    """What a proof shows.

    Attributes:
        entry: the entry.
        origin: name of the ledger that it is in.
        size: entries that the ledger had.
        receipt: whether the hub's receipt for it is there.
        problems: why it shows nothing; none where it holds.
    """

    entry: ledger_pb2.LedgerEntry
    origin: str
    size: int
    receipt: bool
    problems: tuple[str, ...]


@dataclass(frozen=True)
class _Included:
    """An entry with its way to the root."""

    data: bytes
    entry: ledger_pb2.LedgerEntry
    index: int
    path: tuple[bytes, ...]

    @classmethod
    def read(cls, told: Any) -> _Included:
        data = _bytes(told["entry"])
        entry = parse_entry(data)
        if entry is None:
            raise ValueError
        return cls(data, entry, _number(told["leaf_index"]), tuple(map(_bytes, told["inclusion_proof"])))

    @property
    def leaf(self) -> bytes:
        return leaf_hash(self.data)

    def check(self, checkpoint: Checkpoint) -> Iterator[str]:
        number = self.entry.sequence
        if number != self.index + 1 or not includes(
            self.leaf, self.index, checkpoint.size, self.path, checkpoint.root
        ):
            yield f"entry {number} is not proved to be in the ledger"


@dataclass(frozen=True)
class _Proof:
    """What :func:`make_proof` wrote, read as a stranger's."""

    included: _Included
    payload_sha256: str
    size: int
    note: bytes
    key: bytes
    opened: _Included
    payload: bytes
    opening: ledger_pb2.Opening
    receipt: bytes | None

    @classmethod
    def read(cls, told: Any) -> _Proof:
        payload = _bytes(told["opening"]["payload"])
        return cls(
            _Included.read(told),
            _text(told["payload_sha256"]),
            _number(told["tree_size"]),
            _text(told["checkpoint"]).encode(),
            _bytes(told["ledger_key"]),
            _Included.read(told["opening"]),
            payload,
            ledger_pb2.Opening.FromString(payload),
            None if told["receipt"] is None else _bytes(told["receipt"]),
        )

    def check(self, authority: bytes | None) -> Iterator[str]:
        try:
            checkpoint = check_note(self.note, self.key)
        except LedgerError as error:
            yield f"its checkpoint does not count: {error}"
            return
        opening, key = self.opening, self.key
        if (checkpoint.origin, checkpoint.size, key) != (opening.origin, self.size, opening.ledger_key):
            yield "its checkpoint, its ledger's key and its opening are of different ledgers or sizes"
        yield from self.included.check(checkpoint)
        yield from self.opened.check(checkpoint)
        yield from self._check_opening(authority)
        if self.payload_sha256 != self.included.entry.payload_sha256.hex():
            yield "it names another payload than its entry does"
        if self.receipt is not None:
            yield from (f"its receipt {problem}" for problem in self._check_receipt(authority, checkpoint))

    def _check_opening(self, authority: bytes | None) -> Iterator[str]:
        entry = self.opened.entry
        if not _opens(entry) or entry.payload_sha256 != sha256(self.payload).digest():
            yield "its opening is not one that the ledger recorded"
        opened = Opened(entry.sequence, entry.time_unix_ms, self.opening, others=False)
        yield from (f"its opening {problem}" for problem in opened.check(authority))

    def _check_receipt(self, authority: bytes | None, checkpoint: Checkpoint) -> Iterator[str]:
        data, entry = self.receipt or b"", self.included.entry
        expected = Receipted(entry.task_id, entry.payload_sha256, self.included.leaf)
        yield from check_receipt(data, expected, authority, Roots(self.key, self.opening.origin, {}))
        try:
            body = link_pb2.Receipt.FromString(data).body
        except DecodeError:
            return  # told of above
        other = body.checkpoint_size == checkpoint.size and body.checkpoint_root != checkpoint.root
        if other or body.checkpoint_size < entry.sequence:
            yield "witnesses another history than the proof's"


def make_proof(evidence: Evidence, number: int) -> dict[str, Any]:
    """Return the proof for an entry, as JSON has it: with the ledger's opening, which ties its key to the plant.

    Raises:
        LedgerError: it cannot be proved; there is none that its own check would refuse.
    """
    view = View.of(evidence)
    opened = next((place for place, entry in enumerate(view.entries, start=1) if _opens(entry)), 0)
    problems = [*view.check_checkpoint()]
    if view.checkpoint is None:
        problems.append("the ledger has no checkpoint that can be read")
    if not opened:
        problems.append("no entry says whose ledger this is, and which key signs for it")
    if not problems:
        proof = _write(view, number, opened)
        problems += check_proof(json.dumps(proof).encode(), None).problems
    if problems:
        raise LedgerError(
            f"entry {number} cannot be proved: {problems[0]}", "fedsparse audit verify names what was altered"
        )
    return proof


def _write(view: View, number: int, opened: int) -> dict[str, Any]:
    entry, opening = view.entries[number - 1], view.entries[opened - 1]
    if entry is None or opening is None:
        raise LedgerError(f"entry {number} cannot be read", "fedsparse audit verify says more")
    try:
        payload = view.evidence.payload(opening.payload_sha256)
    except LedgerError as error:
        raise LedgerError(f"entry {opened} says whose ledger this is, but its payload {error}") from None
    receipt = view.evidence.receipts.get(number)
    return {
        "format": _FORMAT,
        "how_to_check": _HOW,
        **_write_included(view, number),
        "payload_sha256": entry.payload_sha256.hex(),
        "tree_size": len(view.leaves),
        "checkpoint": view.evidence.checkpoint.decode(),
        "ledger_key": _b64(view.key),
        "opening": {**_write_included(view, opened), "payload": _b64(payload)},
        "receipt": None if receipt is None else _b64(receipt),
    }


def _write_included(view: View, number: int) -> dict[str, Any]:
    path = inclusion_proof(lambda *place: view.nodes[place], number - 1, len(view.leaves))
    return {
        "entry": _b64(view.evidence.rows[number - 1].entry),
        "leaf_index": number - 1,
        "inclusion_proof": [*map(_b64, path)],
    }


def _opens(entry: ledger_pb2.LedgerEntry | None) -> bool:
    return entry is not None and int(entry.kind) == EntryKind.OPENED


def check_proof(data: bytes, authority: bytes | None) -> Proved:
    """Check what :func:`make_proof` wrote; it may be a stranger's.

    Args:
        authority: the federation's CA certificate, PEM; None leaves open whose ledger it is.

    Raises:
        LedgerError: it is no such proof.
    """
    try:
        told = json.loads(data)
        if told["format"] != _FORMAT:
            raise ValueError
        proof = _Proof.read(told)
    except (ValueError, KeyError, TypeError, RecursionError, DecodeError):
        raise LedgerError(
            "this is no proof of an entry in this release's form", "Name a file that `fedsparse audit prove` wrote"
        ) from None
    return Proved(
        proof.included.entry,
        proof.opening.origin,
        proof.size,
        proof.receipt is not None,
        tuple(proof.check(authority)),
    )


def _number(value: Any) -> int:
    if type(value) is not int:
        raise TypeError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _bytes(value: Any) -> bytes:
    return base64.b64decode(_text(value), validate=True)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()

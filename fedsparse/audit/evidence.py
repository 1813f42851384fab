"""A ledger as an auditor has it: read from its folder or a bundle, trusted in nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedsparse.audit.payloads import Payloads, is_mark
from fedsparse.delta import AdapterSpace
from fedsparse.errors import FedsparseError, LedgerError
from fedsparse.files import read_at_most

_MOST_BYTES = 16 << 20
"""Of the description of an adapter space."""


@dataclass(frozen=True)
class Row:
    """An entry as it is stored.

    Attributes:
        sequence: its place.
        entry: a serialised LedgerEntry.
        hash: what its leaf hash must be.
    """

    sequence: int
    entry: bytes
    hash: bytes


@dataclass(frozen=True)
class Evidence:
    """What a ledger consists of.

    Attributes:
        rows: in the order of their numbers.
        checkpoint: the signed note over all of them; empty where there is none.
        receipts: serialised receipts by entry.
        spaces: adapter spaces by fingerprint.
        payload: returns a payload by its digest, or raises LedgerError.
        nodes: hashes of complete subtrees by level and place; None where they are not kept, as in a bundle.
        problems: what is wrong with the file that it was read from.
        held: digests of its payloads, where it may hold nothing that no entry needs; None for a folder, in which a
            crash leaves some.
        files: names of the files beside a folder's entries that hold payloads or parts of them.
    """

    rows: tuple[Row, ...]
    checkpoint: bytes
    receipts: Mapping[int, bytes]
    spaces: Mapping[bytes, AdapterSpace]
    payload: Callable[[bytes], bytes]
    nodes: Mapping[tuple[int, int], bytes] | None = None
    problems: tuple[str, ...] = ()
    held: frozenset[bytes] | None = None
    files: tuple[str, ...] = ()


def read_folder(folder: Path, payload_key: bytes | None = None) -> Evidence:
    """Read a ledger's folder, or a copy of it.

    Args:
        payload_key: what its payloads are sealed with.

    Raises:
        LedgerError: there is no readable ledger.
    """
    path = folder / "ledger.db"
    try:
        present = path.exists()
    except OSError as error:
        raise LedgerError(f"the ledger {folder} cannot be read: {error.strerror}") from None
    if not present:
        raise LedgerError(f"{folder} holds no ledger", "Name a folder with a ledger.db")
    files = _payload_files(folder / "payloads")  # before the entries: a payload is there before its entry
    try:
        # Evidence is only read. Where nobody writes, SQLite needs no files of its own beside it.
        mode = "mode=ro" if path.with_name("ledger.db-wal").exists() else "mode=ro&immutable=1"
        database = sqlite3.connect(f"{path.resolve().as_uri()}?{mode}", uri=True)
        try:
            database.execute("BEGIN")  # all of one moment, while the gateway may write on
            rows = database.execute("SELECT sequence, entry, hash FROM entries ORDER BY sequence").fetchall()
            notes = database.execute("SELECT one, note FROM checkpoint").fetchall()
            receipts = database.execute("SELECT sequence, receipt FROM receipts").fetchall()
            nodes = database.execute("SELECT level, place, hash FROM nodes").fetchall()
        finally:
            database.close()
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter from a damaged schema
        raise LedgerError(
            f"the ledger {folder} cannot be read: {error}",
            "Take the whole folder, ledger.db-wal included, and put it on a disk that can be written to",
        ) from None
    for row in (*rows, *notes, *receipts):
        if not isinstance(row[0], int) or not all(isinstance(cell, bytes) for cell in row[1:]):
            raise LedgerError(f"the ledger {folder} holds a row that no fedsparse wrote, at {row[0]!r}")
    if not all(isinstance(a, int) and isinstance(b, int) and isinstance(c, bytes) for a, b, c in nodes):
        raise LedgerError(f"the ledger {folder} holds a part of its tree that no fedsparse wrote")
    return Evidence(
        tuple(Row(*row) for row in rows),
        notes[0][1] if notes else b"",
        dict(receipts),
        read_spaces(_space_files(folder / "spaces")),
        Payloads(folder / "payloads", payload_key).get,
        {(level, place): node for level, place, node in nodes},
        files=files,
    )


def _space_files(folder: Path) -> dict[str, bytes]:
    try:
        return {path.name: read_at_most(path, _MOST_BYTES) for path in sorted(folder.glob("*.json"))}
    except OSError as error:
        raise LedgerError(f"an adapter space in {folder} cannot be read: {error.strerror}") from None


def _payload_files(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(path.name for path in folder.iterdir() if not is_mark(path.name)))
    except OSError:
        return ()  # a copy without payloads: each that an entry needs is told of as gone


def read_spaces(files: Mapping[str, bytes]) -> dict[bytes, AdapterSpace]:
    """Return the adapter spaces that payloads decode against, by fingerprint.

    Args:
        files: their JSON by file name.

    Raises:
        LedgerError: one is none.
    """
    spaces = {}
    for name, data in files.items():
        if len(data) > _MOST_BYTES:  # as JSON, it takes many times its size to read
            raise LedgerError(f"{name} has {len(data):,} bytes, more than {_MOST_BYTES:,}: it is no adapter space")
        try:
            space = AdapterSpace.from_json(data)
        except FedsparseError as error:
            raise LedgerError(f"{name} does not describe an adapter space: {error}") from None
        if name.rpartition("/")[2] != f"{space.fingerprint.hex()}.json":
            raise LedgerError(f"{name} describes another adapter space, {space.fingerprint.hex()[:16]}")
        spaces[space.fingerprint] = space
    return spaces

"""The SQLite file under a ledger: rows that are only ever added, and the checkpoint over them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from fedsparse.errors import LedgerError

_TABLES = ("entries", "nodes", "receipts")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (sequence INTEGER PRIMARY KEY, entry BLOB NOT NULL, hash BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS nodes (level INTEGER, place INTEGER, hash BLOB NOT NULL, PRIMARY KEY (level, place))
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS checkpoint (one INTEGER PRIMARY KEY CHECK (one = 1), note BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS receipts (sequence INTEGER PRIMARY KEY, receipt BLOB NOT NULL);
""" + "".join(
    f"CREATE TRIGGER IF NOT EXISTS {table}_{name} BEFORE {change} ON {table} "
    "BEGIN SELECT RAISE(ABORT, 'append-only'); END;\n"
    for table in _TABLES
    for name, change in (("keep", "UPDATE"), ("stay", "DELETE"))
)


class Table:
    """Adds rows and reads them; every change is one transaction, synced to disk.

    Args:
        path: the database, created if absent.

    Raises:
        LedgerError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._database = sqlite3.connect(path, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_SCHEMA)
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter from a damaged schema
            raise LedgerError(f"the ledger {path.parent} cannot be opened: {error}") from error

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def insert(
        self, sequence: int, entry: bytes, hashed: bytes, nodes: Iterable[tuple[int, int, bytes]], note: bytes
    ) -> None:
        """Add an entry and the subtrees that it completes, and put the new checkpoint in place; all or nothing."""
        try:
            with self._database:
                self._database.execute("INSERT INTO entries VALUES (?, ?, ?)", (sequence, entry, hashed))
                self._database.executemany("INSERT INTO nodes VALUES (?, ?, ?)", nodes)
                self._database.execute("INSERT OR REPLACE INTO checkpoint VALUES (1, ?)", (note,))
        except sqlite3.Error as error:
            raise self._unwritten(error) from error

    def settle(self) -> None:
        """Commit, so that what is read from now on is what the disk has, whatever was cut off before.

        SQLite's log may end in a transaction whose sync failed, or that another reader's index hides: the next
        commit, even of a number that stays what it is, syncs the one and overwrites the other.
        """
        try:
            self._database.execute("PRAGMA user_version = 0")
        except sqlite3.Error as error:
            raise self._unwritten(error) from error

    def file_receipt(self, sequence: int, receipt: bytes) -> None:
        """Add a receipt; there can be one for each entry."""
        try:
            with self._database:
                self._database.execute("INSERT INTO receipts VALUES (?, ?)", (sequence, receipt))
        except sqlite3.Error as error:
            raise self._unwritten(error) from error

    def last(self) -> tuple[int, bytes] | None:
        """Return number and hash of the last entry."""
        rows = self._read("SELECT sequence, hash FROM entries ORDER BY sequence DESC LIMIT 1")
        return (int(str(rows[0][0])), _blob(rows[0][1])) if rows else None

    def entries(self, start: int) -> list[bytes]:
        """Return the entries from ``start`` on."""
        rows = self._read("SELECT entry FROM entries WHERE sequence >= ? ORDER BY sequence", start)
        return [_blob(row[0]) for row in rows]

    def node(self, level: int, place: int) -> bytes:
        """Return the hash of a complete subtree.

        Raises:
            LedgerError: it is not there.
        """
        return self._one("SELECT hash FROM nodes WHERE level = ? AND place = ?", level, place)

    def checkpoint(self) -> bytes:
        """Return the signed checkpoint.

        Raises:
            LedgerError: it is not there.
        """
        return self._one("SELECT note FROM checkpoint")

    def receipted(self) -> set[int]:
        """Return the numbers of the entries that have a receipt."""
        return {int(str(row[0])) for row in self._read("SELECT sequence FROM receipts")}

    def receipts(self) -> list[bytes]:
        """Return all receipts."""
        return [_blob(row[0]) for row in self._read("SELECT receipt FROM receipts ORDER BY sequence")]

    def _one(self, query: str, *values: int) -> bytes:
        rows = self._read(query, *values)
        if not rows:
            raise LedgerError(
                f"the ledger {self._path.parent} lacks a part of its tree, or is of an earlier format",
                "Move the folder away: a new ledger begins",
            )
        return _blob(rows[0][0])

    def _read(self, query: str, *values: int) -> list[tuple[object, ...]]:
        try:
            return self._database.execute(query, values).fetchall()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise LedgerError(f"the ledger {self._path.parent} cannot be read: {error}") from error

    def _unwritten(self, error: sqlite3.Error) -> LedgerError:
        return LedgerError(f"the ledger {self._path.parent} cannot be written: {error}")


def _blob(cell: object) -> bytes:
    if not isinstance(cell, bytes):
        raise LedgerError(f"the ledger holds {cell!r:.40} where bytes are expected: no fedsparse wrote it")
    return cell

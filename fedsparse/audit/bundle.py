"""A ledger in one file, for an auditor elsewhere: a tar archive whose contents determine its every byte."""

from __future__ import annotations

import io
import re
import struct
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from fedsparse.audit import merkle
from fedsparse.audit.entry import EntryKind
from fedsparse.audit.evidence import Evidence, Row, read_spaces
from fedsparse.audit.payloads import check_digest
from fedsparse.audit.said import erasures, needed, space_in
from fedsparse.audit.verify import parse_entry
from fedsparse.errors import LedgerError
from fedsparse.files import read_at_most, write_atomic

_ENTRIES, _RECEIPTS, _CHECKPOINT = "entries", "receipts", "checkpoint"
_PAYLOADS, _SPACES, _JSON = "payloads/", "spaces/", ".json"
_PAYLOAD = re.compile(f"{_PAYLOADS}[0-9a-f]{{64}}")
_OF_A_SPACE = (EntryKind.UPDATE, EntryKind.REASON, EntryKind.REFUSED)
_LENGTH = struct.Struct(">Q")
_MODE = 0o600
_MOST_BYTES = 1 << 32


def write_bundle(path: Path, evidence: Evidence) -> None:
    """Write ``evidence`` to ``path``; payloads that are gone are left out.

    Raises:
        LedgerError: it cannot be written.
    """
    data = _pack(_members(evidence))
    if len(data) > _MOST_BYTES:
        raise LedgerError(
            f"the bundle {path} would have {len(data):,} bytes, at most {_MOST_BYTES:,} are read again",
            "Hand over a copy of the ledger's folder",
        )
    try:
        write_atomic(path, data, _MODE)
    except OSError as error:
        raise LedgerError(f"the bundle {path} cannot be written: {error.strerror}") from error


def read_bundle(path: Path) -> Evidence:
    """Read a bundle as a stranger's.

    Returns:
        The evidence; where the file has other bytes than its contents determine, that is among its problems.

    Raises:
        LedgerError: it is no bundle.
    """
    try:
        data = read_at_most(path, _MOST_BYTES)
    except OSError as error:
        raise LedgerError(f"the bundle {path} cannot be read: {error.strerror}") from None
    return parse_bundle(data)


def parse_bundle(data: bytes) -> Evidence:
    """Read the bytes of a bundle; for the rest see :func:`read_bundle`."""
    members = _unpack(data)
    for name in (_ENTRIES, _RECEIPTS, _CHECKPOINT):
        if name not in members:
            raise LedgerError(f"this is no evidence bundle: it has no member {name!r}")
    entries = _split(members[_ENTRIES], _ENTRIES)
    rows = tuple(Row(number, entry, merkle.leaf_hash(entry)) for number, entry in enumerate(entries, start=1))
    payloads = {name: data for name, data in members.items() if name.startswith(_PAYLOADS)}

    def payload(digest: bytes) -> bytes:
        if (found := payloads.get(_PAYLOADS + digest.hex())) is None:
            raise LedgerError("is gone")
        return check_digest(found, digest)

    return Evidence(
        rows,
        members[_CHECKPOINT],
        dict(_numbered(_split(members[_RECEIPTS], _RECEIPTS))),
        read_spaces({name: data for name, data in members.items() if name.startswith(_SPACES)}),
        payload,
        problems=tuple(_slack(members, data)),
        held=frozenset(bytes.fromhex(name[len(_PAYLOADS) :]) for name in filter(_PAYLOAD.fullmatch, payloads)),
    )


def _members(evidence: Evidence) -> Iterator[tuple[str, bytes]]:
    yield _CHECKPOINT, evidence.checkpoint
    yield _ENTRIES, _join(row.entry for row in evidence.rows)
    yield _RECEIPTS, _join(_LENGTH.pack(number) + one for number, one in sorted(evidence.receipts.items()))
    entries = [parse_entry(row.entry) for row in evidence.rows]
    updates = {entry.payload_sha256 for entry in entries if entry is not None and int(entry.kind) in _OF_A_SPACE}
    used = set()
    for digest in sorted(needed(entries, erasures(entries, evidence.payload))):
        try:
            payload = evidence.payload(digest)
        except LedgerError:  # it is gone, or was tampered with: verifying tells which
            continue
        if digest in updates:
            used.add(space_in(payload))
        yield f"{_PAYLOADS}{digest.hex()}", payload
    for fingerprint in sorted(used & evidence.spaces.keys()):
        yield f"{_SPACES}{fingerprint.hex()}{_JSON}", evidence.spaces[fingerprint].to_json()


def _pack(members: Iterable[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), _MODE
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def _unpack(data: bytes) -> dict[str, bytes]:
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for info in archive:
                # A sparse one may claim any size, also as a plain one with an extended header.
                plain = info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.issparse()
                file = archive.extractfile(info) if plain and 0 <= info.size <= len(data) else None
                if file is None or info.name in members:
                    raise LedgerError(f"the bundle has a member {info.name!r:.80} that is no plain file, or twice")
                members[info.name] = file.read()
    except (tarfile.TarError, ValueError, OverflowError, EOFError, RecursionError) as error:
        where = f"after its member {[*members][-1]!r:.80}" if members else "at its beginning"
        raise LedgerError(f"this is no evidence bundle: {error}, {where}") from None
    return members


def _slack(members: Mapping[str, bytes], data: bytes) -> Iterator[str]:
    """Say where a bundle has bytes that are not determined by what it holds: something may be hidden there."""
    order = [_CHECKPOINT, _ENTRIES, _RECEIPTS]
    order += sorted(filter(_PAYLOAD.fullmatch, members))
    order += sorted(name for name in members if name.startswith(_SPACES))
    if extra := sorted(set(members) - set(order)):
        yield f"the bundle has a member {extra[0]!r:.80} that no fedsparse writes"
    canonical = _pack((name, members[name]) for name in order)
    if canonical != data:
        yield f"the bundle is not in canonical form from byte {_shared(canonical, data)} on"


def _shared(one: bytes, other: bytes) -> int:
    """Return how many bytes both begin with."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return low


def _join(items: Iterable[bytes]) -> bytes:
    return b"".join(_LENGTH.pack(len(item)) + item for item in items)


def _split(data: bytes, member: str) -> list[bytes]:
    items: list[bytes] = []
    at = 0
    while at < len(data):
        begin = at + _LENGTH.size
        (length,) = _LENGTH.unpack(data[at:begin]) if begin <= len(data) else (len(data),)
        at = begin + length
        if at > len(data):
            raise LedgerError(f"the bundle's {member} end in the middle of number {len(items) + 1}")
        items.append(data[begin:at])
    return items


def _numbered(items: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    found = []
    for item in items:
        if len(item) < _LENGTH.size:
            raise LedgerError("the bundle has a receipt without its entry's number")
        found.append((_LENGTH.unpack(item[: _LENGTH.size])[0], item[_LENGTH.size :]))
    if any(one >= other for (one, _), (other, _) in pairwise(found)):
        raise LedgerError("the bundle's receipts are not in the order of their entries")
    yield from found

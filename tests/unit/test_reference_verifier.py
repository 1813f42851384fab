"""The second verifier: it must be small, alone, and of the same opinion as the first."""

from __future__ import annotations

import ast
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pytest

from benchmarks.auditing import changes
from benchmarks.auditing.changes import Stage
from benchmarks.auditing.evidence import Parts
from benchmarks.auditing.mutations import COUNTS, make_stage, prepare
from fedsparse.audit import (
    EntryKind,
    merkle,
    read_bundle,
    read_folder,
    read_record,
    receipt_line,
    verify_evidence,
    write_bundle,
)
from fedsparse.errors import LedgerError
from fedsparse.v1 import ledger_pb2, link_pb2
from tests.reference.verifier import Verifier
from tests.unit.samples import LEFT, Hub, cell

SOURCE = Path(__file__).parents[1] / "reference" / "verifier.py"
MOST_LINES = 250


@pytest.fixture
def bundle(ledger_folder: Path, tmp_path: Path) -> Path:
    write_bundle(tmp_path / "ise.tar", read_folder(ledger_folder))
    return tmp_path / "ise.tar"


def test_it_is_small_and_shares_no_code() -> None:
    text = SOURCE.read_text()
    assert sum(bool(line.strip()) for line in text.splitlines()) <= MOST_LINES
    named = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            named |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            named.add((node.module or "").split(".")[0])
    assert named <= {*sys.stdlib_module_names, "cryptography"}


def test_as_a_command_it_says_verified_or_what_is_wrong(bundle: Path, hub: Hub, ledger_folder: Path) -> None:
    authority, kept = bundle.with_name("ca.pem"), bundle.with_name("ise.jsonl")
    authority.write_bytes(hub.authority)
    receipts = [link_pb2.Receipt.FromString(cell(ledger_folder, "receipts", "receipt", number)) for number in LEFT]
    kept.write_bytes(b"".join(map(receipt_line, receipts)))

    def verify(*more: Path) -> tuple[int, str]:
        command = [sys.executable, "-I", str(SOURCE), str(bundle), str(authority), *map(str, more)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        return done.returncode, done.stdout + done.stderr

    assert verify() == (0, "verified\n")
    assert verify(kept) == (0, "verified\n")
    kept.write_bytes(b"".join(map(receipt_line, receipts[1:])))
    code, told = verify(kept)
    assert (code, "the hub's receipt 1" in told) == (1, True)
    kept.write_bytes(b"".join(map(receipt_line, receipts))[:-1])
    code, told = verify(kept)
    assert (code, told.startswith("entry 5: the hub's record lacks its receipt")) == (1, True)
    bundle.write_bytes(bundle.read_bytes()[:3000])
    assert verify()[0] == 1
    authority.write_bytes(b"")
    assert verify() == (1, f"{authority} holds no PEM certificate\n")


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        (tarfile.REGTYPE, -512),
        (tarfile.REGTYPE, -1024),
        (tarfile.REGTYPE, 1 << 36),
        (tarfile.GNUTYPE_SPARSE, 512),
        (tarfile.SYMTYPE, 0),
        (tarfile.DIRTYPE, 0),
    ],
)
def test_a_member_that_is_no_plain_file_or_of_no_possible_size_is_refused(
    bundle: Path, hub: Hub, kind: bytes, size: int
) -> None:
    honest = bundle.read_bytes()
    member = tarfile.TarInfo("payloads/" + "ab" * 32)
    member.type, member.linkname = kind, "entries" if kind == tarfile.SYMTYPE else ""
    head = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    head[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
    head[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(head))[0]
    with pytest.raises(ValueError, match="no plain file, or of an impossible size"):
        Verifier(bytes(head) + honest, hub.authority)


@pytest.mark.parametrize(
    ("kind", "payload", "at", "why"),
    [
        (EntryKind.DESCRIBE, b"SECRET TEXT " * 1000, 1, "a payload, or none"),
        (EntryKind.ATTEND, b"SECRET TEXT", 1, "a payload, or none"),
        (EntryKind.UPDATE, b"", 1, "a payload, or none"),
        (EntryKind.REASON, b"", 1, "a payload, or none"),
        (EntryKind.DESCRIBE, b"", 1 << 62, "no possible time"),
        (EntryKind.DESCRIBE, b"", -1, "no possible time"),
        (EntryKind.DESCRIBE, b"", 253_402_300_800_000, "no possible time"),
        (EntryKind.DESCRIBE, b"", 253_402_300_799_999, ""),
        (EntryKind.ATTEND, b"", 1, ""),
    ],
)
def test_an_entry_of_the_plants_own_that_the_format_does_not_allow_is_found_by_both(
    stage: Stage, tmp_path: Path, kind: EntryKind, payload: bytes, at: int, why: str
) -> None:
    parts = Parts.of(stage.bundle)
    before = map(ledger_pb2.LedgerEntry.FromString, parts.entries)
    entry = ledger_pb2.LedgerEntry(
        format=2,
        sequence=len(parts.entries) + 1,
        time_unix_ms=at,
        previous_hash=merkle.leaf_hash(parts.entries[-1]),
        kind=ledger_pb2.EntryKind.ValueType(kind),
        payload_bytes=len(payload),
        payload_sha256=parts.put(payload) if payload else sha256(b"").digest(),
        policy_sha256=next(one.policy_sha256 for one in before if one.policy_sha256),
    )
    parts.entries.append(entry.SerializeToString(deterministic=True))
    parts.sign(stage.key, stage.origin)
    (tmp_path / "added.tar").write_bytes(parts.bundle())
    assert _first(tmp_path / "added.tar", stage.federation.authority) == bool(why)
    found = "\n".join(Verifier(parts.bundle(), stage.federation.authority).problems(None))
    assert (why in found, bool(found)) == (True, bool(why))


def test_both_are_of_one_opinion_about_altered_bundles(bundle: Path, hub: Hub) -> None:
    honest, draw = bundle.read_bytes(), random.Random(7)  # noqa: S311
    for _ in range(60):
        altered = bytearray(honest)
        altered[draw.randrange(len(altered))] ^= 1 << draw.randrange(8)
        bundle.write_bytes(altered)
        assert _first(bundle, hub.authority) == _second(bytes(altered), hub.authority)
    bundle.write_bytes(honest)
    assert not _first(bundle, hub.authority)
    assert not _second(honest, hub.authority)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return make_stage(prepare(tmp_path_factory.mktemp("stage")))[0]


@pytest.mark.parametrize("name", COUNTS)
def test_both_find_evidence_that_was_altered_in_every_way(name: str, stage: Stage, tmp_path: Path) -> None:
    draw = random.Random(11)  # noqa: S311
    for _ in range(12 if name == "smuggled" else 4):
        altered, _ = getattr(changes, name)(stage, draw)
        assert altered != stage.bundle
        (tmp_path / "altered.tar").write_bytes(altered)
        assert _first(tmp_path / "altered.tar", stage.federation.authority)
        assert _second(altered, stage.federation.authority)


@pytest.mark.parametrize("name", ["truncated", "unreceipted"])
def test_what_contradicts_nothing_without_the_hubs_record_neither_finds(
    name: str, stage: Stage, tmp_path: Path
) -> None:
    altered, _ = getattr(changes, name)(stage, random.Random(3))  # noqa: S311
    assert altered != stage.bundle
    (tmp_path / "altered.tar").write_bytes(altered)
    assert not _first(tmp_path / "altered.tar", stage.federation.authority)
    assert not _second(altered, stage.federation.authority)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda lines: lines, False),
        (lambda lines: [line.replace(b"\n", b"\r\n") for line in lines], False),
        (lambda lines: [*lines, b'{"sequ'], False),
        (lambda lines: [*lines[:-1], lines[-1][:-1]], True),
        (lambda lines: lines[:-1], True),
        (lambda lines: lines[1:], True),
        (lambda lines: [*lines, lines[-1]], True),
        (lambda lines: [*lines, b"\n"], True),
        (lambda lines: [lines[1], lines[0], *lines[2:]], True),
        (lambda lines: [], True),
    ],
)
def test_both_are_of_one_opinion_about_the_hubs_record(
    bundle: Path, hub: Hub, ledger_folder: Path, change: Callable[[list[bytes]], list[bytes]], found: bool
) -> None:
    receipts = [link_pb2.Receipt.FromString(cell(ledger_folder, "receipts", "receipt", number)) for number in LEFT]
    kept = bundle.with_name("ise.jsonl")
    kept.write_bytes(b"".join(change([*map(receipt_line, receipts)])))
    assert _first(bundle, hub.authority, kept) == found
    assert _second(bundle.read_bytes(), hub.authority, kept.read_bytes()) == found


def _first(bundle: Path, authority: bytes, record: Path | None = None) -> bool:
    try:
        kept = None if record is None else read_record(record).receipts
        return bool(verify_evidence(read_bundle(bundle), authority, kept).problems)
    except LedgerError:
        return True


def _second(data: bytes, authority: bytes, record: bytes | None = None) -> bool:
    try:
        return bool(list(Verifier(data, authority).problems(record)))
    except Exception:
        return True

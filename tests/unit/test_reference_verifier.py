"""The second verifier: it must be small, alone, and of the same opinion as the first."""

from __future__ import annotations

import ast
import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.auditing import changes
from benchmarks.auditing.changes import Stage
from benchmarks.auditing.mutations import COUNTS, make_stage, prepare
from fedsparse.audit import read_bundle, read_folder, receipt_line, verify_evidence, write_bundle
from fedsparse.errors import LedgerError
from fedsparse.v1 import link_pb2
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
    bundle.write_bytes(bundle.read_bytes()[:3000])
    assert verify()[0] == 1


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


def _first(bundle: Path, authority: bytes) -> bool:
    try:
        return bool(verify_evidence(read_bundle(bundle), authority).problems)
    except LedgerError:
        return True


def _second(data: bytes, authority: bytes) -> bool:
    try:
        return bool(list(Verifier(data, authority).problems(None)))
    except Exception:
        return True

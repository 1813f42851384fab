from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse.audit import verify_ledger
from fedsparse.errors import LedgerError
from tests.unit.samples import LEFT, SPACE, Hub, cell, fill_ledger, tamper

CELLS = [("entries", column, sequence) for column in ("entry", "hash") for sequence in range(1, 7)]
CELLS += [("receipts", "receipt", sequence) for sequence in LEFT]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    return Hub.create(tmp_path_factory.mktemp("hub"))


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Path:
    folder = tmp_path_factory.mktemp("ledger") / "ledger"
    fill_ledger(folder, hub)
    assert verify_ledger(folder, hub.authority).verified
    return folder


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_changed_byte_of_any_row_is_found_and_names_the_row(
    honest: Path, hub: Hub, data: st.DataObject
) -> None:
    table, column, sequence = data.draw(st.sampled_from(CELLS))
    altered = draw_altered(data, cell(honest, table, column, sequence))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(honest, Path(scratch) / "ledger"))
        tamper(folder, f"UPDATE {table} SET {column} = ? WHERE sequence = ?", altered, sequence)  # noqa: S608
        verdict = verify_ledger(folder, hub.authority)
    assert any(problem.startswith(f"entry {sequence}: ") for problem in verdict.problems)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_changed_byte_of_any_file_beside_the_rows_is_found(
    honest: Path, hub: Hub, data: st.DataObject
) -> None:
    files = sorted(path.relative_to(honest) for path in honest.glob("*/*"))
    name = data.draw(st.sampled_from(files))
    altered = draw_altered(data, (honest / name).read_bytes())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(honest, Path(scratch) / "ledger"))
        (folder / name).write_bytes(altered)
        try:
            assert not verify_ledger(folder, hub.authority).verified
        except LedgerError:
            assert name == Path("spaces", f"{SPACE.fingerprint.hex()}.json")


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_database_file_is_told_or_found_or_says_the_same(
    honest: Path, hub: Hub, data: st.DataObject
) -> None:
    """SQLite has unused bytes; whatever is changed there changes nothing that anybody reads."""
    altered = draw_altered(data, (honest / "ledger.db").read_bytes())
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(honest, Path(scratch) / "ledger"))
        (folder / "ledger.db").write_bytes(altered)
        try:
            verdict = verify_ledger(folder, hub.authority)
        except LedgerError:
            return
    assert not verdict.verified or verdict.missing_receipts or verdict == verify_ledger(honest, hub.authority)


def draw_altered(data: st.DataObject, original: bytes) -> bytes:
    position = data.draw(st.integers(0, len(original) - 1))
    mask = data.draw(st.integers(1, 255))
    return original[:position] + bytes([original[position] ^ mask]) + original[position + 1 :]

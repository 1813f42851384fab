from __future__ import annotations

import shutil
import sqlite3
import tempfile
from contextlib import closing
from functools import lru_cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse.audit import (
    Checkpoint,
    Ledger,
    check_cosignature,
    check_note,
    cosign,
    merkle,
    public_bytes,
    verify_ledger,
)
from fedsparse.audit.notes import sign_checkpoint
from fedsparse.errors import LedgerError
from tests.unit.samples import LEFT, SPACE, Hub, cell, fill_ledger, tamper

CELLS = [("entries", column, sequence) for column in ("entry", "hash") for sequence in range(1, 7)]
CELLS += [("receipts", "receipt", sequence) for sequence in LEFT]
KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


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


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_changed_byte_of_the_signed_checkpoint_is_found(honest: Path, hub: Hub, data: st.DataObject) -> None:
    with closing(sqlite3.connect(honest / "ledger.db")) as database:
        [(note,)] = database.execute("SELECT note FROM checkpoint").fetchall()
    altered = draw_altered(data, note)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(honest, Path(scratch) / "ledger"))
        tamper(folder, "UPDATE checkpoint SET note = ?", altered)
        (problem,) = verify_ledger(folder, hub.authority).problems
        with pytest.raises(LedgerError):
            Ledger(folder, bytes(32), "ise")
    assert problem.startswith("entry 6: the ledger")


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_changed_byte_of_the_tree_on_disk_is_found(honest: Path, hub: Hub, data: st.DataObject) -> None:
    with closing(sqlite3.connect(honest / "ledger.db")) as database:
        nodes = database.execute("SELECT level, place, hash FROM nodes").fetchall()
    level, place, node = data.draw(st.sampled_from(nodes))
    altered = draw_altered(data, node)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(shutil.copytree(honest, Path(scratch) / "ledger"))
        tamper(folder, "UPDATE nodes SET hash = ? WHERE level = ? AND place = ?", altered, level, place)
        found = verify_ledger(folder, hub.authority).problems
    last = (place + 1) << level
    assert f"entry {last}: the tree over it was altered, at level {level}" in found


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 299), st.binary(min_size=32, max_size=32))
def test_proofs_of_any_tree_convince_and_those_of_any_other_do_not(a: int, b: int, at: int, other: bytes) -> None:
    old, new = sorted((a, b))
    index = at % new if new else 0
    proof = merkle.consistency_proof(node, old, new)
    before, after = merkle.root(node, old), merkle.root(node, new)
    assert merkle.continues(old, new, before, after, proof)
    assert old == 0 or not merkle.continues(old, new, before, other, proof)
    assert not merkle.continues(old, new, other, after, proof)
    assert not merkle.continues(old, new, before, after, [*proof, other])
    if new:
        path = merkle.inclusion_proof(node, index, new)
        assert len(path) <= 9  # a proof is short
        assert merkle.includes(node(0, index), index, new, path, after)
        assert not merkle.includes(other, index, new, path, after)
        assert not merkle.includes(node(0, index), index, new, path, other)
        assert not merkle.includes(node(0, index), index, new, [*path, other], after)


@lru_cache(None)
def node(level: int, place: int) -> bytes:
    """Return a subtree over leaves that are all different."""
    if level == 0:
        return merkle.leaf_hash(place.to_bytes(4, "big"))
    return merkle.node_hash(node(level - 1, 2 * place), node(level - 1, 2 * place + 1))


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.text(), st.binary().map(lambda data: data.decode("latin-1"))), st.binary(max_size=80))
def test_no_bytes_are_taken_for_a_note_that_nobody_signed(text: str, junk: bytes) -> None:
    for note in (text.encode("utf-8", "surrogatepass"), junk, f"{text}\n1\nAA==\n\n— {text} AAAAAAAA\n".encode()):
        with pytest.raises(LedgerError):
            check_note(note, bytes(32))


@settings(max_examples=100, deadline=None)
@given(
    st.integers(0, 2**63 - 1), st.binary(min_size=32, max_size=32), st.from_regex(r"[^\s+]{1,40}", fullmatch=True)
)
def test_every_checkpoint_comes_back_from_its_note(size: int, root: bytes, origin: str) -> None:
    whole = Checkpoint(origin, size, root)
    assert check_note(sign_checkpoint(whole, KEY), public_bytes(KEY)) == whole
    line = cosign(whole, origin, KEY, size)
    assert check_cosignature(line, whole, public_bytes(KEY)) == (origin, size)


def draw_altered(data: st.DataObject, original: bytes) -> bytes:
    position = data.draw(st.integers(0, len(original) - 1))
    mask = data.draw(st.integers(1, 255))
    return original[:position] + bytes([original[position] ^ mask]) + original[position + 1 :]

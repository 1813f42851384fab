"""`fedsparse audit show`, of honest ledgers and of strangers' words in them."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedsparse.audit import EntryKind, Evidence, read_folder
from fedsparse.audit.evidence import Row
from fedsparse.audit.merkle import leaf_hash
from fedsparse.audit.policy import canonical_bytes
from fedsparse.cli import audit_show
from fedsparse.cli.audit_evidence import export, open_evidence
from fedsparse.cli.audit_stamps import write_request
from fedsparse.config import EgressSettings
from fedsparse.errors import LedgerError
from fedsparse.v1 import ledger_pb2
from tests.unit.report_samples import Site

Shown = Callable[..., str]
LONG = "blocks.10." + "a_name_that_is_longer_than_any_column." * 4 + "weight"


@pytest.fixture
def shown(ledger_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Shown:
    """Return what `show` prints of an entry with other fields, or another payload."""

    def show(number: int, payload: bytes | None = None, **fields: Any) -> str:
        evidence = read_folder(ledger_folder)
        rows = list(evidence.rows)
        entry = ledger_pb2.LedgerEntry.FromString(rows[number - 1].entry)
        for name, value in fields.items():
            setattr(entry, name, value)
        if payload is not None:
            entry.payload_bytes = len(payload)
        data = entry.SerializeToString(deterministic=True)
        rows[number - 1] = Row(number, data, leaf_hash(data))
        kept = evidence.payload if payload is None else lambda _digest: payload
        found = Evidence(tuple(rows), b"", evidence.receipts, evidence.spaces, kept)
        monkeypatch.setattr(audit_show, "open_evidence", lambda *_: found)
        out = io.StringIO()
        audit_show.show(ledger_folder, number, None, Console(file=out, force_terminal=True, color_system=None))
        return out.getvalue()

    return show


@pytest.mark.parametrize("name", ["peer", "task_id", "rule"])
def test_a_strangers_words_do_not_steer_the_terminal(shown: Shown, name: str) -> None:
    told = shown(2, **{name: "\x1b[2J\x1b]0;title\x07\nkind   verified"})
    assert "\x1b" not in told
    assert "\nkind   verified" not in told


def test_a_strangers_policy_and_opening_do_not_steer_the_terminal(shown: Shown) -> None:
    policy = shown(1, b"\x1b[2J line\nverified", kind=int(EntryKind.POLICY))
    assert "\x1b" not in policy
    assert "\nverified" not in policy
    assert "no policy that this release reads" in policy
    opening = ledger_pb2.Opening(origin="\x1b[2J\nverified", certificate=b"none").SerializeToString()
    told = shown(1, opening, kind=int(EntryKind.OPENED))
    assert "\x1b" not in told
    assert "\nverified" not in told
    assert "certificate      none: " in told


def test_what_no_release_knows_is_shown_by_its_number(shown: Shown) -> None:
    told = shown(2, kind=77, reason=99, time_unix_ms=1 << 62)
    assert "kind             77, which is unknown here" in told
    assert "reason           99, which is unknown here" in told
    assert f"time (UTC)       {1 << 62} ms after 1970 began, which is no possible time" in told
    for impossible in (-1, -(1 << 63), 253_402_300_800_000):
        assert f"{impossible} ms after 1970 began" in shown(2, time_unix_ms=impossible)
    assert "time (UTC)       9999-12-31T23:59:59.999+00:00" in shown(2, time_unix_ms=253_402_300_799_999)


def test_a_policy_is_shown_line_by_line(shown: Shown) -> None:
    assert '\n "max_density": 0.05,\n' in shown(1, canonical_bytes(EgressSettings()), kind=int(EntryKind.POLICY))


def test_a_payload_that_cannot_be_read_is_told(shown: Shown) -> None:
    assert "its payload does not decode" in shown(1, b"\xff", kind=int(EntryKind.ROUTE))
    assert "its payload does not decode" in shown(2, b"\xff")
    assert "it has a payload of 1 bytes, which no entry of its kind has" in shown(1, b"\xff")


def table_of(tmp_path: Path, console: Console) -> list[str]:
    site = Site.create(tmp_path, LONG)
    site.update(1)
    audit_show.show(site.folder, 1, None, console)
    out = console.file.getvalue()  # type: ignore[attr-defined] # a StringIO
    return list(out[out.index("tensor ") :].splitlines())


def test_a_table_in_a_pipe_has_whole_names_and_each_tensor_in_one_line(tmp_path: Path) -> None:
    head, line = table_of(tmp_path, Console(file=io.StringIO(), width=20))
    assert line.split()[0] == LONG
    assert set(line[head.index("distribution") :].rstrip()) <= set(audit_show._BARS)
    assert len(line[head.index("distribution") :].rstrip()) == audit_show._BINS


def test_a_table_on_a_narrow_terminal_folds_names_and_breaks_no_histogram(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    head, *lines = table_of(tmp_path, console)
    name = "".join(line[: head.index("values")].strip() for line in lines)
    assert name == LONG
    bars = [line[head.index("distribution") :].rstrip() for line in lines]
    assert len(bars[0]) == audit_show._BINS
    assert set(bars[1:]) == {""}


def test_a_folder_in_the_place_of_an_adapter_space_is_told(ledger_folder: Path) -> None:
    (ledger_folder / "spaces" / "d.json").mkdir()
    with pytest.raises(LedgerError, match=r"an adapter space in .* cannot be read: Is a directory"):
        read_folder(ledger_folder)


def test_a_ledger_without_its_log_says_what_to_copy(ledger_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    shutil.copy(ledger_folder / "lock", tmp_path / "copy" / "ledger.db")
    with pytest.raises(LedgerError, match=r"Take the whole folder, ledger\.db-wal included"):
        read_folder(tmp_path / "copy")


def test_a_name_that_is_too_long_for_a_file_is_told(ledger_folder: Path, tmp_path: Path) -> None:
    path, quiet = tmp_path / ("x" * 300), Console(quiet=True)
    with pytest.raises(LedgerError, match="cannot be read: File name too long"):
        open_evidence(path)
    with pytest.raises(LedgerError, match="cannot be written: File name too long"):
        export(ledger_folder, path, None, quiet)
    with pytest.raises(LedgerError, match="cannot be written: File name too long"):
        write_request(ledger_folder, path, quiet)
    with pytest.raises(LedgerError, match="cannot be written: No such file or directory"):
        export(ledger_folder, tmp_path / "gone" / "kiso.tar", None, quiet)

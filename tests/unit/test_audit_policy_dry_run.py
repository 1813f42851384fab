"""The commands around a policy, and what it would have said of a real ledger."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsparse.audit import EgressPolicy, read_folder
from fedsparse.audit.policy import canonical_bytes, rehearse
from fedsparse.cli.main import main
from fedsparse.config import EgressSettings
from fedsparse.v1 import ledger_pb2
from tests.unit.policy_samples import limits
from tests.unit.samples import Hub, cell, fill_ledger, tamper

Run = Callable[..., tuple[int, str, str]]
ANY = limits(max_density=1.0)
"""Lets out all that :func:`fill_ledger` records to have left: entries 1 (a call), 2, 4 (a reason) and 5."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedsparse", "audit", "policy", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        code = caught.value.code
        return (code if isinstance(code, int) else 0 if code is None else 1), printed.out, printed.err

    return call


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    return Hub.create(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def ledger(tmp_path: Path, hub: Hub) -> Path:
    fill_ledger(tmp_path / "ledger", hub)
    return tmp_path / "ledger"


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.toml"
        path.write_text(text)
        return path

    return write


def refused(settings: EgressSettings, ledger: Path) -> list[tuple[int, str]]:
    found = rehearse(settings, read_folder(ledger))
    return [(one.sequence, refusal.rule) for one in found.refused for refusal in one.refusals]


def test_what_left_is_judged_and_what_was_refused_then_is_not(ledger: Path) -> None:
    found = rehearse(ANY, read_folder(ledger))
    assert (found.judged, found.refused, found.unknown) == (4, (), ())


def test_each_message_is_told_with_every_rule_that_would_have_refused_it(ledger: Path) -> None:
    strict = limits(max_density=1.0, codings=["int8"], messages=["update", "reason"], max_abs_value=1.6)
    assert refused(strict, ledger) == [(1, "kind"), (2, "coding"), (2, "range"), (5, "coding")]


def test_what_would_have_been_refused_counts_for_no_budget(ledger: Path) -> None:
    assert refused(limits(max_density=1.0, per_day={"messages": 2}), ledger) == [(5, "day-messages")]
    both = limits(max_density=1.0, per_day={"messages": 2}, max_abs_value=1.6)
    assert refused(both, ledger) == [(2, "range")]


def test_the_app_bundle_is_the_one_that_the_ledgers_opening_names(tmp_path: Path, hub: Hub) -> None:
    fill_ledger(
        tmp_path / "ledger", hub
    )  # opened as bundle 00… at its end, so nothing before is known to be of it
    assert refused(limits(max_density=1.0, bundles=["00" * 32]), tmp_path / "ledger") == [
        (2, "bundle"),
        (5, "bundle"),
    ]


def test_what_lost_its_payload_cannot_be_judged_and_is_told(
    ledger: Path, run: Run, file: Callable[[str], Path]
) -> None:
    entry = ledger_pb2.LedgerEntry.FromString(cell(ledger, "entries", "entry", 2))
    (ledger / "payloads" / entry.payload_sha256.hex()).unlink()
    found = rehearse(ANY, read_folder(ledger))
    assert (found.judged, found.unknown) == (3, ((2, "its payload is gone"),))
    code, out, _ = run("dry-run", file("max_density = 1.0\n[metrics]\nloss = {}"), ledger)
    assert code == 1
    assert "entry 2 cannot be judged: its payload is gone" in out


def test_a_row_that_is_no_entry_is_told_and_stops_nothing(ledger: Path) -> None:
    tamper(ledger, "UPDATE entries SET entry = ? WHERE sequence = 4", b"\xff\xff")
    found = rehearse(ANY, read_folder(ledger))
    assert [sequence for sequence, _ in found.unknown] == [4]
    assert found.judged == 3


def test_dry_run_says_what_and_why_and_exits_with_1(ledger: Path, run: Run, file: Callable[[str], Path]) -> None:
    code, out, _ = run("dry-run", file("max_density = 1.0\nmin_samples = 41\n[metrics]\nloss = {}"), ledger)
    assert code == 1
    assert "entry 2, update of round 3:" in out
    assert "  min-samples: 40 samples are behind it, the least is 41" in out
    assert "4 messages judged, 2 of them would have been refused" in out
    code, out, _ = run("dry-run", file("max_density = 1.0\n[metrics]\nloss = {}"), ledger)
    assert (code, out) == (0, "4 messages judged, 0 of them would have been refused\n")


def test_check_prints_the_digest_that_the_ledger_will_have(run: Run, file: Callable[[str], Path]) -> None:
    code, out, _ = run("check", file('name = "kiso"\nrevision = 3\nmax_nnz = 5'))
    assert code == 0
    assert "is valid: kiso, revision 3" in out
    assert EgressPolicy(EgressSettings(name="kiso", revision=3, max_nnz=5)).sha256.hex() in out


def test_check_names_every_mistake_and_what_would_be_right(run: Run, file: Callable[[str], Path]) -> None:
    code, _, told = run("check", file("max_density = 2.0\nmax_nz = 5\n[metrics]\nloss = { digits = 0 }"))
    assert code == 1
    assert "max_density = 2.0: input should be less than or equal to 1" in told
    assert "max_nz: unknown key; did you mean max_nnz?" in told
    assert "metrics.loss.digits = 0: input should be greater than or equal to 1" in told


@pytest.mark.parametrize("command", ["check", "explain"])
def test_a_file_that_is_not_there_is_told_without_a_traceback(run: Run, command: str, tmp_path: Path) -> None:
    code, _, told = run(command, tmp_path / "absent.toml")
    assert code == 1
    assert "cannot be read: No such file or directory. Name an existing egress.toml" in told


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "{" * 100_000])
def test_a_file_that_is_nested_too_deep_is_told_without_a_traceback(
    run: Run, file: Callable[[str], Path], text: str
) -> None:
    code, out, told = run("check", file(text))
    assert (code, out) == (1, "")
    assert told.startswith("error: ")
    assert "Traceback" not in told


def test_a_folder_or_a_file_that_is_too_large_is_no_policy(run: Run, tmp_path: Path) -> None:
    assert "cannot be read: Is a directory" in run("check", tmp_path)[2]
    with (tmp_path / "large.toml").open("wb") as large:
        large.truncate(1 << 33)
    assert "it has more than 4,194,304 bytes" in run("check", tmp_path / "large.toml")[2]


def test_diff_reads_files_sites_and_what_the_ledger_keeps(
    run: Run, file: Callable[[str], Path], tmp_path: Path
) -> None:
    kept = tmp_path / "payload"
    kept.write_bytes(canonical_bytes(EgressSettings(max_density=0.5)))
    site = file(
        '[site]\nname = "kiso"\nhub = "hub:1"\n[site.identity]\ncertificate = "a"\nkey = "b"\nauthority = "c"\n'
        '[data]\npath = "images"\n[egress]\nmax_density = 0.25\n'
    )
    assert run("diff", kept, site)[1].strip() == (
        "share of the adapter in one update: 50 % → 25 % (tighter: less may leave)"
    )
    assert run("diff", site, site, "--lang", "ja")[1].strip() == "違いはありません"
    assert run("diff", kept, kept)[:2] == (0, "they are the same\n")


def test_explain_speaks_both_languages(run: Run, file: Callable[[str], Path]) -> None:
    assert "Whatever is not named here is refused" in run("explain", file(""))[1]
    assert "すべて拒否され" in run("explain", file(""), "--lang", "ja")[1]


@pytest.mark.parametrize(
    ("command", "taught"),
    [
        ((), "What may leave a site"),
        (("check",), "Say whether a policy is valid"),
        (("explain",), "Say in plain words what may leave"),
        (("diff",), "Say what a new policy changes"),
        (("dry-run",), "Say which messages that have left this policy would have refused"),
    ],
)
def test_help_teaches(run: Run, command: tuple[str, ...], taught: str) -> None:
    assert taught in run(*command, "--help")[1]

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from fedsparse.audit.conservation import Finding
from fedsparse.audit.report import Lang, render
from fedsparse.cli.audit_verify import Given, verify_all
from tests.unit.report_samples import Site, usual_site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return usual_site(tmp_path, rounds=2)


@pytest.fixture
def given(site: Site, tmp_path: Path) -> Given:
    authority = tmp_path / "ca.pem"
    authority.write_bytes(site.authority)
    return Given(site.folder, authority)


def test_a_text_that_is_no_policy_is_told_beside_the_verdict(
    site: Site, given: Given, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify_all(given, Console()) is Finding.VERIFIED
    assert "policy:" not in capsys.readouterr().out
    site.policy(b"let everything out")
    assert verify_all(given, Console()) is Finding.VERIFIED
    told = capsys.readouterr().out
    assert f"policy: cannot tell: entry {site.ledger.size}: the bytes are no egress policy" in told
    for lang, said in ((Lang.EN, "Policies: the text of 1 entry"), (Lang.JA, "規則の記録のうち 1 件")):
        assert said in render(site.gather(), lang)


def test_a_hostile_ledger_does_not_steer_the_auditors_terminal(
    site: Site, given: Given, capsys: pytest.CaptureFixture[str]
) -> None:
    site.policy(b'{"\\u001b[2J\\u001b]0;title\\u0007\\nledger verified": 1}')
    assert verify_all(given, Console(force_terminal=True, color_system=None, width=200)) is Finding.VERIFIED
    told = capsys.readouterr().out
    assert "\x1b" not in told
    assert "\nledger verified" not in told


def test_payloads_that_belong_to_no_entry_are_told_and_contradict_nothing(
    site: Site, given: Given, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify_all(given, Console()) is Finding.VERIFIED
    assert "belong to no entry" not in capsys.readouterr().out
    (site.folder / "payloads" / "\x1b[2J secret").write_bytes(b"left over")
    assert verify_all(given, Console(force_terminal=True, color_system=None, width=400)) is Finding.VERIFIED
    told = capsys.readouterr().out
    assert "[2J secret in payloads/ belong to no entry" in told
    assert "the gateway deletes when it starts" in told
    assert "\x1b" not in told

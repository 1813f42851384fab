from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from fedsparse.audit import EntryKind, verify_evidence, write_bundle
from fedsparse.audit.conservation import Why, conserve
from fedsparse.audit.control import CALLS, Code, ControlCount, control_calls
from fedsparse.audit.report import Lang, explain, render
from fedsparse.audit.report.control import control_sentence
from fedsparse.cli.audit_show import show
from fedsparse.errors import LedgerError
from fedsparse.v1 import ledger_pb2
from tests.reference import verifier
from tests.unit.report_samples import Site, usual_site

SINCE = "5a" * 16


def counted(beats: int, refused: int = 0, since: str = SINCE) -> ControlCount:
    told = {Code.VALUE.value: refused} if refused else {}
    return ControlCount(since, {"pull-messages": 4, "send-node-heartbeat": beats}, told, 11 * beats)


def note(site: Site, count: ControlCount | ledger_pb2.RouteCount) -> None:
    site.ledger.append_note(EntryKind.ROUTE, count.to_proto() if isinstance(count, ControlCount) else count)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    site = usual_site(tmp_path, rounds=3)
    for beats in (3, 120):
        note(site, counted(beats, refused=2))
    note(site, counted(30, since="6b" * 16))
    return site


def test_a_count_is_read_as_it_was_written() -> None:
    count = ControlCount(SINCE, dict.fromkeys(CALLS, 2), {str(code): 1 for code in Code}, 99)
    assert ControlCount.from_proto(count.to_proto()) == count
    assert count.to_proto().received_packets == 24


@pytest.mark.parametrize(
    "changed",
    [
        {"sent_bytes": 1},
        {"sent_packets": 1},
        {"received_packets": 5},
        {"route": "control calls: send-node-heartbeat=3  pull-messages=4"},
        {"route": "control calls: pull-messages=4 send-node-heartbeat=03"},
        {"route": "control calls: pull-messages=4 push-logs=3"},
        {"route": "control calls: pull-messages=4 refused.image=3"},
        {"route": "control calls: pull-messages=4 send-node-heartbeat=-3"},
        {"route": "control calls: pull-messages=4 send-node-heartbeat=" + "9" * 5000},
        {"route": "control calls: " + " ".join(f"{call}={'9' * 19}" for call in sorted(CALLS)[:3])},
    ],
)
def test_a_count_in_any_other_form_is_found(site: Site, changed: dict[str, int | str]) -> None:
    wrong = counted(3, since="7c" * 16).to_proto()
    for name, value in changed.items():
        setattr(wrong, name, value)
    with pytest.raises(LedgerError):
        ControlCount.from_proto(wrong)
    note(site, wrong)
    (problem,) = verify_evidence(site.evidence(), site.authority).problems
    assert "its count of control calls" in problem


def test_the_last_counts_of_every_gateway_are_added_up(site: Site) -> None:
    evidence = site.evidence()
    assert verify_evidence(evidence, site.authority).problems == ()
    found = site.gather().control
    assert found is not None
    assert found.accepted == {"send-node-heartbeat": 150, "pull-messages": 8}
    assert (found.refused, found.gateways) == ({"value": 2}, 2)
    assert control_calls([], evidence.payload) is None


def test_a_count_that_falls_is_found(site: Site) -> None:
    note(site, counted(119, refused=2))
    (problem,) = verify_evidence(site.evidence(), site.authority).problems
    assert (
        problem
        == f"entry {site.ledger.size}: its count of control calls is lower than the same gateway's before it"
    )


def test_counts_of_control_calls_are_none_of_the_route(tmp_path: Path, site: Site) -> None:
    found = site.gather()
    assert found.conservation.route.why is None
    bare = Site.create(tmp_path / "bare")
    bare.open()
    note(bare, counted(3))
    evidence = bare.evidence()
    three = conserve(evidence, verify_evidence(evidence, bare.authority), None, authority=True)
    assert three.route.why is Why.NO_COUNTS


def test_the_second_verifier_takes_them_as_counts_of_a_route(site: Site, tmp_path: Path) -> None:
    bundle = tmp_path / "kiso.evidence.tar"
    write_bundle(bundle, site.evidence())
    assert list(verifier.Verifier(bundle.read_bytes(), site.authority).problems(None)) == []


def test_report_explanation_and_show_tell_them(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    found = site.gather()
    assert control_sentence(found.control).en == (
        "Control calls answered on site: 150 heartbeats, 8 questions for work; 1,650 bytes, none of which was "
        "sent on. 2 more were refused: a value out of range 2."
    )
    for lang, told in ((Lang.EN, "150 heartbeats"), (Lang.JA, "ハートビート 150 件")):
        assert told in render(found, lang)
        assert any(told in sentence.to(lang) for sentence in explain(found))
    show(site.folder, site.ledger.size, None, Console())
    assert "30 heartbeats, 4 questions for work" in capsys.readouterr().out


def test_where_nobody_counted_that_is_said(tmp_path: Path) -> None:
    assert "is not recorded" in control_sentence(usual_site(tmp_path, rounds=1).gather().control).en

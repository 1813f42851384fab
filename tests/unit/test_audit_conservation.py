from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsparse.audit.conservation import Conservation, Finding, Line, Why
from fedsparse.audit.route import Segment
from tests.unit.report_samples import Site, usual_site
from tests.unit.samples import tamper


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site.create(tmp_path)
    made.open()
    with made.ledger:
        yield made


def counted(site: Site, *, authority: bool = True, hub: bool = True) -> Conservation:
    return site.gather(authority=authority, hub=hub).conservation


def test_three_counts_that_agree_are_verified(tmp_path: Path) -> None:
    found = counted(usual_site(tmp_path))
    assert all(line == Line(Finding.VERIFIED) for line in found.lines)
    assert found.messages == found.filed.messages == found.hub.messages == 8
    assert found.bytes == found.filed.bytes == found.hub.bytes


def test_what_was_not_given_cannot_be_told(site: Site) -> None:
    site.update(1)
    found = counted(site, authority=False, hub=False)
    assert found.filed.line == Line(Finding.UNKNOWN, Why.NO_AUTHORITY)
    assert found.hub.line == Line(Finding.UNKNOWN, Why.NO_HUB_RECORD)
    assert found.route == Line(Finding.UNKNOWN, Why.NO_COUNTS)


def test_an_entry_without_a_receipt_is_named(site: Site) -> None:
    site.update(1)
    last = site.update(2, receipt=False)
    found = counted(site)
    assert found.filed.missing == found.hub.missing == (last.sequence,)
    assert found.filed.line == Line(Finding.UNKNOWN, Why.UNRECEIPTED)


def test_a_receipt_for_nothing_that_left_contradicts(site: Site) -> None:
    site.update(1)
    site.kept.append(site.kept[0])
    found = counted(site)
    assert found.hub.strangers == 1
    assert found.hub.line == Line(Finding.CONTRADICTED, Why.STRANGERS)


def test_a_route_that_carried_less_than_was_recorded_contradicts(site: Site) -> None:
    site.count()
    sent = len(site.update(1).payload)
    site.count(sent - 1)
    assert counted(site).route == Line(Finding.CONTRADICTED, Why.TOO_FEW)


def test_a_route_that_carried_more_than_the_ledger_explains_contradicts(site: Site) -> None:
    site.count()
    site.update(1)
    site.count(2_000_000, 1000)
    assert counted(site).route == Line(Finding.CONTRADICTED, Why.TOO_MANY)


def test_where_nobody_counts_what_is_received_more_cannot_be_told(site: Site) -> None:
    site.count()
    site.update(1)
    site.count(2_000_000, 0)
    assert counted(site).route == Line(Finding.UNKNOWN, Why.ONE_WAY)


def test_a_counter_that_fell_contradicts_even_if_it_rose_again(site: Site) -> None:
    site.count()
    site.count(-5_000)
    site.update(1)
    site.count(20_000)
    assert counted(site).route == Line(Finding.CONTRADICTED, Why.FELL)


def test_a_counter_that_began_anew_leaves_a_gap(site: Site) -> None:
    for boot in ("one", "two"):
        site.count(since=boot)
        sent = len(site.update(1, task=boot * 20).payload)
        site.count(sent + 3000, 1000, since=boot)
    found = counted(site)
    assert [span.line.finding for span in found.spans] == [Finding.VERIFIED] * 2
    assert found.route == Line(Finding.UNKNOWN, Why.RESTARTED)


def test_one_count_alone_shows_nothing(site: Site) -> None:
    site.count()
    site.update(1)
    assert counted(site).route == Line(Finding.UNKNOWN, Why.ONE_COUNT)


def test_what_left_before_the_first_count_is_named(site: Site) -> None:
    early = site.update(1)
    site.count()
    sent = len(site.update(2).payload)
    site.count(sent + 3000, 1000)
    found = counted(site)
    assert found.outside == (early.sequence,)
    assert found.route == Line(Finding.UNKNOWN, Why.OUTSIDE)


def test_what_was_under_way_at_the_last_count_is_allowed_not_demanded(site: Site) -> None:
    site.count()
    site.update(1, receipt=False)
    site.count(100, 100)
    span = counted(site).spans[0]
    assert span.segment.least == 0
    assert span.segment.messages == 1
    assert span.line == Line(Finding.VERIFIED)


def test_nothing_counts_of_an_empty_ledger(tmp_path: Path) -> None:
    found = counted(Site.create(tmp_path))
    assert {line.finding for line in found.lines} == {Finding.UNKNOWN}
    assert found.ledger == found.filed.line == Line(Finding.UNKNOWN, Why.EMPTY)


def test_counts_that_fit_a_contradicted_ledger_verify_nothing(tmp_path: Path) -> None:
    site = usual_site(tmp_path, rounds=3)
    tamper(site.folder, "UPDATE entries SET hash = ? WHERE sequence = 6", bytes(32))
    found = counted(site)
    assert found.ledger == Line(Finding.CONTRADICTED, Why.LEDGER)
    assert [span.line for span in found.spans] == [Line(Finding.UNKNOWN, Why.LEDGER)]
    assert Finding.VERIFIED not in {line.finding for line in found.lines}


def test_without_the_ca_no_count_is_verified(tmp_path: Path) -> None:
    found = counted(usual_site(tmp_path, rounds=3), authority=False)
    assert set(found.lines) == {Line(Finding.UNKNOWN, Why.NO_AUTHORITY)}


def test_what_was_measured_on_a_cable_lies_in_the_band_and_half_as_much_again_does_not() -> None:
    payloads = 23_703
    sent = payloads + 3_784 + 5_228 + 1_376 + 2_381
    measured = Segment("veth", 1, 20, sent, 0, 0.0, payloads, payloads, messages=5, connections=2)
    assert payloads <= sent <= measured.most < 1.5 * sent
    assert measured.beside == sent - payloads

from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from fedsparse.cli.figures import bytes_text, reason_text, score_text, seconds_text, shortened, times_text, verdict
from fedsparse.cli.plots import draw_plots
from fedsparse.cli.summary import render_summary, write_summary
from fedsparse.cli.svg import HEIGHT, WIDTH, linear_ticks, spread
from tests.unit.cli_samples import DENSE_ADAPTER, refused, summary

HOSTILE = '"><script>alert(1)</script>'
VOID = {"meta", "br"}


class _Page(HTMLParser):
    """Collects what a browser would see, and insists that every element is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def scored(**scores: Any) -> Any:
    whole = summary()
    whole["balanced_accuracy"] |= scores
    return whole


def drawings(html: str) -> list[ElementTree.Element]:
    svgs = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg viewBox.*?</svg>", html, re.S)]  # noqa: S314
    return [svg for svg in svgs if svg.get("role") == "img"]


def test_a_federation_above_every_plant_is_called_better() -> None:
    judged = verdict(scored(federated=0.79, best_alone=0.742))
    assert judged.tone == "good"
    assert judged.english.startswith("The federation is better than every plant alone")
    assert "0.790 against 0.742 (+0.048)" in judged.english
    assert "18 entries" in judged.english
    assert "どの工場の単独学習よりも優れています" in judged.japanese


def test_a_federation_below_the_best_plant_is_called_worse() -> None:
    judged = verdict(scored(federated=0.701, best_alone=0.742))
    assert judged.tone == "bad"
    assert judged.english.startswith("The federation is worse than the best plant alone")
    assert "−0.041" in judged.english


def test_a_gain_too_small_to_be_shown_is_no_gain() -> None:
    judged = verdict(scored(federated=0.7402, best_alone=0.7399))
    assert judged.tone == "bad"
    assert "no better than" in judged.english


def test_a_federation_that_unlearnt_something_says_so() -> None:
    judged = verdict(scored(before=0.8, federated=0.79, best_alone=0.742))
    assert judged.tone == "bad"
    assert "worse than before training (0.800)" in judged.english


def test_a_federation_with_nothing_to_compare_is_not_called_good() -> None:
    judged = verdict(scored(best_alone=None, alone={}))
    assert judged.tone == "neutral"
    assert "no plant trained alone" in judged.english


def test_a_federation_without_a_test_set_claims_no_accuracy() -> None:
    judged = verdict(summary(evaluated=False))
    assert judged.tone == "neutral"
    assert "not measured" in judged.english


@pytest.mark.parametrize(
    ("ledger", "words"),
    [
        (
            {"entries": 18, "verified": False, "problems": ["entry 3: altered"]},
            "does not verify (1 problem in 18 entries)",
        ),
        ({"entries": 18, "verified": True, "problems": ["entry 3: altered"]}, "does not verify"),
        ({"entries": 0, "verified": True, "problems": []}, "is empty"),
    ],
)
def test_a_ledger_that_proves_nothing_leads_the_verdict(ledger: dict[str, Any], words: str) -> None:
    judged = verdict(summary() | {"ledger": ledger})
    assert judged.tone == "bad"
    assert judged.english.startswith("The ledger")
    assert words in judged.english
    assert judged.japanese.startswith("台帳")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.6, "1.00 kB"),
        (81_234, "81.2 kB"),
        (999_499, "999 kB"),
        (12_904_000, "12.9 MB"),
    ],
)
def test_bytes_are_written_to_three_digits(size: float, text: str) -> None:
    assert bytes_text(size) == text


def test_figures_are_written_as_a_reader_expects() -> None:
    assert seconds_text(1.94) == "1.9 s"
    assert seconds_text(214.7) == "3 min 35 s"
    assert seconds_text(3_725) == "1 h 2 min"
    assert score_text(-0.041, signed=True) == "−0.041"
    assert score_text(-0.0, signed=True) == "+0.000"
    assert score_text(None) == bytes_text(None) == seconds_text(None) == "–"
    assert times_text(81_234, DENSE_ADAPTER) == "159× smaller"
    assert times_text(30, 20) == "1.5× larger"
    assert reason_text("trainer_unreachable") == "trainer unreachable"
    assert reason_text("REASON_NONE") == reason_text(None) == ""


def test_names_are_shortened_by_the_columns_they_take() -> None:
    assert shortened("kiso", 8) == "kiso"
    assert shortened("名古屋第二工場", 8) == "名古屋…"
    assert shortened("a\x1b[2J\u202eb", 20) == "a\ufffd[2J\ufffdb"


def test_labels_are_spread_without_overlap_and_stay_in_their_order() -> None:
    placed = spread([50.0, 49.0, 51.0, 90.0], [10.0, 20.0, 10.0, 20.0], 0.0, 100.0)
    assert placed[1] + 15 <= placed[0] + 1e-9
    assert placed[0] + 10 <= placed[2] + 1e-9
    assert placed[3] == 90.0
    assert spread([10.0, 60.0], [10.0, 10.0], 0.0, 100.0) == [10.0, 60.0]


def test_ticks_enclose_their_range_with_round_numbers() -> None:
    assert linear_ticks(0.5, 0.783, 6) == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8]
    assert linear_ticks(0.0, 10.8, 6) == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0]
    assert len(linear_ticks(0.7, 0.7, 5)) >= 2


def test_the_json_has_the_same_figures_in_a_stable_order(tmp_path: Path) -> None:
    whole = summary()
    write_summary(whole, tmp_path / "runs" / "demo")
    written = (tmp_path / "runs" / "demo" / "summary.json").read_text("utf-8")
    assert json.loads(written) == whole
    write_summary(dict(reversed(whole.items())), tmp_path)
    assert (tmp_path / "summary.json").read_text("utf-8") == written


def test_a_figure_that_is_not_finite_becomes_null(tmp_path: Path) -> None:
    whole = summary()
    whole["balanced_accuracy"]["federated"] = math.nan
    whole["history"][-1]["plants"][0]["metrics"]["train_loss"] = math.inf
    write_summary(whole, tmp_path)
    written = json.loads((tmp_path / "summary.json").read_text("utf-8"), parse_constant=pytest.fail)
    assert written["balanced_accuracy"]["federated"] is None


def test_a_failure_to_render_leaves_the_earlier_files_alone(tmp_path: Path) -> None:
    write_summary(summary(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(KeyError):
        write_summary(summary() | {"ledger": {}}, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert set(before) == {"summary.json", "summary.html"}


def test_the_page_requests_nothing_and_runs_nothing() -> None:
    html = render_summary(summary())
    page = _Page(html)
    assert not {"script", "link", "img", "iframe", "object", "use", "a"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name.startswith("on") or name in ("src", "href")]
    assert not re.search(r"https?:|url\(|@import", html)


def test_the_page_leads_with_the_verdict_in_both_languages() -> None:
    whole = summary()
    text = _Page(render_summary(whole)).text
    judged = verdict(whole)
    assert 0 < text.index(judged.english) < text.index(judged.japanese) < text.index("81.2 kB")


def test_every_plot_says_in_words_what_it_shows_and_fits_its_box() -> None:
    plots = drawings(render_summary(summary()))
    assert len(plots) == 3
    for plot in plots:
        title, description = plot[0], plot[1]
        assert (title.tag, description.tag) == ("title", "desc")
        assert plot.get("aria-labelledby") == f"{title.get('id')} {description.get('id')}"
        for text in plot.iter("text"):
            assert 0 <= float(text.get("x", "-1")) <= WIDTH
            assert 0 <= float(text.get("y", "-1")) <= HEIGHT


def test_hostile_names_and_texts_stay_text() -> None:
    whole = summary(plants=(HOSTILE, "\u202eosik", "{{ 7 * 7 }}"))
    whole["ledger"] = {"entries": 3, "verified": False, "problems": [HOSTILE]}
    whole["history"][0] = refused(whole["history"][0], HOSTILE, HOSTILE)
    whole["plants"][HOSTILE] = {"samples": 3, "classes": {HOSTILE: 3}, HOSTILE: {HOSTILE: HOSTILE}}
    whole["settings"] = {HOSTILE: HOSTILE}
    html = render_summary(whole)
    page = _Page(html)
    assert "script" not in page.tags
    assert "\u202e" not in html
    assert "{{ 7 * 7 }}" in page.text
    assert len(drawings(html)) == 3


@pytest.mark.parametrize("rounds", [1, 2, 40])
@pytest.mark.parametrize("count", [1, 3, 6, 7, 16])
def test_any_number_of_rounds_and_plants_is_drawn_without_overlapping_labels(rounds: int, count: int) -> None:
    whole = summary(rounds=rounds, plants=tuple(f"plant-{index}" for index in range(count)))
    for plot in draw_plots(whole).values():
        heights = sorted(text.y for text in plot.texts if text.css.startswith("label"))
        assert all(b - a >= 14.9 for a, b in pairwise(heights))
    assert len(drawings(render_summary(whole))) == 3


def test_many_plants_are_named_by_their_best_and_their_weakest() -> None:
    whole = summary(plants=tuple(f"plant-{index}" for index in range(16)))
    texts = [text.text for text in draw_plots(whole)["accuracy"].texts if text.css.startswith("label")]
    assert sum("plant-" in text for text in texts) == 2
    assert "14 others alone" in texts


def test_a_plant_that_did_not_answer_is_shown_with_its_reason() -> None:
    whole = summary()
    whole["history"][2] = refused(whole["history"][2], "ise", "trainer_unreachable")
    whole["history"][3]["plants"] = whole["history"][3]["plants"][:2]
    text = _Page(render_summary(whole)).text
    assert "trainer unreachable" in text
    assert "not asked" in text
    assert "5 of 6" in text


def test_a_round_that_was_not_measured_breaks_the_line() -> None:
    whole = summary()
    whole["history"][2]["balanced_accuracy"] = None
    plot = draw_plots(whole)["accuracy"]
    [line] = [shape for shape in plot.shapes if shape.css == "line federation"]
    assert line.path.count("M") == 2


def test_without_a_test_set_bytes_and_time_are_still_drawn() -> None:
    html = render_summary(summary(evaluated=False))
    assert len(drawings(html)) == 2
    assert "no common test set" in _Page(html).text


def test_a_run_without_a_round_is_still_a_page() -> None:
    whole = summary() | {
        "rounds": 0,
        "history": [],
        "alone_history": {},
        "bytes_up_per_plant_round": None,
        "bytes_down_per_plant_round": None,
        "round_overhead_seconds_median": None,
    }
    whole["balanced_accuracy"] = {"before": 0.5, "best_alone": None, "federated": None, "alone": {}}
    page = _Page(render_summary(whole))
    assert "No round was completed" in page.text

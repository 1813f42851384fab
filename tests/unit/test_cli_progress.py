from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console

from fedsparse.cli.progress import ProgressView, final_table
from tests.unit.cli_samples import committed, refused, summary

PLANTS = ("kiso", "ise", "owari")
START = {"event": "round_started", "time": 1000.0, "round": 2, "plants": list(PLANTS), "version": 1}
ANSWER = {
    "event": "update_received",
    "time": 1009.1,
    "round": 2,
    "plant": "kiso",
    "bytes_up": 81_234,
    "seconds": 9.1,
    "reason": None,
}


def log_of(events: Iterable[Mapping[str, Any]]) -> str:
    console = Console(file=io.StringIO(), width=80)
    with ProgressView(console, rounds=6) as view:
        for event in events:
            view.handle(event)
    return written(console)


def status_after(*events: Mapping[str, Any]) -> str:
    view = ProgressView(Console(file=io.StringIO()), rounds=6, clock=lambda: 1012.0)
    for event in events:
        view.handle(event)
    return printed(view.status())


def printed(renderable: Any, width: int = 120) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    return written(console).replace("\N{NO-BREAK SPACE}", " ")


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_committed_round_is_one_line_with_all_its_figures() -> None:
    first = {"event": "baseline", "time": 1.0, "balanced_accuracy": 0.5, "accuracy": 0.6}
    lines = log_of([first, START | {"round": 1}, committed(1, PLANTS, 0.61)]).splitlines()
    assert len(lines) == 2
    for part in ("round 1/6", "0.610 (+0.110)", "up 81.0 kB", "down 1.20 kB", "8.7 s", "1.8 s", "plants 3/3"):
        assert part in lines[1]


def test_the_change_is_against_the_round_before() -> None:
    log = log_of([committed(1, PLANTS, 0.61), committed(2, PLANTS, 0.6)])
    assert "0.610  " in log
    assert "0.600 (−0.010)" in log


def test_a_plant_without_an_update_is_named_with_its_reason() -> None:
    entry = refused(committed(2, PLANTS), "ise", "training_failed")
    entry["plants"] = entry["plants"][:2]
    line = log_of([START, entry])
    assert "plants 1/3" in line
    assert "ise: training failed" in line
    assert "owari: no answer" in line


def test_a_round_without_a_test_set_has_no_accuracy() -> None:
    assert "balanced accuracy –" in log_of([committed(1, PLANTS, None)])


def test_a_failed_round_says_why() -> None:
    event = {"event": "round_failed", "time": 1.0, "round": 2, "reason": "1 of at least 2 updates arrived"}
    assert "failed: 1 of at least 2 updates arrived" in log_of([START, event])


def test_plants_come_go_and_come_back() -> None:
    joined, lost = ({"event": f"plant_{what}", "time": 1.0, "plant": "ise"} for what in ("joined", "lost"))
    assert [line.split(maxsplit=1)[1] for line in log_of([joined, lost, joined]).splitlines()] == [
        "ise joined",
        "ise lost",
        "ise is back",
    ]


def test_a_plain_log_has_no_control_characters_even_from_hostile_names() -> None:
    name = "\x1b[2Jkiso\r\u202e[bold]"
    joined = {"event": "plant_joined", "time": 1.0, "plant": name}
    phase = {"event": "phase", "time": 1.0, "name": "plants", "detail": name}
    log = log_of([phase, joined, refused(committed(1, (name,)), name, name)])
    assert all(character.isprintable() for character in log.replace("\n", ""))
    assert "[bold]" in log


def test_an_event_of_an_unknown_kind_is_nothing_to_see() -> None:
    assert log_of([{"event": "tea_break", "time": 1.0}, {}]) == ""


def test_the_status_tells_who_trains_who_waits_and_who_is_lost() -> None:
    lost = {"event": "plant_lost", "time": 1010.0, "plant": "owari"}
    status = status_after(START, ANSWER, lost)
    for part in ("round 2/6", "12.0 s", "kiso waiting (81.2 kB", "ise training 12.0 s", "owari lost"):
        assert part in status


def test_a_round_that_ends_leaves_nobody_training() -> None:
    assert "training" not in status_after(START, ANSWER, committed(2, PLANTS))


def test_a_terminal_gets_its_cursor_back() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with ProgressView(console, rounds=6) as view:
        view.handle(START)
    output = written(console)
    assert "round 2/6" in output
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")


def test_the_final_table_has_every_figure_and_the_verdict() -> None:
    text = printed(final_table(summary()))
    for part in ("before", "kiso alone", "federated", "81.2 kB", "0.63 %, 159× smaller", "0.44 %, 229× smaller"):
        assert part in text
    for part in ("12.9 MB", "18.6 MB", "1.7 s in the median", "verified, 18 entries", "version 6"):
        assert part in text
    assert "The federation is better than every plant alone" in text


def test_the_final_table_lists_what_is_wrong_with_the_ledger() -> None:
    ledger = {"entries": 18, "verified": False, "problems": ["kiso: entry 3: altered \x1b[1m"]}
    text = printed(final_table(summary() | {"ledger": ledger}))
    assert "DOES NOT VERIFY" in text
    assert "kiso: entry 3: altered" in text
    assert "\x1b" not in text


def test_the_final_table_does_without_what_was_not_measured() -> None:
    bare = summary(evaluated=False) | {"bytes_up_per_plant_round": None, "round_overhead_seconds_median": None}
    assert "not measured" in printed(final_table(bare))

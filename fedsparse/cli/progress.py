"""A run as a person watches it: a line per round, what is being waited for, and a table at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from fedsparse.cli.figures import (
    Summary,
    bytes_text,
    count_text,
    median_of,
    printable,
    reason_text,
    score_text,
    seconds_text,
    share_text,
    shortened,
    times_text,
    verdict,
)

_TONES = {"good": "bold green", "neutral": "bold yellow", "bad": "bold red"}
_STATES = {"training": "cyan", "waiting": "green", "lost": "bold red"}
_HEAD = 13  # columns of what a line is about


@dataclass(frozen=True)
class _Plant:
    """What a plant is doing now, and what is known about it."""

    state: str
    since: float = 0.0
    note: str = ""


class ProgressView:
    """Shows the events of a run (see ``fedsparse.events``) as they come.

    A line per round and per change is printed for good. On a terminal, and inside a ``with`` block, a
    status below them says who is training, waiting or lost; a plain log gets the lines alone.

    Args:
        console: where to; a file or a pipe receives no control characters.
        rounds: how many rounds the run is to have.
        clock: seconds since 1970, as the events' times.
    """

    def __init__(self, console: Console, rounds: int, clock: Callable[[], float] = time.time) -> None:
        self._console = console
        self._rounds = rounds
        self._clock = clock
        self._waiting_for = "starting"
        self._since = clock()
        self._round = 0
        self._asked: tuple[str, ...] = ()
        self._score: float | None = None
        self._plants: dict[str, _Plant] = {}
        self._spinner = Spinner("dots")
        self._live = Live(console=console, get_renderable=self.status, transient=True)

    def __enter__(self) -> Self:
        """Show the status until the block ends, if this is a terminal."""
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the status away and give the cursor back."""
        self._live.stop()

    def handle(self, event: Mapping[str, Any]) -> None:
        """Show one event; an event of an unknown kind is nothing to see."""
        show = getattr(self, f"_on_{event.get('event')}", None)
        if show is not None:
            show(event)

    def status(self) -> RenderableType:
        """Return what is being waited for, and the state of each plant."""
        now = self._clock()
        head = Text(f"{self._waiting_for} {seconds_text(max(0.0, now - self._since))}")
        self._spinner.update(text=head)
        states = Text()
        for name, plant in list(self._plants.items()):
            elapsed = f" {seconds_text(max(0.0, now - plant.since))}" if plant.state == "training" else ""
            note = f" ({plant.note})" if plant.note else ""
            one = f"{shortened(name, 20)} {plant.state}{elapsed}{note}".replace(" ", "\N{NO-BREAK SPACE}")
            states.append("   ").append(one, _STATES[plant.state])
        return Group(self._spinner, states) if states else self._spinner

    def _on_phase(self, event: Mapping[str, Any]) -> None:
        name, detail = printable(str(event["name"])), printable(str(event.get("detail") or ""))
        self._waits(f"{name}: {detail}" if detail else name, event)
        self._print(name, Text(detail), "bold")

    def _on_baseline(self, event: Mapping[str, Any]) -> None:
        self._score = event["balanced_accuracy"]
        self._print("before", Text(f"balanced accuracy {score_text(self._score)}"), "bold")

    def _on_plant_joined(self, event: Mapping[str, Any]) -> None:
        back = event["plant"] in self._plants
        self._plants[event["plant"]] = _Plant("waiting")
        self._print("plant", Text(f"{printable(event['plant'])} {'is back' if back else 'joined'}"), "")

    def _on_plant_lost(self, event: Mapping[str, Any]) -> None:
        self._plants[event["plant"]] = _Plant("lost")
        self._print("plant", Text(f"{printable(event['plant'])} lost", "bold red"), "bold red")

    def _on_round_started(self, event: Mapping[str, Any]) -> None:
        self._round, self._asked = event["round"], tuple(event["plants"])
        self._waits(f"round {self._round}/{self._rounds}, from version {event['version']}", event)
        for plant in self._asked:
            self._plants[plant] = _Plant("training", event["time"])

    def _on_update_received(self, event: Mapping[str, Any]) -> None:
        sent = f"{bytes_text(event['bytes_up'])} after {seconds_text(event['seconds'])}"
        self._plants[event["plant"]] = _Plant("waiting", note=reason_text(event["reason"]) or sent)

    def _on_round_committed(self, event: Mapping[str, Any]) -> None:
        score = event["balanced_accuracy"]
        line = Text("balanced accuracy ").append(score_text(score), "bold")
        if score is not None:
            line.append(self._change(score))
            self._score = score
        plants = event["plants"]
        answered = [plant for plant in plants if not plant["reason"]]
        up = median_of(plant["bytes_up"] for plant in answered)
        down = median_of(plant["bytes_down"] for plant in plants)
        slowest = max((plant["train_seconds"] or 0.0 for plant in plants), default=None)
        line.append(f"  up {bytes_text(up):>7}  down {bytes_text(down):>7}")
        line.append(f"  train {seconds_text(slowest):>6}  overhead {seconds_text(event['overhead_seconds']):>5}")
        line.append(self._answers(plants, len(answered)))
        self._settle("committed")
        self._print(f"round {event['round']}/{self._rounds}", line, "bold cyan")

    def _on_round_failed(self, event: Mapping[str, Any]) -> None:
        self._settle("failed")
        line = Text(f"failed: {printable(str(event['reason']))}", "bold red")
        self._print(f"round {event['round']}/{self._rounds}", line, "bold red")

    def _on_run_finished(self, event: Mapping[str, Any]) -> None:
        self._waits("rounds finished", event)
        self._print("finished", Text(f"{event['rounds']} of {self._rounds} rounds"), "bold")

    def _change(self, score: float) -> Text:
        """Return the gain or loss since the last score, as wide as any other."""
        if self._score is None:
            return Text(" " * 9)
        change = round(score - self._score, 3)
        return Text(f" ({score_text(change, signed=True)})", "red" if change < 0 else "green")

    def _answers(self, plants: list[Mapping[str, Any]], answered: int) -> Text:
        """Return how many of those asked answered with an update, and why the others did not."""
        reasons = {plant["plant"]: plant["reason"] for plant in plants}
        asked = list(dict.fromkeys([*self._asked, *reasons]))
        text = Text(f"  plants {answered}/{len(asked)}")
        for name in asked:
            reason = reason_text(reasons.get(name, "no answer"))
            if reason:
                text.append(f"  {printable(name)}: {reason}", "yellow")
        return text

    def _settle(self, outcome: str) -> None:
        """End the round: whoever still trained is waited for no longer."""
        self._waiting_for, self._since, self._asked = f"round {self._round} {outcome}", self._clock(), ()
        for name, plant in self._plants.items():
            if plant.state != "lost":
                self._plants[name] = _Plant("waiting")

    def _waits(self, what: str, event: Mapping[str, Any]) -> None:
        self._waiting_for, self._since = what, event["time"]

    def _print(self, head: str, line: Text, style: str) -> None:
        whole = Text().append(f"{head:<{_HEAD}}", style).append(line)
        whole.rstrip()
        self._console.print(whole, soft_wrap=True)


def say(console: Console, line: str) -> None:
    """Print a line as it is: what looks like markup in a path or address is none."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def final_table(summary: Mapping[str, Any]) -> RenderableType:
    """Return the figures of a finished run, as ``figures.Summary``, and its verdict, to print to a console."""
    typed = cast(Summary, summary)
    judged = verdict(typed)
    return Group(
        _accuracy_table(typed),
        Text(),
        _bytes_table(typed),
        Text(),
        _facts(typed),
        Text(),
        Text(judged.english, _TONES[judged.tone]),
    )


def _accuracy_table(summary: Summary) -> Table:
    scores = summary["balanced_accuracy"]
    table = _table("balanced accuracy", "value", "gain of federated")
    named = {f"{shortened(name, 30)} alone": value for name, value in scores["alone"].items()}
    for name, value in {"before": scores["before"], **named}.items():
        federated = scores["federated"]
        gap = None if value is None or federated is None else round(federated - value, 3)
        table.add_row(Text(name), score_text(value), score_text(gap, signed=True))
    table.add_row("federated", score_text(scores["federated"]), "", style="bold")
    return table


def _bytes_table(summary: Summary) -> Table:
    dense, model = summary["dense_adapter_bytes"], summary["dense_model_bytes"]
    rows = {
        "up": summary["bytes_up_per_plant_round"],
        "down": summary["bytes_down_per_plant_round"],
        "dense adapter": dense,
        "full model": model,
    }
    table = _table("bytes per plant and round", "size", "of the dense adapter", "of the full model")
    for name, size in rows.items():
        ratios = (f"{share_text(size, whole)}, {times_text(size, whole)}" for whole in (dense, model))
        table.add_row(name, bytes_text(size), *(ratios if name in ("up", "down") else ()))
    return table


def _facts(summary: Summary) -> Table:
    ledger, loads = summary["ledger"], summary["base_model_loads_per_plant"]
    grid = Table.grid(padding=(0, 2))
    overhead = seconds_text(summary["round_overhead_seconds_median"])
    grid.add_row("round overhead", f"{overhead} in the median: a round less its slowest plant's training")
    grid.add_row("base model", "loaded once per plant" if loads == 1 else f"loaded {loads}× by one plant")
    state = "verified" if ledger["verified"] else "DOES NOT VERIFY"
    grid.add_row(
        "ledger",
        f"{state}, {count_text(ledger['entries'], 'entry', 'entries')}",
        style=None if ledger["verified"] else "bold red",
    )
    for problem in ledger["problems"]:
        grid.add_row("", Text(printable(problem), "red"))
    grid.add_row("adapter", f"version {summary['adapter_version']}")
    grid.add_row("rounds", f"{summary['rounds']} in {seconds_text(summary['wall_seconds'])}")
    return grid


def _table(head: str, *figures: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(head)
    for figure in figures:
        table.add_column(figure, justify="right")
    return table

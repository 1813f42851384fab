"""`fedsparse train` as a person watches it: what was read, a line per epoch, tables at the end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from fedsparse.cli.figures import bytes_text, printable, score_text, seconds_text, share_text
from fedsparse.cli.train_record import figure_label, quality_figures
from fedsparse.cli.train_report import better_than_before, percent_text, verdict
from fedsparse.training.division import Division
from fedsparse.training.features import Progress
from fedsparse.training.outcome import Epoch

_HEAD = 13  # columns of what a line is about


class TrainView:
    """Prints what happens, a line each.

    Args:
        console: where to.
        metric: the figure that chooses, told of every epoch.
    """

    def __init__(self, console: Console, metric: str) -> None:
        self._console = console
        self._metric = metric

    def step(self, head: str, text: str) -> None:
        """Say what was done."""
        self._line(head, Text(text), "bold")

    def data(self, division: Division) -> None:
        """Say what the data is, and what is odd about it."""
        first, *rest = map(printable, division.report.lines())
        self.step("data", first)
        for line in rest:
            style = "yellow" if line.startswith("warning") else ""
            self._console.print(Text(f"{'':<{_HEAD}}{line}", style), soft_wrap=True)
        if division.shared:
            text = f"warning: {division.shared:,} held-out samples are in the training data too; not trained on"
            self._console.print(Text(f"{'':<{_HEAD}}{text}", "yellow"), soft_wrap=True)

    def positive(self, told: str | None) -> None:
        """Say which class is the positive one, if any is."""
        if told is not None:
            self.step("positive", printable(told))

    def reading(self, what: str) -> Progress:
        """Return what prints a line for each quarter of the images that is read."""
        quarter = 0

        def told(done: int, total: int) -> None:
            nonlocal quarter
            if 4 * done // total > quarter:
                quarter = 4 * done // total
                self.step("inputs", f"{what} images {done / total:.0%} read")

        return told

    def epoch(self, epoch: Epoch, best: bool) -> None:
        """Say what an epoch yielded, and whether it is the best so far."""
        line = Text(f"{epoch.number:>3}  loss {epoch.loss:.4f}")
        if epoch.quality is not None:
            value = quality_figures(epoch.quality).get(self._metric)
            line.append(f"  {figure_label(self._metric)} ").append(score_text(value), "bold")
        line.append(f"  values {epoch.nnz:>9,}  {seconds_text(epoch.seconds):>8}")
        if best:
            line.append("  best so far, saved", "green")
        self._line(epoch.stage, line, "bold cyan")

    def end(self, report: Mapping[str, Any]) -> None:
        """Print the tables."""
        self._console.print(final_tables(report))

    def _line(self, head: str, line: Text, style: str) -> None:
        self._console.print(Text().append(f"{head:<{_HEAD}}", style).append(line), soft_wrap=True)


def final_tables(report: Mapping[str, Any]) -> RenderableType:
    """Return the figures of a run, as `train_record.gather` returns them, to print to a console."""
    parts: list[RenderableType] = [Text(), _quality(report)]
    if report["automatic"] is not None:
        parts += [_candidates(report["automatic"]), Text(f"{report['automatic']['reason']}."), Text()]
    style = "bold green" if better_than_before(report) else "bold red"
    return Group(*parts, _sizes(report), _cost(report["cost"]), Text(), Text(f"{verdict(report)}.", style))


def _quality(report: Mapping[str, Any]) -> Table:
    table = _table("on the hold-out", "before", "after", "95 % interval")
    for figure in report["figures"]:
        after = figure["after"]
        between = "–" if after["low"] is None else f"{score_text(after['low'])} to {score_text(after['high'])}"
        table.add_row(
            printable(figure["label"]),
            score_text(figure["before"]["value"]),
            score_text(after["value"]),
            between,
            style="bold" if figure["chooses"] else None,
        )
    return table


def _candidates(automatic: Mapping[str, Any]) -> Table:
    table = _table("density", "values", "bf16", figure_label(automatic["metric"]), "")
    for position, one in enumerate(automatic["candidates"]):
        chosen = position == automatic["position"]
        table.add_row(
            percent_text(one["density"]),
            f"{one['nnz']:,}",
            bytes_text(one["bytes"]),
            score_text(one["figure"]),
            "chosen" if chosen else "",
            style="bold" if chosen else None,
        )
    return table


def _sizes(report: Mapping[str, Any]) -> Table:
    adapter, model = report["adapter"], report["base"]["bytes"]
    dense = adapter["bytes_dense"]
    table = _table("bytes", "size", "of the dense adapter", "of the model")
    for name, size in (("adapter, bf16", adapter["bytes_bf16"]), ("adapter, fp32", adapter["bytes_fp32"])):
        table.add_row(name, bytes_text(size), share_text(size, dense), share_text(size, model))
    table.add_row("dense adapter", bytes_text(dense))
    table.add_row("whole model", bytes_text(model))
    return table


def _cost(cost: Mapping[str, Any]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_row(
        "time", f"{seconds_text(cost['seconds'])}, {seconds_text(cost['training_seconds'])} of it training"
    )
    grid.add_row("peak memory", bytes_text(cost["memory_bytes"]))
    if cost["gpu_bytes"] is not None:
        grid.add_row("on the GPU", bytes_text(cost["gpu_bytes"]))
    return grid


def _table(head: str, *columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(head)
    for column in columns:
        table.add_column(column, justify="right")
    return table

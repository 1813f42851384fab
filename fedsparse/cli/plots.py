"""Three plots of a run as SVG geometry: paths and texts with a CSS class, which the page's template writes out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fedsparse.cli.figures import (
    CommittedRound,
    Summary,
    bytes_text,
    median_of,
    reason_text,
    score_text,
    seconds_text,
    shortened,
)

WIDTH, HEIGHT = 560, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 408, 40, 282
_LINE = 15.0  # height of one line of text
_NAMED = 6  # so many plants get a colour and a label of their own


@dataclass(frozen=True)
class Shape:
    """A path; ``hint`` is what a pointer resting on it is told."""

    css: str
    path: str
    hint: str = ""


@dataclass(frozen=True)
class Text:
    """A text at a point, anchored by its class."""

    css: str
    x: float
    y: float
    text: str
    japanese: bool = False


@dataclass
class Plot:
    """One drawing in a box of ``WIDTH`` × ``HEIGHT``; ``description`` says in words what it shows."""

    name: str
    title: str
    description: str
    shapes: list[Shape] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)


@dataclass(frozen=True)
class _Label:
    """Names what ends at height ``y``, right of the plot, in one or two lines."""

    css: str
    y: float
    english: str
    japanese: str = ""

    @property
    def height(self) -> float:
        return _LINE * (2 if self.japanese else 1) + 2


@dataclass(frozen=True)
class _Scale:
    """Maps [low, high] to [start, end], by logarithm if asked."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        share = (value - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 1)


def draw_plots(summary: Summary) -> list[Plot]:
    """Draw what there are figures for: nothing without rounds, no accuracy without a common test set."""
    if not summary["history"]:
        return []
    drawn = [_bytes_plot(summary), _time_plot(summary)]
    scored = [value for line in _score_lines(summary).values() for _, value in line if value is not None]
    return [_accuracy_plot(summary, scored), *drawn] if scored else drawn


def spread(centres: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Move centres apart, as little as they must, until boxes of these heights no longer overlap.

    Pushing down and pushing up each give a placement without overlap; so does the mean of the two, since
    the conditions are linear, and it favours neither side.
    """
    order = sorted(range(len(centres)), key=lambda index: centres[index])
    down = _pushed([centres[i] for i in order], [heights[i] for i in order], low, high)
    up = _pushed([-centres[i] for i in reversed(order)], [heights[i] for i in reversed(order)], -high, -low)
    placed = [(a - b) / 2 for a, b in zip(down, reversed(up), strict=True)]
    return [placed[order.index(index)] for index in range(len(centres))]


def _pushed(centres: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Push ascending centres forwards where they overlap, then back from the end where they leave the range."""
    placed = list(centres)
    edge = low
    for index, height in enumerate(heights):
        placed[index] = max(placed[index], edge + height / 2)
        edge = placed[index] + height / 2
    edge = high
    for index in reversed(range(len(placed))):
        placed[index] = min(placed[index], edge - heights[index] / 2)
        edge = placed[index] - heights[index] / 2
    return placed


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Return about ``count`` round numbers (1, 2 or 5 times a power of ten apart) that enclose [low, high]."""
    rough = max(high - low, 1e-9) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def _accuracy_plot(summary: Summary, scored: Sequence[float]) -> Plot:
    before = summary["balanced_accuracy"]["before"]
    lines = _score_lines(summary)
    ticks = [tick for tick in nice_ticks(min(scored), min(1.0, max(scored) + 0.02), 5) if tick <= 1]
    y = _Scale(ticks[0], ticks[-1], _BOTTOM, _TOP)
    last = max(x for line in lines.values() for x, _ in line)
    x = _Scale(0 if before is not None else 1, max(last, 1), _LEFT + 12, _RIGHT - 8)
    plot = Plot("accuracy", "Balanced accuracy per round", _accuracy_description(summary))
    _vertical_axis(plot, y, [(tick, f"{tick:.3g}") for tick in ticks], "Balanced accuracy", "バランス精度")
    _round_axis(plot, x)
    labels = []
    if before is not None:
        plot.shapes.append(Shape("baseline", f"M{_LEFT} {y(before)}H{_RIGHT}", f"before: {score_text(before)}"))
        labels.append(_Label("quiet", y(before), f"before {score_text(before)}", "学習前"))
    named = _named_plants(summary)
    for index, plant in enumerate(summary["alone_history"]):
        colour = f"plant c{index}" if len(summary["alone_history"]) <= _NAMED else "plant"
        labels += _draw_line(plot, x, y, lines[plant], colour, f"{shortened(plant, 14)} alone", plant in named)
    federation = _draw_line(plot, x, y, lines[""], "federation", "federation", named=True)
    labels += [_Label(label.css, label.y, label.english, "連合学習") for label in federation]
    _write_labels(plot, labels)
    return plot


def _score_lines(summary: Summary) -> dict[str, list[tuple[int, float | None]]]:
    """Return (round, balanced accuracy) per plant alone, and of the federation under the empty name."""
    before = summary["balanced_accuracy"]["before"]
    start = [(0, before)] if before is not None else []
    lines = {
        plant: [*start, *enumerate(values, 1)] for plant, values in summary["alone_history"].items()
    }
    return lines | {"": [*start, *((one["round"], one["balanced_accuracy"]) for one in summary["history"])]}


def _named_plants(summary: Summary) -> set[str]:
    """Return the plants whose line is labelled: all of a few, of many only the best and the weakest."""
    final = {
        plant: values[-1] or 0.0 for plant, values in summary["alone_history"].items() if values
    }
    ranked = sorted(final, key=lambda plant: final[plant])
    return set(ranked if len(ranked) <= _NAMED else [ranked[0], ranked[-1]])


def _draw_line(
    plot: Plot, x: _Scale, y: _Scale, points: Sequence[tuple[int, float | None]], css: str, name: str, named: bool
) -> list[_Label]:
    """Draw a line with a dot per round, broken where nothing was measured; return its label, if it has one."""
    path, pen, end = "", "M", None
    for at, value in points:
        if value is None:
            pen = "M"
            continue
        path, pen, end = f"{path}{pen}{x(at)} {y(value)}", "L", value
        plot.shapes.append(Shape(f"dot {css}", f"M{x(at)} {y(value)}h0", f"{name}, round {at}: {score_text(value)}"))
    plot.shapes.append(Shape(f"line {css}", path or "M0 0", name))
    return [_Label(css, y(end), f"{name} {score_text(end)}")] if named and end is not None else []


def _accuracy_description(summary: Summary) -> str:
    scores = summary["balanced_accuracy"]
    return (
        f"Line chart over {len(summary['history'])} rounds. Before: {score_text(scores['before'])}; best plant alone: "
        f"{score_text(scores['best_alone'])}; federation: {score_text(scores['federated'])}."
    )


def _bytes_plot(summary: Summary) -> Plot:
    history, dense, model = summary["history"], summary["dense_adapter_bytes"], summary["dense_model_bytes"]
    sent = [value for one in history for plant in one["plants"] for value in (plant["bytes_up"], plant["bytes_down"])]
    present = [value for value in [*sent, dense, model] if value]
    low, high = math.floor(math.log10(min(present, default=1))), math.ceil(math.log10(max(present, default=10)))
    high = max(high, low + 1)
    y = _Scale(10.0**low, 10.0**high, _BOTTOM, _TOP, log=True)
    x = _slots(history)
    up, down = summary["bytes_up_per_plant_round"], summary["bytes_down_per_plant_round"]
    plot = Plot(
        "bytes",
        "Bytes per plant and round",
        f"Chart on a logarithmic axis. Up: {bytes_text(up)} per plant and round; down: {bytes_text(down)}; the dense "
        f"adapter has {bytes_text(dense)}, the full model {bytes_text(model)}.",
    )
    decades = [(10.0**power, bytes_text(10.0**power)) for power in range(low, high + 1)]
    _vertical_axis(plot, y, decades, "Bytes, logarithmic", "バイト数（対数目盛）")
    _round_axis(plot, x)
    labels = []
    for value, english, japanese in ((dense, "dense adapter", "密なアダプター"), (model, "full model", "モデル全体")):
        if value:
            text = f"{english} {bytes_text(value)}"
            plot.shapes.append(Shape("baseline", f"M{_LEFT} {y(value)}H{_RIGHT}", text))
            labels.append(_Label("quiet", y(value), text, japanese))
    for css, key, mean, japanese in (("up", "bytes_up", up, "送信"), ("down", "bytes_down", down, "受信")):
        ends = _draw_markers(plot, x, y, history, css)
        if mean and ends:
            labels.append(_Label(css, y(median_of(ends) or mean), f"{'▲' if css == 'up' else '▼'} {css} {bytes_text(mean)}", japanese))
    _write_labels(plot, labels)
    return plot

"""The three plots of a run: balanced accuracy, bytes and time, per round."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

from fedsparse.cli.figures import (
    CommittedRound,
    Summary,
    bytes_text,
    score_text,
    seconds_text,
    shortened,
)
from fedsparse.cli.svg import BOTTOM, LEFT, RIGHT, TOP, Label, Plot, Scale, Shape, Text, linear_ticks

_COLOURS = 6  # so many plants get a colour and a label of their own
_FIGURED = 14  # so many bars have room for their figure
_Points = Sequence[tuple[int, float | None]]


def draw_plots(summary: Summary) -> dict[str, Plot]:
    """Draw what there are figures for: nothing without rounds, no accuracy without a common test set."""
    if not summary["history"]:
        return {}
    plots = [_bytes(summary), _time(summary)]
    if any(one["balanced_accuracy"] is not None for one in summary["history"]):
        plots.append(_accuracy(summary))
    return {plot.name: plot for plot in plots}


def _accuracy(summary: Summary) -> Plot:
    """Draw a line for the federation and a thin one for each plant alone, all from the same start."""
    scores, history = summary["balanced_accuracy"], summary["history"]
    before = scores["before"]
    start: _Points = [] if before is None else [(0, before)]
    federation = [*start, *((one["round"], one["balanced_accuracy"]) for one in history)]
    alone = {plant: [*start, *enumerate(values, 1)] for plant, values in summary["alone_history"].items()}
    points = [point for line in (federation, *alone.values()) for point in line]
    measured = [value for _, value in points if value is not None]
    room = 0.05 * (max(measured) - min(measured))
    ticks = linear_ticks(max(0.0, min(measured) - room), min(1.0, max(measured) + room), 6)
    x = Scale(min(at for at, _ in points), max(at for at, _ in points), LEFT + 10, RIGHT - 6)
    y = Scale(ticks[0], ticks[-1], BOTTOM, TOP)
    plot = Plot(
        "accuracy",
        "Balanced accuracy per round",
        f"Lines over {len(history)} rounds. Before: {score_text(before)}. Best plant alone: "
        f"{score_text(scores['best_alone'])}. Federation: {score_text(scores['federated'])}.",
    )
    plot.vertical_axis(y, [(tick, f"{tick:.10g}") for tick in ticks], "Balanced accuracy", "バランス精度")
    plot.round_axis(x)
    labels = []
    if before is not None:
        plot.shapes.append(Shape("reference", f"M{LEFT} {y(before)}H{RIGHT}"))
        labels.append(Label("quiet", y(before), f"before {score_text(before)}", "学習前"))
    labels += _alone(plot, x, y, alone)
    end = _line(plot, x, y, federation, "federation", "federation")
    plot.label([*labels, Label(end.css, end.y, end.english, "連合学習")])
    return plot


def _alone(plot: Plot, x: Scale, y: Scale, alone: Mapping[str, _Points]) -> list[Label]:
    """Draw each plant's own line; label all of a few, else the best, the weakest and the rest."""
    ends = {}
    for plant, css in _plant_styles(alone).items():
        ends[plant] = _line(plot, x, y, alone[plant], f"plant {css}".strip(), f"{shortened(plant, 12)} alone")
    named = [label for label in ends.values() if label.css != "plant"]
    others = [label.y for label in ends.values() if label.css == "plant"]
    return [*named, Label("quiet", median(others), f"{len(others)} others alone")] if others else named


def _plant_styles(alone: Mapping[str, _Points]) -> dict[str, str]:
    """Choose a colour per line: all of a few plants; of many only the best and the weakest, drawn last."""
    final = {
        plant: value for plant, line in alone.items() for at, value in line if at and value is not None
    }  # the last one measured stays
    if len(final) <= _COLOURS:
        return {plant: f"c{index}" for index, plant in enumerate(final)}
    best, *others, worst = sorted(final, key=lambda plant: -final[plant])
    return dict.fromkeys(others, "") | {worst: "c1", best: "c0"}


def _line(plot: Plot, x: Scale, y: Scale, points: _Points, css: str, name: str) -> Label:
    """Draw a line with a dot per measured round, broken where nothing was measured; return its label."""
    path, pen, end = "", "M", 0.0
    dots = []
    for at, value in points:
        if value is None:
            pen = "M"
            continue
        path, pen, end = f"{path}{pen}{x(at)} {y(value)}", "L", value
        dots.append(Shape(f"dot {css}", f"M{x(at)} {y(value)}h0", f"{name}, round {at}: {score_text(value)}"))
    plot.shapes += [Shape(f"line {css}", path, name), *dots]
    return Label(css, y(end), f"{name} {score_text(end)}")


def _bytes(summary: Summary) -> Plot:
    """Draw a triangle per plant, round and direction, under the dense adapter and the full model."""
    history, dense, model = summary["history"], summary["dense_adapter_bytes"], summary["dense_model_bytes"]
    up, down = summary["bytes_up_per_plant_round"], summary["bytes_down_per_plant_round"]
    asked = [plant for one in history for plant in one["plants"]]
    sizes = [dense, model, *(size for plant in asked for size in (plant["bytes_up"], plant["bytes_down"]))]
    drawn = [size for size in sizes if size]  # zero has no place on a logarithmic axis
    low, high = math.floor(math.log10(min(drawn))), math.ceil(math.log10(max(drawn)))
    y = Scale(10.0**low, 10.0 ** max(high, low + 1), BOTTOM, TOP, log=True)
    x = _slots(history)
    plot = Plot(
        "bytes",
        "Bytes per plant and round",
        f"Triangles on a logarithmic axis, per plant and round. Up: {bytes_text(up)}. Down: {bytes_text(down)}. "
        f"Dense adapter: {bytes_text(dense)}. Full model: {bytes_text(model)}.",
    )
    decades = [
        (10.0**power, bytes_text(10.0**power).replace(".00", "").replace(".0", ""))
        for power in range(low, max(high, low + 1) + 1)
    ]
    plot.vertical_axis(y, decades, "Bytes, logarithmic", "バイト数（対数目盛）")
    plot.round_axis(x)
    labels = []
    whole = ((dense, "dense adapter", "密なアダプター"), (model, "full model", "モデル全体"))
    for size, name, japanese in whole:
        plot.shapes.append(Shape("reference", f"M{LEFT} {y(size)}H{RIGHT}"))
        labels.append(Label("quiet", y(size), f"{name} {bytes_text(size)}", japanese))
    for one in history:
        plot.shapes += _triangles(x, y, one)
    if up:
        labels.append(Label("up", y(up), f"▲ up {bytes_text(up)}", "工場から送信"))
    if down:
        labels.append(Label("down", y(down), f"▼ down {bytes_text(down)}", "工場で受信"))
    plot.label(labels)
    return plot


def _triangles(x: Scale, y: Scale, one: CommittedRound) -> list[Shape]:
    """Draw what each plant sent in the left half of its round's slot, what it received in the right half."""
    shapes = []
    half = (x(1) - x(0)) * 0.4
    count = len(one["plants"])
    side = min(4.5, max(1.5, half / count / 2))
    for place, plant in enumerate(one["plants"]):
        shift = half * (place + 0.5) / count
        name = f"{shortened(plant['plant'], 24)}, round {one['round']}"
        for css, size, centre, turn in (
            ("up", plant["bytes_up"], x(one["round"]) - half + shift, -1),
            ("down", plant["bytes_down"], x(one["round"]) + shift, 1),
        ):
            if size:
                base = f"M{centre - side:.1f} {y(size) - turn * side:.1f}h{2 * side:.1f}"
                path = f"{base}l{-side:.1f} {turn * 2 * side:.1f}z"
                shapes.append(Shape(f"mark {css}", path, f"{name}, {css}: {bytes_text(size)}"))
    return shapes


def _time(summary: Summary) -> Plot:
    """Draw a bar per round: the slowest plant's training, and on top of it everything else."""
    history = summary["history"]
    ticks = linear_ticks(0.0, max(one["seconds"] for one in history), 6)
    x, y = _slots(history), Scale(0.0, ticks[-1], BOTTOM, TOP)
    overhead = summary["round_overhead_seconds_median"]
    plot = Plot(
        "time",
        "Time per round",
        f"Stacked bars over {len(history)} rounds: the slowest plant's training, then the overhead, "
        f"{seconds_text(overhead)} in the median.",
    )
    plot.vertical_axis(y, [(tick, f"{tick:.10g}") for tick in ticks], "Seconds", "秒")
    width = min(36.0, (x(1) - x(0)) * 0.7)
    for one in history:
        plot.shapes += _bar(x, y, width, one)
        if len(history) <= _FIGURED:
            figure = Text("figure middle", x(one["round"]), y(one["seconds"]) - 5, f"{one['seconds']:.1f}")
            plot.texts.append(figure)
    plot.round_axis(x)
    training = history[-1]["seconds"] - history[-1]["overhead_seconds"]
    middle = training + history[-1]["overhead_seconds"] / 2
    labels = [
        Label("training", y(training / 2), "slowest training", "最も遅い工場の学習"),
        Label("overhead", y(middle), "overhead", "学習以外の時間"),
    ]
    plot.label(labels)
    return plot


def _bar(x: Scale, y: Scale, width: float, one: CommittedRound) -> list[Shape]:
    training = one["seconds"] - one["overhead_seconds"]
    left = f"M{x(one['round']) - width / 2:.1f}"
    number = one["round"]
    return [
        Shape(
            "bar training",
            f"{left} {BOTTOM}h{width:.1f}V{y(training)}h{-width:.1f}z",
            f"round {number}, slowest training: {seconds_text(training)}",
        ),
        Shape(
            "bar overhead",
            f"{left} {y(training)}h{width:.1f}V{y(one['seconds'])}h{-width:.1f}z",
            f"round {number}, overhead: {seconds_text(one['overhead_seconds'])}",
        ),
    ]


def _slots(history: Sequence[CommittedRound]) -> Scale:
    """Give every round a slot of the same width, the first and the last one whole."""
    numbers = [one["round"] for one in history]
    return Scale(min(numbers) - 0.5, max(numbers) + 0.5, LEFT, RIGHT)

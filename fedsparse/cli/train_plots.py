"""The plots of `fedsparse train`: loss and metric per epoch, the choice of the density, calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from fedsparse.cli.figures import count_text, score_text
from fedsparse.cli.svg import BOTTOM, LEFT, RIGHT, TOP, Label, Plot, Scale, Shape, Text, linear_ticks
from fedsparse.training.metrics import METRICS

_CHARACTER = 6.2  # width of a tick's character
_MOST_TICKS = 12
_LARGEST_DOT, _SMALLEST_DOT = 9.0, 2.5


def draw_plots(report: Mapping[str, Any]) -> dict[str, Plot]:
    """Draw what there are figures for."""
    plots = [_loss(report), _metric(report)]
    if report["automatic"] is not None:
        plots.append(_density(report["automatic"]))
    if report["reliability"]:
        plots.append(_reliability(report["reliability"]))
    return {plot.name: plot for plot in plots}


def ticks(values: Sequence[float]) -> list[float]:
    """Return round numbers around ``values``, at least 2 % of them apart where they are all but equal."""
    low, high = min(values), max(values)
    least = 0.02 * max(abs(low), abs(high), 0.5)
    if high - low < least:
        low, high = (low + high - least) / 2, (low + high + least) / 2
    return linear_ticks(low, high, 6)


def _loss(report: Mapping[str, Any]) -> Plot:
    epochs = report["epochs"]
    points = [(epoch["number"], epoch["loss"]) for epoch in epochs]
    plot = Plot("loss", "Loss per epoch", f"A line over {count_text(len(epochs), 'epoch')}, stages marked.")
    marks = ticks([0.0, *(value for _, value in points)])
    y = Scale(marks[0], marks[-1], BOTTOM, TOP)
    plot.vertical_axis(y, [(mark, f"{mark:.10g}") for mark in marks], "Training loss 学習時の損失", "")
    x = _epoch_axis(plot, report)
    _line(plot, x, y, points, "training", "training loss")
    plot.label([Label("training", y(points[-1][1]), f"training {points[-1][1]:.3f}", "学習")])
    return plot


def _metric(report: Mapping[str, Any]) -> Plot:
    name, points = _measured(report)
    before = next(one["before"]["value"] for one in report["figures"] if one["name"] == name)
    best = dict(points)[report["best"]]
    words = name.replace("_", " ")
    plot = Plot(
        "metric",
        f"Hold-out {words} per epoch",
        f"A line over {count_text(len(points), 'epoch')}. Before: {score_text(before)}. "
        f"Kept: epoch {report['best']}, {score_text(best)}.",
    )
    values = [before, *(value for _, value in points)]
    marks = ticks(values)
    y = Scale(marks[0], marks[-1], BOTTOM, TOP)
    plot.vertical_axis(y, [(mark, f"{mark:.10g}") for mark in marks], f"Hold-out {words} 検証データでの評価", "")
    x = _epoch_axis(plot, report)
    plot.shapes.append(Shape("reference", f"M{LEFT} {y(before)}H{RIGHT}"))
    _line(plot, x, y, points, "federation", words)
    plot.shapes.append(Shape("kept", _circle(x(report["best"]), y(best), 7.0), f"kept: epoch {report['best']}"))
    plot.label(
        [
            Label("quiet", y(before), f"before {score_text(before)}", "学習前"),
            Label("federation", y(best), f"kept {score_text(best)}", "採用"),
        ]
    )
    return plot


def _measured(report: Mapping[str, Any]) -> tuple[str, list[tuple[int, float]]]:
    """Return the figure that chose, or the loss where an epoch has none, and its value per epoch."""
    epochs = report["epochs"]
    name = report["metric"] if all(report["metric"] in epoch["quality"] for epoch in epochs) else "loss"
    return name, [(epoch["number"], epoch["quality"][name]) for epoch in epochs]


def _density(automatic: Mapping[str, Any]) -> Plot:
    """Draw the figure of each candidate over its density, the tolerated band, and which one is taken."""
    candidates = automatic["candidates"]
    words = automatic["metric"].replace("_", " ")
    best, chosen = candidates[automatic["best"]], candidates[automatic["position"]]
    worse = -automatic["tolerance"] if METRICS[automatic["metric"]] else automatic["tolerance"]
    limit = best["figure"] + worse
    plot = Plot("density", f"Hold-out {words} by density", f"{automatic['reason']}.")
    values = [limit, *(one["figure"] for one in candidates)]
    marks = ticks(values)
    y = Scale(marks[0], marks[-1], BOTTOM, TOP)
    x = Scale(candidates[-1]["density"], candidates[0]["density"], LEFT + 14, RIGHT - 14, log=True)
    band = f"M{LEFT} {y(best['figure'])}H{RIGHT}V{y(limit)}H{LEFT}z"
    plot.shapes.append(Shape("band", band, f"within {automatic['tolerance']:g} of the best"))
    plot.vertical_axis(y, [(mark, f"{mark:.10g}") for mark in marks], f"Hold-out {words}", "検証データでの評価")
    _density_axis(plot, x, [one["density"] for one in candidates])
    points = [(one["density"], one["figure"]) for one in candidates]
    _line(plot, x, y, points, "federation", words)
    for one in candidates:
        if automatic["max_bytes"] is not None and one["bytes"] > automatic["max_bytes"]:
            plot.shapes.append(
                Shape("refused", _circle(x(one["density"]), y(one["figure"]), 6.0), "over max_bytes")
            )
    at = x(chosen["density"]), y(chosen["figure"])
    plot.shapes.append(Shape("kept", _circle(*at, 8.0), f"chosen: {100 * chosen['density']:.3g} %"))
    plot.label(
        [
            Label("quiet", y(best["figure"]), f"best {score_text(best['figure'])}", "最良"),
            Label("federation", at[1], f"chosen {score_text(chosen['figure'])}", "採用"),
        ]
    )
    return plot


def _reliability(bins: Sequence[Mapping[str, float]]) -> Plot:
    """Draw the share of right answers over their confidence; on the diagonal both agree."""
    samples = sum(one["samples"] for one in bins)
    plot = Plot(
        "reliability",
        "Right answers by confidence",
        f"A dot per bin of confidence, its area in proportion to its samples, {samples:,.0f} in all.",
    )
    low = math.floor(10 * min(one["confidence"] for one in bins)) / 10
    x, y = Scale(low, 1.0, LEFT + 10, RIGHT - 10), Scale(0.0, 1.0, BOTTOM, TOP)
    plot.vertical_axis(y, [(n / 5, f"{n / 5:g}") for n in range(6)], "Share of right answers", "正答率")
    plot.shapes.append(Shape("axis", f"M{LEFT} {BOTTOM}H{RIGHT}"))
    for tick in linear_ticks(low, 1.0, 5):
        _tick(plot, x(tick), f"{tick:g}")
    plot.texts.append(Text("tick middle", (LEFT + RIGHT) / 2, BOTTOM + 38, "Confidence 確信度"))
    plot.shapes.append(Shape("reference", f"M{x(low)} {y(low)}L{x(1.0)} {y(1.0)}"))
    most = max(one["samples"] for one in bins)
    for one in bins:
        radius = max(_SMALLEST_DOT, _LARGEST_DOT * math.sqrt(one["samples"] / most))
        hint = (
            f"{count_text(int(one['samples']), 'answer')}: confidence {one['confidence']:.3f}, "
            f"{one['accuracy']:.3f} right"
        )
        plot.shapes.append(Shape("mark answers", _circle(x(one["confidence"]), y(one["accuracy"]), radius), hint))
    plot.label([Label("quiet", y(1.0), "perfectly calibrated", "確信度どおり")])
    return plot


def _epoch_axis(plot: Plot, report: Mapping[str, Any]) -> Scale:
    """Draw the axis of epochs, and where one stage ends and the next begins, named where there is room."""
    epochs = report["epochs"]
    x = Scale(0.5, len(epochs) + 0.5, LEFT, RIGHT)
    plot.shapes.append(Shape("axis", f"M{LEFT} {BOTTOM}H{RIGHT}"))
    step = next(step for step in (1, 2, 5, 10, 20, 50, 100, 1000, 10_000) if len(epochs) / step <= _MOST_TICKS)
    for number in range(step, len(epochs) + 1, step):
        _tick(plot, x(number), str(number))
    plot.texts.append(Text("tick middle", (LEFT + RIGHT) / 2, BOTTOM + 38, "Epoch エポック"))
    for stage, run in groupby(epochs, key=lambda epoch: epoch["stage"]):
        numbers = [epoch["number"] for epoch in run]
        start, end = x(numbers[0] - 0.5), x(numbers[-1] + 0.5)
        if numbers[0] > 1:
            plot.shapes.append(Shape("stage", f"M{start} {TOP}V{BOTTOM}", f"{stage} begins"))
        name = _stage_name(report, stage)
        if _CHARACTER * len(name) <= end - start:
            plot.texts.append(Text("tick middle", round((start + end) / 2, 1), TOP - 12, name))
    return x


def _stage_name(report: Mapping[str, Any], stage: str) -> str:
    """Return a stage's name; of one that prunes to a candidate its density, which is shorter and says more."""
    density = next(one["density"] for one in report["stages"] if one["name"] == stage)
    return f"{100 * density:.3g} %" if report["automatic"] is not None and stage.startswith("prune-") else stage


def _density_axis(plot: Plot, x: Scale, densities: Sequence[float]) -> None:
    plot.shapes.append(Shape("axis", f"M{LEFT} {BOTTOM}H{RIGHT}"))
    free = float(LEFT - 20)
    for density in reversed(densities):
        text = f"{100 * density:.3g} %"
        half = _CHARACTER * len(text) / 2
        if x(density) - half >= free:
            _tick(plot, x(density), text)
            free = x(density) + half + 4
    middle = (LEFT + RIGHT) / 2
    plot.texts.append(Text("tick middle", middle, BOTTOM + 38, "Density, logarithmic 密度（対数目盛）"))


def _tick(plot: Plot, at: float, text: str) -> None:
    plot.shapes.append(Shape("axis", f"M{at} {BOTTOM}v4"))
    plot.texts.append(Text("tick middle", at, BOTTOM + 18, text))


def _line(plot: Plot, x: Scale, y: Scale, points: Sequence[tuple[float, float]], css: str, name: str) -> None:
    path = "L".join(f"{x(at)} {y(value)}" for at, value in points)
    plot.shapes.append(Shape(f"line {css}", f"M{path}", name))
    for at, value in points:
        plot.shapes.append(Shape(f"dot {css}", f"M{x(at)} {y(value)}h0", f"{name} at {at:g}: {value:.4f}"))


def _circle(x: float, y: float, radius: float) -> str:
    r = round(radius, 1)
    return f"M{x - r:.1f} {y}a{r} {r} 0 1 0 {2 * r:.1f} 0a{r} {r} 0 1 0 {-2 * r:.1f} 0z"

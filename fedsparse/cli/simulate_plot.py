"""The plot of `fedsparse simulate`: balanced accuracy per round, a line for each rule, plants alone across."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import Environment, PackageLoader

from fedsparse.cli.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Label, Plot, Scale, Shape, linear_ticks

_COLOURS = ("#0a6e5c", "#c2571a", "#7a5195", "#b8860b", "#1f77b4", "#444444")


def draw(runs: Sequence[Mapping[str, Any]], alone: str) -> str:
    """Return an SVG page.

    Args:
        runs: finished federations and plants alone, of all draws; of each draw's history the mean is shown.
        alone: what the arm of plants alone is called.
    """
    lines = {
        arm: [statistics.mean(values) for values in zip(*_histories(runs, arm), strict=True)]
        for arm in dict.fromkeys(run["arm"] for run in runs)
        if arm != alone
    }
    best = [run["score"] for run in runs if run["arm"] == alone]
    reference = statistics.mean(best) if best else None
    values = [value for line in lines.values() for value in line] + ([reference] if reference is not None else [])
    ticks = linear_ticks(min(values), max(values), 6)
    rounds = max(map(len, lines.values()))
    x, y = Scale(1, rounds, LEFT + 10, RIGHT - 6), Scale(ticks[0], ticks[-1], BOTTOM, TOP)
    plot = Plot("simulate", "Balanced accuracy per round", f"{len(lines)} lines over {rounds} rounds")
    plot.vertical_axis(y, [(tick, f"{tick:.10g}") for tick in ticks], "Balanced accuracy", "バランス精度")
    plot.round_axis(x)
    labels = []
    if reference is not None:
        plot.shapes.append(Shape("reference", f"M{LEFT} {y(reference)}H{RIGHT}"))
        labels.append(Label("quiet", y(reference), f"best alone {reference:.3f}", "最良の工場単独"))
    for number, (arm, line) in enumerate(lines.items()):
        points = "L".join(f"{x(place)} {y(value)}" for place, value in enumerate(line, 1))
        plot.shapes.append(Shape(f"line{number}", f"M{points}" if rounds > 1 else f"M{points}h4"))
        labels.append(Label(f"line{number}", y(line[-1]), f"{arm} {line[-1]:.3f}"))
    plot.label(labels)
    return _page(plot, len(lines))


def _histories(runs: Sequence[Mapping[str, Any]], arm: str) -> list[list[float]]:
    return [[one["balanced_accuracy"] for one in run["history"]] for run in runs if run["arm"] == arm]


def _page(plot: Plot, lines: int) -> str:
    environment = Environment(loader=PackageLoader("fedsparse.cli", "."), autoescape=True, trim_blocks=True)
    colours = [_COLOURS[number % len(_COLOURS)] for number in range(lines)]
    return environment.get_template("simulate.svg.j2").render(
        plot=plot, colours=colours, width=WIDTH, height=HEIGHT
    )

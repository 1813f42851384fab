"""Balanced accuracy over the bytes that a plant exchanges in a round, one panel per problem and alpha."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from fedsparse.cli.svg import linear_ticks, spread

_WIDTH, _HEIGHT = 430, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 222, 56, 240  # inside a panel; names stand to the right
_COLOURS = ("#0a6e5c", "#c2571a", "#7a5195", "#b8860b", "#1f77b4", "#d62728", "#444444", "#8c564b", "#000000")

Row = Mapping[str, Any]


def write_plot(rows: Sequence[Row], arms: Sequence[str], path: Path) -> None:
    """Write an SVG page; arms that exchange nothing are lines across."""
    panels = sorted({(row["problem"], row["alpha"]) for row in rows})
    problems = sorted({problem for problem, _ in panels})
    alphas = sorted({alpha for _, alpha in panels})
    shapes = []
    for problem, alpha in panels:
        here = [row for row in rows if (row["problem"], row["alpha"]) == (problem, alpha)]
        x, y = alphas.index(alpha) * _WIDTH, problems.index(problem) * _HEIGHT
        shapes.append(f'<g transform="translate({x} {y})">{_panel(here, arms, f"{problem}, α = {alpha:g}")}</g>')
    width, height = len(alphas) * _WIDTH, len(problems) * _HEIGHT
    label = "Balanced accuracy over the bytes that a plant sends and receives in a round"
    path.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11" role="img" aria-label="{label}"><rect width="{width}" height="{height}" fill="#fff"/>'
        f"{''.join(shapes)}</svg>\n",
        encoding="utf-8",
    )


def _panel(rows: Sequence[Row], arms: Sequence[str], title: str) -> str:
    points = {arm: _point([row for row in rows if row["arm"] == arm]) for arm in arms}
    scores = [score for _, score, _ in points.values()]
    ticks = linear_ticks(min(scores) - 0.01, max(scores) + 0.01, 5)
    sizes = [size for size, _, _ in points.values() if size]
    low, high = math.floor(math.log10(min(sizes))), math.ceil(math.log10(max(sizes)))
    shapes = [_text(8, 18, title, "start", "#222", bold=True), _text(8, 36, "balanced accuracy", "start")]
    for tick in ticks:
        at = _y(tick, ticks)
        shapes.append(f'<path d="M{_LEFT} {at}H{_RIGHT}" stroke="#e3e3e3"/>')
        shapes.append(_text(_LEFT - 6, at + 4, f"{tick:.10g}", "end"))
    for power in range(low, high + 1):
        at = _x(10.0**power, low, high)
        shapes.append(f'<path d="M{at} {_BOTTOM}v4" stroke="#555"/>')
        shapes.append(_text(at, _BOTTOM + 18, _power(power), "middle"))
    shapes.append(_text((_LEFT + _RIGHT) / 2, _BOTTOM + 38, "bytes a plant exchanges per round", "middle"))
    heights = spread([_y(points[arm][1], ticks) for arm in arms], [13.0] * len(arms), _TOP - 12, _BOTTOM + 10)
    for number, (arm, height) in enumerate(zip(arms, heights, strict=True)):
        shapes += _arm(arm, points[arm], ticks, (low, high), height, _COLOURS[number % len(_COLOURS)])
    return "".join(shapes)


def _point(rows: Sequence[Row]) -> tuple[float, float, float]:
    """Return bytes (0 where none are exchanged), accuracy and its standard error, over all numbers of plants."""
    scores = [score for row in rows for score in row["scores"]]
    error = statistics.stdev(scores) / len(scores) ** 0.5 if len(scores) > 1 else 0.0
    sent = [row["bytes_up"] + row["bytes_down"] for row in rows if row["bytes_up"] is not None]
    return (statistics.mean(sent) if sent else 0.0), statistics.mean(scores), error


def _arm(
    arm: str, point: tuple[float, float, float], ticks: Sequence[float], powers: tuple[int, int], height: float,
    colour: str,
) -> list[str]:  # fmt: skip
    size, score, error = point
    y = _y(score, ticks)
    if size:
        x = _x(size, *powers)
        top, bottom = (min(max(_y(score + sign * error, ticks), _TOP), _BOTTOM) for sign in (1, -1))
        shapes = [
            f'<path d="M{x} {top}V{bottom}" stroke="{colour}"/>',
            f'<circle cx="{x}" cy="{y}" r="4" fill="{colour}"><title>{escape(arm)} {score:.3f}</title></circle>',
        ]
    else:
        x = _RIGHT
        shapes = [f'<path d="M{_LEFT} {y}H{_RIGHT}" stroke="{colour}" stroke-dasharray="4 3"/>']
    leader = f'<path d="M{x + 5} {y}L{_RIGHT + 8} {height:.1f}" stroke="{colour}" stroke-width="0.5" fill="none"/>'
    return [*shapes, leader, _text(_RIGHT + 11, height + 4, f"{arm} {score:.3f}", "start", colour)]


def _x(size: float, low: int, high: int) -> float:
    return round(_LEFT + 8 + (math.log10(size) - low) / (high - low) * (_RIGHT - _LEFT - 16), 1)


def _y(score: float, ticks: Sequence[float]) -> float:
    return round(_BOTTOM - (score - ticks[0]) / (ticks[-1] - ticks[0]) * (_BOTTOM - _TOP), 1)


def _power(power: int) -> str:
    unit, less = next((u, n) for u, n in (("GB", 9), ("MB", 6), ("kB", 3), ("B", 0)) if power >= n)
    return f"{10 ** (power - less)} {unit}"


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#555", *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}"{weight}>{escape(text)}</text>'

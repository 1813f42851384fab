"""The plot of `make bench-train`: balanced accuracy by images per class, and by density, as one SVG file."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from fedsparse.cli.svg import Scale, linear_ticks, spread

COLOURS = {"sparse": "#0a6e5c", "full": "#7a4fb5", "lora": "#c2560c", "probe": "#5f6b7a"}
_WIDTH, _HEIGHT = 460, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 54, 316, 58, 276


@dataclass(frozen=True)
class Line:
    """One arm's points: x, mean, standard error."""

    name: str
    colour: str
    points: Sequence[tuple[float, float, float]]
    dashed: bool = False


def write_plot(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], path: Path) -> None:
    """Write both panels beside each other."""
    few = [
        Line(names[arm], colour, [_point(row, row["per_class"]) for row in _few(rows, arm)])
        for arm, colour in COLOURS.items()
    ]
    by_density = []
    for problem, dashed in (("images", False), ("texts", True)):
        points = sorted(_point(row, 100 * row["density"]) for row in _whole(rows, "sparse", problem))
        by_density.append(Line(f"sparse, {problem}", COLOURS["sparse"], points, dashed))
        for row in _whole(rows, "full", problem) if points else []:
            ends = [(points[end][0], row["balanced_accuracy"], 0.0) for end in (0, -1)]
            by_density.append(Line(f"full, {problem}", COLOURS["full"], ends, dashed))
    panels = [
        _panel(few, "Few samples: solar cells", "training images per class", 0, lambda x: f"{x:.0f}"),
        _panel(by_density, "How sparse: all training samples", "density, %", _WIDTH, lambda x: f"{x:g}"),
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * _WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12" role="img" aria-label="Balanced accuracy by training images per class and by density">'
        f'<rect width="{2 * _WIDTH}" height="{_HEIGHT}" fill="#fff"/>'
    )
    path.write_text(head + "".join(panels) + "</svg>\n", encoding="utf-8")


def _few(rows: Sequence[Mapping[str, Any]], arm: str) -> list[Mapping[str, Any]]:
    return sorted(
        (row for row in rows if row["arm"] == arm and row["per_class"]), key=lambda row: row["per_class"]
    )


def _whole(rows: Sequence[Mapping[str, Any]], arm: str, problem: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["arm"] == arm and row["problem"] == problem and not row["per_class"]]


def _point(row: Mapping[str, Any], x: float) -> tuple[float, float, float]:
    return x, row["balanced_accuracy"], row["standard_error"]


def _panel(lines: Sequence[Line], title: str, axis: str, left: int, tick: Callable[[float], str]) -> str:
    lines = [line for line in lines if line.points]
    points = [point for line in lines for point in line.points]
    if not points:
        return ""
    xs = sorted({x for x, _, _ in points})
    x = Scale(xs[0], xs[-1], left + _LEFT + 12, left + _RIGHT - 8, log=True)
    ticks = linear_ticks(min(m - e for _, m, e in points), max(m + e for _, m, e in points), 6)
    y = Scale(ticks[0], ticks[-1], _BOTTOM, _TOP)
    parts = [_text(left + 8, 20, title, weight="bold"), _text(left + 8, 40, "balanced accuracy", fill="#555")]
    for value in ticks:
        parts.append(f'<path d="M{left + _LEFT} {y(value)}H{left + _RIGHT}" stroke="#e3e3e3"/>')
        parts.append(_text(left + _LEFT - 8, y(value) + 4, f"{value:.10g}", anchor="end"))
    for value in xs:
        parts.append(f'<path d="M{x(value)} {_BOTTOM}v4" stroke="#555"/>')
        parts.append(_text(x(value), _BOTTOM + 18, tick(value), anchor="middle"))
    parts.append(_text(left + (_LEFT + _RIGHT) / 2, _BOTTOM + 40, axis, anchor="middle", fill="#555"))
    parts += [_line(line, x, y) for line in lines]
    ends = [y(line.points[-1][1]) for line in lines]
    for line, centre in zip(lines, spread(ends, [16.0] * len(lines), _TOP - 12, _BOTTOM + 12), strict=True):
        parts.append(_text(left + _RIGHT + 8, round(centre + 4, 1), line.name, fill=line.colour))
    return "".join(parts)


def _line(line: Line, x: Scale, y: Scale) -> str:
    dash = ' stroke-dasharray="5 4"' if line.dashed else ""
    path = "".join(f"{'L' if i else 'M'}{x(at)} {y(mean)}" for i, (at, mean, _) in enumerate(line.points))
    parts = [f'<path d="{path}" fill="none" stroke="{line.colour}" stroke-width="2"{dash}/>']
    for at, mean, error in line.points:
        if error and math.isfinite(error):
            parts.append(f'<path d="M{x(at)} {y(mean - error)}V{y(mean + error)}" stroke="{line.colour}"/>')
        if len(line.points) > 2:
            parts.append(f'<circle cx="{x(at)}" cy="{y(mean)}" r="3" fill="{line.colour}"/>')
    return "".join(parts)


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", fill: str = "#222", weight: str = "normal"
) -> str:
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{fill}" font-weight="{weight}">{escape(text)}</text>'
    )

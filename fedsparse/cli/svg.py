"""What a plot is drawn with: scales, ticks, axes and labels, as paths and texts for the page's template."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 584, 330
LEFT, RIGHT, TOP, BOTTOM = 58, 404, 44, 282  # of the area inside the axes
_LINE = 15.0  # height of a line of text


@dataclass(frozen=True)
class Shape:
    """A path with its CSS classes; ``hint`` is what a pointer resting on it is told."""

    css: str
    path: str
    hint: str = ""


@dataclass(frozen=True)
class Text:
    """A text at a point; its CSS classes say how it is anchored there."""

    css: str
    x: float
    y: float
    text: str
    japanese: bool = False


@dataclass(frozen=True)
class Label:
    """Names what ends at height ``y``, to the right of the plot, on one line or two."""

    css: str
    y: float
    english: str
    japanese: str = ""

    @property
    def height(self) -> float:
        """Height of the box it needs."""
        return _LINE * (2 if self.japanese else 1) + 3


@dataclass(frozen=True)
class Scale:
    """Maps [low, high] onto [start, end], logarithmically if asked; an empty range onto the middle."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return where ``value`` lies, to a tenth of a unit."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log10(low), math.log10(high), math.log10(value)
        share = (value - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 1)


@dataclass
class Plot:
    """One drawing in a box of ``WIDTH`` × ``HEIGHT``; ``description`` says in words what it shows."""

    name: str
    title: str
    description: str
    shapes: list[Shape] = field(default_factory=list)
    texts: list[Text] = field(default_factory=list)

    def vertical_axis(self, y: Scale, ticks: Iterable[tuple[float, str]], english: str, japanese: str) -> None:
        """Draw a grid line and a figure per tick, and what is measured above them."""
        for value, text in ticks:
            self.shapes.append(Shape("grid", f"M{LEFT} {y(value)}H{RIGHT}"))
            self.texts.append(Text("tick end", LEFT - 8, y(value) + 4, text))
        self.texts += [Text("tick", 4, 14, english), Text("tick", 4, 29, japanese, japanese=True)]

    def round_axis(self, x: Scale) -> None:
        """Draw the axis of rounds, with as many whole numbers as have room."""
        first, last = math.ceil(x.low), math.floor(x.high)
        step = next(step for step in _whole_steps() if (last - first) / step <= 12)
        self.shapes.append(Shape("axis", f"M{LEFT} {BOTTOM}H{RIGHT}"))
        for number in range(first, last + 1):
            if number % step == 0 or first == last:
                self.shapes.append(Shape("axis", f"M{x(number)} {BOTTOM}v4"))
                self.texts.append(Text("tick middle", x(number), BOTTOM + 18, str(number)))
        middle = (LEFT + RIGHT) / 2
        self.texts.append(Text("tick middle", middle, BOTTOM + 38, "Round ラウンド"))

    def label(self, labels: Sequence[Label]) -> None:
        """Write the labels at the right edge, moved apart where they would overlap."""
        heights = [label.height for label in labels]
        for label, centre in zip(
            labels, spread([label.y for label in labels], heights, TOP - 30, BOTTOM + 16), strict=True
        ):
            self.shapes.append(Shape(f"leader {label.css}", f"M{RIGHT + 2} {label.y}L{RIGHT + 12} {centre:.1f}"))
            top = centre - (_LINE / 2 if label.japanese else 0) + 4
            self.texts.append(Text(f"label {label.css}", RIGHT + 16, round(top, 1), label.english))
            if label.japanese:
                second = Text(
                    f"label {label.css}", RIGHT + 16, round(top + _LINE, 1), label.japanese, japanese=True
                )
                self.texts.append(second)


def linear_ticks(low: float, high: float, count: int) -> list[float]:
    """Return about ``count`` round numbers (1, 2 or 5 times a power of ten apart) around [low, high]."""
    rough = max(high - low, 1e-6) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 10) for index in range(first, max(last, first + 1) + 1)]


def spread(centres: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Move centres apart until boxes of these heights no longer overlap within [low, high].

    Pushing down and pushing up each give a placement without overlap; so does the mean of the two, for the
    conditions are linear, and it favours neither side.
    """
    order = sorted(range(len(centres)), key=lambda index: centres[index])
    ascending = [centres[index] for index in order]
    tall = [heights[index] for index in order]
    down = _pushed(ascending, tall, low, high)
    up = _pushed([-centre for centre in reversed(ascending)], tall[::-1], -high, -low)
    placed = dict(zip(order, ((a - b) / 2 for a, b in zip(down, reversed(up), strict=True)), strict=True))
    return [placed[index] for index in range(len(centres))]


def _pushed(centres: Sequence[float], heights: Sequence[float], low: float, high: float) -> list[float]:
    """Push ascending centres onwards where they overlap, then back where they leave the range."""
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


def _whole_steps() -> Iterable[int]:
    """Yield 1, 2, 5, 10, 20, 50 and so on."""
    power = 1
    while True:
        yield from (power, 2 * power, 5 * power)
        power *= 10

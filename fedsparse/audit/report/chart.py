"""A small bar chart of what left by round, as numbers for the page's SVG."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedsparse.audit.budget import RoundBudget
from fedsparse.audit.report.words import size

WIDTH, HEIGHT = 720, 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 712, 12, 156
_MOST_BARS = 48
_TICKS = 4


@dataclass(frozen=True)
class Rounds:
    """One round, or several that follow each other, as one line of the table and one bar.

    Attributes:
        label: "7", "7–12", or "2: 7" in the second run.
        updates, reasons, bytes, bits: sums.
        cumulative: bits up to the end.
        samples: fewest training images behind an update; 0 where none left.
    """

    label: str
    updates: int
    reasons: int
    bytes: int
    bits: int
    cumulative: int
    samples: int


@dataclass(frozen=True)
class Bar:
    """A rectangle and what it stands for; coordinates in units of the drawing."""

    x: float
    y: float
    width: float
    height: float
    hint: str
    label: str


@dataclass(frozen=True)
class Tick:
    """A line across, and its figure."""

    y: float
    text: str


@dataclass(frozen=True)
class Chart:
    """Everything that is drawn."""

    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]


def by_rounds(rounds: Sequence[RoundBudget]) -> tuple[Rounds, ...]:
    """Put so many rounds together that the page has room for all."""
    width = -(-len(rounds) // _MOST_BARS) or 1
    return tuple(_together(rounds[at : at + width]) for at in range(0, len(rounds), width))


def chart_of(groups: Sequence[Rounds]) -> Chart:
    """Return bars for the payload bytes of each group."""
    top = _ceiling(max((one.bytes for one in groups), default=0))
    step = (_RIGHT - _LEFT) / max(len(groups), 8)
    every = -(-len(groups) // 12) or 1
    bars = tuple(
        Bar(
            round(_LEFT + step * (place + 0.14), 1),
            round(_BOTTOM - one.bytes / top * (_BOTTOM - _TOP), 1),
            round(step * 0.72, 1),
            round(one.bytes / top * (_BOTTOM - _TOP), 1),
            f"{one.label}: {one.bytes:,} B",
            one.label if place % every == 0 else "",
        )
        for place, one in enumerate(groups)
    )
    return Chart(bars, tuple(_ticks(top)))


def _ticks(top: int) -> Iterator[Tick]:
    for number in range(_TICKS + 1):
        value = top * number // _TICKS
        yield Tick(round(_BOTTOM - value / top * (_BOTTOM - _TOP), 1), size(value))


def _ceiling(value: int) -> int:
    """Return the next number with one or two digits and zeros, divisible by the number of ticks."""
    power = 1
    while power * 40 < value:
        power *= 10
    return next(power * factor for factor in (4, 8, 12, 16, 20, 24, 32, 40) if power * factor >= value)


def _together(some: Sequence[RoundBudget]) -> Rounds:
    first, last = some[0], some[-1]
    return Rounds(
        label=_label(first) if first is last else f"{_label(first)}–{_label(last)}",
        updates=sum(one.updates for one in some),
        reasons=sum(one.reasons for one in some),
        bytes=sum(one.bytes for one in some),
        bits=sum(one.bits for one in some),
        cumulative=last.cumulative,
        samples=min((one.samples for one in some if one.samples), default=0),
    )


def _label(one: RoundBudget) -> str:
    return str(one.round) if one.run == 1 else f"{one.run}: {one.round}"

"""Shares, their differences, and areas, with 95 % intervals from closed forms that hold for few samples."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

_Z = 1.959964  # of the normal distribution, two-sided 95 %
_HALVINGS = 60


@dataclass(frozen=True)
class Rate:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def share(successes: float, trials: int) -> Rate:
    """Return successes / trials with Wilson's score interval (1927); unlike ± 2 σ it never has length 0.

    Args:
        successes: may be a mean over several countings of the same trials.
    """
    p, spread = successes / trials, _Z**2 / trials
    centre = (p + spread / 2) / (1 + spread)
    half = math.sqrt(spread * p * (1 - p) + spread**2 / 4) / (1 + spread)
    return Rate(p, max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half)))


def difference(one: Rate, other: Rate) -> Rate:
    """Return ``one`` - ``other``, shares of two samples, by Newcombe's hybrid score interval (1998, method 10)."""
    value = one.value - other.value
    below = math.hypot(one.value - one.low, other.high - other.value)
    above = math.hypot(one.high - one.value, other.value - other.low)
    return Rate(value, value - below, value + above)


def area(value: float, positives: int, negatives: int) -> Rate:
    """Return an area under the ROC curve with its interval (Newcombe 2006, method 5).

    It solves |A - value| = z · σ(A), with Hanley and McNeil's σ at the true area A and not at the estimate, which
    would be certain of 0 and 1 after a handful of samples.
    """
    common = (positives + negatives) / 2 - 1

    def excess(a: float) -> float:
        spread = 1 + common * ((1 - a) / (2 - a) + a / (1 + a))
        return (a - value) ** 2 - _Z**2 * a * (1 - a) * spread / (positives * negatives)

    return Rate(value, _root(excess, value, 0.0), _root(excess, value, 1.0))


def _root(excess: Callable[[float], float], inside: float, outside: float) -> float:
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        if excess(middle) > 0:
            outside = middle
        else:
            inside = middle
    return inside

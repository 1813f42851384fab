"""What each part of the suite gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.report import Claim


@dataclass(frozen=True)
class Part:
    """One part of `make attacks-audit`.

    Attributes:
        name: e.g. "mutations".
        settings: everything that decides its figures, seeds included.
        rows: its table, one mapping for each line, all with the same keys.
        claims: its figures beside their aims.
        notes: sentences for the page, each a caveat or a statement of what cannot be shown.
    """

    name: str
    settings: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    claims: Sequence[Claim]
    notes: Sequence[str] = ()


def upper_bound(failures: int, trials: int) -> float:
    """Return the 95 % upper confidence bound of a failure rate (Clopper and Pearson 1934)."""
    if failures >= trials:
        return 1.0
    low, high = failures / trials, 1.0
    for _ in range(60):  # bisection; for none in N it is 1 - 0.05 ** (1 / N), about 3 / N
        middle = (low + high) / 2
        if _at_most(failures, trials, middle) > 0.05:
            low = middle
        else:
            high = middle
    return high


def _at_most(failures: int, trials: int, rate: float) -> float:
    """Return the probability of so few failures (binomial)."""
    term = (1 - rate) ** trials
    total = term
    for count in range(failures):
        term *= (trials - count) / (count + 1) * rate / (1 - rate)
        total += term
    return total

"""How each update looks beside the others of its round, and which are left out of the merge for it.

A plant that is wrong, by fault or by intent, stands out by the size of its update or by where it points; one that
imitates the others does not, and is bounded by the rule alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from fedsparse.aggregation.holders import Holders, Vector

LEAST = 4
"""Updates that a round must have for one to stand out: of three, two that differ leave no telling who is right."""


class Quarantine(StrEnum):
    """Why an update is left out."""

    NORM = "norm"
    DIRECTION = "direction"


@dataclass(frozen=True)
class Limits:
    """What an update may look like; None sets no limit.

    Attributes:
        max_norm: its norm, in medians of the round's norms, above 1.
        min_cosine: its cosine to the sum of the round's other updates, in [-1, 1).
    """

    max_norm: float | None = None
    min_cosine: float | None = None


UNLIMITED = Limits()


@dataclass(frozen=True)
class Standing:
    """One update beside the others of its round.

    Attributes:
        digest: SHA-256 of the update's bytes.
        norm: in medians of the round's norms.
        cosine: to the sum of the others, each scaled down to the median norm where it is longer; 0 where there is
            none, or nothing in common.
        reason: why it is left out of the merge; None where it is not.
    """

    digest: bytes
    norm: float
    cosine: float
    reason: Quarantine | None = None


class Directions:
    """Collects what the cosines need, a stretch of coordinates at a time.

    Args:
        norms: of the updates, (n,), as they are summed.
    """

    def __init__(self, norms: Sequence[float]) -> None:
        self._norms = np.array(norms)
        self._products = np.zeros(len(norms))  # of each update with the sum of all
        self._squares = 0.0

    def add(self, holders: Holders, names: Sequence[int]) -> None:
        """Take the updates' values at some coordinates.

        Args:
            holders: each of weight 1.
            names: which update each of the holders' owners is, from 0.
        """
        total, _ = holders.sums()
        terms = holders.values * total[holders.places]
        self._products[names] += np.bincount(holders.owners, terms, len(names))
        self._squares += float(total @ total)

    def cosines(self) -> Vector:
        """Return each update's cosine to the sum of the others, (n,)."""
        own = self._norms**2
        others = np.maximum(self._squares - 2 * self._products + own, 0.0)
        lengths = self._norms * np.sqrt(others)
        # Where nothing but rounding is left of the others, there is no direction to compare with.
        there = (others > 1e-9 * self._squares) & (own > 0)
        found: Vector = np.divide(self._products - own, lengths, where=there, out=np.zeros_like(own))
        return np.clip(found, -1.0, 1.0)


def in_medians(norms: Sequence[float]) -> list[float]:
    """Return the norms in multiples of their median; those of 0 have no say in it."""
    median = statistics.median([norm for norm in norms if norm > 0] or [1.0])
    return [norm / median for norm in norms]


def judge(standings: Sequence[Standing], limits: Limits) -> tuple[Standing, ...]:
    """Return the standings with the reason of each that is left out.

    Fewer than half of a round's updates are ever left out, the worst first: where more stand out, the limits are
    wrong, or honest plants differ that much. In a round of fewer than :data:`LEAST` updates none is.
    """
    if len(standings) < LEAST:
        return tuple(standings)
    suspects = [(severity, number, reason) for number, one in enumerate(standings)
                for severity, reason in [_severity(one, limits)] if reason is not None]  # fmt: skip
    worst = sorted(suspects, key=lambda suspect: (-suspect[0], standings[suspect[1]].digest))
    reasons = {number: reason for _, number, reason in worst[: (len(standings) - 1) // 2]}
    return tuple(
        Standing(one.digest, one.norm, one.cosine, reasons.get(number)) for number, one in enumerate(standings)
    )


def _severity(one: Standing, limits: Limits) -> tuple[float, Quarantine | None]:
    """Return how far out an update stands, and in which respect; too long is worse than any direction."""
    if limits.max_norm is not None and one.norm > limits.max_norm:
        return 2.0 + one.norm, Quarantine.NORM
    if limits.min_cosine is not None and one.cosine < limits.min_cosine:
        return -one.cosine, Quarantine.DIRECTION
    return 0.0, None

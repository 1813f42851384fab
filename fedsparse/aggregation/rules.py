"""Mask-aware merging rules: from what the holders of a coordinate sent to its step.

With N the weighted sum of the values of those who hold it, D the sum of their weights, and W that of all plants in
the round: dividing by D trusts a lone holder fully; dividing by W counts everybody else as a zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from fedsparse.aggregation.agreement import Agreement
from fedsparse.aggregation.holders import Holders, Vector
from fedsparse.errors import ConfigError


class Rule(Protocol):
    """Turns what a round's updates say of some coordinates into their steps."""

    def merge(self, holders: Holders) -> Vector:
        """Return the step at every coordinate of ``holders.union``, (k,)."""


def _require_strength(strength: float) -> None:
    if not 0 <= strength <= 1:
        raise ConfigError(f"the rule's strength is {strength}", "Choose it between 0 and 1")


@dataclass(frozen=True)
class Mean:
    """N / (D + strength · (W - D)): a rule that needs nothing but the sums.

    Attributes:
        strength: λ in [0, 1]; at 0 the divisor is D itself, at 1 it is W itself.
    """

    strength: float

    def __post_init__(self) -> None:
        _require_strength(self.strength)

    def merge(self, holders: Holders) -> Vector:
        """Return the step by the formula."""
        weighted, held = holders.sums()
        divisor = holders.total if self.strength == 1 else held + self.strength * (holders.total - held)
        return weighted / divisor


holders_mean = Mean(0.0)
"""N / D: the mean over the plants that hold the coordinate."""

zero_fill = Mean(1.0)
"""N / W: plants without the coordinate count as zeros (FLASC, https://arxiv.org/abs/2406.05233)."""


def shrunk(strength: float) -> Mean:
    """Return N / (D + strength · (W - D)): between holders' mean (0) and zero-fill (1).

    Args:
        strength: λ in [0, 1].
    """
    return Mean(strength)


@dataclass(frozen=True)
class ShrunkByData:
    """The shrunk rule, whose strength each round's updates decide; see :class:`Agreement`."""

    def of(self, agreement: Agreement, plants: float) -> Mean:
        """Return the rule for a round."""
        return shrunk(agreement.strength(plants))


@dataclass(frozen=True)
class SignElected:
    """The mean over those who agree with the sign of N, shrunk by all who disagree or do not hold the coordinate.

    TIES-Merging, https://arxiv.org/abs/2306.01708: the election and the disjoint mean; the updates are sparse
    already, so there is nothing to trim.

    Attributes:
        strength: λ in [0, 1]; 0 is the paper's.
    """

    strength: float = 0.0

    def __post_init__(self) -> None:
        _require_strength(self.strength)

    def merge(self, holders: Holders) -> Vector:
        """Return the step at every coordinate; 0 where the signs are in balance."""
        up, for_up = holders.sums(holders.values > 0)
        down, for_down = holders.sums(holders.values < 0)
        rising = up + down > 0
        agreed = np.where(rising, for_up, for_down)
        divisor = agreed + self.strength * (holders.total - agreed)
        step = np.divide(np.where(rising, up, down), divisor, where=divisor > 0, out=np.zeros_like(divisor))
        return np.where(up + down == 0, 0.0, step)


@dataclass(frozen=True)
class TrimmedMean:
    """The mean over holders without the lowest and highest of them; weights do not count.

    Yin et al. 2018, https://arxiv.org/abs/1803.01498. A coordinate of few holders is not protected, that of a lone
    one not at all: demand a least number of holders.

    Attributes:
        share: of the holders that is left out at either end, in [0, 1/2]; 1/2 is the median.
    """

    share: float

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 0.5:
            raise ConfigError(f"the trimmed mean's share is {self.share}", "Choose it between 0 and 0.5")

    def merge(self, holders: Holders) -> Vector:
        """Return the step at every coordinate."""
        return np.concatenate([self._of(np.sort(table, axis=1)) for table in holders.tables()])

    def _of(self, ordered: Vector) -> Vector:
        held = ordered.shape[1] - np.isnan(ordered).sum(axis=1)  # NaN sorts last
        left = np.minimum(np.floor(self.share * held), (held - 1) // 2)
        place = np.arange(ordered.shape[1])
        inside = (place >= left[:, None]) & (place < (held - left)[:, None])
        inner: Vector = np.where(inside, ordered, 0.0).sum(axis=1) / (held - 2 * left)
        return inner


def rule_named(name: str, strength: float | Literal["auto"]) -> Rule | ShrunkByData:
    """Return the rule that federation.toml calls ``name``.

    Raises:
        ConfigError: there is none of that name, or it does not take that strength.
    """
    if strength == "auto":
        if name == "shrunk":
            return ShrunkByData()
        strength = 0.0
    rules: dict[str, Callable[[], Rule]] = {
        "holders-mean": lambda: holders_mean,
        "zero-fill": lambda: zero_fill,
        "shrunk": lambda: shrunk(strength),
        "sign-elected": lambda: SignElected(strength),
        "trimmed-mean": lambda: TrimmedMean(strength),
        "median": lambda: TrimmedMean(0.5),
    }
    if name not in rules:
        raise ConfigError(f"no merging rule is called {name!r}", f"Choose one of {', '.join(rules)}")
    return rules[name]()

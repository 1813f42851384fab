"""How the updates of a round become a step, and how the operator's settings say it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedsparse.aggregation.lateness import Lateness
from fedsparse.aggregation.review import UNLIMITED, Limits
from fedsparse.aggregation.rules import Rule, ShrunkByData, rule_named
from fedsparse.config import AggregationSettings

Weighing = Callable[[int], float]
"""From the samples that an update claims behind it to its weight, above 0."""


def by_samples(samples: int) -> float:
    """Weigh by what is claimed."""
    return float(samples)


def by_plant(samples: int) -> float:
    """Weigh every plant alike, whatever it claims."""
    return 1.0


def capped(most: int) -> Weighing:
    """Weigh by what is claimed, up to ``most`` samples."""
    return lambda samples: float(min(samples, most))


@dataclass(frozen=True)
class Policy:
    """How the updates of a round become a step.

    Attributes:
        rule: from a coordinate's holders to its step.
        weighing: from claimed samples to weight.
        norm_bound: an update whose norm is larger than so many times the median of the round's is scaled down to
            that, and so is its part of a tensor that most hold; from three on; None leaves all as they are. See
            :mod:`fedsparse.aggregation.bounds`.
        min_holders: coordinates that fewer updates hold do not move.
        limits: updates that look otherwise are left out; see :meth:`Accumulator.reviewed`.
        late: which updates count after their round was closed; None drops them.
    """

    rule: Rule | ShrunkByData
    weighing: Weighing = by_samples
    norm_bound: float | None = None
    min_holders: int = 1
    limits: Limits = UNLIMITED
    late: Lateness | None = None

    @classmethod
    def of(cls, settings: AggregationSettings) -> Policy:
        """Return what the operator's settings say."""
        weighing: Weighing = by_plant if settings.weigh_by == "plants" else by_samples
        return cls(
            rule_named(settings.rule, settings.strength),
            weighing if settings.max_samples is None else capped(settings.max_samples),
            settings.norm_bound,
            settings.min_holders,
            Limits(settings.max_norm, settings.min_cosine),
            Lateness.of(settings),
        )

"""Updates that arrive after their round was closed: which of them still count, and how much.

A late update was trained from an older version than the one that it is added to. As in FedAsync (Xie et al. 2019,
https://arxiv.org/abs/1903.03934) its values are multiplied by what falls with its staleness. Its weight among the
round's updates stays what it is: a mean divides by the weights, and would undo a factor in them wherever a late
plant is alone with a coordinate.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Self

from fedsparse.config import AggregationSettings
from fedsparse.delta import Mask, TrainingSettings
from fedsparse.errors import DeltaError


@dataclass(frozen=True)
class Asked:
    """What a round asks of its plants, as far as it decides whether an answer still counts in a later one.

    Attributes:
        round: from 1; a round that came to nothing is asked again under its number.
        version: the adapter version that is trained from.
        mask: which coordinates are trained, in words: equal words mean the same ones, or each plant's own.
    """

    round: int
    version: int
    mask: str

    @classmethod
    def of(cls, training: TrainingSettings, round: int, version: int, support: bytes = b"") -> Self:
        """Return what a round asks.

        Args:
            training: of that round.
            round: its number.
            version: that it starts from.
            support: the coordinates that all train, encoded; empty where each plant chooses or draws them.
        """
        return cls(round, version, _mask(training, round, support))


def _mask(training: TrainingSettings, round: int, support: bytes) -> str:
    if training.mask is Mask.LOCAL:
        return "each plant's own"
    if training.mask is Mask.SEEDED:
        return f"draw {(round - 1) // training.revote + 1}"
    if not support:
        return f"the vote of round {round}"
    return f"the vote that led to {sha256(support).hexdigest()[:16]}"


@dataclass(frozen=True)
class Lateness:
    """Which late updates are merged, and with what weight.

    Attributes:
        exponent: a of the weight (1 + s)^-a of an update that is s rounds late; 0 weighs all alike.
        max_staleness: most rounds that may have been committed since the one that asked for it.
    """

    exponent: float
    max_staleness: int

    @classmethod
    def of(cls, settings: AggregationSettings) -> Lateness | None:
        """Return what the operator's settings say; None where late updates are dropped."""
        if settings.late == "drop":
            return None
        return cls(settings.staleness_exponent, settings.max_staleness)

    def weight(self, staleness: int) -> float:
        """Return what the values of an update that is so many rounds late are multiplied by, in (0, 1]."""
        return float((1 + staleness) ** -self.exponent)

    def staleness(self, asked: Asked, now: Asked) -> int:
        """Return how many rounds late an answer to ``asked`` is in the round ``now``.

        Raises:
            DeltaError: it does not count there; says why.
        """
        stale = now.round - asked.round
        if stale < 0 or asked.version > now.version:
            raise DeltaError(
                f"the update is for round {asked.round} from version {asked.version}, "
                f"this is round {now.round} from version {now.version}"
            )
        if stale > self.max_staleness:
            raise DeltaError(
                f"the update is for round {asked.round}, {stale} rounds before round {now.round}; "
                f"at most {self.max_staleness} are merged"
            )
        if asked.mask != now.mask:
            raise DeltaError(
                f"the update is for round {asked.round}, whose coordinates are {asked.mask}; "
                f"those of round {now.round} are {now.mask}"
            )
        return stale

"""How a plant trains in one round, as the strategy asks for it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self

from fedsparse.delta.value import ValueCoding
from fedsparse.errors import DeltaError


class Structure(IntEnum):
    """What is chosen whole; see round.proto."""

    UNSTRUCTURED = 1
    ROW = 2


class Allocation(IntEnum):
    """How the density is spread over the tensors; see round.proto."""

    GLOBAL = 1
    UNIFORM = 2
    EARLY = 3


class Mask(IntEnum):
    """Who chooses the coordinates; see round.proto."""

    LOCAL = 1
    SEEDED = 2
    CONSENSUS = 3


@dataclass(frozen=True)
class TrainingSettings:
    """How to train in this round; see ``[training]`` in federation.toml."""

    density: float
    epochs: int
    batch_size: int
    learning_rate: float
    head_learning_rate: float
    seed: int
    value_coding: ValueCoding = ValueCoding.INT8
    upload_density: float = 1.0
    structure: Structure = Structure.UNSTRUCTURED
    allocation: Allocation = Allocation.GLOBAL
    mask: Mask = Mask.LOCAL
    revote: int = 1

    def __post_init__(self) -> None:
        rates = (self.learning_rate, self.head_learning_rate)
        if not all(0 < share <= 1 for share in (self.density, self.upload_density, *rates)):
            raise DeltaError("densities and learning rates must be above 0 and at most 1")
        if not (0 < self.epochs <= 1000 and 0 < self.batch_size <= 4096 and 0 <= self.seed < 1 << 63):
            raise DeltaError("epochs must be 1 to 1000, batch_size 1 to 4096, seed below 2^63")
        if not 0 < self.revote <= 100_000:
            raise DeltaError(f"revote must be 1 to 100000, not {self.revote}")

    @classmethod
    def named(cls, *, value_coding: str, structure: str, allocation: str, mask: str, **others: Any) -> Self:
        """Return the settings of a configuration, which names kinds in lower case."""
        return cls(
            value_coding=ValueCoding[value_coding.upper()],
            structure=Structure[structure.upper()],
            allocation=Allocation[allocation.upper()],
            mask=Mask[mask.upper()],
            **others,
        )

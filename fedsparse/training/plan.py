"""The stages of progressive fine-tuning where the settings name none: head, then few coordinates, then all."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from fedsparse.config import DENSITY_BY_KIND, StageSettings, TrainSettings
from fedsparse.delta import AdapterSpace
from fedsparse.errors import ConfigError


@dataclass(frozen=True)
class _Step:
    """A stage as a share of what is asked for; ``share`` is of the density, 0 trains the head alone."""

    name: str
    share: float
    epochs: int
    learning_rate: float
    head_learning_rate: float


_PLAN = (
    #     name     share  epochs  rate  head's rate
    _Step("head", 0.0, 3, 3e-3, 3e-3),
    _Step("few", 0.2, 4, 1e-3, 1e-3),
    _Step("final", 1.0, 8, 1e-3, 1e-3),
)


def default_stages(settings: TrainSettings, kind: str, dense: float) -> tuple[StageSettings, ...]:
    """Return the stages that the settings name, or the default ones towards their density.

    Args:
        kind: of the adapter: delta, lora or bottleneck; decides the density where none is given.
        dense: of :func:`dense_share`; 0 leaves the head's stage out.

    Raises:
        ConfigError: the density is still to be chosen.
    """
    if settings.stages:
        return settings.stages
    if settings.density == "auto":
        raise ConfigError('density = "auto" is no density yet', "Choose one first")
    target = DENSITY_BY_KIND[kind] if settings.density is None else settings.density
    return tuple(_stage(step, target, dense) for step in _PLAN if step.share or dense)


def dense_share(space: AdapterSpace, dense: Collection[int]) -> float:
    """Return the smallest density that holds the tensors at ``dense`` whole; 0 where there are none."""
    whole = sum(space.tensors[position].size for position in dense)
    return (whole + 0.5) / space.size if whole else 0.0  # the half survives rounding, and rounding down drops it


def _stage(step: _Step, target: float, dense: float) -> StageSettings:
    density = target if step.share == 1 else max(step.share * target, dense) if step.share else 0.0
    return StageSettings(
        name=step.name,
        epochs=step.epochs,
        density=density,
        learning_rate=step.learning_rate,
        head_learning_rate=step.head_learning_rate,
    )

"""The stages of progressive fine-tuning where the settings name none: head, then few coordinates, then all."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from fedsparse.config import DENSITY_BY_KIND, StageSettings, TrainSettings
from fedsparse.delta import AdapterSpace
from fedsparse.errors import ConfigError


@dataclass(frozen=True)
class _Step:
    """A stage as a share of what is asked for; ``share`` is of the density, 0 trains the head alone."""

    name: str
    share: float
    epochs: int


_STEPS = (_Step("head", 0.0, 2), _Step("few", 0.3, 2), _Step("final", 1.0, 12))

# By measurement (README, "Which adapter, how sparse"): where a sensor's images meet a model of photographs, the
# first layers gain most, and whole filters are as good as scattered coordinates; texts gain in all layers.
_HOW: dict[str, dict[str, Any]] = {
    "image-classification": {"structure": "row", "allocation": "early", "learning_rate": 3e-3},
    "text-classification": {"allocation": "uniform", "learning_rate": 3e-3},
    "causal-lm": {"allocation": "uniform", "learning_rate": 3e-3},
}
_SMALL_SPACE: dict[str, Any] = {"learning_rate": 1e-3}  # of lora and bottleneck
_HEAD_RATE = {"image-classification": 1e-3, "text-classification": 3e-3, "causal-lm": 3e-3}


def default_stages(settings: TrainSettings, kind: str, task: str, dense: float) -> tuple[StageSettings, ...]:
    """Return the stages that the settings name, or the default ones towards their density.

    Args:
        kind: of the adapter: delta, lora or bottleneck; decides the density where none is given.
        task: image-classification, text-classification or causal-lm; decides which coordinates are taken.
        dense: of :func:`dense_share`; 0 leaves the head's stage out.

    Raises:
        ConfigError: the density is still to be chosen.
    """
    if settings.stages:
        return settings.stages
    if settings.density == "auto":
        raise ConfigError('density = "auto" is no density yet', "Choose one first")
    target = DENSITY_BY_KIND[kind] if settings.density is None else settings.density
    how = _HOW[task] if kind == "delta" else _SMALL_SPACE
    return tuple(
        StageSettings(
            name=step.name,
            epochs=step.epochs,
            density=_density(step, target, dense),
            head_learning_rate=_HEAD_RATE[task],
            **how,
        )
        for step in _STEPS
        if step.share or dense
    )


def _density(step: _Step, target: float, dense: float) -> float:
    """Return a stage's density: its share is of what the dense tensors leave."""
    if step.share in (0, 1):
        return step.share * target
    return dense + step.share * max(target - dense, 0.0)


def dense_share(space: AdapterSpace, dense: Collection[int]) -> float:
    """Return the smallest density that holds the tensors at ``dense`` whole; 0 where there are none."""
    whole = sum(space.tensors[position].size for position in dense)
    return (whole + 0.5) / space.size if whole else 0.0  # the half survives rounding, and rounding down drops it

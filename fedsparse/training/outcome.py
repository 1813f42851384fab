"""What training reports and yields, and how the best epoch is told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsparse.delta import SparseDelta
from fedsparse.errors import ConfigError
from fedsparse.training.language import LanguageQuality
from fedsparse.training.metrics import METRICS, Quality
from fedsparse.training.tasks import Exam


@dataclass(frozen=True)
class Epoch:
    """What one pass over the training samples yielded.

    Attributes:
        stage: its name.
        number: of the epoch, over all stages, from 1.
        loss: mean over its batches.
        quality: on the hold-out, where there is one.
        nnz: coordinates in training at its end.
        seconds: since training started.
    """

    stage: str
    number: int
    loss: float
    quality: Quality | LanguageQuality | None
    nnz: int
    seconds: float


@dataclass(frozen=True)
class StageEnd:
    """Where a stage led.

    Attributes:
        epoch: its last one.
        delta: the trained values then, operation ADD.
    """

    epoch: Epoch
    delta: SparseDelta


@dataclass(frozen=True)
class Outcome:
    """What training yielded.

    Attributes:
        delta: the trained values, operation ADD: those of the best epoch if there was a hold-out to tell.
        epochs: all that ran.
        best: number of the epoch that the delta is of.
        ends: one per stage.
    """

    delta: SparseDelta
    epochs: tuple[Epoch, ...]
    best: int
    ends: tuple[StageEnd, ...]

    @property
    def loss(self) -> float:
        """Mean over all batches."""
        return float(np.mean([epoch.loss for epoch in self.epochs]))


@dataclass(frozen=True)
class Selection:
    """How the best epoch is told.

    Attributes:
        exam: a set that is not trained on.
        metric: a figure of its quality, see :data:`METRICS`.
        patience: epochs without the stage's best one after which a stage ends, counted from where its density is
            reached; 0: never.

    Raises:
        ConfigError: there is no such figure.
    """

    exam: Exam
    metric: str
    patience: int = 0

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise ConfigError(f"the metric {self.metric!r} is unknown", f"Use one of {', '.join(METRICS)}")

    def better(self, one: Quality | LanguageQuality, other: Quality | LanguageQuality | None) -> bool:
        """Return whether ``one`` is better than ``other``; where the metric is equal or undefined, by the loss."""
        if other is None:
            return True
        mine, its = getattr(one, self.metric, None), getattr(other, self.metric, None)
        if mine is None or its is None or mine == its:
            return one.loss < other.loss
        return bool(mine > its) is METRICS[self.metric]

"""The training engine: stages of sparse training on one site, from a state to a delta."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedsparse.adapters import Adapter
from fedsparse.config import StageSettings
from fedsparse.delta import SparseDelta
from fedsparse.sparsity import Loss, Support, cubic_density, drop_fraction, keep_largest, sparse_budget
from fedsparse.training.metrics import METRICS, Quality
from fedsparse.training.optimiser import Optimiser
from fedsparse.training.selection import Selector
from fedsparse.training.tasks import Exam, LanguageQuality, Task

_DENSITY_CHANGES = 10  # in a stage whose density goes along a schedule


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
        patience: epochs without a better one after which a stage ends; 0: never.
    """

    exam: Exam
    metric: str
    patience: int = 0

    def better(self, one: Quality | LanguageQuality, other: Quality | LanguageQuality | None) -> bool:
        """Return whether ``one`` is better than ``other``; where the metric is equal or undefined, by the loss."""
        if other is None:
            return True
        mine, its = getattr(one, self.metric, None), getattr(other, self.metric, None)
        if mine is None or its is None or mine == its:
            return one.loss < other.loss
        return bool(mine > its) is METRICS[self.metric]


def train(
    adapter: Adapter,
    task: Task,
    state: SparseDelta,
    stages: Sequence[StageSettings],
    *,
    seed: Sequence[int],
    batch_size: int,
    proximal: float = 0.0,
    selection: Selection | None = None,
    watch: Callable[[Epoch], None] = lambda epoch: None,
) -> Outcome:
    """Train through ``stages`` from base + ``state``; the same arguments give the same delta on the same machine.

    Args:
        adapter: its network holds base + ``state`` afterwards.
        task: what is trained on.
        state: operation SET against the untouched base.
        stages: in order; coordinates of earlier ones stay in training in later ones.
        seed: decides the order of the samples, and the coordinates where they are drawn.
        proximal: μ of FedProx.
        selection: which epoch's values are returned; without it, the last one's.
        watch: told of every epoch.

    Raises:
        SpaceMismatchError: the state belongs to another space.
        ConfigError: a stage's density is too small for the dense tensors, or its settings do not fit each other.
        DeltaError: training diverged, a value is NaN or infinite.
    """
    adapter.load(state)
    task.start(adapter.network)
    run = _Run(adapter, task, np.random.default_rng(tuple(seed)), seed[0], batch_size, proximal, selection, watch)
    try:
        for stage in stages:
            run.stage(stage)
        delta = adapter.trained() if run.best_delta is None else run.best_delta
    finally:
        run.end()
    return Outcome(delta, tuple(run.epochs), run.best_number or len(run.epochs), tuple(run.ends))


class _Run:
    """One call of :func:`train`: what has happened so far."""

    def __init__(
        self,
        adapter: Adapter,
        task: Task,
        draw: np.random.Generator,
        seed: int,
        batch_size: int,
        proximal: float,
        selection: Selection | None,
        watch: Callable[[Epoch], None],
    ) -> None:
        self._adapter = adapter
        self._task = task
        self._draw = draw
        self._selector = Selector(adapter, seed)
        self._batch_size = batch_size
        self._proximal = proximal
        self._selection = selection
        self._watch = watch
        self._started = time.monotonic()
        self._optimiser: Optimiser | None = None
        self.epochs: list[Epoch] = []
        self.ends: list[StageEnd] = []
        self.best_delta: SparseDelta | None = None
        self.best_number = 0
        self._best: Quality | LanguageQuality | None = None

    def stage(self, stage: StageSettings) -> None:
        """Run one stage to its end."""
        density = stage.density if stage.start_density is None else stage.start_density
        support = self._selector.choose(stage, density, self._scoring_losses())
        optimiser = self._attach(stage, support)
        per_epoch = -(-self._task.samples // self._batch_size)
        optimiser.plan(stage.epochs * per_epoch)
        best_before, since_best = self.best_number, 0
        for epoch in range(stage.epochs):
            self._epoch(stage, epoch, per_epoch)
            since_best = 0 if self.best_number > best_before else since_best + 1
            best_before = self.best_number
            if self._selection is not None and 0 < self._selection.patience <= since_best:
                break
            if stage.regrow and epoch + 1 < stage.epochs:
                self._regrow(stage, drop_fraction(epoch, stage.epochs, stage.regrow))
        self.ends.append(StageEnd(self.epochs[-1], self._adapter.trained()))

    def end(self) -> None:
        """Take the values off the network."""
        if self._optimiser is not None:
            self._adapter.discard()

    def _attach(self, stage: StageSettings, support: Support) -> Optimiser:
        block = stage.block if stage.structure == "block" else None
        if self._optimiser is None:
            attachment = self._adapter.attach(support, block)
        else:
            attachment, _ = self._adapter.move(support, block)
        self._optimiser = Optimiser(attachment, stage, self._proximal)
        return self._optimiser

    def _move(self, stage: StageSettings, support: Support) -> None:
        """Change the support in mid-stage; what stays keeps its values and moments."""
        assert self._optimiser is not None  # noqa: S101 - a stage is running
        attachment, came_from = self._adapter.move(support, stage.block if stage.structure == "block" else None)
        self._optimiser = self._optimiser.moved(attachment, came_from)

    def _epoch(self, stage: StageSettings, epoch: int, per_epoch: int) -> None:
        losses = []
        changes = _change_steps(stage, per_epoch)
        for index, (samples, variants) in enumerate(self._batches()):
            step = epoch * per_epoch + index
            losses.append(self._step(samples, variants))
            if step in changes:
                self._reach(stage, step, per_epoch * stage.epochs)
        self._note(stage, float(np.mean(losses)))

    def _step(self, samples: NDArray[np.int64], variants: NDArray[np.int64]) -> float:
        assert self._optimiser is not None  # noqa: S101 - a stage is running
        loss = self._task.loss(self._adapter.network, samples, variants, self._draw)
        loss.backward()  # type: ignore[no-untyped-call] # torch's own annotation is missing
        self._optimiser.step()
        self._adapter.push()
        return float(loss.detach())

    def _reach(self, stage: StageSettings, step: int, steps: int) -> None:
        """Shrink or grow the support to the density that the schedule wants after ``step``."""
        assert stage.start_density is not None  # noqa: S101 - only then does the density change
        density = cubic_density(
            step + 1, start_density=stage.start_density, end_density=stage.density, first=0, last=(steps * 9) // 10
        )
        adapter = self._adapter
        budget = sparse_budget(adapter.space, density, adapter.dense)
        if stage.density > stage.start_density:
            support = self._selector.choose(stage, density, self._scoring_losses())
        else:
            support = keep_largest(adapter.support, adapter.values, budget, adapter.dense)
        self._move(stage, support)

    def _regrow(self, stage: StageSettings, fraction: float) -> None:
        self._move(stage, self._selector.regrow(stage, fraction, self._scoring_losses()))

    def _note(self, stage: StageSettings, loss: float) -> None:
        quality = None if self._selection is None else self._selection.exam.quality(self._adapter.network)
        seconds = time.monotonic() - self._started
        nnz = sum(len(indices) for indices in self._adapter.support)
        epoch = Epoch(stage.name, len(self.epochs) + 1, loss, quality, nnz, seconds)
        self.epochs.append(epoch)
        if self._selection is not None and quality is not None and self._selection.better(quality, self._best):
            self._best, self.best_number, self.best_delta = quality, epoch.number, self._adapter.trained()
        self._watch(epoch)

    def _batches(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield positions and variants of one batch after another."""
        positions = self._draw.permutation(self._task.samples)
        variants = self._draw.integers(self._task.variants, size=len(positions))
        for start in range(0, len(positions), self._batch_size):
            batch = slice(start, start + self._batch_size)
            yield positions[batch], variants[batch]

    def _scoring_losses(self) -> list[Loss]:
        """Return the losses of some batches in their first variant, drawn now."""
        positions = self._draw.permutation(self._task.samples)[:SCORED_SAMPLES]
        return [
            self._scoring_loss(positions[start : start + self._batch_size])
            for start in range(0, len(positions), self._batch_size)
        ]

    def _scoring_loss(self, positions: NDArray[np.int64]) -> Loss:
        def loss() -> Tensor:
            draw = np.random.default_rng(0)  # the same at every call, as scores are taken a few tensors at a time
            return self._task.loss(self._adapter.network, positions, np.zeros_like(positions), draw)

        return loss


SCORED_SAMPLES = 256
"""Gradients of so many say which coordinates matter."""


def _change_steps(stage: StageSettings, per_epoch: int) -> frozenset[int]:
    """Return the steps after which the density changes."""
    if stage.start_density is None:
        return frozenset()
    steps = stage.epochs * per_epoch
    return frozenset(round(steps * 0.9 * part / _DENSITY_CHANGES) for part in range(1, _DENSITY_CHANGES + 1))

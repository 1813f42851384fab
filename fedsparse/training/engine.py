"""The training engine: stages of sparse training on one site, from a state to a delta."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsparse.adapters import Adapter
from fedsparse.config import StageSettings
from fedsparse.delta import SparseDelta
from fedsparse.errors import DataError, DeltaError
from fedsparse.sparsity import Support, drop_fraction
from fedsparse.training.batches import Batches
from fedsparse.training.optimiser import Optimiser
from fedsparse.training.outcome import Epoch, Outcome, Selection, StageEnd
from fedsparse.training.selection import Selector
from fedsparse.training.stages import coordinates, density_changes, first_density, require_feasible
from fedsparse.training.tasks import Task

__all__ = ["Epoch", "Outcome", "Selection", "StageEnd", "train"]


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
    support: Support | None = None,
    watch: Callable[[Epoch], None] = lambda epoch: None,
) -> Outcome:
    """Train through ``stages`` from base + ``state``; the same arguments give the same delta on the same machine.

    Args:
        adapter: its network holds base + ``state`` afterwards, also where training fails.
        task: what is trained on.
        state: operation SET against the untouched base.
        stages: in order; coordinates of earlier ones stay in training in later ones, unless they are pruned or
            exchanged.
        seed: decides the order of the samples, and the coordinates where they are drawn.
        proximal: μ of FedProx.
        selection: which epoch's values are returned, of those at no more than the last stage's density; without
            it, the last one's.
        support: what stages of a density above 0 train, whatever their scores and density; chosen without.
        watch: told of every epoch.

    Raises:
        SpaceMismatchError: the state belongs to another space.
        ConfigError: a stage's density is too small for the dense tensors or what is in training already, its
            settings do not fit each other, or all that it would train scores 0.
        DataError: there are no samples.
        DeltaError: training diverged, the loss or a value is NaN or infinite.
    """
    adapter.load(state)
    require_feasible(adapter.space, adapter.dense, stages)
    if not task.samples:
        raise DataError("there is no sample to train on", "Give the site at least one")
    task.start(adapter.network)
    limit = coordinates(adapter.space, adapter.dense, stages[-1].density)
    batches, selector = Batches(task, batch_size, seed), Selector(adapter, seed[0], support)
    run = _Run(adapter, task, batches, selector, proximal, selection, limit, watch)
    try:
        for stage in stages:
            run.stage(stage)
        delta = adapter.trained() if run.best_delta is None else run.best_delta
    finally:
        adapter.discard()
    return Outcome(delta, tuple(run.epochs), run.best_number, tuple(run.ends))


class _Run:
    """One call of :func:`train`: what has happened so far."""

    def __init__(
        self,
        adapter: Adapter,
        task: Task,
        batches: Batches,
        selector: Selector,
        proximal: float,
        selection: Selection | None,
        limit: int,
        watch: Callable[[Epoch], None],
    ) -> None:
        self._adapter = adapter
        self._task = task
        self._batches = batches
        self._selector = selector
        self._proximal = proximal
        self._selection = selection
        self._limit = limit  # coordinates that the best epoch may have
        self._watch = watch
        self._started = time.monotonic()
        self._best: Epoch | None = None
        self.best_delta: SparseDelta | None = None
        self.epochs: list[Epoch] = []
        self.ends: list[StageEnd] = []

    @property
    def best_number(self) -> int:
        """Number of the epoch whose values are returned."""
        return len(self.epochs) if self._best is None else self._best.number

    def stage(self, stage: StageSettings) -> None:
        """Run one stage to its end."""
        steps = stage.epochs * self._batches.per_epoch
        changes = density_changes(stage, steps)
        optimiser = self._begin(stage, steps)
        best: Epoch | None = None
        for number in range(stage.epochs):
            optimiser, loss = self._pass(stage, optimiser, changes)
            epoch = self._note(stage, optimiser, loss)
            if optimiser.done >= max(changes, default=0):
                best = epoch if self._is_better(epoch, best) else best
            if self._has_waited(epoch, best):
                break
            if stage.regrow and stage.density and number + 1 < stage.epochs:
                optimiser = self._regrow(stage, optimiser, drop_fraction(number, stage.epochs, stage.regrow))
        self.ends.append(StageEnd(self.epochs[-1], self._adapter.trained()))

    def _begin(self, stage: StageSettings, steps: int) -> Optimiser:
        adapter = self._adapter
        losses = self._batches.scoring(adapter.network)
        support = self._selector.choose(stage, first_density(stage), losses)
        if self.epochs:
            attachment, _ = adapter.move(support, _block(stage))
        else:
            attachment = adapter.attach(support, _block(stage))
        return Optimiser(attachment, stage, steps, self._proximal)

    def _pass(
        self, stage: StageSettings, optimiser: Optimiser, changes: Mapping[int, float]
    ) -> tuple[Optimiser, float]:
        """Train on every sample once; returns what goes on, and the mean loss."""
        losses = []
        for samples, variants in self._batches.epoch():
            losses.append(self._step(optimiser, samples, variants))
            if optimiser.done in changes:
                optimiser = self._reach(stage, optimiser, changes[optimiser.done])
        return optimiser, float(torch.stack(losses).double().mean())

    def _step(self, optimiser: Optimiser, samples: NDArray[np.int64], variants: NDArray[np.int64]) -> Tensor:
        loss = self._task.loss(self._adapter.network, samples, variants, self._batches.draw)
        loss.backward()  # type: ignore[no-untyped-call] # torch's own annotation is missing
        optimiser.step()
        self._adapter.push()
        return loss.detach()

    def _reach(self, stage: StageSettings, optimiser: Optimiser, density: float) -> Optimiser:
        """Shrink or grow the support in mid-stage."""
        if density <= first_density(stage):
            support = self._selector.prune(stage, density)
        else:
            support = self._selector.choose(stage, density, self._batches.scoring(self._adapter.network))
        return self._moved(stage, optimiser, support)

    def _regrow(self, stage: StageSettings, optimiser: Optimiser, fraction: float) -> Optimiser:
        losses = self._batches.scoring(self._adapter.network)
        return self._moved(stage, optimiser, self._selector.regrow(stage, fraction, losses))

    def _moved(self, stage: StageSettings, optimiser: Optimiser, support: Support) -> Optimiser:
        """Go on at other coordinates; what stays keeps its values and moments."""
        return optimiser.moved(*self._adapter.move(support, _block(stage)))

    def _note(self, stage: StageSettings, optimiser: Optimiser, loss: float) -> Epoch:
        number = len(self.epochs) + 1
        if not (math.isfinite(loss) and optimiser.is_finite()):
            raise DeltaError(
                f"training diverged in epoch {number}, stage {stage.name!r}: its mean loss is {loss:.4g}",
                "Lower learning_rate and head_learning_rate, or raise warm_up",
            )
        quality = None if self._selection is None else self._selection.exam.quality(self._adapter.network)
        epoch = Epoch(stage.name, number, loss, quality, optimiser.nnz, time.monotonic() - self._started)
        self.epochs.append(epoch)
        if epoch.nnz <= self._limit and self._is_better(epoch, self._best):
            self._best, self.best_delta = epoch, self._adapter.trained()
        self._watch(epoch)
        return epoch

    def _is_better(self, one: Epoch, other: Epoch | None) -> bool:
        if self._selection is None or one.quality is None:
            return False
        return self._selection.better(one.quality, None if other is None else other.quality)

    def _has_waited(self, epoch: Epoch, best: Epoch | None) -> bool:
        patience = 0 if self._selection is None else self._selection.patience
        return best is not None and 0 < patience <= epoch.number - best.number


def _block(stage: StageSettings) -> int | None:
    """Return the side of the tiles that the support consists of, if it does."""
    return stage.block if stage.structure == "block" else None

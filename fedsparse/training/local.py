"""One round at one site: score the coordinates, train the best ones, return the delta."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from numpy.typing import NDArray
from torch import Tensor

from fedsparse.adapters import DeltaAdapter
from fedsparse.delta import SparseDelta, TrainingSettings
from fedsparse.sparsity import Loss, choose_support, gradient_magnitude
from fedsparse.training.data import Samples
from fedsparse.training.evaluator import classify
from fedsparse.training.features import Features
from fedsparse.training.metrics import Quality, measure

_HELD_OUT = 0.15  # share of a site's images that it never trains on
_SPLIT_SEED = 0
_SCORED_SAMPLES = 256  # gradients of so many say which coordinates matter


@dataclass(frozen=True)
class Trained:
    """What one round of local training yields.

    Attributes:
        delta: the trained values, operation ADD.
        loss: mean class-balanced cross-entropy over the round, in nats.
        received: quality of the state it started from, on the site's own hold-out.
        samples: images trained on.
    """

    delta: SparseDelta
    loss: float
    received: Quality
    samples: int


class LocalTrainer:
    """Trains sparse deltas on one site's images; base model and activations stay in memory between rounds.

    Args:
        adapter: on top of the base model; every round changes its state.
        dense: positions of the tensors that every update carries whole.
        samples: the site's labelled images.
        features: their activations, all of :data:`FLIPS`.
    """

    def __init__(
        self, adapter: DeltaAdapter, dense: Collection[int], samples: Samples, features: Features
    ) -> None:
        self.space = adapter.space
        self.samples = samples
        self._dense = dense
        self._adapter = adapter
        self._features = features
        self._training, self._held_out = samples.split(_HELD_OUT, _SPLIT_SEED)
        counts = np.bincount(samples.labels[self._training], minlength=len(samples.classes))
        balance = len(self._training) / (len(counts) * np.maximum(counts, 1))
        self._class_weights = torch.from_numpy(balance.astype(np.float32))

    def train(self, state: SparseDelta, settings: TrainingSettings, round: int) -> Trained:
        """Train from base + ``state`` for one round; the same arguments give the same delta on the same machine.

        Args:
            state: operation SET against the untouched base.
            settings: how to train.
            round: decides, with ``settings.seed``, the order of the images.

        Raises:
            SpaceMismatchError: the state belongs to another space.
            ConfigError: the density is too small for the dense tensors.
        """
        adapter = self._adapter.load(state)
        received = self._on_hold_out()
        draw = np.random.default_rng((settings.seed, round))
        scores = gradient_magnitude(adapter, self._scoring_losses(draw, settings.batch_size))
        values = adapter.attach(choose_support(self.space, scores, settings.density, self._dense))
        try:
            optimiser = torch.optim.Adam(
                {"params": [part], "lr": settings.head_learning_rate if whole else settings.learning_rate}
                for whole, part in ((i in self._dense, part) for i, part in enumerate(values))
            )
            batches = list(self._batches(draw, settings))
            schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(_share_of_rate, len(batches)))
            losses = []
            for batch in batches:
                losses.append(self._step(batch, optimiser))
                schedule.step()
        finally:
            delta = adapter.detach()
        return Trained(delta, float(np.mean(losses)), received, len(self._training))

    def _on_hold_out(self) -> Quality:
        answers = classify(self._adapter.model, self._features, self._held_out)
        return measure(self.samples.labels[self._held_out], answers)

    def _scoring_losses(self, draw: np.random.Generator, batch_size: int) -> Iterator[Loss]:
        positions = draw.permutation(self._training)[:_SCORED_SAMPLES]
        for start in range(0, len(positions), batch_size):
            batch = positions[start : start + batch_size]
            yield lambda batch=batch: self._loss(batch, np.zeros_like(batch))  # type: ignore[misc]

    def _batches(self, draw: np.random.Generator, settings: TrainingSettings) -> Iterator[NDArray[np.int64]]:
        """Yield positions and flips of one batch after another, (2, batch size)."""
        for _ in range(settings.epochs):
            positions = draw.permutation(self._training)
            flips = draw.integers(self._features.variants, size=len(positions))
            order = np.stack([positions, flips])
            for start in range(0, len(positions), settings.batch_size):
                yield order[:, start : start + settings.batch_size]

    def _step(self, batch: NDArray[np.int64], optimiser: torch.optim.Optimizer) -> float:
        loss = self._loss(*batch)
        loss.backward()  # type: ignore[no-untyped-call] # torch's own annotation is missing
        self._adapter.pull_gradients()
        optimiser.step()
        self._adapter.push_values()
        return float(loss.detach())

    def _loss(self, positions: NDArray[np.int64], flips: NDArray[np.int64]) -> Tensor:
        labels = torch.from_numpy(self.samples.labels[positions])
        logits = self._adapter.model(self._features.batch(positions, flips))
        return F.cross_entropy(logits, labels, weight=self._class_weights)


def _share_of_rate(steps: int, step: int) -> float:
    """Return the share of the learning rate in a step of a round: up for a third of the steps, then down to 0.

    Adam starts anew every round, and its first steps follow single batches at full length; and what the last steps
    of a round add is a plant's noise, which the merge can do without.
    """
    warm_up = max(1, steps // 3)
    return min((step + 1) / warm_up, (steps - step) / (steps - warm_up + 1))

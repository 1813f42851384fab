"""In which order samples are trained on, and which of them say what coordinates matter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsparse.sparsity import Loss
from fedsparse.training.tasks import Task

SCORED_SAMPLES = 256
"""Gradients of so many say which coordinates matter."""


class Batches:
    """Draws batches of a task's samples.

    Args:
        task: what is trained on.
        size: of a batch; the last one of an epoch may be smaller.
        seed: decides all that is drawn.
    """

    def __init__(self, task: Task, size: int, seed: Sequence[int]) -> None:
        self._task = task
        self._size = size
        self.draw = np.random.default_rng(tuple(seed))

    @property
    def per_epoch(self) -> int:
        """How many there are in an epoch."""
        return -(-self._task.samples // self._size)

    def epoch(self) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
        """Yield positions and variants of one batch after another, until every sample was in one."""
        positions = self.draw.permutation(self._task.samples)
        variants = self.draw.integers(self._task.variants, size=len(positions))
        for start in range(0, len(positions), self._size):
            batch = slice(start, start + self._size)
            yield positions[batch], variants[batch]

    def scoring(self, network: nn.Module) -> list[Loss]:
        """Return the losses of some batches in their first variant, drawn now."""
        positions = self.draw.permutation(self._task.samples)[:SCORED_SAMPLES]
        starts = range(0, len(positions), self._size)
        return [self._loss(network, positions[start : start + self._size]) for start in starts]

    def _loss(self, network: nn.Module, positions: NDArray[np.int64]) -> Loss:
        def loss() -> Tensor:
            draw = np.random.default_rng(
                positions
            )  # the same at every call: scores are taken a few tensors at a time
            return self._task.loss(network, positions, np.zeros_like(positions), draw)

        return loss

"""Scores say how much a coordinate matters to the local data; the largest are trained."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

from fedsparse.delta import AdapterSpace
from fedsparse.errors import DataError

Loss = Callable[[], Tensor]
"""Computes the loss of one batch of local data with the weights as they are, (); the same at every call."""


class Watched(Protocol):
    """A model whose adapted tensors can be scored; every adapter is one."""

    @property
    def space(self) -> AdapterSpace:
        """The adapter space."""

    def current(self, position: int) -> Tensor:
        """Return the effective values of one tensor, (size,); not to be changed."""

    def watch(
        self, sink: Callable[[int, Tensor], None], positions: Collection[int] | None = None
    ) -> AbstractContextManager[None]:
        """While entered, hand each watched tensor's dense gradient, (size,), to ``sink`` at every ``backward()``.

        Gradients are freed at once; ``positions`` None watches all tensors.
        """


Score = Callable[[Watched, Sequence[Loss], Collection[int]], dict[int, Tensor]]
"""From model, batches and positions to one float32 score per coordinate, (size_t,), larger is more important."""


def magnitude(watched: Watched, losses: Sequence[Loss], positions: Collection[int]) -> dict[int, Tensor]:
    """Score by |w|, which needs no data (Han et al. 2015, https://arxiv.org/abs/1506.02626)."""
    return {position: watched.current(position).detach().float().abs() for position in positions}


def gradient_magnitude(watched: Watched, losses: Sequence[Loss], positions: Collection[int]) -> dict[int, Tensor]:
    """Score by Σ |∂loss/∂w| over batches: how fast a change of the weight alters the loss.

    First-order sensitivity as in :func:`snip`, without the factor |w|: what counts for a delta is not how much the
    weight already carries.
    """
    return _summed(watched, losses, positions, lambda total, gradient: total.add_(gradient.abs()))


def snip(watched: Watched, losses: Sequence[Loss], positions: Collection[int]) -> dict[int, Tensor]:
    """Score by |w · Σ ∂loss/∂w|: what removing the weight would do (SNIP, https://arxiv.org/abs/1810.02340)."""
    return {position: product.abs_() for position, product in _weighted(watched, losses, positions).items()}


def fisher(watched: Watched, losses: Sequence[Loss], positions: Collection[int]) -> dict[int, Tensor]:
    """Score by Σ (∂loss/∂w)² over batches: the diagonal of the empirical Fisher information, one term per batch.

    Theis et al. 2018 and Molchanov et al. 2019 (https://arxiv.org/abs/1906.10771) for pruning; FISH masks
    (https://arxiv.org/abs/2111.09839) for choosing what to train.
    """
    return _summed(watched, losses, positions, lambda total, gradient: total.addcmul_(gradient, gradient))


def movement(watched: Watched, losses: Sequence[Loss], positions: Collection[int]) -> dict[int, Tensor]:
    """Score by −Σ w · ∂loss/∂w, signed: positive where a descent step moves the weight away from zero.

    Movement pruning (https://arxiv.org/abs/2005.07683), at the weights as they are.
    """
    return {position: product.neg_() for position, product in _weighted(watched, losses, positions).items()}


SCORES: Mapping[str, Score] = {
    "magnitude": magnitude,
    "gradient": gradient_magnitude,
    "snip": snip,
    "fisher": fisher,
    "movement": movement,
}
"""By the name used in settings."""


def score_in_groups(
    score: Score, watched: Watched, losses: Sequence[Loss], positions: Collection[int], max_coordinates: int
) -> Iterator[dict[int, Tensor]]:
    """Yield the scores of ``positions`` a few tensors at a time, with one pass over ``losses`` for each group.

    Scores of all tensors at once take as much memory as the model. A group has consecutive tensors of at most
    ``max_coordinates`` coordinates together, or one tensor that is larger.
    """
    for group in _groups(watched.space, positions, max_coordinates):
        yield score(watched, losses, group)


def _groups(space: AdapterSpace, positions: Collection[int], max_coordinates: int) -> Iterator[list[int]]:
    group: list[int] = []
    total = 0
    for position in sorted(positions):
        size = space.tensors[position].size
        if group and total + size > max_coordinates:
            yield group
            group, total = [], 0
        group.append(position)
        total += size
    if group:
        yield group


def _weighted(watched: Watched, losses: Sequence[Loss], positions: Collection[int]) -> dict[int, Tensor]:
    """Return w · Σ ∂loss/∂w per position."""
    sums = _summed(watched, losses, positions, lambda total, gradient: total.add_(gradient))
    return {position: total.mul_(watched.current(position).detach()) for position, total in sums.items()}


def _summed(
    watched: Watched, losses: Sequence[Loss], positions: Collection[int], add: Callable[[Tensor, Tensor], object]
) -> dict[int, Tensor]:
    """Return per position what ``add`` makes, from zeros, of one batch's gradient after another."""
    if not losses:
        raise DataError("there is no batch to score the coordinates on", "Give the site at least one sample")
    totals = {
        position: torch.zeros_like(watched.current(position), dtype=torch.float32, requires_grad=False)
        for position in positions
    }

    def sink(position: int, gradient: Tensor) -> None:
        add(totals[position], gradient)

    with watched.watch(sink, positions):
        for loss in losses:
            loss().backward()  # type: ignore[no-untyped-call] # torch's own annotation is missing
    return totals

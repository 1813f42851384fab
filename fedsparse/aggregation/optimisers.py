"""Server optimisers, restricted to the support: what a round does not name neither moves nor forgets.

FedAvgM: Hsu et al. 2019, https://arxiv.org/abs/1909.06335. FedAdam and FedYogi: Reddi et al. 2021,
https://arxiv.org/abs/2003.00295.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsparse.config import ServerSettings
from fedsparse.delta import SparseDelta, TensorDelta
from fedsparse.delta.state import overlay

_Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Moments:
    """What an optimiser carries from round to round: ADD deltas of the first and the second moment."""

    first: SparseDelta
    second: SparseDelta


def optimise(settings: ServerSettings, merged: SparseDelta, moments: Moments) -> tuple[SparseDelta, Moments]:
    """Return the step and the moments after it.

    Args:
        merged: the merged updates of the round, ADD: the pseudo-gradient, in the direction of descent.
    """
    if settings.optimiser == "none":
        return _each(merged, lambda tensor: settings.learning_rate * tensor.values.astype(np.float64)), moments
    square = _SQUARES.get(settings.optimiser)
    before = {t.tensor: t for t in moments.first.tensors}
    spread = {t.tensor: t for t in moments.second.tensors}
    steps, firsts, seconds = [], list[TensorDelta](), list[TensorDelta]()
    for tensor in merged.tensors:
        gradient = tensor.values.astype(np.float64)
        first = settings.beta1 * _at(before.get(tensor.tensor), tensor.indices, 0.0)
        if square is None:
            first += gradient
            step = first
        else:
            held = spread.get(tensor.tensor)
            old = _at(held, tensor.indices, settings.tau**2)
            # A first moment without a second is another optimiser's, of another size.
            first = np.where(_at(held, tensor.indices, -1.0) < 0, 0.0, first) + (1 - settings.beta1) * gradient
            second = square(old, gradient**2, settings.beta2)
            step = first / (np.sqrt(second) + settings.tau)
            seconds.append(_like(tensor, second))
        steps.append(_like(tensor, settings.learning_rate * step))
        firsts.append(_like(tensor, first))
    return (
        SparseDelta(merged.space, merged.operation, tuple(steps)),
        Moments(overlay(moments.first, firsts), overlay(moments.second, seconds)),
    )


def _adam(old: _Vector, square: _Vector, beta: float) -> _Vector:
    return beta * old + (1 - beta) * square


def _yogi(old: _Vector, square: _Vector, beta: float) -> _Vector:
    return old - (1 - beta) * square * np.sign(old - square)


_SQUARES: dict[str, Callable[[_Vector, _Vector, float], _Vector]] = {"adam": _adam, "yogi": _yogi}


def _at(held: TensorDelta | None, indices: NDArray[np.int64], absent: float) -> _Vector:
    """Return what is held at ``indices``, (k,), and ``absent`` where nothing is."""
    found = np.full(len(indices), absent)
    if held is not None:
        _, mine, theirs = np.intersect1d(indices, held.indices, assume_unique=True, return_indices=True)
        found[mine] = held.values[theirs]
    return found


def _like(tensor: TensorDelta, values: _Vector) -> TensorDelta:
    return TensorDelta(tensor.tensor, tensor.indices, values.astype(np.float32))


def _each(delta: SparseDelta, change: Callable[[TensorDelta], _Vector]) -> SparseDelta:
    return SparseDelta(delta.space, delta.operation, tuple(_like(t, change(t)) for t in delta.tensors))

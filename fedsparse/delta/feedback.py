"""Error feedback: what rounding took from one update is added to the next; it stays on site.

Seide et al. 2014 (1-bit SGD), Karimireddy et al. 2019 (https://arxiv.org/abs/1901.09847).
"""

from __future__ import annotations

import numpy as np

from fedsparse.delta.value import Operation, SparseDelta, TensorDelta, ValueCoding
from fedsparse.delta.values import quantise
from fedsparse.errors import DeltaError, SpaceMismatchError


def compensate(delta: SparseDelta, residual: SparseDelta, coding: ValueCoding) -> tuple[SparseDelta, SparseDelta]:
    """Return what is sent and what stays: together they are ``delta + residual``, in fp32.

    Only coordinates of ``delta`` are sent; the residual of others waits until they are trained again. The
    residual never has more coordinates than the space.

    Args:
        delta: the exact update, operation ADD.
        residual: what stayed behind so far, operation ADD.
        coding: how the values will be written.

    Raises:
        SpaceMismatchError: the two belong to different spaces.
        DeltaError: one of them is not an addition.
    """
    if delta.space != residual.space:
        raise SpaceMismatchError(f"spaces {delta.space.hex()[:16]} and {residual.space.hex()[:16]} differ")
    if {delta.operation, residual.operation} != {Operation.ADD}:
        raise DeltaError("error feedback works on ADD deltas")
    old = {tensor.tensor: tensor for tensor in residual.tensors}
    total = SparseDelta(
        delta.space, Operation.ADD, tuple(_add(tensor, old.get(tensor.tensor)) for tensor in delta.tensors)
    )
    sent = quantise(total, coding)
    kept = dict(old)
    for whole, part in zip(total.tensors, sent.tensors, strict=True):
        left = _replace(old.get(whole.tensor), whole.indices, whole.values - part.values)
        if left is None:
            kept.pop(whole.tensor, None)
        else:
            kept[whole.tensor] = TensorDelta(whole.tensor, *left)
    tensors = tuple(kept[position] for position in sorted(kept))
    return sent, SparseDelta(delta.space, Operation.ADD, tensors)


def _add(tensor: TensorDelta, old: TensorDelta | None) -> TensorDelta:
    """Add to ``tensor`` what ``old`` holds for its coordinates."""
    if old is None:
        return tensor
    values = tensor.values.copy()
    _, mine, theirs = np.intersect1d(tensor.indices, old.indices, assume_unique=True, return_indices=True)
    values[mine] += old.values[theirs]
    return TensorDelta(tensor.tensor, tensor.indices, values)


def _replace(
    old: TensorDelta | None, indices: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return ``old`` with ``values`` at ``indices``, zeros dropped; None if nothing is left."""
    if old is not None:
        others = ~np.isin(old.indices, indices, assume_unique=True)
        indices = np.concatenate([old.indices[others], indices])
        values = np.concatenate([old.values[others], values])
    order = np.argsort(indices)
    kept = order[values[order] != 0]
    return (indices[kept], values[kept]) if kept.size else None

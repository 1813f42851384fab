"""Error feedback: what was rounded away or left out of one update is added to the next; it stays on site.

Seide et al. 2014 (1-bit SGD), Karimireddy et al. 2019 (https://arxiv.org/abs/1901.09847).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fedsparse.delta.space import AdapterSpace
from fedsparse.delta.value import Operation, SparseDelta, TensorDelta, ValueCoding
from fedsparse.delta.values import quantise
from fedsparse.errors import DeltaError, SpaceMismatchError


def compensate(
    delta: SparseDelta,
    residual: SparseDelta,
    coding: ValueCoding,
    *,
    most: int | None = None,
    rows: AdapterSpace | None = None,
    seed: int | None = None,
) -> tuple[SparseDelta, SparseDelta]:
    """Return what is sent and what stays: together they are ``delta + residual``, in fp32.

    Only coordinates of ``delta`` are sent; the residual of others waits until they are trained again. The
    residual never has more coordinates than the space.

    Args:
        delta: the exact update, operation ADD.
        residual: what stayed behind so far, operation ADD.
        coding: how the values will be written.
        most: coordinates to send at most, those of the largest magnitude, the first of equals; all without.
        rows: the space, where whole rows are sent or wait, by their mean magnitude: their places cost next to
            nothing to say, those of coordinates out of their middle do. Where not one fits, coordinates are sent.
        seed: of stochastic rounding; see :func:`quantise`.

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
    sent = quantise(_largest(total, most, rows), coding, seed)
    rounded = {tensor.tensor: tensor for tensor in sent.tensors}
    kept = dict(old)
    for whole in total.tensors:
        left = _replace(old.get(whole.tensor), whole.indices, _less(whole, rounded.get(whole.tensor)))
        if left is None:
            kept.pop(whole.tensor, None)
        else:
            kept[whole.tensor] = TensorDelta(whole.tensor, *left)
    tensors = tuple(kept[position] for position in sorted(kept))
    return sent, SparseDelta(delta.space, Operation.ADD, tensors)


def _largest(delta: SparseDelta, most: int | None, rows: AdapterSpace | None) -> SparseDelta:
    if most is None or delta.nnz <= most:
        return delta
    magnitude = np.abs(np.concatenate([tensor.values for tensor in delta.tensors]))
    unit = np.arange(len(magnitude)) if rows is None else _rows(delta, rows)
    sizes = np.bincount(unit)
    order = np.argsort(-(np.bincount(unit, magnitude) / sizes), kind="stable")
    taken = np.zeros(len(sizes), np.bool_)
    taken[_fitting(order, sizes, most)] = True
    if rows is not None and not taken.any():  # there is no room for one row
        return _largest(delta, most, None)
    chosen = taken[unit]
    ends = np.cumsum([len(tensor.indices) for tensor in delta.tensors])
    parts = zip(delta.tensors, np.split(chosen, ends[:-1]), strict=True)
    tensors = (TensorDelta(t.tensor, t.indices[which], t.values[which]) for t, which in parts if which.any())
    return SparseDelta(delta.space, delta.operation, tuple(tensors))


def _fitting(order: NDArray[np.int64], sizes: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return which units are taken, in their order: each that still fits."""
    if sizes.max() == 1:
        return order[:most]
    chosen, room = [], most
    for unit in order.tolist():
        if sizes[unit] <= room:
            chosen.append(unit)
            room -= int(sizes[unit])
    return np.array(chosen, np.int64)


def _rows(delta: SparseDelta, space: AdapterSpace) -> NDArray[np.int64]:
    """Return the row of each value, (nnz,), numbered from 0 through all tensors."""
    found, before = [], 0
    for tensor in delta.tensors:
        width = math.prod(space.tensors[tensor.tensor].shape[1:])
        _, row = np.unique(tensor.indices // width, return_inverse=True)
        found.append(row + before)
        before += int(row[-1]) + 1
    return np.concatenate(found)


def _less(whole: TensorDelta, sent: TensorDelta | None) -> NDArray[np.float32]:
    """Return the values of ``whole`` less those that are sent."""
    values = whole.values.copy()
    if sent is not None:
        values[np.searchsorted(whole.indices, sent.indices)] -= sent.values
    return values


def _add(tensor: TensorDelta, old: TensorDelta | None) -> TensorDelta:
    """Add to ``tensor`` what ``old`` holds for its coordinates."""
    if old is None:
        return tensor
    values = tensor.values.copy()
    _, mine, theirs = np.intersect1d(tensor.indices, old.indices, assume_unique=True, return_indices=True)
    values[mine] += old.values[theirs]
    return TensorDelta(tensor.tensor, tensor.indices, values)


def _replace(
    old: TensorDelta | None, indices: NDArray[np.int64], values: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]] | None:
    """Return ``old`` with ``values`` at ``indices``, zeros dropped; None if nothing is left."""
    if old is not None:
        others = ~np.isin(old.indices, indices, assume_unique=True)
        indices = np.concatenate([old.indices[others], indices])
        values = np.concatenate([old.values[others], values])
    order = np.argsort(indices)
    kept = order[values[order] != 0]
    return (indices[kept], values[kept]) if kept.size else None

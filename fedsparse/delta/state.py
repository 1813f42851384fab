"""An adapter's whole state as a sparse delta against the untouched base, and steps between states.

A state is a SET delta that names only what differs from the base: none of its values is 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from fedsparse.delta.codec import encode
from fedsparse.delta.sorted import union
from fedsparse.delta.space import AdapterSpace
from fedsparse.delta.value import Operation, SparseDelta, TensorDelta, ValueCoding
from fedsparse.errors import DeltaError, SpaceMismatchError

_Vector = tuple[NDArray[np.int64], NDArray[np.float32]]


def apply(state: SparseDelta, delta: SparseDelta) -> SparseDelta:
    """Return the state after ``delta``; coordinates that become exactly 0 are dropped.

    Raises:
        DeltaError: ``state`` is not a state.
        SpaceMismatchError: the two belong to different spaces.
    """
    _require_states(state)
    if state.space != delta.space:
        raise SpaceMismatchError(f"spaces {state.space.hex()[:16]} and {delta.space.hex()[:16]} differ")
    old = {tensor.tensor: (tensor.indices, tensor.values) for tensor in state.tensors}
    for tensor in delta.tensors:
        old[tensor.tensor] = _combine(old.get(tensor.tensor), tensor, delta.operation)
    return _assemble(state.space, old)


def difference(old: SparseDelta, new: SparseDelta) -> SparseDelta:
    """Return the SET delta that turns ``old`` into ``new`` bit for bit; a vanished coordinate is set to 0.

    Raises:
        DeltaError: one of them is not a state.
        SpaceMismatchError: the two belong to different spaces.
    """
    _require_states(old, new)
    if old.space != new.space:
        raise SpaceMismatchError(f"spaces {old.space.hex()[:16]} and {new.space.hex()[:16]} differ")
    before = {tensor.tensor: tensor for tensor in old.tensors}
    after = {tensor.tensor: tensor for tensor in new.tensors}
    changes = {position: _changes(before.get(position), after.get(position)) for position in {*before, *after}}
    tensors = (
        TensorDelta(position, *changes[position]) for position in sorted(changes) if changes[position][0].size
    )
    return SparseDelta(old.space, Operation.SET, tuple(tensors))


def overlay(under: SparseDelta, over: Iterable[TensorDelta]) -> SparseDelta:
    """Return ``under`` with the values of ``over`` at its coordinates, of which it need not have any."""
    tensors = {tensor.tensor: tensor for tensor in under.tensors}
    for tensor in over:
        held = tensors.get(tensor.tensor)
        if held is not None:
            others = ~np.isin(held.indices, tensor.indices, assume_unique=True)
            indices = np.concatenate([held.indices[others], tensor.indices])
            order = np.argsort(indices)
            values = np.concatenate([held.values[others], tensor.values])
            tensor = TensorDelta(tensor.tensor, indices[order], values[order])
        tensors[tensor.tensor] = tensor
    return SparseDelta(under.space, under.operation, tuple(tensors[position] for position in sorted(tensors)))


def digest(state: SparseDelta, space: AdapterSpace) -> bytes:
    """Return the SHA-256 of the state's canonical fp32 bytes.

    Raises:
        DeltaError: ``state`` is not a state of ``space``.
        SpaceMismatchError: it belongs to another space.
    """
    _require_states(state)
    return sha256(encode(state, space, ValueCoding.FP32)).digest()


def _require_states(*states: SparseDelta) -> None:
    if any(state.operation is not Operation.SET for state in states):
        raise DeltaError("a state is a SET delta against the untouched base, not an ADD")
    for tensor in (tensor for state in states for tensor in state.tensors):
        if not np.all(tensor.values):
            raise DeltaError(f"tensor {tensor.tensor}: a state names no coordinate whose value is 0")


def _combine(old: _Vector | None, change: TensorDelta, operation: Operation) -> _Vector:
    indices, values = old if old is not None else (np.empty(0, np.int64), np.empty(0, np.float32))
    both = union(indices, change.indices)
    result = np.zeros(both.size, np.float32)
    result[np.searchsorted(both, indices)] = values
    at = np.searchsorted(both, change.indices)
    result[at] = change.values if operation is Operation.SET else result[at] + change.values
    return both, result


def _changes(old: TensorDelta | None, new: TensorDelta | None) -> _Vector:
    empty = (np.empty(0, np.int64), np.empty(0, np.float32))
    old_indices, old_values = (old.indices, old.values) if old else empty
    new_indices, new_values = (new.indices, new.values) if new else empty
    both = union(old_indices, new_indices)
    before, after = np.zeros((2, both.size), np.float32)
    before[np.searchsorted(both, old_indices)] = old_values
    after[np.searchsorted(both, new_indices)] = new_values
    changed = before.view(np.uint32) != after.view(np.uint32)
    return both[changed], after[changed]


def _assemble(space: bytes, vectors: dict[int, _Vector]) -> SparseDelta:
    tensors = []
    for position in sorted(vectors):
        indices, values = vectors[position]
        kept = values != 0
        if np.any(kept):
            tensors.append(TensorDelta(position, indices[kept], values[kept]))
    return SparseDelta(space, Operation.SET, tuple(tensors))

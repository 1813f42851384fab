"""What hypothesis draws: deltas of every coding, and byte strings that went wrong on the way."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedsparse.delta import AdapterSpace, Operation, SparseDelta, TensorDelta, TensorSpec
from tests.unit.samples import SPACE

FORMS = AdapterSpace(
    bytes(32),
    tuple(TensorSpec(name, shape) for name, shape in {"a": (32, 64), "b": (16, 8, 3), "c": (300,)}.items()),
)
"""Shapes whose supports can be written in every way."""

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
operations = st.sampled_from(Operation)
moderate = st.floats(-(2.0**20), 2.0**20, width=32)


def _supports(shape: tuple[int, ...]) -> st.SearchStrategy[list[int]]:
    """Draw few coordinates, many, all, whole rows, whole tiles or uneven rows: each index coding has its turn."""
    size = math.prod(shape)
    few = st.sets(st.integers(0, size - 1), min_size=1, max_size=8).map(sorted)
    kinds = st.sampled_from([_scattered, _rows, _tiles, _uneven])
    drawn = st.builds(
        lambda kind, seed, density: _chosen(kind(shape, density, np.random.default_rng(seed))),
        kinds,
        st.integers(0, 2**32 - 1),
        st.floats(0.05, 0.95),
    )
    return st.one_of(few, drawn, st.just(list(range(size))))


def _chosen(mask: NDArray[np.bool_]) -> list[int]:
    return [int(index) for index in np.flatnonzero(mask)] or [0]


def _scattered(shape: tuple[int, ...], density: float, random: np.random.Generator) -> NDArray[np.bool_]:
    return np.asarray(random.random(shape) < density)


def _rows(shape: tuple[int, ...], density: float, random: np.random.Generator) -> NDArray[np.bool_]:
    return np.repeat(random.random(shape[0]) < density, math.prod(shape[1:]))


def _tiles(shape: tuple[int, ...], density: float, random: np.random.Generator) -> NDArray[np.bool_]:
    """Draw whole tiles of side 4 or 8; at the edges of a tensor where they do not fit they are cut off."""
    side = int(random.choice([4, 8]))
    height, columns = shape[0], math.prod(shape[1:])
    tiles = random.random((-(-height // side), -(-columns // side))) < density
    return tiles.repeat(side, axis=0).repeat(side, axis=1)[:height, :columns]


def _uneven(shape: tuple[int, ...], density: float, random: np.random.Generator) -> NDArray[np.bool_]:
    rates = density * random.random((shape[0], 1)) ** 8
    return np.asarray(random.random((shape[0], math.prod(shape[1:]))) < rates)


@st.composite
def tensor_deltas(
    draw: st.DrawFn, position: int, values: st.SearchStrategy[float], space: AdapterSpace = SPACE
) -> TensorDelta:
    support = draw(_supports(space.tensors[position].shape))
    some = draw(st.lists(values, min_size=1, max_size=12))
    return TensorDelta(position, np.array(support), np.resize(np.array(some, np.float32), len(support)))


@st.composite
def deltas(
    draw: st.DrawFn,
    operations: st.SearchStrategy[Operation] = operations,
    values: st.SearchStrategy[float] = finite,
    space: AdapterSpace = SPACE,
) -> SparseDelta:
    positions = draw(st.sets(st.integers(0, len(space.tensors) - 1)))
    tensors = tuple(draw(tensor_deltas(position, values, space)) for position in sorted(positions))
    return SparseDelta(space.fingerprint, draw(operations), tensors)


def additions(values: st.SearchStrategy[float] = moderate) -> st.SearchStrategy[SparseDelta]:
    return deltas(st.just(Operation.ADD), values)


def states() -> st.SearchStrategy[SparseDelta]:
    return deltas(st.just(Operation.SET), moderate.filter(lambda value: np.float32(value) != 0))


@st.composite
def damaged(draw: st.DrawFn, originals: st.SearchStrategy[bytes]) -> bytes:
    """Draw bytes that were valid once, then changed, cut, repeated or added to, up to three times."""
    data = draw(originals)
    for _ in range(draw(st.integers(1, 3))):
        start, end = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2)))
        damage = draw(st.sampled_from([_flip, _cut, _repeat, _insert]))
        data = data[:start] + draw(damage(data[start:end])) + data[end:]
    return data


def _flip(part: bytes) -> st.SearchStrategy[bytes]:
    """Change one byte, so that lengths stay right and the damage gets deep."""
    return st.integers(1, 255).map(lambda mask: bytes(octet ^ mask for octet in part[:1]) + part[1:])


def _cut(part: bytes) -> st.SearchStrategy[bytes]:
    return st.just(b"")


def _repeat(part: bytes) -> st.SearchStrategy[bytes]:
    return st.just(part * 2)


def _insert(part: bytes) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=8).map(lambda added: added + part)

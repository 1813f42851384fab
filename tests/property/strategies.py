"""What hypothesis draws: deltas of every coding, and byte strings that went wrong on the way."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from fedsparse.delta import Operation, SparseDelta, TensorDelta
from tests.unit.samples import SPACE

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
operations = st.sampled_from(Operation)
moderate = st.floats(-(2.0**20), 2.0**20, width=32)


def _supports(size: int) -> st.SearchStrategy[list[int]]:
    """Draw few coordinates, many, or all, so that each index coding has its turn."""
    few = st.sets(st.integers(0, size - 1), min_size=1, max_size=8).map(sorted)
    seeds = st.tuples(st.integers(0, 2**32 - 1), st.floats(0.05, 0.95))
    many = seeds.map(lambda drawn: _random_support(size, *drawn))
    return st.one_of(few, many, st.just(list(range(size))))


def _random_support(size: int, seed: int, density: float) -> list[int]:
    chosen = np.flatnonzero(np.random.default_rng(seed).random(size) < density)
    return [int(index) for index in chosen] or [0]


@st.composite
def tensor_deltas(draw: st.DrawFn, position: int, values: st.SearchStrategy[float]) -> TensorDelta:
    support = draw(_supports(SPACE.tensors[position].size))
    some = draw(st.lists(values, min_size=1, max_size=12))
    return TensorDelta(position, np.array(support), np.resize(np.array(some, np.float32), len(support)))


@st.composite
def deltas(
    draw: st.DrawFn,
    operations: st.SearchStrategy[Operation] = operations,
    values: st.SearchStrategy[float] = finite,
) -> SparseDelta:
    positions = draw(st.sets(st.integers(0, len(SPACE.tensors) - 1)))
    tensors = tuple(draw(tensor_deltas(position, values)) for position in sorted(positions))
    return SparseDelta(SPACE.fingerprint, draw(operations), tensors)


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

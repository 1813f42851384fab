from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedsparse.delta import AdapterSpace, Operation, SparseDelta, TensorDelta, TensorSpec, ValueCoding, compensate

SPACE = AdapterSpace(bytes(32), (TensorSpec("a", (7,)), TensorSpec("b", (5,))))
_values = st.dictionaries(
    st.tuples(st.integers(0, 1), st.integers(0, 4)), st.floats(-4, 4, width=32).filter(bool), max_size=8
)


def _delta(values: dict[tuple[int, int], float]) -> SparseDelta:
    parts = []
    for tensor in (0, 1):
        own = sorted((index, value) for (t, index), value in values.items() if t == tensor)
        if own:
            parts.append(
                TensorDelta(tensor, np.array([i for i, _ in own]), np.array([v for _, v in own], np.float32))
            )
    return SparseDelta(SPACE.fingerprint, Operation.ADD, tuple(parts))


def _dense(*deltas: SparseDelta) -> np.ndarray:
    total = np.zeros((2, 7))
    for delta in deltas:
        for part in delta.tensors:
            total[part.tensor, part.indices] += part.values
    return total


@given(st.lists(_values, min_size=1, max_size=6))
def test_what_was_sent_plus_the_residual_is_what_was_trained(rounds: list[dict[tuple[int, int], float]]) -> None:
    residual = SparseDelta.empty(SPACE.fingerprint, Operation.ADD)
    sent = []
    for values in rounds:
        update, residual = compensate(_delta(values), residual, ValueCoding.BF16)
        assert [t.indices.tolist() for t in update.tensors] == [t.indices.tolist() for t in _delta(values).tensors]
        sent.append(update)
    np.testing.assert_allclose(_dense(*sent, residual), _dense(*map(_delta, rounds)), atol=1e-5)


@given(st.lists(_values, min_size=1, max_size=4))
def test_without_rounding_nothing_stays_behind(rounds: list[dict[tuple[int, int], float]]) -> None:
    residual = SparseDelta.empty(SPACE.fingerprint, Operation.ADD)
    for values in rounds:
        update, residual = compensate(_delta(values), residual, ValueCoding.FP32)
        assert update == _delta(values)
        assert residual.nnz == 0

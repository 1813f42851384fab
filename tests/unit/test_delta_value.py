from __future__ import annotations

import numpy as np
import pytest

from fedsparse.delta import Operation, SparseDelta, TensorDelta
from fedsparse.errors import DeltaError
from tests.unit.samples import SPACE, delta


def tensor(indices: list[int], values: list[float], position: int = 0) -> TensorDelta:
    return TensorDelta(position, np.array(indices, np.int64), np.array(values, np.float32))


@pytest.mark.parametrize("indices", [[3, 3], [4, 3], [-1, 3]])
def test_indices_must_increase_from_zero_on(indices: list[int]) -> None:
    with pytest.raises(DeltaError, match="tensor 7: indices must be strictly increasing"):
        tensor(indices, [1.0, 2.0], position=7)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(DeltaError, match="NaN or infinite"):
        tensor([0, 1], [1.0, value])


@pytest.mark.parametrize(("indices", "values"), [([], []), ([1], [1.0, 2.0])])
def test_there_is_one_value_for_each_index_and_at_least_one(indices: list[int], values: list[float]) -> None:
    with pytest.raises(DeltaError, match="vectors of one length, at least 1"):
        tensor(indices, values)


def test_indices_and_values_are_vectors() -> None:
    with pytest.raises(DeltaError, match="vectors"):
        TensorDelta(0, np.zeros((1, 1), np.int64), np.zeros((1, 1), np.float32))


def test_a_delta_keeps_its_values_when_the_arrays_it_was_made_from_change() -> None:
    indices, values = np.array([1, 2]), np.array([0.5, 1.5], np.float32)
    made = TensorDelta(0, indices, values)
    indices[:], values[:] = 0, np.nan
    assert made == tensor([1, 2], [0.5, 1.5])


def test_the_arrays_of_a_delta_cannot_be_written() -> None:
    made = tensor([1], [0.5])
    for array in (made.indices, made.values):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 2


def test_a_negative_zero_becomes_zero() -> None:
    assert tensor([1, 2], [-0.0, -1.0]).values.tobytes() == np.array([0.0, -1.0], np.float32).tobytes()


def test_a_denormal_stays_what_it_is() -> None:
    smallest = np.array([1], np.uint32).view(np.float32)
    assert TensorDelta(0, np.array([0]), smallest).values.tobytes() == smallest.tobytes()


def test_equal_deltas_have_equal_hashes_and_others_differ() -> None:
    made = tensor([1, 2], [0.5, 1.5])
    assert (made, hash(made)) == (tensor([1, 2], [0.5, 1.5]), hash(tensor([1, 2], [0.5, 1.5])))
    others = [tensor([1, 3], [0.5, 1.5]), tensor([1, 2], [0.5, 1.25]), tensor([1, 2], [0.5, 1.5], position=1)]
    assert all(other != made for other in others)


def test_a_space_fingerprint_of_another_length_is_refused() -> None:
    with pytest.raises(DeltaError, match="32 bytes, not 5"):
        SparseDelta(b"space", Operation.ADD, ())


@pytest.mark.parametrize("positions", [(1, 0), (1, 1), (-1,)])
def test_tensors_must_be_in_increasing_position(positions: tuple[int, ...]) -> None:
    tensors = tuple(tensor([0], [1.0], position) for position in positions)
    with pytest.raises(DeltaError, match="strictly increasing position"):
        SparseDelta(SPACE.fingerprint, Operation.ADD, tensors)


def test_nnz_counts_the_coordinates_of_all_tensors() -> None:
    assert delta({0: {1: 1.0, 2: 2.0}, 2: {5: 0.0}}).nnz == 3

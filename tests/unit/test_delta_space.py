from __future__ import annotations

import json

import pytest

from fedsparse.delta import AdapterSpace, TensorSpec
from fedsparse.errors import DeltaError
from fedsparse.v1 import space_pb2
from tests.unit.samples import SPACE

BASE = SPACE.base_fingerprint


def test_a_space_counts_its_coordinates_and_dense_bytes() -> None:
    assert (SPACE.size, SPACE.dense_bytes) == (2026, 8104)


@pytest.mark.parametrize(
    "other",
    [
        AdapterSpace(bytes(32), SPACE.tensors),
        AdapterSpace(BASE, SPACE.tensors[::-1]),
        AdapterSpace(BASE, SPACE.tensors[:2]),
        AdapterSpace(BASE, (TensorSpec("conv.weight", (5, 4)), *SPACE.tensors[1:])),
        AdapterSpace(BASE, (TensorSpec("conv.weighs", (4, 5)), *SPACE.tensors[1:])),
        AdapterSpace(BASE, (TensorSpec("conv.weight", (4, 5, 1)), *SPACE.tensors[1:])),
    ],
    ids=["base", "order", "fewer", "shape", "name", "rank"],
)
def test_the_fingerprint_depends_on_everything(other: AdapterSpace) -> None:
    assert other.fingerprint != SPACE.fingerprint


def test_a_space_comes_back_from_the_wire() -> None:
    assert AdapterSpace.from_proto(SPACE.to_proto()) == SPACE


def test_a_space_comes_back_from_its_file() -> None:
    assert AdapterSpace.from_json(SPACE.to_json()) == SPACE


@pytest.mark.parametrize("name", ["", "x" * 1001, "line\nbreak", "\x1b[2J", "\ud800"])
def test_a_tensor_name_must_be_short_and_printable(name: str) -> None:
    with pytest.raises(DeltaError, match="1 to 1000 printable characters"):
        TensorSpec(name, (1,))


@pytest.mark.parametrize("shape", [(), (0,), (3, -1), (1 << 32,), (2.0,)])
def test_a_shape_must_hold_positive_whole_extents(shape: tuple[int, ...]) -> None:
    with pytest.raises(DeltaError, match=r"extents between 1 and 2\^32 - 1"):
        TensorSpec("weight", shape)


def test_a_base_fingerprint_of_another_length_is_refused() -> None:
    with pytest.raises(DeltaError, match="32 bytes, not 31"):
        AdapterSpace(bytes(31), SPACE.tensors)


def test_a_space_without_tensors_is_refused() -> None:
    with pytest.raises(DeltaError, match="not 0"):
        AdapterSpace(BASE, ())


def test_two_tensors_of_one_name_are_refused() -> None:
    with pytest.raises(DeltaError, match="same name"):
        AdapterSpace(BASE, (TensorSpec("a", (1,)), TensorSpec("a", (2,))))


def test_a_space_beyond_the_largest_size_is_refused_with_its_size() -> None:
    largest = TensorSpec("a", (1 << 20, 1 << 20))
    assert AdapterSpace(BASE, (largest,)).size == 1 << 40
    with pytest.raises(DeltaError, match=f"not {(1 << 40) + 1}"):
        AdapterSpace(BASE, (largest, TensorSpec("b", (1,))))


def test_a_space_with_too_many_tensors_is_refused_from_the_wire() -> None:
    tensors = [space_pb2.TensorSpec(name=str(number), shape=[1]) for number in range(100_001)]
    with pytest.raises(DeltaError, match="at most 100000 tensors, not 100001"):
        AdapterSpace.from_proto(space_pb2.AdapterSpace(base_fingerprint=BASE, tensors=tensors))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        SPACE.to_json() + b" ",
        SPACE.to_json().replace(b'"conv.weight"', b'"\\ud800"'),
        SPACE.to_json().replace(b"5\n", b"1e999\n"),
        SPACE.to_json().replace(b"5\n", b"5.0\n"),
        SPACE.to_json().replace(b"5\n", b"true\n"),
        SPACE.to_json().replace(b'"name"', b'"names"'),
        json.dumps(json.loads(SPACE.to_json()) | {"more": 1}, indent=1).encode(),
    ],
)
def test_a_file_that_is_not_exactly_a_space_is_refused(data: bytes) -> None:
    with pytest.raises(DeltaError):
        AdapterSpace.from_json(data)

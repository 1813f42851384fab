from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest

from fedsparse.delta import (
    AdapterSpace,
    Operation,
    SparseDelta,
    TensorDelta,
    TensorSpec,
    ValueCoding,
    decode,
    encode,
    quantise,
)
from fedsparse.errors import DeltaError, SpaceMismatchError
from fedsparse.v1 import delta_pb2
from tests.unit.samples import OTHER_SPACE, SPACE, delta

ALL, BITMAP, GAPS = 1, 2, 3
LARGE = AdapterSpace(bytes(32), (TensorSpec("large", (1 << 12, 1 << 11)),))
HUGE = AdapterSpace(bytes(32), (TensorSpec("huge", (1 << 20, 1 << 20)),))


def part(**changes: Any) -> bytes:
    """Return a TensorDelta for wide.weight[5] = 1, changed."""
    fields = {"tensor": 2, "nnz": 1, "index_coding": GAPS, "indices": b"\x05", "value_coding": 1}
    return delta_pb2.TensorDelta(**(fields | {"values": floats(1.0)} | changes)).SerializeToString(
        deterministic=True
    )


def whole(*parts: bytes, space: AdapterSpace = SPACE, **changes: Any) -> bytes:
    fields: dict[str, Any] = {"format": 1, "space": space.fingerprint, "operation": 1}
    head = delta_pb2.SparseDelta(**(fields | changes)).SerializeToString(deterministic=True)
    return head + b"".join(b"\x22" + varint(len(each)) + each for each in parts)


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def floats(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def read(data: bytes, space: AdapterSpace = SPACE) -> SparseDelta:
    return decode(data, space, max_bytes=len(data))


def index_coding(parts: dict[int, dict[int, float]]) -> int:
    message = delta_pb2.SparseDelta.FromString(encode(delta(parts), SPACE, ValueCoding.FP32))
    return int(message.tensors[0].index_coding)


def test_hand_made_bytes_decode() -> None:
    assert read(whole(part())) == delta({2: {5: 1.0}})


def test_the_empty_delta_has_no_tensors_and_comes_back() -> None:
    empty = SparseDelta.empty(SPACE.fingerprint, Operation.SET)
    assert read(encode(empty, SPACE, ValueCoding.BF16)) == empty


def test_the_encoder_takes_the_smallest_index_coding() -> None:
    assert index_coding({0: {3: 1.0, 4: 1.0}}) == GAPS  # 2 bytes against a bitmap of 3
    assert index_coding({0: {3: 1.0, 4: 1.0, 9: 1.0}}) == BITMAP  # a tie at 3
    assert index_coding({0: dict.fromkeys(range(20), 1.0)}) == ALL
    assert index_coding({2: {1999: 1.0}}) == GAPS


def test_an_index_beyond_2_to_the_32_comes_back() -> None:
    last = SparseDelta(
        HUGE.fingerprint,
        Operation.ADD,
        (TensorDelta(0, np.array([0, (1 << 40) - 1]), np.array([1.0, 2.0], np.float32)),),
    )
    assert read(encode(last, HUGE, ValueCoding.FP32), HUGE) == last


def test_a_delta_of_another_space_is_refused_naming_both() -> None:
    data = encode(delta({0: {1: 1.0}}), SPACE, ValueCoding.FP32)
    with pytest.raises(SpaceMismatchError) as caught:
        read(data, OTHER_SPACE)
    assert SPACE.fingerprint.hex()[:16] in str(caught.value)
    assert OTHER_SPACE.fingerprint.hex()[:16] in str(caught.value)
    with pytest.raises(SpaceMismatchError):
        encode(delta({0: {1: 1.0}}), OTHER_SPACE, ValueCoding.FP32)


def test_a_newer_format_is_refused_naming_both_and_what_to_do() -> None:
    with pytest.raises(DeltaError, match=r"has format 2, this release reads format 1\. Install the same release"):
        read(whole(part(), format=2))


def test_a_delta_longer_than_allowed_is_refused_before_it_is_read() -> None:
    with pytest.raises(DeltaError, match="has 11 bytes, the limit is 10"):
        decode(b"\xff" * 11, SPACE, max_bytes=10)


@pytest.mark.parametrize("data", [b"", b"\xff", b"GET / HTTP/1.1\r\n\r\n", whole(part())[:-1], whole(part())[1:]])
def test_bytes_that_are_no_delta_are_refused(data: bytes) -> None:
    with pytest.raises(DeltaError):
        read(data)


@pytest.mark.parametrize(
    "indices",
    [b"\x85\x00", b"\x85\x80\x80\x80\x80\x00"],
    ids=["one group too many", "four groups too many"],
)
def test_a_number_in_more_bytes_than_it_needs_is_refused(indices: bytes) -> None:
    with pytest.raises(DeltaError, match="not in canonical form"):
        read(whole(part(indices=indices)))


def test_a_number_of_seven_bytes_is_refused() -> None:
    with pytest.raises(DeltaError, match="more than 6 bytes"):
        read(whole(part(indices=b"\x85" + b"\x80" * 5 + b"\x00")))


def test_index_bytes_that_end_inside_a_number_are_refused() -> None:
    with pytest.raises(DeltaError, match="end inside a number"):
        read(whole(part(indices=b"\x05\x80")))


@pytest.mark.parametrize(
    "changes",
    [
        {"indices": varint(2000)},
        {"tensor": 0, "index_coding": BITMAP, "indices": b"\x00\x00\x10"},
        {"nnz": 2, "values": floats(1, 1), "indices": varint(1999) + b"\x00"},
    ],
    ids=["gap", "bitmap padding", "second gap"],
)
def test_an_index_beyond_its_tensor_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DeltaError, match="last index must be below"):
        read(whole(part(**changes)))


def test_gaps_whose_sum_overflows_are_refused() -> None:
    count = (1 << 21) + 2  # of gaps of almost 2^42: beyond 2^63
    data = part(tensor=0, nnz=count, indices=b"\xff\xff\xff\xff\xff\x7f" * count, values=floats(1.0) * count)
    with pytest.raises(DeltaError, match="strictly increasing"):
        read(whole(data, space=HUGE), HUGE)


@pytest.mark.parametrize(
    "changes",
    [
        {"nnz": 0, "indices": b"", "values": b""},
        {"nnz": 2},
        {"nnz": 2001, "values": floats(1.0) * 2001},
        {"nnz": (1 << 32) - 1},
        {"values": b""},
        {"values": floats(1.0)[:3]},
        {"value_coding": 2},
    ],
)
def test_a_count_that_does_not_fit_the_values_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DeltaError, match="bytes are announced"):
        read(whole(part(**changes)))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"indices": b""}, "0 indices for 1 values"),
        ({"indices": b"\x05\x05"}, "2 indices for 1 values"),
        ({"index_coding": BITMAP, "indices": bytes(250)}, "0 indices for 1 values"),
        ({"index_coding": BITMAP, "indices": b"\x03" + bytes(249)}, "2 indices for 1 values"),
        ({"index_coding": BITMAP, "indices": b"\x01" + bytes(248)}, "index coding 2 does not fit"),
        ({"index_coding": ALL, "indices": b""}, "index coding 1 does not fit"),
        ({"index_coding": 0}, "index coding 0 does not fit"),
        ({"index_coding": 99}, "index coding 99 does not fit"),
    ],
)
def test_indices_that_do_not_fit_their_count_or_coding_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DeltaError, match=said):
        read(whole(part(**changes)))


@pytest.mark.parametrize(
    "changes",
    [
        {"index_coding": BITMAP, "indices": b"\x20" + bytes(249)},
        {"tensor": 0, "nnz": 4, "indices": bytes(4), "values": floats(1, 1, 1, 1)},
        {"tensor": 1, "nnz": 6, "indices": bytes(6), "values": floats(*[1] * 6)},
    ],
    ids=["bitmap for gaps", "gaps for bitmap", "gaps for all"],
)
def test_a_valid_but_longer_index_coding_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DeltaError, match="not in canonical form"):
        read(whole(part(**changes)))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(DeltaError, match="NaN or infinite"):
        read(whole(part(values=floats(value))))


def test_a_negative_zero_is_refused_because_zero_says_the_same() -> None:
    assert read(whole(part(values=floats(0.0)))) == delta({2: {5: 0.0}})
    with pytest.raises(DeltaError, match="not in canonical form"):
        read(whole(part(values=floats(-0.0))))


@pytest.mark.parametrize("coding", [0, 3, 99])
def test_an_unknown_value_coding_is_refused(coding: int) -> None:
    with pytest.raises(DeltaError, match="one known coding is needed"):
        read(whole(part(value_coding=coding)))


def test_two_value_codings_in_one_delta_are_refused() -> None:
    with pytest.raises(DeltaError, match=r"value codings \[1, 2\]"):
        read(whole(part(tensor=0), part(value_coding=2, values=b"\x80\x3f")))


@pytest.mark.parametrize("operation", [0, 3, -1])
def test_an_unknown_operation_is_refused(operation: int) -> None:
    with pytest.raises(DeltaError, match=f"operation {operation} is unknown"):
        read(whole(part(), operation=operation))


@pytest.mark.parametrize("position", [3, (1 << 32) - 1])
def test_a_tensor_outside_the_space_is_refused(position: int) -> None:
    with pytest.raises(DeltaError, match=f"tensor {position} of 3"):
        read(whole(part(tensor=position)))


def test_tensors_out_of_order_or_twice_are_refused() -> None:
    for positions in ((2, 0), (2, 2)):
        with pytest.raises(DeltaError, match="strictly increasing position"):
            read(whole(*(part(tensor=position) for position in positions)))


def test_more_tensors_than_the_space_has_are_refused_at_once() -> None:
    with pytest.raises(DeltaError, match="has 4 tensors, the adapter space 3"):
        read(whole(*[part()] * 4))


@pytest.mark.parametrize(
    "data",
    [
        whole(part()) + b"\x2a\x01x",
        whole(part() + b"\x3a\x01x"),
        b"\x08\x01" + whole(part()),
        whole(part()) + b"\x18\x01",
        whole(b"\x08\x02" + part()),
        whole(part()).replace(b"\x08\x01", b"\x08\x81\x00", 1),
        whole(part())[2:] + b"\x08\x01",
        whole(part() + b"\x08\x02"),
    ],
    ids=[
        "unknown field",
        "unknown field inside",
        "format twice",
        "operation twice",
        "tensor twice",
        "long number",
        "fields out of order",
        "trailing field inside",
    ],
)
def test_other_bytes_that_say_the_same_are_refused(data: bytes) -> None:
    with pytest.raises(DeltaError, match="not in canonical form"):
        read(data)


@pytest.mark.parametrize(
    ("coding", "indices"),
    [(BITMAP, b"\xff" * (1 << 20)), (GAPS, bytes(1 << 20))],
    ids=["bitmap", "gaps"],
)
def test_a_small_message_with_many_indices_takes_little_memory(coding: int, indices: bytes) -> None:
    data = whole(part(tensor=0, index_coding=coding, indices=indices), space=LARGE)
    tracemalloc.start()
    with pytest.raises(DeltaError, match="indices for 1 values"):
        read(data, LARGE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * len(data)


def test_an_index_beyond_its_tensor_is_not_encoded() -> None:
    with pytest.raises(DeltaError, match="tensor 1: index 6 of 6 coordinates"):
        encode(delta({1: {6: 1.0}}), SPACE, ValueCoding.FP32)


def test_a_tensor_outside_the_space_is_not_encoded() -> None:
    with pytest.raises(DeltaError, match="tensor 3 of 3"):
        encode(delta({3: {0: 1.0}}), SPACE, ValueCoding.FP32)


def test_a_value_without_an_exact_bf16_form_is_not_encoded_before_quantising() -> None:
    third = delta({0: {0: 1 / 3}})
    with pytest.raises(DeltaError, match="no exact bf16 form"):
        encode(third, SPACE, ValueCoding.BF16)
    assert len(encode(quantise(third, ValueCoding.BF16), SPACE, ValueCoding.BF16)) > 0


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        (1.0 + 2**-8, 1.0),  # a tie goes to the even neighbour
        (1.0 + 3 * 2**-8, 1.0 + 2**-6),
        (1.0 + 2**-8 + 2**-20, 1.0 + 2**-7),
        (-1.0 - 3 * 2**-8, -1.0 - 2**-6),
        (3.4028234663852886e38, 3.3895313892515355e38),
        (-3.4028234663852886e38, -3.3895313892515355e38),
        (2.0**-149, 0.0),
        (-(2.0**-149), 0.0),
        (2.0**-133, 2.0**-133),
    ],
)
def test_quantising_takes_the_nearest_bf16_and_stays_finite(value: float, rounded: float) -> None:
    assert quantise(delta({0: {0: value}}), ValueCoding.BF16) == delta({0: {0: rounded}})


def test_fp32_needs_no_quantising() -> None:
    third = delta({0: {0: 1 / 3}})
    assert quantise(third, ValueCoding.FP32) is third

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from io import BytesIO
from typing import Any

import numpy as np
import pytest

from fedsparse.delta import (
    AdapterSpace,
    Header,
    Operation,
    SharedSupport,
    SparseDelta,
    TensorDelta,
    TensorSpec,
    ValueCoding,
    codec,
    decode,
    decode_stream,
    encode,
    encode_stream,
    header_of,
    quantise,
)
from fedsparse.errors import DeltaError, SpaceMismatchError
from fedsparse.v1 import delta_pb2
from tests.unit.samples import LIMIT, OTHER_SPACE, SPACE, delta
from tests.unit.test_delta_indices import shortest

FP32, BF16, INT8, INT4, TERNARY = ValueCoding
ALL, BITMAP, GAPS, ROWS, TILES = range(1, 6)
LARGE = AdapterSpace(bytes(32), (TensorSpec("large", (1 << 12, 1 << 11)),))
HUGE = AdapterSpace(bytes(32), (TensorSpec("huge", (1 << 20, 1 << 20)),))
ROW_OF_9 = AdapterSpace(bytes(32), tuple(TensorSpec(name, (9,)) for name in "abcde"))

FIFTH = b"\x01\x09"
"""The gap 5 with its best parameter 1: the low bit 1, the quotient 2 as 001."""


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def field(number: int, value: int | bytes) -> bytes:
    """Return a field, also where its value is 0 or empty."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def floats(*values: float) -> bytes:
    """Return the planes of a few values, packed."""
    octets = np.array(values, "<f4").tobytes()
    return b"".join(b"\x00" + octets[place::4] for place in range(4))


def scaled(scales: Sequence[float], symbols: bytes) -> bytes:
    """Return integers with their scales; the symbols are packed already."""
    return b"".join(np.array(scale, "<f4").tobytes()[2:] for scale in scales) + b"\x00" + symbols


def tensor(**changes: Any) -> bytes:
    """Return the TensorIndices of wide.weight[5], changed."""
    fields: dict[str, Any] = {"tensor": 2, "nnz": 1, "coding": GAPS, "indices": FIFTH} | changes
    return delta_pb2.TensorIndices(**fields).SerializeToString(deterministic=True)


def segment(*tensors: bytes, values: bytes | None = None) -> bytes:
    """Return a Segment of ``tensors``, or of wide.weight[5]; the values are 1 in fp32, one per tensor."""
    given = tensors or (tensor(),)
    written = floats(*[1.0] * len(given)) if values is None else values
    return b"".join(field(1, each) for each in given) + field(2, written)


def header(**changes: Any) -> bytes:
    fields: dict[str, Any] = {"format": 2, "space": SPACE.fingerprint, "operation": 1, "value_coding": 1} | changes
    return delta_pb2.SparseDelta(**fields).SerializeToString(deterministic=True)


def whole(*segments: bytes, **changes: Any) -> bytes:
    """Return a SparseDelta of ``segments``, or of wide.weight[5] = 1."""
    return header(**changes) + b"".join(field(6, each) for each in segments or (segment(),))


def read(data: bytes, space: AdapterSpace = SPACE, shared: SharedSupport | None = None) -> SparseDelta:
    return decode(data, space, max_bytes=len(data), shared=shared)


def of(space: AdapterSpace, indices: Sequence[Sequence[int]], value: float = 1.0) -> SparseDelta:
    """Return the delta that names these coordinates of each tensor."""
    return SparseDelta(
        space.fingerprint,
        Operation.ADD,
        tuple(
            TensorDelta(position, np.array(where), np.full(len(where), value, np.float32))
            for position, where in enumerate(indices)
            if where
        ),
    )


def mixed(coding: ValueCoding = FP32) -> SparseDelta:
    """Return a delta of ``SPACE`` whose tensors are written in three ways, with enough values for a table."""
    generator = np.random.default_rng(0)
    supports = [np.array([1, 7]), np.arange(6), np.flatnonzero(generator.random(2000) < 0.4)]
    tensors = (
        TensorDelta(position, where, generator.normal(size=len(where)).astype(np.float32))
        for position, where in enumerate(supports)
    )
    return quantise(SparseDelta(SPACE.fingerprint, Operation.ADD, tuple(tensors)), coding)


def support_of(change: SparseDelta, space: AdapterSpace = SPACE) -> SharedSupport:
    indices = [np.empty(0, np.int64)] * len(space.tensors)
    for part in change.tensors:
        indices[part.tensor] = part.indices
    return SharedSupport(space, indices)


def peak_of(call: Callable[[], object]) -> int:
    """Return the most bytes that were held while ``call`` was refused."""
    tracemalloc.start()
    with pytest.raises(DeltaError):
        call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


# What is right


def test_hand_made_bytes_are_those_of_the_encoder() -> None:
    fifth = delta({2: {5: 1.0}})
    assert read(whole()) == fifth
    assert encode(fifth, SPACE, FP32) == whole()


def test_the_empty_delta_has_a_header_alone_and_comes_back() -> None:
    empty = SparseDelta.empty(SPACE.fingerprint, Operation.SET)
    data = encode(empty, SPACE, BF16)
    assert data == header(operation=2, value_coding=2)
    assert read(data) == empty


@pytest.mark.parametrize("coding", ValueCoding)
def test_every_value_coding_comes_back(coding: ValueCoding) -> None:
    change = mixed(coding)
    assert read(encode(change, SPACE, coding)) == change


@pytest.mark.parametrize("coding", ValueCoding)
def test_the_parser_of_protocol_buffers_reads_the_same_and_writes_the_same_bytes(coding: ValueCoding) -> None:
    change = mixed(coding)
    data = encode(change, SPACE, coding)
    message = delta_pb2.SparseDelta.FromString(data)
    assert message.SerializeToString(deterministic=True) == data
    assert (message.format, message.space, message.operation) == (2, SPACE.fingerprint, 1)
    assert message.value_coding == int(coding)
    found = [(part.tensor, part.nnz) for each in message.segments for part in each.tensors]
    assert found == [(part.tensor, len(part.indices)) for part in change.tensors]


def test_the_codings_are_those_of_the_protocol() -> None:
    assert {f"VALUE_CODING_{coding.name}": int(coding) for coding in ValueCoding} == {
        name: number for name, number in delta_pb2.ValueCoding.items() if number
    }
    assert {f"OPERATION_{operation.name}": int(operation) for operation in Operation} == {
        name: number for name, number in delta_pb2.Operation.items() if number
    }


def test_the_encoder_takes_the_shortest_index_coding() -> None:
    def coding(parts: dict[int, dict[int, float]]) -> int:
        message = delta_pb2.SparseDelta.FromString(encode(delta(parts), SPACE, FP32))
        return int(message.segments[0].tensors[0].coding)

    assert coding({0: {3: 1.0, 4: 1.0}}) == GAPS  # 2 bytes against a bitmap of 3
    assert coding({0: {3: 1.0, 4: 1.0, 9: 1.0}}) == BITMAP  # a tie at 3
    assert coding({0: dict.fromkeys(range(20), 1.0)}) == ALL
    assert coding({2: {1999: 1.0}}) == GAPS
    assert coding({2: dict.fromkeys(range(50, 100), 1.0)}) == ROWS


def test_an_index_beyond_2_to_the_32_comes_back() -> None:
    last = of(HUGE, [[0, (1 << 40) - 1]])
    assert read(encode(last, HUGE, FP32), HUGE) == last


@pytest.mark.parametrize("coding", ValueCoding)
def test_the_header_can_be_read_alone(coding: ValueCoding) -> None:
    expected = Header(SPACE.fingerprint, Operation.ADD, coding)
    assert header_of(encode(mixed(coding), SPACE, coding)) == expected
    assert header_of(header(value_coding=int(coding))) == expected
    support = bytes(range(32))
    assert header_of(whole(support=support)) == Header(SPACE.fingerprint, Operation.ADD, FP32, support)


# What the encoder refuses


def test_an_index_beyond_its_tensor_is_not_encoded() -> None:
    with pytest.raises(DeltaError, match="tensor 1: index 6 of 6 coordinates"):
        encode(delta({1: {6: 1.0}}), SPACE, FP32)


def test_a_tensor_outside_the_space_is_not_encoded() -> None:
    with pytest.raises(DeltaError, match="tensor 3 of 3"):
        encode(delta({3: {0: 1.0}}), SPACE, FP32)


@pytest.mark.parametrize("coding", [BF16, INT8, INT4, TERNARY])
def test_a_value_without_an_exact_form_is_not_encoded_before_quantising(coding: ValueCoding) -> None:
    thirds = delta({0: {0: 1 / 3, 1: 0.7}})
    with pytest.raises(DeltaError, match=f"no exact form as {coding.name.lower()}. Quantise first"):
        encode(thirds, SPACE, coding)
    assert read(encode(quantise(thirds, coding), SPACE, coding)).nnz == 2


@pytest.mark.parametrize(
    ("coding", "values"),
    [
        (INT8, [126.0, 1.0]),
        (INT8, [127.0, 0.5]),
        (INT8, [127.0 * (1 + 2**-9)]),
        (INT8, [127.0, float(np.nextafter(np.float32(5), np.float32(6)))]),
        (INT8, [2.0**-149]),
        (INT4, [7.0, 6.5]),
        (TERNARY, [1.0, 0.5]),
        (TERNARY, [1.0 + 2**-8]),
        (BF16, [1.0, 1.0 + 2**-8]),
        (BF16, [2.0**-134]),
    ],
)
def test_values_beside_the_steps_are_not_encoded(coding: ValueCoding, values: list[float]) -> None:
    with pytest.raises(DeltaError, match="tensor 2: a value has no exact form"):
        encode(delta({2: dict(enumerate(values))}), SPACE, coding)


def test_tensors_out_of_order_are_not_encoded() -> None:
    one, other = of(ROW_OF_9, [[1], [2]]).tensors
    for tensors in ([other, one], [one, one], [replace(one, tensor=-1)]):
        with pytest.raises(DeltaError, match="strictly increasing position"):
            b"".join(encode_stream(Header(ROW_OF_9.fingerprint, Operation.ADD, FP32), tensors, ROW_OF_9))


# Spaces, formats and limits


def test_a_delta_of_another_space_is_refused_naming_both() -> None:
    data = encode(delta({0: {1: 1.0}}), SPACE, FP32)
    with pytest.raises(SpaceMismatchError) as caught:
        read(data, OTHER_SPACE)
    assert SPACE.fingerprint.hex()[:16] in str(caught.value)
    assert OTHER_SPACE.fingerprint.hex()[:16] in str(caught.value)
    with pytest.raises(SpaceMismatchError):
        encode(delta({0: {1: 1.0}}), OTHER_SPACE, FP32)


def test_a_delta_of_another_space_is_refused_before_a_coordinate_is_read() -> None:
    with pytest.raises(SpaceMismatchError):
        read(whole(b"no segment"), OTHER_SPACE)


@pytest.mark.parametrize("rest", [segment(), b"\xff" * 9])
def test_a_newer_format_is_refused_naming_both_and_what_to_do(rest: bytes) -> None:
    with pytest.raises(DeltaError, match=r"has format 3, this release reads format 2\. Install the same release"):
        read(field(1, 3) + rest)
    with pytest.raises(DeltaError, match="has format 1, this release reads format 2"):
        header_of(whole(format=1))


def test_a_delta_longer_than_allowed_is_refused_before_it_is_read() -> None:
    with pytest.raises(DeltaError, match="has 11 bytes, the limit is 10"):
        decode(b"\xff" * 11, SPACE, max_bytes=10)


def test_a_stream_longer_than_allowed_is_read_no_further() -> None:
    data = encode(mixed(), SPACE, FP32)
    for limit in (len(data) - 1, 60, 40, 1, 0):
        source = BytesIO(data)
        with pytest.raises(DeltaError, match="limit"):
            list(decode_stream(source, SPACE, max_bytes=limit)[1])
        assert source.tell() <= max(limit, 0) + 8


def test_a_limit_within_the_header_is_kept() -> None:
    data = header()
    assert decode_stream(BytesIO(data), SPACE, max_bytes=len(data))[0] == header_of(data)
    for limit in range(len(data)):
        with pytest.raises(DeltaError, match="limit"):
            decode_stream(BytesIO(data), SPACE, max_bytes=limit)


@pytest.mark.parametrize("data", [b"", b"\xff", b"GET / HTTP/1.1\r\n\r\n", whole()[:-1], whole()[1:], whole()[2:]])
def test_bytes_that_are_no_delta_are_refused(data: bytes) -> None:
    with pytest.raises(DeltaError):
        read(data)
    with pytest.raises(DeltaError):
        header_of(data[:-1])


def test_a_delta_that_ends_anywhere_but_at_its_end_is_refused() -> None:
    data = encode(mixed(INT8), SPACE, INT8)
    last = len(header(value_coding=3))  # a header alone is the empty delta
    for end in [*range(last), *range(last + 1, last + 60), len(data) - 1]:
        with pytest.raises(DeltaError):
            read(data[:end])


# Strict messages


HEADER = (field(1, 2), field(2, SPACE.fingerprint), field(3, 1), field(4, 1))
SEGMENT = field(6, segment())


@pytest.mark.parametrize(
    "parts",
    [
        [*HEADER, SEGMENT, field(7, b"x")],
        [*HEADER, SEGMENT, field(7, 1)],
        [*HEADER, SEGMENT, field(4, 1)],
        [*HEADER, SEGMENT, field(6, 1)],
        [*HEADER, SEGMENT, b"\x00"],
        [*HEADER, SEGMENT, b"\x0a"],
        [*HEADER, SEGMENT, field(6, b"")],
        [*HEADER, field(7, b"x"), SEGMENT],
        [*HEADER, field(1000, 1), SEGMENT],
        [*HEADER, field(0, 1), SEGMENT],
        [HEADER[0], *HEADER, SEGMENT],
        [*HEADER, HEADER[3], SEGMENT],
        [*HEADER[:2], HEADER[2], HEADER[2], HEADER[3], SEGMENT],
        [HEADER[1], HEADER[0], *HEADER[2:], SEGMENT],
        [*HEADER[:2], HEADER[3], HEADER[2], SEGMENT],
        [SEGMENT, *HEADER],
        [*HEADER[1:], SEGMENT],
        [HEADER[0], *HEADER[2:], SEGMENT],
        [*HEADER, field(5, b""), SEGMENT],
        [field(1, 0), *HEADER[1:], SEGMENT],
        [*HEADER[:2], field(3, 0), HEADER[3], SEGMENT],
        [field(1, b"\x02"), *HEADER[1:], SEGMENT],
        [HEADER[0], field(2, 7), *HEADER[2:], SEGMENT],
        [*HEADER[:2], b"\x1d\x01\x00\x00\x00", HEADER[3], SEGMENT],
        [*HEADER[:2], b"\x19\x01" + bytes(7), HEADER[3], SEGMENT],
        [*HEADER, b"\x33\x34", SEGMENT],
    ],
    ids=[
        "unknown field after",
        "unknown number after",
        "header after a segment",
        "segments as a number",
        "zero after",
        "half a field after",
        "empty segment after",
        "unknown field",
        "unknown large field",
        "field 0",
        "format twice",
        "coding twice",
        "operation twice",
        "format second",
        "coding before operation",
        "segment first",
        "no format",
        "no space",
        "support written though empty",
        "format written though 0",
        "operation written though 0",
        "format as bytes",
        "space as a number",
        "operation as fixed 32 bits",
        "operation as fixed 64 bits",
        "group",
    ],
)
def test_other_fields_of_a_delta_are_refused(parts: list[bytes]) -> None:
    assert read(b"".join([*HEADER, SEGMENT])) == delta({2: {5: 1.0}})
    with pytest.raises(DeltaError):
        read(b"".join(parts))


TENSOR, VALUES = field(1, tensor()), field(2, floats(1.0))


@pytest.mark.parametrize(
    "parts",
    [
        [VALUES, TENSOR],
        [TENSOR],
        [VALUES],
        [],
        [TENSOR, VALUES, VALUES],
        [TENSOR, VALUES, TENSOR],
        [TENSOR, VALUES, field(3, 1)],
        [TENSOR, field(3, b"x"), VALUES],
        [TENSOR, field(2, 1)],
        [field(1, 1), TENSOR, VALUES],
        [TENSOR, VALUES, b"\x00"],
        [TENSOR, VALUES[:-1]],
        [TENSOR, VALUES, b"\x1d\x01\x00\x00\x00"],
        [TENSOR, field(2, b""), VALUES],
        [field(1, b""), TENSOR, VALUES],
        [TENSOR, TENSOR, TENSOR, TENSOR, VALUES],
    ],
    ids=[
        "values first",
        "no values",
        "no tensor",
        "nothing",
        "values twice",
        "tensor after the values",
        "number after the values",
        "unknown field",
        "values as a number",
        "tensor as a number",
        "zero after",
        "cut off",
        "fixed 32 bits",
        "empty values",
        "empty tensor",
        "more tensors than the space has",
    ],
)
def test_other_fields_of_a_segment_are_refused(parts: list[bytes]) -> None:
    with pytest.raises(DeltaError):
        read(whole(b"".join(parts)))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([field(1, 2), field(2, 1), field(3, GAPS), field(4, FIFTH), field(5, 1)], "field 5 does not belong here"),
        ([field(1, 2), field(2, 1), field(3, GAPS), field(4, FIFTH), field(4, FIFTH)], "field 4 is out of order"),
        ([field(1, 2), field(1, 2), field(2, 1), field(3, GAPS), field(4, FIFTH)], "field 1 is out of order"),
        ([field(2, 1), field(1, 2), field(3, GAPS), field(4, FIFTH)], "field 1 is out of order, or there twice"),
        ([field(1, 0), field(2, 1), field(3, GAPS), field(4, FIFTH)], "field 1 is written though it is empty"),
        ([field(1, 1), field(2, 6), field(3, ALL), field(4, b"")], "field 4 is written though it is empty"),
        ([field(1, 2), field(2, b"\x01"), field(3, GAPS), field(4, FIFTH)], "field 2 does not belong here"),
        ([field(1, 2), field(2, 1), field(3, GAPS), field(4, 9)], "field 4 does not belong here"),
        ([b"\x0d\x02\x00\x00\x00", field(2, 1), field(3, GAPS), field(4, FIFTH)], "a field has another form"),
        ([field(1, 2), field(2, 1), field(3, GAPS), field(4, FIFTH)[:-1]], "has another form, or is cut off"),
    ],
)
def test_other_fields_of_a_tensor_are_refused(parts: list[bytes], said: str) -> None:
    with pytest.raises(DeltaError, match=said):
        read(whole(segment(b"".join(parts))))


def long(number: int, more: int = 1) -> bytes:
    """Return a varint with ``more`` groups of zeros than it needs."""
    short = varint(number)
    return short[:-1] + bytes([short[-1] | 128]) + b"\x80" * (more - 1) + b"\x00"


@pytest.mark.parametrize("more", [1, 4, 8])
@pytest.mark.parametrize(
    "build",
    [
        lambda more: b"\x08" + long(2, more) + whole()[2:],
        lambda more: long(8, more) + whole()[1:],
        lambda more: header() + long(6 << 3 | 2, more) + varint(len(segment())) + segment(),
        lambda more: header() + b"\x32" + long(len(segment()), more) + segment(),
        lambda more: whole(b"\x0a" + long(len(tensor()), more) + tensor() + VALUES),
        lambda more: whole(TENSOR + b"\x12" + long(len(floats(1.0)), more) + floats(1.0)),
        lambda more: whole(segment(b"\x08" + long(2, more) + tensor()[2:])),
        lambda more: whole(segment(tensor()[:2] + b"\x10" + long(1, more) + tensor()[4:])),
    ],
    ids=[
        "format",
        "tag",
        "segment's tag",
        "segment's length",
        "tensor's length",
        "values' length",
        "position",
        "nnz",
    ],
)
def test_a_number_in_more_bytes_than_it_needs_is_refused(build: Callable[[int], bytes], more: int) -> None:
    with pytest.raises(DeltaError, match="longer than it need be"):
        read(build(more))


@pytest.mark.parametrize(
    "number", [b"\xff" * 9 + b"\x02", b"\xff" * 10 + b"\x01", b"\x80" * 20 + b"\x01", b"\xff"]
)
def test_a_number_beyond_64_bits_or_without_an_end_is_refused(number: bytes) -> None:
    with pytest.raises(DeltaError, match="cut off, too large, or longer"):
        read(b"\x08" + number)
    with pytest.raises(DeltaError, match="cut off, too large, or longer"):
        read(whole(segment(b"\x08\x02\x10" + number)))


@pytest.mark.parametrize("operation", [0, 3, 1 << 40])
def test_an_unknown_operation_is_refused(operation: int) -> None:
    data = b"".join([*HEADER[:2], field(3, operation) if operation else b"", HEADER[3], SEGMENT])
    with pytest.raises(DeltaError, match=f"operation {operation} or value coding 1 is unknown"):
        read(data)


@pytest.mark.parametrize("coding", [0, 6, 99])
def test_an_unknown_value_coding_is_refused(coding: int) -> None:
    with pytest.raises(DeltaError, match=f"operation 1 or value coding {coding} is unknown"):
        read(whole(value_coding=coding))


@pytest.mark.parametrize("changes", [{"space": bytes(31)}, {"space": bytes(33)}, {"support": bytes(31)}])
def test_fingerprints_and_digests_of_another_length_are_refused(changes: dict[str, bytes]) -> None:
    with pytest.raises(DeltaError, match="have 32 bytes"):
        read(whole(**changes))


# Tensors and their counts


@pytest.mark.parametrize("position", [3, 1 << 20, (1 << 32) - 1])
def test_a_tensor_outside_the_space_is_refused(position: int) -> None:
    with pytest.raises(DeltaError, match=f"tensor {position} after tensor -1, of 3"):
        read(whole(segment(tensor(tensor=position))))


def test_a_position_beyond_32_bits_is_refused() -> None:
    with pytest.raises(DeltaError, match=f"tensor {(1 << 64) - 1} after"):
        read(whole(segment(field(1, (1 << 64) - 1) + tensor()[2:])))


@pytest.mark.parametrize("positions", [(2, 0), (2, 2)])
def test_tensors_out_of_order_or_twice_are_refused(positions: tuple[int, ...]) -> None:
    with pytest.raises(DeltaError, match=f"tensor {positions[1]} after tensor 2"):
        read(whole(segment(*(tensor(tensor=position) for position in positions))))


def test_more_tensors_than_the_space_has_are_refused_at_once() -> None:
    with pytest.raises(DeltaError, match="no more than the space has"):
        read(whole(segment(*[tensor()] * 4)))


@pytest.mark.parametrize("count", [0, 2001, (1 << 64) - 1])
def test_a_count_that_is_not_possible_is_refused(count: int) -> None:
    values = floats(*[1.0] * 2001)
    with pytest.raises(DeltaError, match=f"{count} (coordinates are announced|values as fp32)"):
        read(whole(segment(tensor(nnz=count), values=values)))


def test_an_index_beyond_its_tensor_is_refused() -> None:
    with pytest.raises(DeltaError, match="tensor 0: the bitmap does not name 1 of 20"):
        read(whole(segment(tensor(tensor=0, coding=BITMAP, indices=b"\x00\x00\x10"))))
    with pytest.raises(DeltaError, match="tensor 1: the sum of 1 numbers is not below 6"):
        read(whole(segment(tensor(tensor=1, indices=b"\x01\x11"))))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"indices": b""}, "bytes are missing"),
        ({"indices": b"\x01\x19"}, "2 numbers are there where 1 are announced"),
        ({"coding": BITMAP, "indices": bytes(250)}, "does not name 1 of 2000"),
        ({"coding": BITMAP, "indices": b"\x03" + bytes(249)}, "does not name 1 of 2000"),
        ({"coding": BITMAP, "indices": b"\x01" + bytes(248)}, "index coding 2 does not fit"),
        ({"coding": ALL, "indices": b""}, "not in the shortest form, which takes 2 bytes"),
        ({"coding": ALL}, "index coding 1 does not fit"),
        ({"coding": 0}, "index coding 0 does not fit"),
        ({"coding": 7}, "index coding 7 does not fit"),
        ({"coding": 99}, "index coding 99 does not fit"),
    ],
)
def test_indices_that_do_not_fit_their_count_or_coding_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DeltaError, match=f"tensor 2: .*{said}"):
        read(whole(segment(tensor(**changes))))


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"coding": BITMAP, "indices": b"\x20" + bytes(249)}, 1),
        ({"indices": b"\x00\x20"}, 1),
        ({"indices": b"\x02\x05"}, 1),
        ({"tensor": 0, "nnz": 20, "coding": GAPS, "indices": b"\x00\xff\xff\x0f"}, 20),
        ({"tensor": 0, "nnz": 20, "coding": BITMAP, "indices": b"\xff\xff\x0f"}, 20),
        ({"tensor": 0, "nnz": 4, "coding": GAPS, "indices": b"\x00\x0f"}, 4),
    ],
    ids=["bitmap for gaps", "parameter 0", "parameter 2", "gaps for all", "bitmap for all", "right"],
)
def test_a_valid_but_longer_index_coding_is_refused(changes: dict[str, Any], count: int) -> None:
    data = whole(segment(tensor(**changes), values=floats(*[1.0] * count)))
    if count == 4:
        assert read(data).nnz == 4
        return
    with pytest.raises(DeltaError, match="not in the shortest form"):
        read(data)


@pytest.mark.parametrize("coding", list(ValueCoding))
def test_bytes_that_were_decoded_before_are_decoded_to_the_same(coding: ValueCoding) -> None:
    indices = np.flatnonzero(np.random.default_rng(1).random(4096) < 0.3)
    space = AdapterSpace(bytes(32), (TensorSpec("a", (64, 64)),))
    values = np.random.default_rng(2).standard_normal(len(indices)).astype(np.float32)
    change = quantise(SparseDelta(space.fingerprint, Operation.ADD, (TensorDelta(0, indices, values),)), coding, 1)
    data = encode(change, space, coding)
    tensors = codec.decode_stream(BytesIO(data), space, max_bytes=len(data), known_canonical=True)[1]
    assert tuple(tensors) == change.tensors == decode(data, space, max_bytes=len(data)).tensors


def test_what_is_not_checked_again_is_the_shortest_form_alone() -> None:
    longer = whole(segment(tensor(coding=BITMAP, indices=b"\x20" + bytes(249)), values=floats(1.0)))
    beyond = whole(segment(tensor(indices=b"\x00\x20\x00"), values=floats(1.0)))
    found = codec.decode_stream(BytesIO(longer), SPACE, max_bytes=1000, known_canonical=True)[1]
    assert [part.indices.tolist() for part in found] == [[5]]
    with pytest.raises(DeltaError):
        list(codec.decode_stream(BytesIO(beyond), SPACE, max_bytes=1000, known_canonical=True)[1])


# Segments


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a segment end at 4 coordinates."""
    monkeypatch.setattr(codec, "SEGMENT", 4)


def sizes(data: bytes) -> list[list[int]]:
    """Return how many coordinates each tensor of each segment has."""
    message = delta_pb2.SparseDelta.FromString(data)
    return [[part.nnz for part in each.tensors] for each in message.segments]


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([1, 2, 3, 1, 1], [[1, 2, 3], [1, 1]]),
        ([4, 4, 1, 2, 1], [[4], [4], [1, 2, 1]]),
        ([9, 0, 1, 0, 2], [[9], [1, 2]]),
        ([3, 1, 2, 0, 2], [[3, 1], [2, 2]]),
        ([1, 1, 1, 0, 0], [[1, 1, 1]]),
    ],
)
def test_a_segment_ends_with_the_tensor_that_makes_it_full(counts: list[int], expected: list[list[int]]) -> None:
    change = of(ROW_OF_9, [range(count) for count in counts])
    data = encode(change, ROW_OF_9, FP32)
    assert sizes(data) == expected
    assert read(data, ROW_OF_9) == change
    support = support_of(change, ROW_OF_9)
    known = encode(change, ROW_OF_9, FP32, support)
    assert len(delta_pb2.SparseDelta.FromString(known).segments) == len(expected)
    assert read(known, ROW_OF_9, support) == change


def test_a_large_segment_ends_at_2_to_the_20() -> None:
    space = AdapterSpace(bytes(32), tuple(TensorSpec(name, (1 << 19,)) for name in "abc"))
    change = of(space, [range(1 << 19), range((1 << 19) - 1), [0]])
    assert sizes(encode(change, space, TERNARY)) == [[1 << 19, (1 << 19) - 1, 1]]
    full = of(space, [range(1 << 19), range(1 << 19), [0]])
    assert sizes(encode(full, space, TERNARY)) == [[1 << 19, 1 << 19], [1]]


def first(position: int, count: int) -> bytes:
    """Return the TensorIndices of the first coordinates of a vector of 9."""
    return tensor(tensor=position, nnz=count, coding=BITMAP, indices=bytes([(1 << count) - 1, 0]))


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize(
    ("segments", "said"),
    [
        ([[(0, 1)], [(1, 1)]], "ends before it is full"),
        ([[(0, 3)], [(1, 4)]], "ends before it is full"),
        ([[(0, 4)], [(1, 3)], [(2, 1)]], "ends before it is full"),
        ([[(0, 4), (1, 1)]], "goes on after it is full"),
        ([[(0, 2), (1, 2), (2, 1)]], "goes on after it is full"),
        ([[(0, 4)], [(1, 4), (2, 1)]], "goes on after it is full"),
        ([[(0, 4)], [(0, 1)]], "tensor 0 after tensor 0"),
        ([[(1, 4)], [(0, 1)]], "tensor 0 after tensor 1"),
    ],
)
def test_a_segment_that_ends_elsewhere_is_refused(segments: list[list[tuple[int, int]]], said: str) -> None:
    data = whole(
        *(
            segment(*(first(*each) for each in parts), values=floats(*[1.0] * sum(count for _, count in parts)))
            for parts in segments
        ),
        space=ROW_OF_9.fingerprint,
    )
    with pytest.raises(DeltaError, match=said):
        read(data, ROW_OF_9)


def test_a_segment_without_coordinates_is_refused() -> None:
    for empty in (field(2, b""), field(2, b"\x00")):
        with pytest.raises(DeltaError, match="a segment has no coordinates"):
            read(whole(empty))


# Values


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_value_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(DeltaError, match="NaN or infinite"):
        read(whole(segment(values=floats(value))))
    upper = np.array(value, "<f4").tobytes()[2:]
    with pytest.raises(DeltaError, match="NaN or infinite"):
        read(whole(segment(values=bytes([0, upper[0], 0, upper[1]])), value_coding=2))


def test_a_negative_zero_is_refused_because_zero_says_the_same() -> None:
    assert read(whole(segment(values=floats(0.0)))) == delta({2: {5: 0.0}})
    with pytest.raises(DeltaError, match="negative zero"):
        read(whole(segment(values=floats(-0.0))))
    with pytest.raises(DeltaError, match="negative zero"):
        read(whole(segment(values=b"\x00\x00\x00\x80"), value_coding=2))


@pytest.mark.parametrize(
    ("coding", "values", "said"),
    [
        (1, b"", "0 bytes cannot hold 1 values as fp32"),
        (1, floats(1.0)[:3], "3 bytes cannot hold 1 values as fp32"),
        (1, floats(1.0)[:6], "0 bytes cannot hold 1 values"),
        (1, floats(1.0) + b"\x00", "1 bytes follow the values"),
        (1, floats(1.0, 1.0), "4 bytes follow the values"),
        (2, floats(1.0), "4 bytes follow the values"),
        (2, b"\x00", "1 bytes cannot hold 1 values as bf16"),
        (3, b"\x80\x3f", "2 bytes cannot hold 1 values as int8"),
        (3, scaled([1.0], b"\xff") + b"\x00", "1 bytes follow the values"),
        (3, scaled([1.0], b""), "packed values are not 1 symbols of 256"),
        (4, scaled([1.0], b"\x1f"), "not filled up with zeros"),
        (5, scaled([1.0], b"\x05"), "not filled up with zeros"),
        (5, scaled([1.0], b"\xf3"), "packed values are not 1 symbols of 3"),
    ],
)
def test_values_that_do_not_fit_their_count_are_refused(coding: int, values: bytes, said: str) -> None:
    with pytest.raises(DeltaError, match=said):
        read(whole(segment(values=values), value_coding=coding))


@pytest.mark.parametrize(
    ("coding", "values", "expected"),
    [
        (3, scaled([0.5], b"\x01"), -63.5),
        (3, scaled([0.0], b"\x80"), 0.0),
        (4, scaled([0.5], b"\x0f"), 3.5),
        (4, scaled([2.0**-133], b"\x01"), -7 * 2.0**-133),
        (5, scaled([0.5], b"\x00"), -0.5),
        (5, scaled([float(2.0**127)], b"\x02"), 2.0**127),
    ],
)
def test_integers_times_their_scale_are_read(coding: int, values: bytes, expected: float) -> None:
    data = whole(segment(values=values), value_coding=coding)
    assert read(data) == delta({2: {5: expected}})
    assert encode(delta({2: {5: expected}}), SPACE, ValueCoding(coding)) == data


@pytest.mark.parametrize(
    ("coding", "values", "said"),
    [
        (3, scaled([0.5], b"\x02"), "largest integer of a block is not 127"),
        (3, scaled([0.5], b"\xfe"), "largest integer of a block is not 127"),
        (3, scaled([0.5], b"\x00"), "largest integer of a block is not 127"),
        (3, scaled([0.5], b"\x80"), "largest integer of a block is not 127"),
        (3, scaled([0.0], b"\xff"), "its scale is 0 and an integer is not"),
        (3, scaled([0.0], b"\x81"), "its scale is 0 and an integer is not"),
        (4, scaled([0.5], b"\x02"), "largest integer of a block is not 7"),
        (4, scaled([0.5], b"\x00"), "largest integer of a block is not 7"),
        (5, scaled([0.5], b"\x01"), "largest integer of a block is not 1"),
        (5, scaled([0.0], b"\x02"), "its scale is 0 and an integer is not"),
        (3, scaled([-0.5], b"\xff"), "a scale is negative or too large"),
        (3, scaled([-0.0], b"\x80"), "a scale is negative or too large"),
        (3, scaled([float("nan")], b"\xff"), "a scale is negative or too large"),
        (3, scaled([float("inf")], b"\xff"), "a scale is negative or too large"),
        (3, scaled([2.0**122], b"\xff"), "a scale is negative or too large"),
        (4, scaled([2.0**126], b"\x0f"), "a scale is negative or too large"),
        (5, scaled([float("inf")], b"\x02"), "a scale is negative or too large"),
        (5, scaled([float("-nan")], b"\x01"), "a scale is negative or too large"),
    ],
)
def test_wrong_scales_are_refused(coding: int, values: bytes, said: str) -> None:
    with pytest.raises(DeltaError, match=said):
        read(whole(segment(values=values), value_coding=coding))


def test_the_largest_integer_is_looked_for_in_every_block() -> None:
    wide = np.random.default_rng(0).normal(size=257).astype(np.float32)
    change = quantise(delta({2: dict(enumerate(wide.tolist()))}), INT8)
    data = encode(change, SPACE, INT8)
    start = len(data) - 257  # the symbols, packed
    for block in (range(128), range(128, 256), range(256, 257)):
        [at] = (start + place for place in block if data[start + place] in (1, 255))
        changed = data[:at] + bytes([254 if data[at] == 255 else 2]) + data[at + 1 :]
        with pytest.raises(DeltaError, match="largest integer of a block is not 127"):
            read(changed)


def test_blocks_begin_anew_with_each_tensor() -> None:
    change = delta({0: {0: 127.0}, 1: {0: 0.5 * 127}, 2: {0: 0.0}})
    data = encode(change, SPACE, INT8)
    assert data.endswith(scaled([1.0, 0.5, 0.0], b"\xff\xff\x80"))
    assert read(data) == change


def test_a_table_that_is_not_that_of_the_values_is_refused() -> None:
    wide = delta({2: dict.fromkeys(range(2000), 0.0) | dict.fromkeys(range(0, 2000, 5), 1.0)})
    data = encode(wide, SPACE, BF16)
    head = b"\x01\x01" + bytes(15) + b"\x01" + bytes(15)  # entropy-coded, 0x00 and 0x80 occur
    start = data.index(head) + len(head)
    frequencies = int.from_bytes(data[start : start + 3], "little")
    for change in (1 - (1 << 12), 1, -1):  # one more and the other less; a sum of 4097; of 4095
        table = (frequencies + change).to_bytes(3, "little")
        with pytest.raises(DeltaError):
            read(data[:start] + table + data[start + 3 :])


# Supports known in advance


@pytest.mark.parametrize("coding", ValueCoding)
def test_a_delta_on_a_known_support_has_its_digest_and_no_indices(coding: ValueCoding) -> None:
    change = mixed(coding)
    support = support_of(change)
    data = encode(change, SPACE, coding, support)
    message = delta_pb2.SparseDelta.FromString(data)
    assert message.support == support.digest == header_of(data).support
    assert [len(each.tensors) for each in message.segments] == [0]
    assert message.SerializeToString(deterministic=True) == data
    assert len(data) + 240 < len(encode(change, SPACE, coding))
    assert read(data, shared=support) == change


def test_the_digest_of_a_support_is_that_of_the_page() -> None:
    support = support_of(delta({0: {1: 1.0, 7: 1.0}, 2: {1999: 1.0}}))
    parts = (
        b"fedsparse support 1\x00" + SPACE.fingerprint,
        bytes(3) + b"\x00" + bytes(7) + b"\x02" + b"\x01" + bytes(7) + b"\x07" + bytes(7),
        bytes(3) + b"\x02" + bytes(7) + b"\x01" + b"\xcf\x07" + bytes(6),
    )
    assert support.digest == sha256(b"".join(parts)).digest()


def test_supports_and_spaces_have_digests_of_their_own() -> None:
    changes = [{0: {1: 1.0}}, {0: {2: 1.0}}, {1: {1: 1.0}}, {0: {1: 1.0, 2: 1.0}}, {0: {1: 1.0}, 1: {1: 1.0}}]
    digests = {support_of(delta(change)).digest for change in changes}
    digests.add(support_of(delta(changes[0]), OTHER_SPACE).digest)
    assert len(digests) == len(changes) + 1


@pytest.mark.parametrize("named", [{0: {1: 1.0}}, {0: {1: 1.0, 8: 1.0}}, {1: {1: 1.0, 2: 1.0}}, {}])
def test_a_delta_beside_the_known_support_is_written_with_its_indices(named: dict[int, dict[int, float]]) -> None:
    support, change = support_of(delta({0: {1: 1.0, 7: 1.0}})), delta(named)
    data = encode(change, SPACE, FP32, support)
    assert data == encode(change, SPACE, FP32)
    assert header_of(data).support == b""
    assert read(data, shared=support) == change


def test_a_support_that_is_not_known_is_refused_naming_it() -> None:
    change = delta({0: {1: 1.0, 7: 1.0}})
    support = support_of(change)
    data = encode(change, SPACE, FP32, support)
    for other in (None, support_of(delta({0: {1: 1.0, 6: 1.0}}))):
        with pytest.raises(DeltaError, match=f"support {support.digest.hex()[:16]}, which is not known here"):
            read(data, shared=other)


def test_a_known_support_written_with_its_indices_is_refused() -> None:
    change = delta({0: {1: 1.0, 7: 1.0}})
    data = encode(change, SPACE, FP32)
    assert read(data) == change
    with pytest.raises(DeltaError, match="spells out the coordinates of a support that is known"):
        read(data, shared=support_of(change))


@pytest.mark.parametrize("named", [{0: {1: 1.0}}, {0: {1: 1.0, 7: 1.0}, 1: {0: 1.0}}, {}])
def test_a_delta_on_part_of_a_known_support_or_on_more_is_read(named: dict[int, dict[int, float]]) -> None:
    support = support_of(delta({0: {1: 1.0, 7: 1.0}}))
    assert read(encode(delta(named), SPACE, FP32), shared=support) == delta(named)


def test_a_known_support_of_another_space_is_refused_naming_both() -> None:
    change = delta({0: {1: 1.0, 7: 1.0}})
    support, other = support_of(change), support_of(change, OTHER_SPACE)
    both = f"space {OTHER_SPACE.fingerprint.hex()[:16]}, here the space is {SPACE.fingerprint.hex()[:16]}"
    with pytest.raises(SpaceMismatchError, match=both):
        encode(change, SPACE, FP32, other)
    for data in (encode(change, SPACE, FP32), encode(change, SPACE, FP32, support)):
        with pytest.raises(SpaceMismatchError, match=both):
            read(data, shared=other)


def test_indices_beside_the_digest_of_a_known_support_are_refused() -> None:
    support = support_of(delta({2: {5: 1.0}}))
    assert read(whole(VALUES, support=support.digest), shared=support) == delta({2: {5: 1.0}})
    with pytest.raises(DeltaError, match="names tensors of a support that is known"):
        read(whole(support=support.digest), shared=support)


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ([], "values of the known support are missing"),
        ([5], "values of the known support are missing"),
        ([5, 2, 1], "a segment ends before it is full"),
        ([7], "8 bytes follow the values"),
        ([4, 3], "packed values are not 5 symbols"),
        ([5, 1], "packed values are not 2 symbols"),
        ([5, 3], "4 bytes follow the values"),
    ],
)
def test_values_that_are_not_those_of_the_known_support_are_refused(counts: list[int], said: str) -> None:
    change = of(ROW_OF_9, [range(3), [], range(2), [1, 2]])
    support = support_of(change, ROW_OF_9)
    segments = [field(2, floats(*[0.0] * count)) for count in counts]
    data = header(space=ROW_OF_9.fingerprint, support=support.digest) + b"".join(
        field(6, each) for each in segments
    )
    with pytest.raises(DeltaError, match=said):
        read(data, ROW_OF_9, support)


@pytest.mark.usefixtures("short_segments")
def test_a_segment_after_those_of_the_known_support_is_refused() -> None:
    support = support_of(of(ROW_OF_9, [range(4)]), ROW_OF_9)
    segments = field(6, field(2, floats(*[1.0] * 4))) + field(6, field(2, floats(1.0)))
    with pytest.raises(DeltaError, match="a segment has no coordinates"):
        read(header(space=ROW_OF_9.fingerprint, support=support.digest) + segments, ROW_OF_9, support)


@pytest.mark.parametrize(
    ("indices", "said"),
    [
        ([[0], [0]], "coordinates of 3 tensors"),
        ([[], [], []], "and one at least"),
        ([[0, 20], [], []], "conv.weight: coordinates must rise from 0 to 19"),
        ([[], [-1], []], "head.weight: coordinates must rise from 0 to 5"),
        ([[], [], [4, 4]], "wide.weight: coordinates must rise"),
        ([[], [], [5, 4]], "wide.weight: coordinates must rise"),
    ],
)
def test_an_impossible_support_is_refused(indices: list[list[int]], said: str) -> None:
    with pytest.raises(DeltaError, match=said):
        SharedSupport(SPACE, [np.array(where, np.int64) for where in indices])


# Piece by piece


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize("coding", ValueCoding)
@pytest.mark.parametrize("known", [False, True])
def test_a_stream_has_the_bytes_and_tensors_of_the_whole(coding: ValueCoding, known: bool) -> None:
    change = mixed(coding)
    support = support_of(change) if known else None
    data = encode(change, SPACE, coding, support)
    expected = Header(SPACE.fingerprint, Operation.ADD, coding, support.digest if support else b"")
    pieces = list(encode_stream(expected, iter(change.tensors), SPACE))
    assert b"".join(pieces) == data
    assert len(pieces) == 3  # the header, and two segments: 2 + 6 coordinates, and many
    found, tensors = decode_stream(BytesIO(data), SPACE, max_bytes=len(data), shared=support)
    assert found == expected
    assert tuple(tensors) == change.tensors


@pytest.mark.usefixtures("short_segments")
def test_a_stream_takes_and_gives_a_segment_at_a_time() -> None:
    change = of(ROW_OF_9, [range(4), range(4), range(4)])
    header = Header(ROW_OF_9.fingerprint, Operation.ADD, FP32)
    taken: list[int] = []

    def tensors() -> Iterator[TensorDelta]:
        for each in change.tensors:
            taken.append(each.tensor)
            yield each

    written = encode_stream(header, tensors(), ROW_OF_9)
    ends = np.cumsum([len(next(written)) for _ in range(2)])
    assert taken == [0]
    data = encode(change, ROW_OF_9, FP32)
    source = BytesIO(data)
    read = decode_stream(source, ROW_OF_9, max_bytes=len(data))[1]
    assert source.tell() == ends[1]
    assert next(read) == change.tensors[0]
    assert source.tell() == ends[1]
    assert list(read) == list(change.tensors[1:])


@pytest.mark.usefixtures("short_segments")
def test_tensors_before_the_damage_are_given_and_then_the_error() -> None:
    data = encode(of(ROW_OF_9, [range(4), range(4)]), ROW_OF_9, FP32)
    tensors = decode_stream(BytesIO(data[:-1]), ROW_OF_9, max_bytes=LIMIT)[1]
    assert next(tensors).tensor == 0
    with pytest.raises(DeltaError, match="the bytes end before their time"):
        next(tensors)


def test_a_stream_of_another_space_is_refused() -> None:
    data = encode(mixed(), SPACE, FP32)
    with pytest.raises(SpaceMismatchError):
        decode_stream(BytesIO(data), OTHER_SPACE, max_bytes=LIMIT)
    with pytest.raises(SpaceMismatchError):
        next(encode_stream(header_of(data), mixed().tensors, OTHER_SPACE))


# What a short message can announce


@pytest.mark.parametrize("coding", ValueCoding)
@pytest.mark.parametrize("indices", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("count", [10_000, 1 << 30, 1 << 40, (1 << 64) - 1])
def test_counts_far_beyond_the_bytes_are_refused_in_little_memory(
    coding: ValueCoding, indices: int, count: int
) -> None:
    part = tensor(tensor=0, nnz=count, coding=indices, indices=b"\x04" + bytes(100))
    data = whole(
        segment(part, values=b"\x01" * 500), space=HUGE.fingerprint, value_coding=int(coding)
    )  # 500 bytes hold 8000 values at most
    assert peak_of(lambda: read(data, HUGE)) < 50_000


@pytest.mark.parametrize("coding", ValueCoding)
@pytest.mark.parametrize(
    ("shape", "count", "indices", "given"),
    [
        ((1 << 12, 1 << 11), 1 << 23, ALL, b""),
        ((1 << 20, 1 << 20), 1 << 20, ROWS, b"\x00\x01"),
        ((1 << 10, 1 << 20), 1 << 20, TILES, b"\x20" + shortest([0] * 1024)),
    ],
    ids=["all", "rows", "tiles"],
)
def test_few_bytes_that_name_many_coordinates_without_their_values_are_refused_in_little_memory(
    coding: ValueCoding, shape: tuple[int, int], count: int, indices: int, given: bytes
) -> None:
    space = AdapterSpace(bytes(32), (TensorSpec("large", shape),))
    part = tensor(tensor=0, nnz=count, coding=indices, indices=given)
    data = whole(segment(part, values=bytes(1000)), space=space.fingerprint, value_coding=int(coding))
    assert peak_of(lambda: read(data, space)) < 50_000


@pytest.mark.parametrize("length", [1 << 30, 1 << 62])
def test_a_length_far_beyond_the_bytes_is_refused_in_little_memory(length: int) -> None:
    data = header() + varint(6 << 3 | 2) + varint(length) + bytes(100)
    assert peak_of(lambda: decode(data, SPACE, max_bytes=LIMIT)) < 50_000


def test_few_bytes_for_a_large_known_support_are_refused_in_little_memory() -> None:
    support = SharedSupport(LARGE, [np.arange(1 << 20)])
    data = whole(field(2, bytes(1000)), space=LARGE.fingerprint, support=support.digest)
    assert peak_of(lambda: read(data, LARGE, support)) < 50_000


@pytest.mark.parametrize(
    ("coding", "indices", "most"),
    [
        (BITMAP, b"\xff" * (1 << 20), 6),
        (GAPS, bytes(1 << 20), 12),
        (GAPS, b"\x00" + b"\xff" * (1 << 20), 80),  # eight bytes for the end of every number
    ],
    ids=["bitmap", "gaps without an end", "gaps"],
)
def test_many_indices_for_one_value_take_memory_in_proportion(coding: int, indices: bytes, most: int) -> None:
    data = whole(segment(tensor(tensor=0, coding=coding, indices=indices)), space=LARGE.fingerprint)
    assert peak_of(lambda: read(data, LARGE)) < most * len(data)

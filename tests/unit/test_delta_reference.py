"""The library against a decoder that was written from docs/format.md alone: the same bytes, the same answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedsparse.delta import (
    AdapterSpace,
    Operation,
    SharedSupport,
    SparseDelta,
    TensorDelta,
    TensorSpec,
    ValueCoding,
    decode,
    encode,
    header_of,
    quantise,
)
from fedsparse.errors import DeltaError, SpaceMismatchError
from tests.unit import reference_decoder as reference

SHAPES = [(40,), (24, 16), (8, 4, 3, 3), (64, 48), (1, 30), (2500,)]
SPACE = AdapterSpace(bytes(range(32)), tuple(TensorSpec(str(at), shape) for at, shape in enumerate(SHAPES)))
PLANES = {ValueCoding.FP32: 4, ValueCoding.BF16: 2}

Indices = NDArray[np.int64]
Table = NDArray[np.bool_]
Support = dict[int, Indices]


# ---- Supports: of a tensor seen as a matrix, as a table of what is named


def scattered(rows: int, columns: int, random: np.random.Generator) -> Table:
    table: Table = random.random((rows, columns)) < random.choice([0.01, 0.1, 0.5])
    return table


def some_rows(rows: int, columns: int, random: np.random.Generator) -> Table:
    return np.repeat(random.random((rows, 1)) < random.choice([0.1, 0.5]), columns, axis=1)


def uneven_rows(rows: int, columns: int, random: np.random.Generator) -> Table:
    table: Table = random.random((rows, columns)) < 0.9 * random.random((rows, 1)) ** 6
    return table


def tiles(side: int) -> Callable[[int, int, np.random.Generator], Table]:
    def drawn(rows: int, columns: int, random: np.random.Generator) -> Table:
        chosen = random.random((-(-rows // side), -(-columns // side))) < random.choice([0.1, 0.3])
        table: Table = chosen.repeat(side, axis=0).repeat(side, axis=1)[:rows, :columns]
        return table

    return drawn


def everything(rows: int, columns: int, random: np.random.Generator) -> Table:
    return np.ones((rows, columns), np.bool_)


KINDS = {
    "scattered": scattered,
    "rows": some_rows,
    "uneven rows": uneven_rows,
    "tiles of 4": tiles(4),
    "tiles of 8": tiles(8),
    "everything": everything,
}


def drawn_support(position: int, kind: str, random: np.random.Generator) -> Indices:
    """One coordinate at least, of the tensor at `position`."""
    shape = SHAPES[position]
    rows = shape[0] if len(shape) > 1 else 1
    named = np.flatnonzero(KINDS[kind](rows, SPACE.tensors[position].size // rows, random))
    return named if len(named) else np.array([random.integers(SPACE.tensors[position].size)])


def drawn_delta(support: Support, coding: ValueCoding, random: np.random.Generator) -> SparseDelta:
    """Values of several kinds: as a gradient's, heavy-tailed, on a few levels, all equal, all zero."""
    kind = random.integers(5)
    tensors = []
    for position, indices in support.items():
        normal = random.normal(size=len(indices))
        values = [normal, normal**5, np.round(normal * 0.7), normal * 0 + 0.1, normal * 0][kind]
        tensors.append(TensorDelta(position, indices, values.astype(np.float32)))
    operation = Operation(int(random.integers(1, 3)))
    return quantise(SparseDelta(SPACE.fingerprint, operation, tuple(tensors)), coding)


def shared_of(support: Support) -> SharedSupport:
    none = np.array([], np.int64)
    return SharedSupport(SPACE, [support.get(position, none) for position in range(len(SHAPES))])


# ---- What the two decoders say; None where they refuse


def library_reads(data: bytes, shared: SharedSupport | None = None) -> reference.Decoded | None:
    try:
        found = decode(data, SPACE, max_bytes=len(data), shared=shared)
    except (DeltaError, SpaceMismatchError):
        return None
    tensors = ((each.tensor, tuple(each.indices.tolist()), tuple(each.values.tolist())) for each in found.tensors)
    return reference.Decoded(int(found.operation), int(header_of(data).coding), tuple(tensors))


def reference_reads(data: bytes, shared: SharedSupport | None = None) -> reference.Decoded | None:
    known = None if shared is None else {position: indices.tolist() for position, indices in shared.parts}
    try:
        return reference.decode(data, SPACE.fingerprint, SHAPES, known)
    except reference.Refused:
        return None


def both_read(data: bytes, shared: SharedSupport | None = None) -> reference.Decoded | None:
    """What both say, once it is sure that they say the same."""
    ours, theirs = library_reads(data, shared), reference_reads(data, shared)
    assert ours == theirs, data.hex()
    return ours


def mutations(data: bytes, count: int, random: np.random.Generator) -> Iterator[bytes]:
    for at in random.integers(len(data), size=count):
        change = (1, -1, 1 << int(random.integers(8)), int(random.integers(1, 256)))[random.integers(4)]
        yield data[:at] + bytes([(data[at] + change) % 256]) + data[at + 1 :]


def both_refuse(data: bytes, shared: SharedSupport | None = None) -> bool:
    return both_read(data, shared) is None


# ---- Bytes made by hand


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def field(number: int, value: int | bytes) -> bytes:
    """A field, written even where it is 0 or empty."""
    if isinstance(value, int):
        return varint(8 * number) + varint(value)
    return varint(8 * number + 2) + varint(len(value)) + value


def whole(*segments: bytes, coding: ValueCoding, space: AdapterSpace = SPACE, support: bytes = b"") -> bytes:
    head = field(1, 2) + field(2, space.fingerprint) + field(3, 1) + field(4, int(coding))
    return head + (field(5, support) if support else b"") + b"".join(field(6, segment) for segment in segments)


def named(position: int, count: int, coding: int, code: bytes) -> bytes:
    """A segment's tensor."""
    at = field(1, position) if position else b""
    return field(1, at + field(2, count) + field(3, coding) + (field(4, code) if code else b""))


def zeros(count: int) -> bytes:
    """A segment's values: fp32 zeros."""
    return field(2, (b"\0" + bytes(count)) * 4)


# ---- What the encoder writes

CASES: dict[str, Support] = {
    kind: {at: drawn_support(at, kind, np.random.default_rng(at)) for at in positions}
    for kind, positions in {
        "scattered": [0, 1, 5],
        "rows": [1, 2],
        "uneven rows": [3],
        "tiles of 4": [2, 3],
        "tiles of 8": [1, 3],
        "everything": [2, 4, 5],
    }.items()
}


@st.composite
def supports(draw: st.DrawFn) -> Support:
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    positions = sorted(draw(st.sets(st.integers(0, len(SHAPES) - 1), min_size=1, max_size=3)))
    return {at: drawn_support(at, draw(st.sampled_from(sorted(KINDS))), random) for at in positions}


@settings(max_examples=60, deadline=None)
@given(supports(), st.sampled_from(ValueCoding), st.booleans(), st.integers(0, 2**32 - 1))
def test_the_reference_reads_what_the_library_writes_and_refuses_what_it_refuses(
    support: Support, coding: ValueCoding, known: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    delta = drawn_delta(support, coding, random)
    shared = shared_of(support) if known else None
    data = encode(delta, SPACE, coding, shared)
    assert decode(data, SPACE, max_bytes=len(data), shared=shared) == delta
    assert both_read(data, shared) is not None
    for damaged in mutations(data, 3, random):
        both_read(damaged, shared)


@pytest.mark.parametrize("coding", ValueCoding)
def test_both_say_the_same_of_bytes_with_one_byte_changed(coding: ValueCoding) -> None:
    random = np.random.default_rng(int(coding))
    answers = []
    for support in CASES.values():
        for shared in (None, shared_of(support)):
            data = encode(drawn_delta(support, coding, random), SPACE, coding, shared)
            assert both_read(data, shared) is not None
            answers += [both_read(damaged, shared) for damaged in mutations(data, 8, random)]
    refused = answers.count(None)
    assert 0 < refused < len(answers)  # both happens, so that agreement says something


def test_both_say_the_same_of_every_flipped_bit_and_every_lost_or_added_byte() -> None:
    support = {0: np.array([3, 4, 39]), 1: np.arange(32, 64)}
    data = encode(drawn_delta(support, ValueCoding.INT8, np.random.default_rng(2)), SPACE, ValueCoding.INT8)
    for at in range(len(data)):
        for bit in range(8):
            both_read(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])
        both_read(data[:at] + data[at + 1 :])
        both_read(data[:at] + b"\0" + data[at:])
    cut = [at for at in range(len(data)) if not both_refuse(data[:at])]
    assert cut == [len(whole(coding=ValueCoding.INT8))]  # the header alone is a delta too: the empty one


# ---- Forms


@pytest.mark.parametrize(
    ("position", "indices", "coding"),
    [
        (1, range(384), reference.ALL),
        (1, range(0, 384, 2), reference.BITMAP),
        (5, [3, 4, 2499], reference.GAPS),
        (1, [*range(32, 48), *range(64, 96)], reference.ROWS),
        (3, CASES["tiles of 4"][3], reference.TILES),
        (3, CASES["tiles of 8"][3], reference.TILES),
        (3, CASES["uneven rows"][3], reference.ROW_RATES),
    ],
)
def test_both_take_the_shortest_form_of_indices_and_no_other(
    position: int, indices: list[int], coding: int
) -> None:
    shape, support = SHAPES[position], [int(index) for index in indices]
    gaps = reference.gaps_of(support)
    forms = {*reference.index_codes(shape, support), (reference.ALL, b"")}
    forms |= {
        (reference.GAPS, bytes([k]) + reference.rice_written(gaps, [k] * len(gaps))) for k in (0, 1, 5, 10, 11)
    }
    accepted = [
        form
        for form in sorted(forms)
        if both_read(
            whole(named(position, len(support), *form) + zeros(len(support)), coding=ValueCoding.FP32),
        )
    ]
    assert [number for number, _ in accepted] == [coding]


def spikes(largest: int) -> list[int]:
    """384 integers, mostly zero; one in each block of 128 is the largest, and one is -1."""
    return [largest, -1, *[0] * 126] * 3


@pytest.mark.parametrize("coding", [ValueCoding.INT8, ValueCoding.INT4, ValueCoding.TERNARY])
def test_both_take_integers_in_the_shorter_form_and_every_bit_of_it_counts(coding: ValueCoding) -> None:
    integers = spikes(reference.LARGEST[coding])
    delta = SparseDelta(
        SPACE.fingerprint,
        Operation.ADD,
        (TensorDelta(1, np.arange(384), np.array(integers, np.float32)),),
    )
    head, scales = named(1, 384, reference.ALL, b""), b"\x80\x3f" * 3
    written = reference.message(encode(delta, SPACE, coding), numbers=(1, 3, 4), strings=(2,), repeated=(6,))
    values = reference.message(written[1][6][0], strings=(2,), repeated=(1,))[1][2][0]
    assert values[: len(scales) + 1] == scales + bytes([reference.ENTROPY])
    assert both_read(whole(head + field(2, values), coding=coding)) is not None

    alphabet, symbols = reference.ALPHABET[coding], [q + reference.OFFSET[coding] for q in integers]
    many = reference.PER_BYTE[alphabet]
    packed = bytes(
        sum(symbol * alphabet**place for place, symbol in enumerate(symbols[at : at + many]))
        for at in range(0, 384, many)
    )
    assert both_refuse(whole(head + field(2, scales + b"\0" + packed), coding=coding))
    for bit in range(8 * (len(scales) + 1), 8 * len(values)):
        changed = (int.from_bytes(values, "little") ^ 1 << bit).to_bytes(len(values), "little")
        assert both_refuse(whole(head + field(2, changed), coding=coding)), f"bit {bit} is free"


def test_an_entropy_coder_of_two_states_is_read_by_both() -> None:
    values = np.resize(np.array([7, 0, 0, 1, 0, -1, 0], np.float32), 2500)
    delta = SparseDelta(SPACE.fingerprint, Operation.ADD, (TensorDelta(5, np.arange(2500), values),))
    data = encode(delta, SPACE, ValueCoding.INT4)
    assert reference.states_of(2500) == 2
    assert len(data) < 1250  # packed it would be longer
    assert both_read(data) is not None


@pytest.mark.parametrize("value", [2.0**-133, 2.0**-149, 2.0**127, 3.4028234663852886e38])
@pytest.mark.parametrize("coding", ValueCoding)
def test_both_read_the_smallest_and_the_largest_values(value: float, coding: ValueCoding) -> None:
    values = np.array([value, -value, 0.0], np.float32)
    delta = SparseDelta(SPACE.fingerprint, Operation.SET, (TensorDelta(0, np.arange(3), values),))
    assert both_read(encode(quantise(delta, coding), SPACE, coding)) is not None


@pytest.mark.parametrize(
    ("coding", "values"),
    [
        (ValueCoding.FP32, b"\0\0" * 3 + b"\0\x80"),
        (ValueCoding.FP32, b"\0\0" * 2 + b"\0\x80\0\x7f"),
        (ValueCoding.FP32, b"\0\1\0\0\0\x80\0\x7f"),
        (ValueCoding.BF16, b"\0\0\0\x80"),
        (ValueCoding.BF16, b"\0\x80\0\xff"),
        (ValueCoding.INT8, b"\x80\xbf\0\xff"),
        (ValueCoding.INT8, b"\x80\x3f\0\x00"),
        (ValueCoding.INT8, b"\x80\x3f\0\xfe"),
        (ValueCoding.INT8, b"\0\0\0\xff"),
        (ValueCoding.INT8, b"\x80\x3f\0\x80"),
        (ValueCoding.INT8, b"\0\x80\0\x80"),
        (ValueCoding.INT8, b"\x80\x7f\0\x80"),
        (ValueCoding.INT8, b"\x7f\x7f\0\xff"),
        (ValueCoding.INT4, b"\x80\x3f\0\x00"),
        (ValueCoding.INT4, b"\x80\x3f\0\x1f"),
        (ValueCoding.TERNARY, b"\x80\x3f\0\x03"),
        (ValueCoding.TERNARY, b"\x80\x3f\0\xf5"),
        (ValueCoding.TERNARY, b"\x80\x3f\2\x02"),
    ],
    ids=[
        "negative zero",
        "infinity",
        "NaN",
        "negative zero as bf16",
        "infinity as bf16",
        "negative scale",
        "-128",
        "126 at most",
        "scale 0 for an integer",
        "scale for zeros",
        "scale of negative zero",
        "scale of infinity",
        "product beyond binary32",
        "-8",
        "rest of a byte",
        "rest of a byte of five",
        "a byte above 242",
        "a third form",
    ],
)
def test_both_refuse_values_that_the_page_refuses(coding: ValueCoding, values: bytes) -> None:
    one = named(0, 1, reference.GAPS, b"\0\x01")
    assert both_refuse(whole(one + field(2, values), coding=coding))


def test_values_made_by_hand_are_read_by_both() -> None:
    one = named(0, 1, reference.GAPS, b"\0\x01")
    for coding, values, value in (
        (ValueCoding.FP32, b"\0\1\0\0\0\x80\0\x3f", 1 + 2**-23),
        (ValueCoding.BF16, b"\0\x80\0\x3f", 1.0),
        (ValueCoding.INT8, b"\x80\x3f\0\xff", 127.0),
        (ValueCoding.INT4, b"\x80\x3f\0\x01", -7.0),
        (ValueCoding.TERNARY, b"\x80\x3f\0\x02", 1.0),
        (ValueCoding.TERNARY, b"\0\0\0\x01", 0.0),
    ):
        read = both_read(whole(one + field(2, values), coding=coding))
        assert read == reference.Decoded(1, int(coding), ((0, (0,), (value,)),))


@pytest.mark.parametrize(
    "segment",
    [
        b"",
        zeros(1),
        named(0, 1, reference.GAPS, b"\0\x01"),
        named(0, 1, reference.GAPS, b"\0\x01") + field(2, b""),
        zeros(1) + named(0, 1, reference.GAPS, b"\0\x01"),
        named(0, 1, reference.GAPS, b"\0\x01") * 2 + zeros(2),
        named(1, 1, reference.GAPS, b"\0\x01") + named(0, 1, reference.GAPS, b"\0\x01") + zeros(2),
        named(6, 1, reference.GAPS, b"\0\x01") + zeros(1),
        named(0, 0, reference.GAPS, b"") + zeros(1),
        named(0, 41, reference.GAPS, b"\0" + b"\xff" * 6) + zeros(41),
        field(1, field(1, 0) + field(2, 1) + field(3, 3) + field(4, b"\0\x01")) + zeros(1),
        field(1, field(2, 40) + field(3, 1) + field(4, b"")) + zeros(40),
        named(0, 1, reference.GAPS, b"\0\x01") + zeros(1) + field(3, b"x"),
    ],
    ids=[
        "nothing",
        "no tensor",
        "no values",
        "empty values",
        "values first",
        "a tensor twice",
        "tensors falling",
        "no such tensor",
        "no coordinate",
        "more than there are",
        "a zero written",
        "an empty field written",
        "another field",
    ],
)
def test_both_refuse_segments_that_the_page_refuses(segment: bytes) -> None:
    assert both_refuse(whole(segment, coding=ValueCoding.FP32))


def test_the_empty_delta_is_read_by_both() -> None:
    assert both_read(whole(coding=ValueCoding.FP32)) == reference.Decoded(1, 1, ())


def test_a_segment_ends_where_both_say() -> None:
    full = 1 << 20
    space = AdapterSpace(bytes(32), (TensorSpec("large", (full,)), TensorSpec("small", (3,))))
    shapes: list[tuple[int, ...]] = [(full,), (3,)]
    delta = SparseDelta(
        space.fingerprint,
        Operation.ADD,
        tuple(
            TensorDelta(at, np.arange(spec.size), np.zeros(spec.size, np.float32))
            for at, spec in enumerate(space.tensors)
        ),
    )
    coding = ValueCoding.TERNARY
    first, second = named(0, full, reference.ALL, b""), named(1, 3, reference.ALL, b"")
    large, small = bytes(2 * 8192) + b"\0" + b"\x79" * 209715 + b"\1", b"\0\0\0\x0d"
    data = whole(first + field(2, large), second + field(2, small), coding=coding, space=space)
    assert encode(delta, space, coding) == data
    assert [len(indices) for _, indices, _ in reference.decode(data, space.fingerprint, shapes).tensors] == [
        full,
        3,
    ]

    both = bytes(2 * 8193) + b"\0" + b"\x79" * 209715 + b"\x28"
    joined = whole(first + second + field(2, both), coding=coding, space=space)
    with pytest.raises(DeltaError):
        decode(joined, space, max_bytes=len(joined))
    with pytest.raises(reference.Refused):
        reference.decode(joined, space.fingerprint, shapes)


def test_both_refuse_a_segment_that_ends_early() -> None:
    tensors = [named(at, 1, reference.GAPS, b"\0\x01") for at in (0, 1)]
    assert both_read(whole(tensors[0] + tensors[1] + zeros(2), coding=ValueCoding.FP32)) is not None
    assert both_refuse(whole(tensors[0] + zeros(1), tensors[1] + zeros(1), coding=ValueCoding.FP32))


# ---- Known supports


def test_a_known_support_is_read_only_by_who_knows_it() -> None:
    support, other = {0: np.array([1, 7]), 4: np.array([29])}, {0: np.array([1, 8]), 4: np.array([29])}
    delta = drawn_delta(support, ValueCoding.FP32, np.random.default_rng(1))
    data = encode(delta, SPACE, ValueCoding.FP32, shared_of(support))
    assert both_read(data, shared_of(support)) is not None
    assert both_refuse(data)
    assert both_refuse(data, shared_of(other))
    spelled_out = encode(delta, SPACE, ValueCoding.FP32)
    assert both_read(spelled_out, shared_of(other)) is not None


def test_both_refuse_a_known_support_that_is_spelled_out() -> None:
    support = {0: np.array([1, 7]), 4: np.array([29])}
    delta = drawn_delta(support, ValueCoding.FP32, np.random.default_rng(1))
    spelled_out = encode(delta, SPACE, ValueCoding.FP32)
    assert both_read(spelled_out) is not None
    assert both_refuse(spelled_out, shared_of(support))


def test_both_refuse_other_segments_than_those_of_a_known_support() -> None:
    shared = shared_of({0: np.array([3])})
    tensor, values, coding = named(0, 1, reference.GAPS, b"\1\x05"), zeros(1), ValueCoding.FP32
    assert both_read(whole(values, coding=coding, support=shared.digest), shared) is not None
    assert both_read(whole(tensor + values, coding=coding)) is not None
    assert both_refuse(whole(tensor + values, coding=coding, support=shared.digest), shared)
    assert both_refuse(whole(coding=coding, support=shared.digest), shared)
    assert both_refuse(whole(values, values, coding=coding, support=shared.digest), shared)
    assert both_refuse(whole(zeros(2), coding=coding, support=shared.digest), shared)
    assert both_refuse(whole(values, coding=coding, support=shared.digest[:31]), shared)

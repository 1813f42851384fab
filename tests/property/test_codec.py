from __future__ import annotations

from io import BytesIO

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse.delta import (
    AdapterSpace,
    Header,
    SharedSupport,
    SparseDelta,
    ValueCoding,
    decode,
    decode_stream,
    encode,
    encode_stream,
    header_of,
    quantise,
)
from fedsparse.errors import DeltaError, FedsparseError
from fedsparse.v1 import delta_pb2
from tests.property.strategies import FORMS, damaged, deltas
from tests.unit.samples import LIMIT, SPACE

few = settings(max_examples=100, deadline=None)
many = settings(max_examples=300, deadline=None)
codings = st.sampled_from(ValueCoding)
seeds = st.none() | st.integers(0, 2**64 - 1)
either = st.one_of(deltas(), deltas(space=FORMS))
repeated = st.sampled_from([0.0, 0.5, -0.25, 1.0])
"""Few values, so that planes are entropy-coded."""


def space_of(delta: SparseDelta) -> AdapterSpace:
    return SPACE if delta.space == SPACE.fingerprint else FORMS


def support_of(delta: SparseDelta) -> SharedSupport:
    indices = [np.empty(0, np.int64)] * len(space_of(delta).tensors)
    for tensor in delta.tensors:
        indices[tensor.tensor] = tensor.indices
    return SharedSupport(space_of(delta), indices)


def written(delta: SparseDelta, coding: ValueCoding) -> bytes:
    return encode(quantise(delta, coding), space_of(delta), coding)


encodings = st.builds(written, st.one_of(deltas(), deltas(values=repeated)), codings)
structured = st.builds(written, st.one_of(deltas(space=FORMS), deltas(values=repeated, space=FORMS)), codings)


@st.composite
def damaged_on_known_supports(draw: st.DrawFn) -> tuple[bytes, SharedSupport]:
    """Draw a delta on a support that both sides know, whose bytes went wrong on the way."""
    coding = draw(codings)
    delta = quantise(draw(deltas(values=repeated).filter(lambda delta: delta.nnz > 0)), coding)
    support = support_of(delta)
    return draw(damaged(st.just(encode(delta, SPACE, coding, support)))), support


@few
@given(either, codings, seeds)
def test_every_delta_comes_back_bit_for_bit(delta: SparseDelta, coding: ValueCoding, seed: int | None) -> None:
    exact = quantise(delta, coding, seed)
    data = encode(exact, space_of(delta), coding)
    assert decode(data, space_of(delta), max_bytes=len(data)) == exact
    assert header_of(data) == Header(delta.space, delta.operation, coding)


@few
@given(either.filter(lambda delta: delta.nnz > 0), codings)
def test_every_delta_on_a_known_support_comes_back_bit_for_bit(delta: SparseDelta, coding: ValueCoding) -> None:
    exact, space, support = quantise(delta, coding), space_of(delta), support_of(delta)
    data = encode(exact, space, coding, support)
    assert header_of(data).support == support.digest
    assert decode(data, space, max_bytes=len(data), shared=support) == exact


@few
@given(either, codings)
def test_a_stream_is_the_whole_piece_by_piece(delta: SparseDelta, coding: ValueCoding) -> None:
    exact, space = quantise(delta, coding), space_of(delta)
    data = b"".join(encode_stream(Header(delta.space, delta.operation, coding), exact.tensors, space))
    assert data == encode(exact, space, coding)
    assert tuple(decode_stream(BytesIO(data), space, max_bytes=len(data))[1]) == exact.tensors


@few
@given(st.one_of(encodings, structured))
def test_the_parser_of_protocol_buffers_writes_the_same_bytes(data: bytes) -> None:
    assert delta_pb2.SparseDelta.FromString(data).SerializeToString(deterministic=True) == data


@few
@given(either, codings, seeds)
def test_quantising_twice_is_quantising_once(delta: SparseDelta, coding: ValueCoding, seed: int | None) -> None:
    once = quantise(delta, coding, seed)
    assert quantise(once, coding) == once


@few
@given(deltas(), codings)
def test_what_quantising_would_change_is_not_written(delta: SparseDelta, coding: ValueCoding) -> None:
    exact = quantise(delta, coding) == delta
    try:
        encode(delta, SPACE, coding)
    except DeltaError:
        assert not exact
    else:
        assert exact


@many
@given(damaged(encodings))
def test_damaged_bytes_are_refused_or_are_what_the_encoder_writes(data: bytes) -> None:
    assert_refused_or_canonical(data, SPACE)


@many
@given(damaged(structured))
def test_damaged_structures_are_refused_or_are_what_the_encoder_writes(data: bytes) -> None:
    assert_refused_or_canonical(data, FORMS)


@few
@given(encodings, st.integers(0), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_says_something_else(data: bytes, place: int, mask: int) -> None:
    at = place % len(data)
    assert_refused_or_canonical(data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :], SPACE)


def assert_refused_or_canonical(data: bytes, space: AdapterSpace) -> None:
    try:
        delta = decode(data, space, max_bytes=LIMIT)
    except FedsparseError:
        return
    assert encode(delta, space, header_of(data).coding) == data


@many
@given(damaged_on_known_supports())
def test_damaged_values_on_a_known_support_are_refused_or_are_what_the_encoder_writes(
    given: tuple[bytes, SharedSupport],
) -> None:
    data, support = given
    try:
        delta = decode(data, SPACE, max_bytes=LIMIT, shared=support)
    except FedsparseError:
        return
    assert encode(delta, SPACE, header_of(data).coding, support) == data


@many
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    try:
        decode(data, SPACE, max_bytes=LIMIT)
    except FedsparseError:
        return
    raise AssertionError("random bytes cannot hold the fingerprint")


@few
@given(damaged(st.just(SPACE.to_json())))
def test_a_damaged_space_file_is_refused_or_describes_exactly_what_it_says(data: bytes) -> None:
    try:
        space = AdapterSpace.from_json(data)
    except DeltaError:
        return
    assert space.to_json() == data
    assert (space.fingerprint == SPACE.fingerprint) == (data == SPACE.to_json())

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse.delta import AdapterSpace, SparseDelta, ValueCoding, decode, encode, quantise
from fedsparse.errors import DeltaError, FedsparseError
from tests.property.strategies import damaged, deltas
from tests.unit.samples import LIMIT, SPACE

few = settings(max_examples=100, deadline=None)
many = settings(max_examples=300, deadline=None)
codings = st.sampled_from(ValueCoding)
encodings = st.builds(lambda delta, coding: encode(quantise(delta, coding), SPACE, coding), deltas(), codings)


@few
@given(deltas(), codings)
def test_every_delta_comes_back_bit_for_bit(delta: SparseDelta, coding: ValueCoding) -> None:
    written = quantise(delta, coding)
    assert decode(encode(written, SPACE, coding), SPACE, max_bytes=LIMIT) == written


@few
@given(deltas())
def test_quantising_twice_is_quantising_once(delta: SparseDelta) -> None:
    once = quantise(delta, ValueCoding.BF16)
    assert quantise(once, ValueCoding.BF16) == once


@many
@given(damaged(encodings))
def test_damaged_bytes_are_refused_or_are_what_the_encoder_writes(data: bytes) -> None:
    try:
        delta = decode(data, SPACE, max_bytes=LIMIT)
    except FedsparseError:
        return
    assert data in _encodings(delta)


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


def _encodings(delta: SparseDelta) -> list[bytes]:
    """Return every byte string that means ``delta``: one per value coding that can write it."""
    found = []
    for coding in ValueCoding:
        try:
            found.append(encode(delta, SPACE, coding))
        except DeltaError:
            assert quantise(delta, coding) != delta
    return found

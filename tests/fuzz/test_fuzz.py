from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random

import numpy as np
import pytest

from fedsparse.delta import ValueCoding
from fedsparse.v1 import delta_pb2
from tests.fuzz import corpus, mutations
from tests.fuzz.targets import (
    Depth,
    Input,
    Target,
    allocated,
    allowed,
    examine,
    input_of,
    originals,
    targets,
)

INPUTS = 3000
SAMPLED = 50  # of so many inputs the allocations of one are traced
SEED = 1


def target(**changes: object) -> Target:
    """Return the target of plain deltas, changed."""
    fields = {name: getattr(targets()[0], name) for name in Target.__dataclass_fields__}
    return Target(**(fields | changes))


def test_every_message_to_begin_with_is_accepted_exactly_where_it_is_valid() -> None:
    for given in originals():
        verdict = examine(given)
        assert not verdict.failure, given.item.name
        assert (verdict.depth is Depth.ACCEPTED) == given.item.valid, given.item.name


def test_every_message_to_begin_with_takes_little_memory() -> None:
    for given in originals():
        assert allocated(given) <= allowed(given), given.item.name


def test_the_messages_have_every_index_coding_with_every_value_coding() -> None:
    pairs = {
        (int(tensor.coding), int(message.value_coding))
        for message in messages()
        for segment in message.segments
        for tensor in segment.tensors
    }
    assert pairs == {(index, int(value)) for index in range(1, 7) for value in ValueCoding}


def test_the_messages_have_packed_and_entropy_coded_values_of_every_coding() -> None:
    ways = {(int(message.value_coding), way) for message in messages() for way in plane_ways(message)}
    assert ways == {(int(value), way) for way in (0, 1) for value in ValueCoding}


def messages() -> list[delta_pb2.SparseDelta]:
    return [delta_pb2.SparseDelta.FromString(item.data) for item in corpus.deltas()]


def plane_ways(message: delta_pb2.SparseDelta) -> Iterator[int]:
    """Yield the first byte of every plane of symbols, up to the first that is entropy-coded."""
    floats = {1: 4, 2: 2}
    for segment in message.segments:
        counts = [tensor.nnz for tensor in segment.tensors]
        at = 0 if message.value_coding in floats else 2 * sum(-(-count // 128) for count in counts)
        for _ in range(floats.get(message.value_coding, 1)):
            yield segment.values[at]
            if segment.values[at]:
                break
            at += 1 + sum(counts)


def test_mutated_messages_are_refused_or_encoded_again_alike_and_get_everywhere() -> None:
    reached: Counter[tuple[str, Depth]] = Counter()
    for number in range(len(originals()), len(originals()) + INPUTS):
        given = input_of(SEED, number)
        verdict = examine(given)
        reached[given.target.name, verdict.depth] += 1
        assert not verdict.failure, f"input {number} of seed {SEED}: {verdict.failure}"
        if number % SAMPLED == 0:
            assert allocated(given) <= allowed(given), f"input {number} of seed {SEED}"
    expected = {(one.name, depth) for one in targets() for depth in Depth if one.name != "header"}
    assert set(reached) == expected | {("header", Depth.HEADER), ("header", Depth.ACCEPTED)}


def test_an_input_is_the_same_whenever_it_is_asked_for_and_differs_by_seed_and_number() -> None:
    first = len(originals())
    forwards = [input_of(5, number).data for number in range(first, first + 40)]
    backwards = [input_of(5, number).data for number in reversed(range(first, first + 40))]
    assert forwards == backwards[::-1]
    assert len({*forwards, *(input_of(6, number).data for number in range(first, first + 40))}) > 70


def test_a_message_read_into_fields_and_written_again_is_the_same() -> None:
    for given in originals():
        assert mutations.write(mutations.read(given.data, given.target.schema)) == given.data


def test_a_mutation_always_changes_something() -> None:
    small = originals()[-1]
    for seed in range(300):
        draw = Random(seed)  # noqa: S311
        assert mutations.mutate(small.data, small.data, small.target.schema, draw) != small.data


@pytest.mark.parametrize(
    ("number", "padding", "written"),
    [
        (0, 0, "00"),
        (300, 0, "ac02"),
        (5, 1, "8500"),
        (5, 3, "85808000"),
        (1 << 64, 0, "80808080808080808002"),
    ],
)
def test_varints_are_as_long_as_asked_for(number: int, padding: int, written: str) -> None:
    assert mutations.varint(number, padding).hex() == written


def test_an_error_that_is_no_refusal_is_a_failure() -> None:
    def crash(item: corpus.Item, data: bytes) -> None:
        raise IndexError("beyond")

    given = originals()[0]
    verdict = examine(Input(target(decode=crash), given.item, given.data))
    assert verdict.failure.startswith("IndexError in test_fuzz.py")


def test_what_encodes_to_other_bytes_or_not_at_all_is_a_failure() -> None:
    def crash(item: corpus.Item, value: object, data: bytes) -> bool:
        raise OverflowError

    given = originals()[0]
    other = examine(Input(target(agrees=lambda *_: False), given.item, given.data))
    assert other.failure == "accepted, but encoded as other bytes"
    none = examine(Input(target(agrees=crash), given.item, given.data))
    assert none.failure.startswith("accepted, but not encoded: OverflowError")


def test_memory_is_traced_while_decoding_even_if_that_fails() -> None:
    def greedy(item: corpus.Item, data: bytes) -> None:
        np.zeros(1 << 20, np.uint8)
        raise MemoryError

    given = originals()[0]
    assert 1 << 20 <= allocated(Input(target(decode=greedy), given.item, given.data)) < 2 << 20

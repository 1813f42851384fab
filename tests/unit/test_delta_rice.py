from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from fedsparse.delta import rice
from fedsparse.errors import DeltaError

SAMPLES = [
    [0],
    [1],
    [0, 0, 0],
    [5],
    [3, 0, 7, 1],
    [0, 255, 256, 257],
    list(range(40)),
    [(1 << 40) - 1],
    [1 << 39, 0, (1 << 39) - 1],
    [1000, *[0] * 100],
    np.random.default_rng(0).geometric(0.01, 500).tolist(),
]


def in_bytes(bits: str) -> bytes:
    """Return a string of bits as docs/format.md lays them into bytes."""
    return bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))


def in_words(numbers: Sequence[int], k: int) -> bytes:
    """Return the Rice code as docs/format.md puts it, bit by bit."""
    planes = (str(number >> j & 1) for j in range(k) for number in numbers)
    return in_bytes("".join(planes) + "".join("0" * (number >> k) + "1" for number in numbers))


def read(data: bytes, k: int, count: int, limit: int = 1 << 41) -> list[int]:
    return list(rice.decode(np.frombuffer(data, np.uint8), k, count, limit).tolist())


@pytest.mark.parametrize("numbers", SAMPLES)
def test_numbers_are_written_as_the_page_says_and_come_back_with_every_sensible_parameter(
    numbers: list[int],
) -> None:
    best, _ = rice.best_parameter(np.array(numbers))
    for k in range(max(0, best - 3), best + 1):
        written = rice.encode(np.array(numbers), k)
        assert written == in_words(numbers, k)
        assert len(written) == -(-rice.bit_length(np.array(numbers), k) // 8)
        assert read(written, k, len(numbers), sum(numbers) + 1) == numbers


def test_a_number_by_hand() -> None:
    assert rice.encode(np.array([5]), 1) == bytes([0b1001])  # the low bit 1, the quotient 2 as 001


@pytest.mark.parametrize("numbers", SAMPLES)
def test_the_best_parameter_is_the_smallest_of_the_shortest_codes(numbers: list[int]) -> None:
    lengths = [len(numbers) * (k + 1) + sum(number >> k for number in numbers) for k in range(41)]
    assert rice.best_parameter(np.array(numbers)) == (lengths.index(min(lengths)), min(lengths))


def test_the_best_parameter_of_random_gaps_is_found_at_every_density() -> None:
    generator = np.random.default_rng(1)
    for density in (0.9, 0.5, 0.2, 0.05, 1e-3, 1e-5):
        gaps = generator.geometric(density, 300) - 1
        lengths = [rice.bit_length(gaps, k) for k in range(41)]
        assert rice.best_parameter(gaps) == (lengths.index(min(lengths)), min(lengths))


@pytest.mark.parametrize("density", [0.11, 0.05, 0.02, 0.01, 0.003, 0.001])
def test_gaps_at_random_take_at_most_three_percent_more_than_their_entropy(density: float) -> None:
    gaps = np.random.default_rng(2).geometric(density, 100_000) - 1
    entropy = -(density * math.log2(density) + (1 - density) * math.log2(1 - density)) / density
    assert 0.99 < rice.best_parameter(gaps)[1] / len(gaps) / entropy < 1.03


def test_the_parameter_of_a_row_is_the_smallest_that_its_rule_allows() -> None:
    sizes, counts = (grid.reshape(-1) for grid in np.meshgrid([1, 2, 7, 64, 5000, (1 << 32) - 1], range(1, 60)))
    possible = counts <= sizes
    for size, count, found in zip(
        sizes[possible], counts[possible], rice.parameters(sizes[possible], counts[possible]), strict=True
    ):
        bound = Fraction(31537 * (2 * int(size) - int(count)), int(count) << 17)
        assert 2 ** int(found) >= bound
        assert found == 0 or 2 ** (int(found) - 1) < bound


@pytest.mark.parametrize(("size", "k"), [(67, 6), (34_048, 15), (8512, 12), (34_047, 14)])
def test_the_parameter_of_a_row_turns_exactly_where_its_rule_does(size: int, k: int) -> None:
    """With 31536 or 31538 instead of 31537, one of these has another parameter."""
    assert rice.parameters(np.array([size]), np.array([1])).tolist() == [k]


def test_numbers_with_a_parameter_each_are_written_as_the_page_says_and_come_back() -> None:
    numbers, widths = [3, 0, 12, 7, 1, 0], [1, 0, 3, 2, 0, 3]
    planes = (
        str(number >> j & 1) for j in range(3) for number, width in zip(numbers, widths, strict=True) if width > j
    )
    quotients = ("0" * (number >> width) + "1" for number, width in zip(numbers, widths, strict=True))
    written = rice.encode_mixed(np.array(numbers), np.array(widths))
    assert written == in_bytes("".join(planes) + "".join(quotients))
    assert rice.decode_mixed(np.frombuffer(written, np.uint8), np.array(widths), 13).tolist() == numbers


def test_equal_parameters_give_the_same_bytes_as_one_for_all() -> None:
    numbers = np.array([3, 0, 12, 7, 1, 0])
    assert rice.encode_mixed(numbers, np.full(6, 2)) == rice.encode(numbers, 2)


@pytest.mark.parametrize(
    ("data", "k", "count", "limit", "said"),
    [
        (b"\x09", 41, 1, 1 << 60, "1 numbers with Rice parameter 41 do not fit into 1 bytes"),
        (b"\x09", 255, 1, 1 << 60, "Rice parameter 255"),
        (b"\x09", 1, 5, 100, "5 numbers with Rice parameter 1 do not fit into 1 bytes"),
        (b"\xff", 0, 9, 100, "9 numbers with Rice parameter 0 do not fit into 1 bytes"),
        (b"", 0, 1, 100, "do not fit into 0 bytes"),
        (b"\x09", 5, 1, 8, "Rice parameter 5"),
        (b"\x09", 1, 2, 100, "1 numbers are there where 2 are announced"),
        (b"\x19", 1, 1, 100, "2 numbers are there where 1 are announced"),
        (b"\x09\x00", 1, 1, 100, "1 numbers are there where 1 are announced, or bytes after them"),
        (b"\x01", 1, 1, 100, "0 numbers are there where 1 are announced"),
        (b"\x09", 1, 1, 4, "the sum of 1 numbers is not below 4"),
    ],
    ids=[
        "parameter too large",
        "parameter far too large",
        "planes cut off",
        "more numbers than bits",
        "nothing",
        "parameter beyond the limit",
        "number missing",
        "number left over",
        "byte left over",
        "no end",
        "sum",
    ],
)
def test_a_code_that_is_not_what_it_announces_is_refused(
    data: bytes, k: int, count: int, limit: int, said: str
) -> None:
    with pytest.raises(DeltaError, match=said):
        read(data, k, count, limit)


def test_a_sum_beyond_64_bits_is_refused() -> None:
    data = bytes(5) + bytes(1 << 21) + b"\x01"  # 40 planes of one 0, then the quotient 2^24
    with pytest.raises(DeltaError, match="the sum of 1 numbers is not below"):
        read(data, 40, 1, 1 << 40)


@pytest.mark.parametrize(
    ("data", "widths", "said"),
    [
        (b"\x09", [1, 1, 1, 1, 1], "5 numbers do not fit into 1 bytes"),
        (b"", [0], "1 numbers do not fit into 0 bytes"),
        (b"\x09", [1, 0], "1 numbers are there where 2 are announced"),
        (b"\x09\x00", [1], "bytes after them"),
        (b"\x09", [1], "a number is not below 3"),
    ],
    ids=["planes cut off", "nothing", "number missing", "byte left over", "too large"],
)
def test_a_code_with_a_parameter_each_that_is_not_what_it_announces_is_refused(
    data: bytes, widths: list[int], said: str
) -> None:
    with pytest.raises(DeltaError, match=said):
        rice.decode_mixed(np.frombuffer(data, np.uint8), np.array(widths), 3)

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsparse.delta import entropy
from fedsparse.errors import DeltaError
from tests.unit.test_delta_rice import in_bytes

Symbols = NDArray[np.uint8]
START = 1 << 16


def drawn(shares: Sequence[float], count: int, seed: int = 0) -> Symbols:
    """Draw symbols, the first with the probability ``shares[0]`` and so on; what is missing goes to the last."""
    cuts = np.cumsum(shares[:-1])
    return np.searchsorted(cuts, np.random.default_rng(seed).random(count), "right").astype(np.uint8)


def bell(alphabet: int, width: float, count: int, seed: int = 0) -> Symbols:
    """Draw symbols about the middle of the alphabet, as integers of a normal distribution."""
    normal = np.random.default_rng(seed).normal(alphabet // 2, width, count)
    return np.clip(np.rint(normal), 0, alphabet - 1).astype(np.uint8)


def read(data: bytes, count: int, alphabet: int) -> list[int]:
    symbols, rest = entropy.read(memoryview(data), count, alphabet)
    assert not len(rest)
    return list(symbols.tolist())


def entropy_of(symbols: Symbols) -> float:
    """Return the empirical entropy of all symbols together, in bytes."""
    counts = np.unique(symbols, return_counts=True)[1]
    return float(-(counts * np.log2(counts / len(symbols))).sum()) / 8


def in_order(counts: Sequence[int]) -> list[int]:
    """Return the frequencies that docs/format.md gives symbols with these counts, two of them at least."""
    total = sum(counts)
    found = [max(1, 4096 * count // total) if count else 0 for count in counts]
    while sum(found) > 4096:
        found[found.index(max(found))] -= 1
    ranked = sorted(range(len(counts)), key=lambda symbol: (-counts[symbol], symbol))
    found[ranked[0]] += 4096 - sum(found)
    if found[ranked[0]] > 2800:
        found[ranked[1]] += found[ranked[0]] - 2800
        found[ranked[0]] = 2800
    return found


def table(frequencies: Sequence[int]) -> bytes:
    present = "".join("01"[f > 0] for f in frequencies)
    return in_bytes(present) + in_bytes("".join(f"{f:012b}"[::-1] for f in frequencies if f))


def coded(symbols: Sequence[int], frequencies: Sequence[int], start: int = START) -> bytes:
    """Return the entropy-coded plane as docs/format.md defines it, one symbol after another."""
    lanes = max(1, len(symbols) // 1024)
    states, words = [start] * lanes, []
    for at in reversed(range(len(symbols))):
        lane, symbol = at % lanes, symbols[at]
        f, below = frequencies[symbol], sum(frequencies[:symbol])
        if states[lane] >= f << 20:
            words.append(states[lane] % START)
            states[lane] //= START
        states[lane] = states[lane] // f * 4096 + states[lane] % f + below
    return plane(frequencies, states, words[::-1])


def plane(frequencies: Sequence[int], states: Sequence[int], words: Sequence[int]) -> bytes:
    head = b"\x01" + table(frequencies) + len(words).to_bytes(4, "little")
    return head + np.array(states, "<u4").tobytes() + np.array(words, "<u2").tobytes()


def parts(data: bytes, frequencies: Sequence[int], count: int) -> tuple[list[int], list[int]]:
    """Return the states and words of an entropy-coded plane."""
    start = 1 + len(table(frequencies)) + 4
    end = start + 4 * max(1, count // 1024)
    states, words = np.frombuffer(data[start:end], "<u4"), np.frombuffer(data[end:], "<u2")
    return list(states.tolist()), list(words.tolist())


SAMPLES: dict[str, tuple[int, Symbols]] = {
    "3, even": (3, drawn([1 / 3, 1 / 3, 1 / 3], 3000)),
    "3, skewed": (3, drawn([0.05, 0.9, 0.05], 5000)),
    "3, two of them": (3, drawn([0.5, 0, 0.5], 1000)),
    "16, even": (16, drawn([1 / 16] * 16, 2100)),
    "16, bell": (16, bell(16, 1.5, 2100)),
    "16, one rare": (16, drawn([0.999, 0.001], 4000)),
    "256, even": (256, drawn([1 / 256] * 256, 5000)),
    "256, bell": (256, bell(256, 20, 5000)),
    "256, all and one of them often": (
        256,
        np.append(np.arange(256, dtype=np.uint8), np.full(9000, 77, np.uint8)),
    ),
    "256, exponents": (256, drawn([0, 0, 0, 0.7, 0.2, 0.05, 0.05], 1500)),
    "few": (256, bell(256, 2, 40)),
    "two": (3, np.array([0, 2], np.uint8)),
    "3, a tie": (3, np.repeat(np.array([0, 1], np.uint8), [85, 1])),
    "16, a tie": (16, np.repeat(np.array([0, 1], np.uint8), [13, 20])),
    "256, a tie": (256, np.repeat(np.array([0, 1], np.uint8), [29, 20])),
}
SKEWED = SAMPLES["3, skewed"][1]
FREQUENCIES = in_order(np.bincount(SKEWED, minlength=3).tolist())


@pytest.mark.parametrize("name", SAMPLES)
def test_symbols_come_back(name: str) -> None:
    alphabet, symbols = SAMPLES[name]
    assert read(entropy.write(symbols, alphabet), len(symbols), alphabet) == symbols.tolist()


@pytest.mark.parametrize("name", SAMPLES)
def test_the_shorter_of_both_ways_is_written_as_the_page_says(name: str) -> None:
    alphabet, symbols = SAMPLES[name]
    counts = np.bincount(symbols, minlength=alphabet).tolist()
    frequencies = in_order(counts)
    lanes = max(1, len(symbols) // 1024)
    bits = (
        sum(h * (3072 - (f**256 - 1).bit_length()) for h, f in zip(counts, frequencies, strict=True) if f) // 256
    )
    estimate = len(table(frequencies)) + 4 + 4 * lanes + -(-bits // 8)
    data = entropy.write(symbols, alphabet)
    if estimate < entropy.packed_size(len(symbols), alphabet):
        assert data == coded(symbols.tolist(), frequencies)
    else:
        assert data == b"\x00" + packed(symbols.tolist(), alphabet)


def packed(symbols: Sequence[int], alphabet: int) -> bytes:
    many = {3: 5, 16: 2, 256: 1}[alphabet]
    groups = (symbols[at : at + many] for at in range(0, len(symbols), many))
    return bytes(sum(symbol * alphabet**place for place, symbol in enumerate(group)) for group in groups)


def test_both_ways_have_their_turn_above() -> None:
    ways = {alphabet: set[int]() for alphabet in (3, 16, 256)}
    for alphabet, symbols in SAMPLES.values():
        ways[alphabet].add(entropy.write(symbols, alphabet)[0])
    assert ways == {3: {0, 1}, 16: {0, 1}, 256: {0, 1}}


@pytest.mark.parametrize("alphabet", [3, 16, 256])
@pytest.mark.parametrize("count", [1, 2, 5, 6, 1023, 1024, 1025, 2048, 2049, 3333])
def test_every_length_comes_back(alphabet: int, count: int) -> None:
    shares = [0.6, 0.3, 0.1]
    for symbols in (drawn(shares, count), np.full(count, alphabet - 1, np.uint8)):
        assert read(entropy.write(symbols, alphabet), count, alphabet) == symbols.tolist()


@pytest.mark.parametrize("alphabet", [3, 16, 256])
def test_one_symbol_alone_is_packed(alphabet: int) -> None:
    data = entropy.write(np.full(1000, 2, np.uint8), alphabet)
    assert data == b"\x00" + packed([2] * 1000, alphabet)


def test_what_follows_a_plane_is_left() -> None:
    for name in ("3, even", "3, skewed"):
        symbols = SAMPLES[name][1]
        found, rest = entropy.read(memoryview(entropy.write(symbols, 3) + b"rest"), len(symbols), 3)
        assert np.array_equal(found, symbols)
        assert bytes(rest) == b"rest"


@pytest.mark.parametrize(
    ("alphabet", "symbols"),
    [
        (3, drawn([0.2, 0.6, 0.2], 100_000)),
        (16, bell(16, 1.5, 100_000)),
        (16, bell(16, 0.8, 100_000)),
        (256, bell(256, 6, 100_000)),
        (256, bell(256, 40, 100_000)),
        (256, drawn([0.66, *[0.34 / 255] * 255], 100_000)),
    ],
    ids=["ternary", "int4", "int4, narrow", "int8, narrow", "int8", "one often"],
)
def test_many_symbols_take_their_entropy_two_percent_the_table_and_the_states(
    alphabet: int, symbols: Symbols
) -> None:
    data = entropy.write(symbols, alphabet)
    states = 4 + 4 * (len(symbols) // 1024)
    least = entropy_of(symbols)
    assert data[0] == 1
    assert least < len(data) <= 1.02 * least + 1 + alphabet / 8 + 1.5 * alphabet + states


@pytest.mark.parametrize("alphabet", [3, 16, 256])
def test_no_byte_stands_for_more_than_16_symbols(alphabet: int) -> None:
    symbols = np.zeros(200_000, np.uint8)
    symbols[0] = 1
    data = entropy.write(symbols, alphabet)
    assert data[0] == 1
    assert len(symbols) / 16 < len(data) < len(symbols) / 13


def test_the_cost_of_a_frequency_is_exact() -> None:
    for frequency in range(1, 2801):
        cost, ratio = entropy.cost(frequency), Fraction(4096, frequency) ** 256
        assert 1 << cost <= ratio < 1 << cost + 1


def test_the_cost_of_a_frequency_is_its_logarithm() -> None:
    for frequency in (1, 2, 3, 1024, 1449, 2048, 2799, 2800):
        assert 0 <= 256 * math.log2(4096 / frequency) - entropy.cost(frequency) < 1


@pytest.mark.parametrize(
    ("counts", "frequencies"),
    [
        ([20_000, 10_000, 0], (2731, 1365, 0)),
        ([1, 10**6, 10**6], (1, 2048, 2047)),
        ([0, 9999, 1], (0, 2800, 1296)),
        ([40_000, 950, 10], (2800, 1295, 1)),
        ([10**6, 10**6, *[1] * 253, 0], (1921, 1922, *[1] * 253, 0)),
    ],
    ids=["missing to the most frequent", "first of equals", "no more than 2800", "the rest to the second", "loss"],
)
def test_frequencies_add_up_by_the_rules(counts: list[int], frequencies: tuple[int, ...]) -> None:
    table = entropy.Table.of(np.array(counts))
    assert table is not None
    assert table.frequencies == frequencies
    assert list(frequencies) == in_order(counts)


def test_a_table_comes_back() -> None:
    for alphabet, symbols in SAMPLES.values():
        frequencies = in_order(np.bincount(symbols, minlength=alphabet).tolist())
        found, rest = entropy.Table.read(memoryview(table(frequencies) + b"rest"), alphabet)
        assert found.frequencies == tuple(frequencies)
        assert found.write() == table(frequencies)
        assert bytes(rest) == b"rest"


@pytest.mark.parametrize(
    ("frequencies", "said"),
    [
        ([1000, 2000, 1095], "frequencies do not add up"),
        ([1000, 2000, 1097], "frequencies do not add up"),
        ([647, 2801, 648], "frequencies do not add up"),
        ([0, 4095, 1], "frequencies do not add up"),
        ([0, 0, 0], "frequencies do not add up"),
        ([FREQUENCIES[0] - 1, FREQUENCIES[1], FREQUENCIES[2] + 1], "table is not the one they give"),
        ([FREQUENCIES[0] + 1, FREQUENCIES[1] - 1, FREQUENCIES[2]], "table is not the one they give"),
    ],
)
def test_another_table_than_that_of_the_symbols_is_refused(frequencies: list[int], said: str) -> None:
    symbols = SKEWED.tolist()
    usable = sum(frequencies) == 4096 and all(frequencies)
    data = coded(symbols, frequencies) if usable else plane(frequencies, [START] * 4, [0] * 500)
    with pytest.raises(DeltaError, match=said):
        read(data, len(symbols), 3)


def test_a_symbol_that_occurs_with_frequency_0_is_refused() -> None:
    data = bytearray(coded(SKEWED.tolist(), FREQUENCIES))
    data[1:7] = b"\x07" + in_bytes("".join(f"{f:012b}"[::-1] for f in (1296, 2800, 0)))
    with pytest.raises(DeltaError, match="frequencies do not add up"):
        read(bytes(data), len(SKEWED), 3)


@pytest.mark.parametrize("bit", [3, 7])
def test_a_symbol_outside_the_alphabet_in_the_table_is_refused(bit: int) -> None:
    data = bytearray(coded(SKEWED.tolist(), FREQUENCIES))
    data[1] |= 1 << bit
    with pytest.raises(DeltaError, match="not filled up with zeros"):
        read(bytes(data), len(SKEWED), 3)


@pytest.mark.parametrize("bit", [4, 7])
def test_a_table_that_is_not_filled_up_with_zeros_is_refused(bit: int) -> None:
    data = bytearray(coded(SKEWED.tolist(), FREQUENCIES))
    assert data[6] >> 4 == 0
    data[6] |= 1 << bit
    with pytest.raises(DeltaError, match="not filled up with zeros"):
        read(bytes(data), len(SKEWED), 3)


@pytest.mark.parametrize("name", ["3, skewed", "3, even", "256, bell", "256, even"])
def test_the_longer_way_is_refused(name: str) -> None:
    alphabet, symbols = SAMPLES[name]
    both = [
        b"\x00" + packed(symbols.tolist(), alphabet),
        coded(symbols.tolist(), in_order(np.bincount(symbols, minlength=alphabet).tolist())),
    ]
    both.remove(entropy.write(symbols, alphabet))
    with pytest.raises(DeltaError, match="not in the shortest form"):
        read(both[0], len(symbols), alphabet)


@pytest.mark.parametrize("state", [0, 1, START - 1])
def test_a_state_out_of_range_is_refused(state: int) -> None:
    states, words = parts(coded(SKEWED.tolist(), FREQUENCIES), FREQUENCIES, len(SKEWED))
    for lane in range(len(states)):
        with pytest.raises(DeltaError, match="state is out of range"):
            read(plane(FREQUENCIES, [*states[:lane], state, *states[lane + 1 :]], words), len(SKEWED), 3)


def test_another_state_at_the_end_is_refused() -> None:
    for start in (START + 1, 2 * START, 5 * START + 77):
        with pytest.raises(DeltaError, match="longer than they need be"):
            read(coded(SKEWED.tolist(), FREQUENCIES, start), len(SKEWED), 3)


def test_words_left_over_or_missing_are_refused() -> None:
    states, words = parts(coded(SKEWED.tolist(), FREQUENCIES), FREQUENCIES, len(SKEWED))
    assert read(plane(FREQUENCIES, states, words), len(SKEWED), 3) == SKEWED.tolist()
    with pytest.raises(DeltaError, match="longer than they need be"):
        read(plane(FREQUENCIES, states, [*words, 0]), len(SKEWED), 3)
    with pytest.raises(DeltaError, match="end before their time"):
        read(plane(FREQUENCIES, states, words[:-1]), len(SKEWED), 3)


def test_a_coded_plane_that_is_cut_off_anywhere_is_refused() -> None:
    data = coded(SKEWED.tolist(), FREQUENCIES)
    for end in [*range(40), len(data) - 2, len(data) - 1]:
        with pytest.raises(DeltaError):
            read(data[:end], len(SKEWED), 3)


def test_more_words_than_there_are_bytes_are_refused() -> None:
    data = bytearray(coded(SKEWED.tolist(), FREQUENCIES))
    data[7:11] = b"\xff" * 4
    with pytest.raises(DeltaError, match="entropy-coded values end before their time"):
        read(bytes(data), len(SKEWED), 3)


def test_a_coded_plane_with_one_bit_changed_is_refused_or_says_something_else() -> None:
    symbols = drawn([0.1, 0.8, 0.1], 400)
    data = entropy.write(symbols, 3)
    assert data[0] == 1
    for bit in range(8 * len(data)):
        changed = bytes(octet ^ (bit // 8 == at) << bit % 8 for at, octet in enumerate(data))
        said = accepted(changed, len(symbols))
        assert said is None or (said != symbols.tolist() and entropy.write(np.array(said, np.uint8), 3) == changed)


def accepted(data: bytes, count: int) -> list[int] | None:
    try:
        return read(data, count, 3)
    except DeltaError:
        return None


@pytest.mark.parametrize(
    ("data", "count", "alphabet", "said"),
    [
        (b"", 1, 3, "0 bytes cannot hold 1 values"),
        (b"\x00\x01", 33, 3, "2 bytes cannot hold 33 values"),
        (b"\x02\x01", 1, 3, "in way 2, which is unknown"),
        (b"\x00\x01", 6, 3, "packed values are not 6 symbols of 3"),
        (b"\x00", 1, 256, "packed values are not 1 symbols of 256"),
        (b"\x00\xf3", 5, 3, "packed values are not 5 symbols of 3"),
        (b"\x00\xff", 5, 3, "packed values are not 5 symbols of 3"),
        (b"\x00\x1b", 3, 3, "not filled up with zeros"),
        (b"\x00\x51", 4, 3, "not filled up with zeros"),
        (b"\x00\x10", 1, 16, "not filled up with zeros"),
        (b"\x01", 1, 256, "table of frequencies ends before its time"),
        (b"\x01\x07\x01\x02\x03\x04", 1, 3, "table of frequencies ends before its time"),
    ],
)
def test_bytes_that_are_no_plane_are_refused(data: bytes, count: int, alphabet: int, said: str) -> None:
    with pytest.raises(DeltaError, match=said):
        entropy.read(memoryview(data), count, alphabet)

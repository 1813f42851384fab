"""The inner loops in NumPy: what the compiled ones agree with to the bit, and what runs where there are none."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Symbols = NDArray[np.uint8]
Words = NDArray[np.uint16]
States = NDArray[np.uint32]
Numbers = NDArray[np.int64]
Sums = NDArray[np.float64]

_BITS = 12  # of a frequency
_SLOT, _SHIFT, _LOWEST, _WORD = (np.uint32(number) for number in ((1 << _BITS) - 1, _BITS, 1 << 16, 16))
_COUNTED = 1 << 16  # symbols that are counted at a time: NumPy makes eight bytes of each
_NEGATIVE_ZERO = np.uint32(1 << 31)
_CHUNK = 1 << 16  # values that are looked at together, so that what is derived from them stays in the cache
_FRACTION_BITS = 23
_EXPONENTS = 256
_HALF = 1 << 24  # a significand has 24 bits, its square 48: two halves, of which 2^29 each add up below 2^53


def histogram(symbols: Symbols, alphabet: int) -> Numbers:
    """Return how often each symbol occurs, (alphabet,); all are below ``alphabet``."""
    counts = np.zeros(alphabet, np.int64)
    for start in range(0, len(symbols), _COUNTED):
        counts += np.bincount(symbols[start : start + _COUNTED], minlength=alphabet)
    return counts


def rans_encode(symbols: Symbols, frequency: States, start: States, lanes: int) -> tuple[Words, States]:
    """Encode with interleaved rANS; symbol i belongs to state i mod ``lanes``, and the last comes first.

    Args:
        symbols: (n,), n ≥ 1.
        frequency: of each symbol of the alphabet, above 0 for those that occur, together 4096.
        start: sum of the frequencies before.
        lanes: number of states, ≥ 1.

    Returns:
        The words in the order in which a decoder wants them, and the final states, (lanes,).
    """
    states = np.full(lanes, _LOWEST, np.uint32)
    words = []
    for at in reversed(range(0, len(symbols), lanes)):
        now = symbols[at : at + lanes]
        x, f = states[: len(now)], frequency[now]
        full = x >= f << np.uint32(32 - _BITS)
        words.append(x[full].astype(np.uint16))
        x = np.where(full, x >> _WORD, x)
        quotient = x // f
        states[: len(now)] = (quotient << _SHIFT) + (x - quotient * f) + start[now]
    return np.concatenate(words[::-1]), states


def rans_decode(
    states: States, words: Words, symbol_at: Symbols, times: States, plus: States, symbols: Symbols
) -> int:
    """Undo :func:`rans_encode`.

    Args:
        states: (lanes,), each 2^16 at least; left as they are after the last symbol.
        words: that may be used, (w,).
        symbol_at: of each of 4096 slots its symbol.
        times: the symbol's frequency.
        plus: the slot less the symbol's start.
        symbols: (n,), is filled.

    Returns:
        How many words were used, or -1 where they did not suffice.
    """
    lanes = len(states)
    # The many small steps cost what NumPy's calls do: nothing is allocated in them that can be written in place.
    slots, factors = np.empty(lanes, np.intp), np.empty(lanes, np.uint32)
    used = 0
    for at in range(0, len(symbols), lanes):
        wide = slice(len(symbols) - at)
        x, slot, factor = states[wide], slots[wide], factors[wide]
        np.bitwise_and(x, _SLOT, out=slot, casting="unsafe")  # below 4096
        symbol_at.take(slot, out=symbols[at : at + lanes], mode="clip")  # "clip" spares a copy
        np.right_shift(x, _SHIFT, out=x)
        x *= times.take(slot, out=factor, mode="clip")
        x += plus.take(slot, out=factor, mode="clip")
        low = (x < _LOWEST).nonzero()[0]
        end = used + len(low)
        if end > len(words):
            return -1
        x[low] = (x.take(low) << _WORD) | words[used:end]
        used = end
    return used


def digits(octets: Symbols, base: int, many: int, count: int) -> Symbols:
    """Return the digits of bytes that hold ``many`` each, the lowest first, (count,), and 0 beyond the last."""
    found = np.zeros(max(count, len(octets) * many), np.uint8)
    rest = octets
    for place in range(many):
        found[place : len(octets) * many : many] = rest % base
        rest = rest // base
    return found[:count]


def scaled(
    symbols: Symbols, zero: int, scales: NDArray[np.float32], sizes: Numbers
) -> tuple[NDArray[np.float32], Numbers]:
    """Turn symbols into multiples of their block's scale.

    Args:
        symbols: (n,), n ≥ 1.
        zero: the symbol of 0.
        scales: of each block, (blocks,).
        sizes: symbols of each block, above 0, n together.

    Returns:
        The values, (n,), and the largest magnitude of an integer in each block, (blocks,).
    """
    integers = symbols.astype(np.int16) - np.int16(zero)
    peaks = np.maximum.reduceat(np.abs(integers), np.cumsum(sizes) - sizes)
    return integers.astype(np.float32) * np.repeat(scales, sizes), peaks.astype(np.int64)


def joined(planes: list[Symbols]) -> NDArray[np.float32]:
    """Return floats from their bytes: four arrays, (n,) each, of the lowest, ..., of the highest."""
    return np.stack(planes, axis=1).view("<f4").reshape(-1).astype(np.float32)


def squares(values: NDArray[np.float32]) -> tuple[Numbers, Numbers]:
    """Return by exponent the sums of the significands' squares, in two parts, (256,) each: high · 2^24 + low.

    A significand is an integer of 24 bits, and low is below 2^24.
    """
    high, low = np.zeros(_EXPONENTS), np.zeros(_EXPONENTS)
    for start in range(0, len(values), _CHUNK):
        bits = values[start : start + _CHUNK].view(np.uint32)
        exponents = (bits >> np.uint32(_FRACTION_BITS)).astype(np.uint8)  # without the sign, which is bit 8 of it
        significands = (bits & np.uint32((1 << _FRACTION_BITS) - 1)).astype(np.float64)
        significands += (exponents > 0) * float(1 << _FRACTION_BITS)
        products = significands * significands
        upper = np.floor(products / _HALF)
        high += np.bincount(exponents, upper, _EXPONENTS)
        low += np.bincount(exponents, products - upper * _HALF, _EXPONENTS)
    lower = low.astype(np.int64)
    return high.astype(np.int64) + lower // _HALF, lower % _HALF


def quotients(numbers: Numbers, k: int) -> int:
    """Return Σ ⌊n / 2^k⌋ of non-negative numbers."""
    return int((numbers >> k).sum())


def gap_quotients(indices: Numbers, k: int) -> tuple[int, int, int]:
    """Return Σ ⌊g / 2^j⌋ over the gaps before coordinates, (m,), m ≥ 1, for j = max(0, k - 1), k and k + 1."""
    passed = gaps(indices)
    return quotients(passed, max(0, k - 1)), quotients(passed, k), quotients(passed, k + 1)


def gaps(indices: Numbers) -> Numbers:
    """Return how many coordinates were passed over before each, (m,)."""
    return np.diff(indices, prepend=-1) - 1


def row_counts(indices: Numbers, height: int, columns: int) -> Numbers:
    """Return every row's number of coordinates, (height,)."""
    return np.bincount(indices // columns, minlength=height)


def row_quotients(indices: Numbers, columns: int, counts: Numbers, widths: Numbers) -> int:
    """Return Σ ⌊g / 2^w⌋ over the gaps before coordinates within their row, each row having its own w.

    Args:
        indices: strictly increasing, (m,).
        columns: of each row.
        counts: coordinates of each row, (height,), m together.
        widths: w of each row, (height,).
    """
    return int((row_gaps(indices, columns, counts) >> np.repeat(widths, counts)).sum())


def row_gaps(indices: Numbers, columns: int, counts: Numbers) -> Numbers:
    """Return how many coordinates were passed over before each within its row, (m,)."""
    numbers = gaps(indices)
    first = np.cumsum(counts)[counts > 0] - counts[counts > 0]
    numbers[first] = indices[first] % columns
    return numbers


def unary(data: Symbols, start: int, count: int) -> tuple[Numbers, int]:
    """Read numbers in unary from bit ``start`` on.

    Returns:
        The first ``count``, (count,), of which what is not there is arbitrary, and how many there are.
    """
    first, skipped = divmod(start, 8)
    ends = np.flatnonzero(np.unpackbits(data[first:], bitorder="little")[skipped:].view(np.bool_))
    found = np.zeros(count, np.int64)
    found[: len(ends)] = gaps(ends[:count])
    return found, len(ends)


class Scatter:
    """Adds updates to sums, stretch after stretch of their coordinates.

    Args:
        indices: of every update the coordinates, strictly increasing, (n,).
        values: of every update, (n,).
        weights: of the updates.
    """

    def __init__(self, indices: list[Numbers], values: list[NDArray[np.float32]], weights: list[float]) -> None:
        self._parts = list(zip(indices, values, weights, strict=True))

    def add(self, first: Numbers, last: Numbers, start: int, sums: Sums) -> None:
        """Add every update's values times its weight, and its weight, one update after another.

        Args:
            first: of every update the first of its coordinates that counts, (updates,).
            last: the one after the last, (updates,).
            start: the coordinate of the first sum, the least that may be added.
            sums: of the weighted values, and of the weights, (size, 2).
        """
        for (indices, values, weight), begin, end in zip(self._parts, first, last, strict=True):
            places = indices[begin:end] - start
            sums[places, 0] += weight * values[begin:end].astype(np.float64)
            sums[places, 1] += weight


def steps(
    sums: Sums,
    start: int,
    strength: float,
    total: float,
    moved: Numbers,
    by: NDArray[np.float32],
    used: int,
) -> int:
    """Write the shrunk mean of every coordinate that anybody holds: N / (D + strength · (total - D)).

    Args:
        sums: N and D of each coordinate, (size, 2).
        start: the first coordinate.
        strength: in [0, 1]; at 1 the divisor is the total itself.
        total: above 0.
        moved: gets the coordinates, from place ``used`` on; there is room for one more than there are.
        by: gets the steps there.
        used: places that are taken.

    Returns:
        How many are taken now.
    """
    union = np.flatnonzero(sums[:, 1] > 0)
    weighted, held = sums[union, 0], sums[union, 1]
    end = used + len(union)
    moved[used:end] = union + start
    by[used:end] = weighted / (total if strength == 1 else held + strength * (total - held))
    return end


def increasing(indices: Numbers) -> bool:
    """Return whether coordinates are strictly increasing from 0 or more on."""
    return not (np.any(indices[:1] < 0) or np.any(indices[1:] <= indices[:-1]))


def unusual(values: NDArray[np.float32]) -> tuple[bool, bool]:
    """Return whether a value is NaN or infinite, and whether one is a negative zero."""
    return not np.isfinite(values).all(), bool((values.view(np.uint32) == _NEGATIVE_ZERO).any())


def where_held(sums: Sums, start: int) -> tuple[Numbers, Sums, Sums]:
    """Return the coordinates where the sum of weights is above 0, (k,), and both sums there, each (k,)."""
    union = np.flatnonzero(sums[:, 1] > 0)
    return union + start, sums[union, 0], sums[union, 1]


def rice_decode(data: Symbols, k: int, count: int, cumulative: bool) -> tuple[Numbers, int]:
    """Read numbers in Rice's code: ``k`` planes of a bit each, plane j with bit j of every number, then quotients.

    Args:
        data: that has room for the planes, and a bit of a quotient for each number.
        k: in [0, 40].
        count: at least 1.
        cumulative: whether the numbers are gaps and coordinates are wanted.

    Returns:
        The numbers or coordinates, (count,), arbitrary where not as many quotients are there, and how many are.
    """
    numbers, there = unary(data, count * k, count)
    _add_planes(data, k, numbers)
    if cumulative:
        numbers += 1
        np.cumsum(numbers, out=numbers)
        numbers -= 1
    return numbers, there


def _add_planes(data: Symbols, k: int, numbers: Numbers) -> None:
    count = len(numbers)
    bits = np.unpackbits(data, count=count * k, bitorder="little").reshape(k, count)
    numbers <<= k
    for start in range(0, k, 8):
        part = bits[start].copy()
        for j in range(start + 1, min(start + 8, k)):
            part |= bits[j] << (j - start)
        numbers |= part.astype(np.int64) << start

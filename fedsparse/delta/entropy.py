"""A plane of symbols as bytes: packed, or entropy-coded where that is shorter; docs/format.md defines both.

The entropy coder is rANS (Duda 2013, https://arxiv.org/abs/1311.2540) with a table of frequencies and many
interleaved states (Giesen 2014, https://arxiv.org/abs/1402.3392), which can be stepped all at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedsparse import kernels
from fedsparse.errors import DeltaError

Symbols = NDArray[np.uint8]

MOST_PER_BYTE = 16
"""No byte stands for more symbols than this, so that a short message cannot announce a huge one."""

_RAW, _CODED = 0, 1
_BITS = 12
_TOTAL = 1 << _BITS
_CAP = 2800  # highest frequency: a symbol costs more than half a bit, see MOST_PER_BYTE
_LOWEST = 1 << 16  # states lie in [2^16, 2^32) and shrink by words of 16 bits
_PER_STATE = 1024  # symbols


def write(symbols: Symbols, alphabet: int) -> bytes:
    """Return the bytes of ``symbols``, (n,), n ≥ 1, all below ``alphabet``: 3, 16 or 256."""
    table = Table.of(kernels.histogram(symbols, alphabet))
    if table is None:
        return bytes([_RAW]) + _packed(symbols, alphabet)
    words, states = _encode(symbols, table)
    head = bytes([_CODED]) + table.write() + len(words).to_bytes(4, "little")
    return head + states.astype("<u4").tobytes() + words.astype("<u2").tobytes()


def read(
    data: memoryview, count: int, alphabet: int, *, known_canonical: bool = False
) -> tuple[Symbols, memoryview]:
    """Read ``count`` symbols, (count,), from the front of ``data``, and return what follows them.

    Args:
        data: of a stranger.
        count: number of symbols.
        alphabet: all are below it.
        known_canonical: whether this form was found to be the shortest before, and need not be again.

    Raises:
        DeltaError: ``data`` does not begin with what :func:`write` writes.
    """
    if count > MOST_PER_BYTE * len(data):
        raise DeltaError(f"{len(data)} bytes cannot hold {count} values")
    if data[0] == _RAW:
        end = 1 + packed_size(count, alphabet)
        symbols = _unpacked(np.frombuffer(data[1:end], np.uint8), count, alphabet)
        table = None
    elif data[0] == _CODED:
        table, rest = Table.read(data[1:], alphabet)
        end = len(data) - len(rest) + 4 + 4 * _states(count) + 2 * int.from_bytes(rest[:4], "little")
        if end > len(data):
            raise DeltaError("entropy-coded values end before their time")
        symbols = _decode(rest[4 : end - len(data) + len(rest)], count, table)
    else:
        raise DeltaError(f"values are written in way {data[0]}, which is unknown")
    if not known_canonical and Table.of(kernels.histogram(symbols, alphabet)) != table:
        raise DeltaError("the values are not in the shortest form, or their table is not the one they give")
    return symbols, data[end:]


def packed_size(count: int, alphabet: int) -> int:
    """Return the bytes that ``count`` symbols take when packed."""
    return -(-count // _PER_BYTE[alphabet])


_PER_BYTE = {3: 5, 16: 2, 256: 1}


def _packed(symbols: Symbols, alphabet: int) -> bytes:
    """Return the symbols as digits of base ``alphabet``, as many in a byte as fit, the lowest first."""
    many = _PER_BYTE[alphabet]
    digits = np.zeros(packed_size(len(symbols), alphabet) * many, np.uint8)
    digits[: len(symbols)] = symbols
    total = digits[many - 1 :: many].copy()
    for place in range(many - 2, -1, -1):
        total *= np.uint8(alphabet % 256)
        total += digits[place::many]
    return total.tobytes()


def _unpacked(octets: Symbols, count: int, alphabet: int) -> Symbols:
    many = _PER_BYTE[alphabet]
    if len(octets) != packed_size(count, alphabet) or (alphabet == 3 and np.any(octets >= 3**5)):
        raise DeltaError(f"the packed values are not {count} symbols of {alphabet}")
    if many == 1:
        return octets
    if octets[-1] >= alphabet ** (count - (len(octets) - 1) * many):
        raise DeltaError("the last byte of packed values is not filled up with zeros")
    return kernels.digits(octets, alphabet, many, count)


@dataclass(frozen=True)
class Table:
    """Frequencies of the symbols.

    Attributes:
        frequencies: of each symbol of the alphabet, 0 to 2800, together 4096.
    """

    frequencies: tuple[int, ...]

    @classmethod
    def of(cls, counts: NDArray[np.int64]) -> Self | None:
        """Return the table of symbols that occur so often, (alphabet,), or None where packing is no longer."""
        total = int(counts.sum())
        if np.count_nonzero(counts) < 2:
            return None
        frequencies = _frequencies(counts, total)
        bits = int(counts @ _costs()[frequencies]) >> 8
        table_size = -(-len(counts) // 8) + -(-_BITS * np.count_nonzero(frequencies) // 8)
        coded = table_size + 4 + 4 * _states(total) + -(-bits // 8)
        return cls(tuple(frequencies.tolist())) if coded < packed_size(total, len(counts)) else None

    def write(self) -> bytes:
        """Return a bitmap of the symbols that occur, and their frequencies in 12 bits each."""
        given = np.array(self.frequencies)
        present = given > 0
        bits = (given[present][:, None] >> np.arange(_BITS) & 1).astype(np.uint8)
        return np.packbits(present, bitorder="little").tobytes() + np.packbits(bits, bitorder="little").tobytes()

    @classmethod
    def read(cls, data: memoryview, alphabet: int) -> tuple[Self, memoryview]:
        """Read a table from the front of ``data``, and return what follows it.

        Raises:
            DeltaError: its frequencies do not add up.
        """
        size = -(-alphabet // 8)
        present = np.unpackbits(np.frombuffer(data[:size], np.uint8), bitorder="little")[:alphabet]
        end = size + -(-_BITS * int(present.sum()) // 8)
        if end > len(data):
            raise DeltaError("the table of frequencies ends before its time")
        bits = np.unpackbits(np.frombuffer(data[size:end], np.uint8), bitorder="little")
        given = bits[: _BITS * int(present.sum())].reshape(-1, _BITS) @ (1 << np.arange(_BITS))
        frequencies = np.zeros(alphabet, np.int64)
        frequencies[np.flatnonzero(present)] = given
        if int(frequencies.sum()) != _TOTAL or int(frequencies.max()) > _CAP or np.any(given == 0):
            raise DeltaError("the frequencies do not add up")
        table = cls(tuple(frequencies.tolist()))
        if table.write() != data[:end]:
            raise DeltaError("the table of frequencies is not filled up with zeros")
        return table, data[end:]


def _frequencies(counts: NDArray[np.int64], total: int) -> NDArray[np.int64]:
    """Scale counts to a sum of 4096 without losing a symbol.

    First each is max(1, ⌊4096 · count / total⌋). While the sum is too large, the largest, the first of equals,
    loses one. What is missing goes to the symbol with the highest count, the first of equals; what that has
    beyond 2800 goes to the one with the next highest.
    """
    found: NDArray[np.int64] = np.maximum(_TOTAL * counts // total, counts > 0)
    over = int(found.sum()) - _TOTAL
    for _ in range(over):
        found[found.argmax()] -= 1
    first, second = np.argsort(-counts, kind="stable")[:2]
    found[first] += max(0, -over)
    found[second] += max(0, found[first] - _CAP)
    found[first] = min(found[first], _CAP)
    return found


@cache
def _costs() -> NDArray[np.int64]:
    """Return the cost of a symbol by its frequency, (2801,); that of one that does not occur is 0."""
    return np.array([0, *map(cost, range(1, _CAP + 1))])


def cost(frequency: int) -> int:
    """Return ⌊256 · log2(4096 / frequency)⌋, exactly: what a symbol costs in units of 1/256 bit."""
    return 256 * _BITS - (frequency**256 - 1).bit_length()


def _states(count: int) -> int:
    return max(1, count // _PER_STATE)


def _encode(symbols: Symbols, table: Table) -> tuple[NDArray[np.uint16], NDArray[np.uint32]]:
    """Return words and final states; symbol i belongs to state i mod their number, and the last comes first."""
    frequency = np.array(table.frequencies, np.uint32)
    start = np.cumsum(frequency, dtype=np.uint32) - frequency
    return kernels.rans_encode(np.ascontiguousarray(symbols), frequency, start, _states(len(symbols)))


def _decode(data: memoryview, count: int, table: Table) -> Symbols:
    lanes = _states(count)
    states = np.frombuffer(data[: 4 * lanes], "<u4").astype(np.uint32)
    words = np.frombuffer(data[4 * lanes :], "<u2").astype(np.uint16)  # a copy, which is aligned
    if np.any(states < _LOWEST):
        raise DeltaError("an entropy coder's state is out of range")
    frequency = np.array(table.frequencies, np.uint32)
    start = np.cumsum(frequency, dtype=np.uint32) - frequency
    symbol_at = np.repeat(np.arange(len(frequency), dtype=np.uint8), frequency)  # (4096,)
    times = np.repeat(frequency, frequency)
    plus = np.arange(_TOTAL, dtype=np.uint32) - np.repeat(start, frequency)
    symbols = np.empty(count, np.uint8)
    used = kernels.rans_decode(states, words, symbol_at, times, plus, symbols)
    if used < 0:
        raise DeltaError("entropy-coded values end before their time")
    if used != len(words) or np.any(states != _LOWEST):
        raise DeltaError("entropy-coded values are longer than they need be")
    return symbols

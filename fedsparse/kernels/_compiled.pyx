# cython: language_level=3, boundscheck=True, wraparound=False, initializedcheck=False, show_performance_hints=False
"""The inner loops in C: what plain.py does, to the bit. Every index is checked against its array's bounds.

Arrays come in as they are, contiguous and of the stated type; what is allocated is as long as the result. Nothing
here decides what is valid: that is the callers' part, as it is with plain.py.
"""

import sys

import numpy as np
from libc.string cimport memcpy
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

if sys.byteorder != "little":
    raise ImportError("words are read as they lie in memory, the lowest byte first")

cdef uint32_t LOWEST = 1 << 16  # of a rANS state
cdef uint64_t[256] SPREAD  # bit i of a byte, as the lowest bit of byte i


cdef void _spread() noexcept:
    cdef int octet, bit
    for octet in range(256):
        SPREAD[octet] = 0
        for bit in range(8):
            SPREAD[octet] |= (<uint64_t>((octet >> bit) & 1)) << (8 * bit)


_spread()


def histogram(const uint8_t[::1] symbols, int alphabet):
    cdef uint64_t[1024] counts
    cdef Py_ssize_t i, whole = symbols.shape[0] & ~<Py_ssize_t>3
    cdef int symbol
    found = np.zeros(alphabet, np.int64)
    cdef int64_t[::1] result = found
    with nogil:
        for i in range(1024):
            counts[i] = 0
        for i in range(0, whole, 4):  # four tables: equal neighbours need not wait for each other
            counts[symbols[i]] += 1
            counts[256 + symbols[i + 1]] += 1
            counts[512 + symbols[i + 2]] += 1
            counts[768 + symbols[i + 3]] += 1
        for i in range(whole, symbols.shape[0]):
            counts[symbols[i]] += 1
    for symbol in range(256):
        total = counts[symbol] + counts[256 + symbol] + counts[512 + symbol] + counts[768 + symbol]
        if total:
            result[symbol] = total
    return found


def rans_encode(
    const uint8_t[::1] symbols, const uint32_t[::1] frequency, const uint32_t[::1] start, Py_ssize_t lanes
):
    cdef Py_ssize_t count = symbols.shape[0], at, lane, free = count
    cdef uint32_t x, f
    states, words = np.full(lanes, LOWEST, np.uint32), np.empty(count, np.uint16)
    cdef uint32_t[::1] state = states
    cdef uint16_t[::1] word = words
    if lanes < 1:
        raise ValueError("there must be a state")
    with nogil:
        at = (count - 1) // lanes * lanes
        while at >= 0:
            lane = min(lanes, count - at)
            while lane > 0:
                lane -= 1
                x = state[lane]
                f = frequency[symbols[at + lane]]
                if x >= f << 20:
                    free -= 1
                    word[free] = <uint16_t>(x & 0xFFFF)
                    x >>= 16
                state[lane] = (x // f << 12) + x % f + start[symbols[at + lane]]
            at -= lanes
    return words[free:].copy(), states


def rans_decode(
    uint32_t[::1] states,
    const uint16_t[::1] words,
    const uint8_t[::1] symbol_at,
    const uint32_t[::1] times,
    const uint32_t[::1] plus,
    uint8_t[::1] symbols,
):
    cdef Py_ssize_t lanes = states.shape[0], count = symbols.shape[0], at = 0, lane, width, used = 0
    cdef Py_ssize_t there = words.shape[0]
    cdef uint32_t[4096] packed  # symbol, slot less start, frequency: 8, 12 and 12 bits
    cdef uint32_t x, low, entry
    if lanes == 0:
        return -1
    with nogil:
        for lane in range(4096):
            packed[lane] = symbol_at[lane] | (plus[lane] & 0xFFF) << 8 | times[lane] << 20
        while at < count:
            width = min(lanes, count - at)
            if width < there - used:  # a word for each is there: no branch is needed, which would often be wrong
                for lane in range(width):
                    x = states[lane]
                    entry = packed[x & 0xFFF]
                    symbols[at + lane] = entry & 0xFF
                    x = (entry >> 20) * (x >> 12) + (entry >> 8 & 0xFFF)
                    low = x < LOWEST
                    states[lane] = x << (low << 4) | (words[used] & (0 - low))
                    used += low
            else:
                for lane in range(width):
                    x = states[lane]
                    entry = packed[x & 0xFFF]
                    symbols[at + lane] = entry & 0xFF
                    x = (entry >> 20) * (x >> 12) + (entry >> 8 & 0xFFF)
                    if x < LOWEST:
                        if used == there:
                            used = -1
                            break
                        x = x << 16 | words[used]
                        used += 1
                    states[lane] = x
                if used < 0:
                    break
            at += lanes
    return used


def digits(const uint8_t[::1] octets, int base, int many, Py_ssize_t count):
    cdef uint8_t[256][8] table
    cdef Py_ssize_t octet, at, whole = min(count // many, octets.shape[0])
    cdef int place, rest
    if not 1 <= many <= 8:
        raise ValueError("a byte holds 1 to 8 digits")
    found = np.zeros(count, np.uint8)
    cdef uint8_t[::1] digit = found
    with nogil:
        for octet in range(256):
            rest = octet
            for place in range(many):
                table[octet][place] = rest % base
                rest //= base
        for octet in range(whole):
            for place in range(many):
                digit[octet * many + place] = table[octets[octet]][place]
        if whole < octets.shape[0]:
            for at in range(whole * many, min(count, (whole + 1) * many)):
                digit[at] = table[octets[whole]][at - whole * many]
    return found


def scaled(const uint8_t[::1] symbols, int zero, const float[::1] scales, const int64_t[::1] sizes):
    cdef Py_ssize_t block, i, at = 0
    cdef int integer, peak
    values, peaks = np.empty(symbols.shape[0], np.float32), np.empty(sizes.shape[0], np.int64)
    cdef float[::1] value = values
    cdef int64_t[::1] largest = peaks
    with nogil:
        for block in range(sizes.shape[0]):
            peak = 0
            for i in range(at, at + sizes[block]):
                integer = symbols[i] - zero
                value[i] = <float>integer * scales[block]
                peak = max(peak, integer if integer >= 0 else -integer)
            at += sizes[block]
            largest[block] = peak
    return values, peaks


def squares(const float[::1] values):
    cdef uint64_t[4][256] above, below  # four sums each: neighbours of one exponent need not wait for each other
    cdef Py_ssize_t i
    cdef int j
    cdef uint32_t bits, exponent
    cdef uint64_t square
    cdef const uint32_t[::1] pattern = np.asarray(values).view(np.uint32)
    high, low = np.zeros(256, np.int64), np.zeros(256, np.int64)
    cdef int64_t[::1] upper = high
    cdef int64_t[::1] lower = low
    with nogil:
        for j in range(4):
            for i in range(256):
                above[j][i] = below[j][i] = 0
        for i in range(pattern.shape[0]):
            bits = pattern[i]
            exponent = bits >> 23 & 0xFF
            square = (bits & 0x7FFFFF) | <uint32_t>(exponent > 0) << 23
            square *= square
            above[i & 3][exponent] += square >> 24
            below[i & 3][exponent] += square & 0xFFFFFF
        for j in range(4):
            for i in range(256):
                upper[i] += above[j][i]
                lower[i] += below[j][i]
    return high, low


def quotients(const int64_t[::1] numbers, int k):
    cdef uint64_t total = 0
    cdef Py_ssize_t i
    with nogil:
        for i in range(numbers.shape[0]):
            total += <uint64_t>numbers[i] >> k
    return total


def gaps(const int64_t[::1] indices):
    cdef Py_ssize_t i
    cdef int64_t last = -1
    found = np.empty(indices.shape[0], np.int64)
    cdef int64_t[::1] result = found
    with nogil:
        for i in range(indices.shape[0]):
            result[i] = indices[i] - last - 1
            last = indices[i]
    return found


def from_gaps(int64_t[::1] numbers):
    cdef Py_ssize_t i
    cdef int64_t last = -1
    with nogil:
        for i in range(numbers.shape[0]):
            last += numbers[i] + 1
            numbers[i] = last


def row_counts(const int64_t[::1] indices, Py_ssize_t height, int64_t columns):
    cdef Py_ssize_t i, row = 0
    cdef int64_t end = columns
    counts = np.zeros(height, np.int64)
    cdef int64_t[::1] count = counts
    with nogil:
        for i in range(indices.shape[0]):
            while indices[i] >= end:
                row += 1
                end += columns
            count[row] += 1
    return counts


def row_quotients(
    const int64_t[::1] indices, int64_t columns, const int64_t[::1] counts, const int64_t[::1] widths
):
    cdef Py_ssize_t row, i, at = 0
    cdef int64_t last, width
    cdef uint64_t total = 0
    with nogil:
        for row in range(counts.shape[0]):
            last = row * columns - 1
            width = widths[row]
            for i in range(at, at + counts[row]):
                total += <uint64_t>(indices[i] - last - 1) >> width
                last = indices[i]
            at += counts[row]
    return total


cdef extern from *:
    """
    #if defined(__GNUC__)
    #define fedsparse_lowest(bits) __builtin_ctzll(bits)
    #else
    static int fedsparse_lowest(unsigned long long bits) { int at = 0; while (!(bits >> at & 1)) at++; return at; }
    #endif
    """
    int _lowest "fedsparse_lowest"(uint64_t bits) noexcept nogil


def unary(const uint8_t[::1] data, Py_ssize_t start, Py_ssize_t count):
    cdef Py_ssize_t octet = start >> 3, there = 0, length = data.shape[0]
    cdef int64_t last = start - 1, place
    cdef uint64_t bits
    found = np.zeros(count, np.int64)
    cdef int64_t[::1] result = found
    with nogil:
        while octet < length:
            if octet + 8 <= length:
                memcpy(&bits, &data[octet], 8)
            else:
                bits = data[octet]
            if octet == start >> 3:
                bits &= ~<uint64_t>0 << (start & 7)
            while bits:
                if there < count:
                    place = 8 * octet + _lowest(bits)
                    result[there] = place - last - 1
                    last = place
                there += 1
                bits &= bits - 1
            octet += 8 if octet + 8 <= length else 1
    return found, there


def planes(const uint8_t[::1] data, int k, int64_t[::1] numbers):
    cdef Py_ssize_t i, at, bit, count = numbers.shape[0], length = data.shape[0]
    cdef int first, j, place
    cdef uint64_t eight
    cdef uint32_t octet
    with nogil:
        for i in range(count):
            numbers[i] <<= k
        for first in range(0, k, 8):
            for i in range(0, count, 8):
                eight = 0
                for j in range(first, min(first + 8, k)):
                    bit = j * count + i
                    at = bit >> 3
                    octet = data[at]
                    if at + 1 < length:
                        octet |= <uint32_t>data[at + 1] << 8
                    eight |= SPREAD[octet >> (bit & 7) & 0xFF] << (j - first)
                for place in range(<int>min(8, count - i)):
                    numbers[i + place] |= <int64_t>(eight >> (8 * place) & 0xFF) << first


def add_weighted(
    const int64_t[::1] indices, const float[::1] values, span, double weight, int64_t start, double[:, ::1] sums
):
    cdef Py_ssize_t i, place, first = span.start, last = span.stop
    with nogil:
        for i in range(first, last):
            place = indices[i] - start
            sums[place, 0] += weight * <double>values[i]
            sums[place, 1] += weight


def where_held(const double[:, ::1] sums, int64_t start):
    cdef Py_ssize_t i, there = 0, count = 0
    with nogil:
        for i in range(sums.shape[0]):
            count += sums[i, 1] > 0
    # One more is written to than returned: what is held cannot be guessed, and a branch would be often wrong.
    union, weighted, held = np.empty(count + 1, np.int64), np.empty(count + 1), np.empty(count + 1)
    cdef int64_t[::1] place = union
    cdef double[::1] taken = weighted
    cdef double[::1] weight = held
    with nogil:
        for i in range(sums.shape[0]):
            place[there] = start + i
            taken[there] = sums[i, 0]
            weight[there] = sums[i, 1]
            there += sums[i, 1] > 0
    return union[:count], weighted[:count], held[:count]

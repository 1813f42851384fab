# cython: language_level=3, boundscheck=True, wraparound=False, initializedcheck=False, show_performance_hints=False
"""The inner loops in C: what plain.py does, to the bit.

Every index is checked against its array's bounds; where that is switched off, before the loop the lengths are, from
which its indices follow. Arrays come in as they are, contiguous and of the stated type; what is allocated is as
long as the result. Nothing here decides what is valid: that is the callers' part, as it is with plain.py. _wide.h
has two of the loops once more, for processors with AVX2.
"""

import os
import sys

import numpy as np
from cython cimport boundscheck, cdivision
from libc.string cimport memcpy
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

if sys.byteorder != "little":
    raise ImportError("words are read as they lie in memory, the lowest byte first")

cdef uint32_t LOWEST = 1 << 16  # of a rANS state
cdef int64_t MOST_COORDINATES = <int64_t>1 << 62
cdef Py_ssize_t MOST_WIDE = 1 << 29  # bytes whose bits have places below 2^32
cdef uint32_t EXPONENT = 0x7F800000, SIGN = <uint32_t>1 << 31, MAGNITUDE = 0x7FFFFFFF  # of a float
cdef uint64_t[256] SPREAD  # bit i of a byte, as the lowest bit of byte i
cdef uint64_t[256] ONES  # the places of a byte's ones, one after another in a byte each

cdef extern from "_wide.h":
    bint _wide "fedsparse_wide"() noexcept nogil
    Py_ssize_t _rans_wide "fedsparse_rans"(
        uint32_t *states, Py_ssize_t width, const uint16_t *words, Py_ssize_t there, Py_ssize_t *used,
        const uint32_t *packed, const uint64_t *spread, uint8_t *symbols,
    ) noexcept nogil
    Py_ssize_t _ones_wide "fedsparse_ones"(
        const uint8_t *data, Py_ssize_t length, Py_ssize_t *octet, uint8_t *bits, const uint64_t *ones,
        uint32_t *places, Py_ssize_t ready,
    ) noexcept nogil
    void _coordinates_wide "fedsparse_coordinates"(
        const uint64_t *planes, int k, const uint32_t *places, int64_t skipped, int64_t first, int64_t *result
    ) noexcept nogil

cdef bint WIDE = _wide() and not os.environ.get("FEDSPARSE_SCALAR")  # so that tests see the other form as well


cdef void _fill() noexcept:
    cdef int octet, bit, there
    for octet in range(256):
        SPREAD[octet] = ONES[octet] = there = 0
        for bit in range(8):
            SPREAD[octet] |= (<uint64_t>((octet >> bit) & 1)) << (8 * bit)
            if octet >> bit & 1:
                ONES[octet] |= <uint64_t>bit << (8 * there)
                there += 1


_fill()


cdef int64_t _few(const uint8_t *symbols, Py_ssize_t count, int alphabet, int64_t *result) noexcept nogil:
    """Count by comparing many symbols at once with each of a few, and return how many are among these."""
    cdef Py_ssize_t at, i
    cdef int64_t there = 0
    cdef uint8_t symbol, some
    for at in range(0, count, 240):  # no more than a byte can count
        for symbol in range(alphabet):
            some = 0
            for i in range(at, min(at + 240, count)):
                some += symbols[i] == symbol
            result[symbol] += some
            there += some
    return there


def histogram(const uint8_t[::1] symbols, int alphabet):
    cdef uint64_t[1024] counts
    cdef Py_ssize_t i, whole = symbols.shape[0] & ~<Py_ssize_t>3
    cdef int symbol
    found = np.zeros(alphabet, np.int64)
    cdef int64_t[::1] result = found
    if alphabet < 8 and symbols.shape[0]:
        among = _few(&symbols[0], symbols.shape[0], alphabet, &result[0])
        if among != symbols.shape[0]:
            raise IndexError(f"{symbols.shape[0] - among} symbols are not below {alphabet}")
        return found
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
    cdef Py_ssize_t lanes = states.shape[0], count = symbols.shape[0], at = 0, lane, done, width, used = 0
    cdef Py_ssize_t there = words.shape[0]
    cdef uint32_t[4096] packed  # symbol, slot less start, frequency: 8, 12 and 12 bits
    cdef uint32_t x, low, entry
    if lanes == 0:
        return -1
    if min(symbol_at.shape[0], times.shape[0], plus.shape[0]) < 4096:
        raise IndexError("a table has 4096 slots")
    with nogil, boundscheck(False):  # a lane is below their number and a symbol's place below theirs by its width
        for lane in range(4096):
            packed[lane] = symbol_at[lane] | (plus[lane] & 0xFFF) << 8 | times[lane] << 20
        while at < count:
            width = min(lanes, count - at)
            done = 0
            if WIDE:
                done = _rans_wide(&states[0], width, &words[0], there, &used, packed, SPREAD, &symbols[at])
            if width < there - used:  # a word for each is there: no branch is needed, which would often be wrong
                for lane in range(done, width):
                    x = states[lane]
                    entry = packed[x & 0xFFF]
                    symbols[at + lane] = entry & 0xFF
                    x = (entry >> 20) * (x >> 12) + (entry >> 8 & 0xFFF)
                    low = x < LOWEST
                    states[lane] = x << (low << 4) | (words[used] & (0 - low))
                    used += low
            else:
                for lane in range(done, width):
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
    cdef Py_ssize_t block, i, at = 0, end
    cdef uint8_t highest, lowest
    cdef float scale
    values, peaks = np.empty(symbols.shape[0], np.float32), np.zeros(sizes.shape[0], np.int64)
    cdef float[::1] value = values
    cdef int64_t[::1] largest = peaks
    if sizes.shape[0] > scales.shape[0]:
        raise IndexError(f"{sizes.shape[0]} blocks, {scales.shape[0]} scales")
    with nogil:
        for block in range(sizes.shape[0]):
            scale = scales[block]
            if not 0 <= sizes[block] <= symbols.shape[0] - at:
                break
            end = at + sizes[block]
            with boundscheck(False):
                for i in range(at, end):
                    value[i] = <float>(symbols[i] - zero) * scale
                highest, lowest = 0, 255
                for i in range(at, end):
                    highest = max(highest, symbols[i])
                    lowest = min(lowest, symbols[i])
            if end > at:
                largest[block] = max(abs(highest - zero), abs(lowest - zero))
            at = end
        else:
            block = sizes.shape[0]
    if block != sizes.shape[0] or at != symbols.shape[0]:
        raise IndexError(f"the blocks do not have {symbols.shape[0]} symbols together")
    return values, peaks


cdef inline uint64_t _square(uint32_t bits, uint32_t exponent) noexcept nogil:
    """Return the square of a float's significand, an integer of 24 bits."""
    cdef uint64_t significand = (bits & 0x7FFFFF) | <uint32_t>(exponent > 0) << 23
    return significand * significand


cdef Py_ssize_t _add_alike(const uint32_t *pattern, Py_ssize_t count, uint64_t *sums) noexcept nogil:
    """Add the squares of blocks of zeros and one magnitude, as ternary ones are; return where that ends."""
    cdef Py_ssize_t at = 0, end, i
    cdef uint32_t bits, one = 0, many, other
    while at < count:
        end = min(at + 128, count)
        for i in range(at, end):
            one = pattern[i] & MAGNITUDE
            if one:
                break
        many = other = 0
        for i in range(at, end):
            bits = pattern[i] & MAGNITUDE
            many += bits == one
            other |= bits if bits != one else 0
        if other:
            break
        sums[one >> 23] += many * _square(one, one >> 23)
        at = end
    return at


def squares(const float[::1] values):
    cdef uint64_t[4][256] sums  # four each: neighbours of one exponent need not wait for each other
    cdef Py_ssize_t i, start, stop, at, count = values.shape[0]
    cdef int j
    cdef uint32_t bits, exponent
    cdef const uint32_t[::1] pattern = np.asarray(values).view(np.uint32)
    high, low = np.zeros(256, np.int64), np.zeros(256, np.int64)
    cdef int64_t[::1] upper = high
    cdef int64_t[::1] lower = low
    with nogil, boundscheck(False):
        for start in range(0, count, 1 << 16):  # squares have 48 bits: so many add up below 2^64
            for j in range(4):
                for i in range(256):
                    sums[j][i] = 0
            stop = min(start + (1 << 16), count)
            at = start + _add_alike(&pattern[start], stop - start, sums[0])
            for i in range(at, stop - 3, 4):
                for j in range(4):
                    bits = pattern[i + j]
                    exponent = bits >> 23 & 0xFF
                    sums[j][exponent] += _square(bits, exponent)
            for i in range(at + ((stop - at) & ~<Py_ssize_t>3), stop):
                bits = pattern[i]
                exponent = bits >> 23 & 0xFF
                sums[0][exponent] += _square(bits, exponent)
            for j in range(4):
                for i in range(256):
                    upper[i] += sums[j][i] >> 24
                    lower[i] += sums[j][i] & 0xFFFFFF
        for i in range(256):
            upper[i] += lower[i] >> 24
            lower[i] &= 0xFFFFFF
    return high, low


def joined(list planes):
    cdef const uint8_t[::1] first, second, third, fourth
    cdef Py_ssize_t i, count
    first, second, third, fourth = planes
    count = min(first.shape[0], second.shape[0], third.shape[0], fourth.shape[0])
    values = np.empty(count, np.float32)
    cdef uint32_t[::1] pattern = values.view(np.uint32)
    with nogil, boundscheck(False):
        for i in range(count):
            pattern[i] = (
                first[i] | <uint32_t>second[i] << 8 | <uint32_t>third[i] << 16 | <uint32_t>fourth[i] << 24
            )
    return values


def quotients(const int64_t[::1] numbers, int k):
    cdef uint64_t total = 0
    cdef Py_ssize_t i
    if not 0 <= k < 64:
        raise IndexError(f"{k} bits of 64")
    with nogil, boundscheck(False):
        for i in range(numbers.shape[0]):
            total += <uint64_t>numbers[i] >> k
    return total


def gap_quotients(const int64_t[::1] indices, int k):
    cdef uint64_t finer = 0, total = 0, coarser = 0, gap
    cdef Py_ssize_t i
    cdef int less = max(0, k - 1)
    if indices.shape[0] == 0 or not 0 <= k < 63:
        raise IndexError(f"{indices.shape[0]} coordinates, {k} bits")
    with nogil, boundscheck(False):
        gap = indices[0]
        finer, total, coarser = gap >> less, gap >> k, gap >> k + 1
        for i in range(1, indices.shape[0]):
            gap = <uint64_t>indices[i] - <uint64_t>indices[i - 1] - 1
            finer += gap >> less
            total += gap >> k
            coarser += gap >> k + 1
    return finer, total, coarser


def gaps(const int64_t[::1] indices):
    cdef Py_ssize_t i
    cdef int64_t last = -1
    found = np.empty(indices.shape[0], np.int64)
    cdef int64_t[::1] result = found
    with nogil, boundscheck(False):
        for i in range(indices.shape[0]):
            result[i] = indices[i] - last - 1
            last = indices[i]
    return found


def row_counts(const int64_t[::1] indices, Py_ssize_t height, int64_t columns):
    cdef Py_ssize_t row, at = 0, low, high, middle, step, count = indices.shape[0]
    cdef int64_t end
    if columns < 1 or height > MOST_COORDINATES // columns:
        raise IndexError(f"{height} rows of {columns}")
    counts = np.zeros(height, np.int64)
    cdef int64_t[::1] result = counts
    if count and indices[count - 1] >= height * columns:
        raise IndexError(f"coordinate {indices[count - 1]} of {height} rows of {columns}")
    with nogil:
        for row in range(height):  # where each ends is found in steps that double, and by halves of the last
            end = (row + 1) * columns
            low, high, step = at, at, 1
            while high < count and indices[high] < end:
                low, high = high + 1, high + step
                step <<= 1
            high = min(high, count)
            while low < high:
                middle = (low + high) >> 1
                if indices[middle] < end:
                    low = middle + 1
                else:
                    high = middle
            result[row] = low - at
            at = low
    return counts


def row_quotients(
    const int64_t[::1] indices, int64_t columns, const int64_t[::1] counts, const int64_t[::1] widths
):
    cdef Py_ssize_t row, i, at = 0, end
    cdef int64_t width
    cdef uint64_t total = 0
    with nogil:
        for row in range(counts.shape[0]):
            width = widths[row] & 63
            if not 0 <= counts[row] <= indices.shape[0] - at:
                break
            if counts[row] == 0:
                continue
            end = at + counts[row]
            total += <uint64_t>(indices[at] - row * columns) >> width
            with boundscheck(False):
                for i in range(at + 1, end):
                    total += (<uint64_t>indices[i] - <uint64_t>indices[i - 1] - 1) >> width
            at = end
        else:
            row = counts.shape[0]
    if row != counts.shape[0]:
        raise IndexError(f"the rows have more than {indices.shape[0]} coordinates together")
    return total


cdef extern from *:
    """
    #if defined(__GNUC__)
    #define fedsparse_lowest(bits) __builtin_ctzll(bits)
    #define fedsparse_count(bits) __builtin_popcountll(bits)
    #else
    static int fedsparse_lowest(unsigned long long bits) { int at = 0; while (!(bits >> at & 1)) at++; return at; }
    static int fedsparse_count(unsigned long long bits) { int n = 0; for (; bits; bits &= bits - 1) n++; return n; }
    #endif
    """
    int _lowest "fedsparse_lowest"(uint64_t bits) noexcept nogil
    int _count "fedsparse_count"(uint64_t bits) noexcept nogil


cdef inline uint64_t _bits_at(const uint8_t *data, Py_ssize_t length, Py_ssize_t bit) noexcept nogil:
    """Return 64 bits from a place on; what is beyond the data is 0."""
    cdef Py_ssize_t at = bit >> 3, i
    cdef int shift = bit & 7
    cdef uint64_t found = 0
    if at + 9 <= length:
        memcpy(&found, data + at, 8)
        return found >> shift | (<uint64_t>data[at + 8] << 1) << (63 - shift)
    for i in range(at, min(at + 8, length)):
        found |= <uint64_t>data[i] << (8 * (i - at))
    return found >> shift


cdef inline Py_ssize_t _quotients(
    const uint8_t *data, Py_ssize_t length, Py_ssize_t *octet, uint64_t *bits, int64_t *last,
    uint64_t *found, Py_ssize_t many,
) noexcept nogil:
    """Read the next numbers in unary, and return how many there were."""
    cdef Py_ssize_t there = 0
    cdef int64_t place
    while there < many:
        while bits[0] == 0:
            octet[0] += 8
            if octet[0] >= length:
                return there
            bits[0] = _bits_at(data, length, 8 * octet[0])
        place = 8 * octet[0] + _lowest(bits[0])
        found[there] = place - last[0] - 1
        last[0] = place
        bits[0] &= bits[0] - 1
        there += 1
    return there


def unary(const uint8_t[::1] data, Py_ssize_t start, Py_ssize_t count):
    cdef Py_ssize_t length = data.shape[0], octet = start >> 3, there = 0, at, i, many
    cdef uint64_t[64] found
    cdef uint64_t bits
    cdef int64_t last = start - 1
    numbers = np.zeros(count, np.int64)
    cdef int64_t[::1] result = numbers
    if start < 0 or octet >= length:
        return numbers, 0
    cdef const uint8_t *octets = &data[0]
    with nogil:
        bits = _bits_at(octets, length, 8 * octet) & ~<uint64_t>0 << (start & 7)
        for at in range(0, count, 64):
            many = _quotients(octets, length, &octet, &bits, &last, found, min(64, count - at))
            for i in range(many):
                result[at + i] = found[i]
            there += many
        there += _rest(octets, length, octet, bits)
    return numbers, there


cdef Py_ssize_t _rest(const uint8_t *data, Py_ssize_t length, Py_ssize_t octet, uint64_t bits) noexcept nogil:
    """Return how many ones are left."""
    cdef Py_ssize_t there = 0
    while octet < length:
        there += _count(bits)
        octet += 8
        bits = _bits_at(data, length, 8 * octet)
    return there


cdef Py_ssize_t _blocks(
    const uint8_t *data, Py_ssize_t length, int k, Py_ssize_t count, int64_t *last, int64_t *result
) noexcept nogil:
    """Read coordinates in whole blocks of 64, with 8 planes at most, and return how many they are.

    Quotients begin after place ``last``, which becomes that of the last one read.
    """
    cdef Py_ssize_t octet = (last[0] + 1) >> 3, at = 0, ready = 0, i
    cdef uint8_t bits = data[octet] & 0xFF << (last[0] + 1 & 7)
    cdef uint32_t[72] places
    cdef uint64_t[8] planes
    cdef int64_t first = 0
    while count - at >= 64:
        ready = _ones_wide(data, length, &octet, &bits, ONES, places, ready)
        if ready < 64:
            break
        for i in range(k):
            planes[i] = _bits_at(data, length, i * count + at)
        _coordinates_wide(planes, k, places, last[0] + 1, first, result + at)
        last[0], first = places[63], result[at + 63] + 1
        ready -= 64
        for i in range(ready):
            places[i] = places[64 + i]
        at += 64
    return at


def rice_decode(const uint8_t[::1] data, int k, Py_ssize_t count, bint cumulative):
    cdef Py_ssize_t length = data.shape[0], i, at, width, octet, there = 0
    cdef uint64_t[64] found
    cdef uint64_t[8] plane
    cdef uint64_t bits, eight, number, total = 0
    cdef int64_t last
    cdef int first, j, place, group
    if not 0 <= k <= 40 or count < 1 or count > 8 * length // (k + 1):
        raise IndexError(f"{count} numbers of {k} bits and more are not in {length} bytes")
    numbers = np.empty(count, np.int64)
    cdef int64_t[::1] result = numbers
    cdef const uint8_t *octets = &data[0]
    with nogil, boundscheck(False):  # the planes are within the data, as was checked above, and so is every result
        last = count * k - 1
        if WIDE and cumulative and k <= 8 and length < MOST_WIDE:
            there = _blocks(octets, length, k, count, &last, &result[0])
            total = result[there - 1] + 1 if there else 0
        octet = (last + 1) >> 3
        bits = _bits_at(octets, length, 8 * octet) & ~<uint64_t>0 << (last + 1 & 7)
        for i in range(64):
            found[i] = 0
        for at in range(there, count, 64):
            width = min(64, count - at)
            there += (i := _quotients(octets, length, &octet, &bits, &last, found, width))
            if i < width:
                break
            for i in range(width):
                found[i] <<= k
            for first in range(0, k, 8):
                for j in range(first, min(first + 8, k)):
                    plane[j - first] = _bits_at(octets, length, j * count + at)
                for group in range(0, width, 8):
                    eight = 0
                    for j in range(min(8, k - first)):
                        eight |= SPREAD[plane[j] >> group & 0xFF] << j
                    for place in range(8):
                        found[group + place] |= (eight >> (8 * place) & 0xFF) << first
            if cumulative:
                for i in range(width):
                    total += found[i] + 1
                    result[at + i] = total - 1
            else:
                for i in range(width):
                    result[at + i] = found[i]
        there += _rest(octets, length, octet, bits)
    return numbers, there


cdef extern from *:
    """
    #if defined(__GNUC__)
    typedef double fedsparse_pair __attribute__((vector_size(16), aligned(8), may_alias));
    static inline void fedsparse_add(double *at, double one, double other) {
        *(fedsparse_pair *)at += (fedsparse_pair){one, other};
    }
    #else
    static void fedsparse_add(double *at, double one, double other) { at[0] += one; at[1] += other; }
    #endif
    """
    void _add_pair "fedsparse_add"(double *at, double one, double other) noexcept nogil


cdef struct Part:
    const int64_t *indices
    const float *values
    Py_ssize_t count
    double weight


cdef class Scatter:
    cdef list kept  # the arrays, as long as there are pointers to them
    cdef object room
    cdef Part *parts
    cdef Py_ssize_t many

    def __init__(self, list indices, list values, list weights):
        cdef const int64_t[::1] places
        cdef const float[::1] numbers
        cdef uint8_t[::1] room
        cdef Py_ssize_t i
        self.kept, self.many = [], len(weights)
        if not len(indices) == len(values) == self.many:
            raise IndexError("every part has coordinates, values and a weight")
        self.room = np.empty(max(1, self.many) * sizeof(Part), np.uint8)
        room = self.room
        self.parts = <Part *>&room[0]
        for i in range(self.many):
            places, numbers = indices[i], values[i]
            if places.shape[0] != numbers.shape[0]:
                raise IndexError(f"{places.shape[0]} coordinates, {numbers.shape[0]} values")
            self.kept.append((places, numbers))
            self.parts[i].count, self.parts[i].weight = places.shape[0], weights[i]
            self.parts[i].indices = &places[0] if places.shape[0] else NULL
            self.parts[i].values = &numbers[0] if places.shape[0] else NULL

    def add(self, const int64_t[::1] first, const int64_t[::1] last, int64_t start, double[:, ::1] sums):
        cdef Py_ssize_t one, i, end
        cdef uint64_t place, size = sums.shape[0]
        cdef Part *part
        cdef bint outside = False
        if first.shape[0] != self.many or last.shape[0] != self.many or sums.shape[1] != 2:
            raise IndexError(f"{self.many} parts, {first.shape[0]} and {last.shape[0]} ends")
        with nogil, boundscheck(False):  # spans are checked below, and so is every place
            for one in range(self.many):
                part, end = &self.parts[one], last[one]
                if not 0 <= first[one] <= end <= part.count:
                    outside = True
                    break
                for i in range(first[one], end):
                    place = <uint64_t>part.indices[i] - <uint64_t>start
                    if place >= size:
                        outside = True
                        break
                    _add_pair(&sums[place, 0], part.weight * <double>part.values[i], part.weight)
        if outside:
            raise IndexError(f"a part has no such span, or one with coordinates that are not among {size} from {start} on")


@cdivision(True)  # where nothing is held a step is NaN, which nobody gets
def steps(
    const double[:, ::1] sums,
    int64_t start,
    double strength,
    double total,
    int64_t[::1] moved,
    float[::1] by,
    Py_ssize_t used,
):
    cdef Py_ssize_t i, size = sums.shape[0]
    cdef double held, divisor
    cdef bint whole = strength == 1
    if used < 0 or sums.shape[1] != 2:
        raise IndexError("steps have a place, and pairs of sums")
    with nogil:
        for i in range(size):  # written, and left only where held: whether it is cannot be guessed
            held = sums[i, 1]
            divisor = total if whole else held + strength * (total - held)
            moved[used] = start + i
            by[used] = <float>(sums[i, 0] / divisor)
            used += held > 0
    return used


def increasing(const int64_t[::1] indices):
    cdef Py_ssize_t i, count = indices.shape[0]
    cdef int64_t negative = indices[0] if count else 0
    with nogil, boundscheck(False):  # a gap's sign is wrong only where that of a coordinate tells as well
        for i in range(1, count):
            negative |= indices[i] | (indices[i] - indices[i - 1] - 1)
    return negative >= 0


def unusual(const float[::1] values):
    cdef Py_ssize_t i, count = values.shape[0]
    cdef const uint32_t[::1] pattern = np.asarray(values).view(np.uint32)
    cdef bint endless = False, negative_zero = False
    with nogil, boundscheck(False):
        for i in range(count):
            endless |= (pattern[i] & EXPONENT) == EXPONENT
            negative_zero |= pattern[i] == SIGN
    return bool(endless), bool(negative_zero)


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

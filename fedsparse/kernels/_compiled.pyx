# cython: language_level=3, boundscheck=True, wraparound=False, initializedcheck=False, show_performance_hints=False
"""The inner loops in C: what plain.py does, to the bit.

Every index is checked against its array's bounds; where that is switched off, before the loop the lengths are, from
which its indices follow. Arrays come in as they are, contiguous and of the stated type; what is allocated is as long as the result. Nothing
here decides what is valid: that is the callers' part, as it is with plain.py.
"""

import sys

import numpy as np
from cython cimport boundscheck, cdivision
from libc.string cimport memcpy
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

if sys.byteorder != "little":
    raise ImportError("words are read as they lie in memory, the lowest byte first")

cdef uint32_t LOWEST = 1 << 16  # of a rANS state
cdef int64_t MOST_COORDINATES = <int64_t>1 << 62
cdef uint32_t EXPONENT = 0x7F800000, SIGN = <uint32_t>1 << 31  # of a float
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
    if min(symbol_at.shape[0], times.shape[0], plus.shape[0]) < 4096:
        raise IndexError("a table has 4096 slots")
    with nogil, boundscheck(False):  # a lane is below their number and a symbol's place below theirs by its width
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
    cdef Py_ssize_t block, i, at = 0, end
    cdef int integer, peak
    cdef float scale
    values, peaks = np.empty(symbols.shape[0], np.float32), np.empty(sizes.shape[0], np.int64)
    cdef float[::1] value = values
    cdef int64_t[::1] largest = peaks
    if sizes.shape[0] > scales.shape[0]:
        raise IndexError(f"{sizes.shape[0]} blocks, {scales.shape[0]} scales")
    with nogil:
        for block in range(sizes.shape[0]):
            peak, scale = 0, scales[block]
            if not 0 <= sizes[block] <= symbols.shape[0] - at:
                break
            end = at + sizes[block]
            with boundscheck(False):
                for i in range(at, end):
                    integer = symbols[i] - zero
                    value[i] = <float>integer * scale
                    peak = max(peak, integer if integer >= 0 else -integer)
            at = end
            largest[block] = peak
        else:
            block = sizes.shape[0]
    if block != sizes.shape[0] or at != symbols.shape[0]:
        raise IndexError(f"the blocks do not have {symbols.shape[0]} symbols together")
    return values, peaks


def squares(const float[::1] values):
    cdef uint64_t[4][256] sums  # four each: neighbours of one exponent need not wait for each other
    cdef Py_ssize_t i, start, stop, count = values.shape[0]
    cdef int j
    cdef uint32_t bits, exponent
    cdef uint64_t square
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
            for i in range(start, stop - 3, 4):
                for j in range(4):
                    bits = pattern[i + j]
                    exponent = bits >> 23 & 0xFF
                    square = (bits & 0x7FFFFF) | <uint32_t>(exponent > 0) << 23
                    sums[j][exponent] += square * square
            for i in range(start + ((stop - start) & ~<Py_ssize_t>3), stop):
                bits = pattern[i]
                exponent = bits >> 23 & 0xFF
                square = (bits & 0x7FFFFF) | <uint32_t>(exponent > 0) << 23
                sums[0][exponent] += square * square
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
    cdef Py_ssize_t row, i, at = 0
    cdef int64_t last, width
    cdef uint64_t total = 0
    with nogil:
        for row in range(counts.shape[0]):
            last = row * columns - 1
            width = widths[row] & 63
            for i in range(at, at + counts[row]):
                total += <uint64_t>(indices[i] - last - 1) >> width
                last = indices[i]
            at += counts[row]
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


def rice_decode(const uint8_t[::1] data, int k, Py_ssize_t count, bint cumulative):
    cdef Py_ssize_t length = data.shape[0], i, at, width, octet, there = 0, start
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
        start = count * k
        octet, last = start >> 3, start - 1
        bits = _bits_at(octets, length, 8 * octet) & ~<uint64_t>0 << (start & 7)
        for i in range(64):
            found[i] = 0
        for at in range(0, count, 64):
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
    cdef bint wrong = count > 0 and indices[0] < 0
    with nogil, boundscheck(False):
        for i in range(1, count):
            wrong |= indices[i] <= indices[i - 1]
    return not wrong


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

/* The two loops that take a decoder longest, eight numbers at a time where the processor has AVX2. _compiled.pyx
   has both for every processor too, and goes on with its own where these stop. What is read and written lies
   within the lengths given, or within the stated size. */

#include <stdint.h>

#if defined(__GNUC__) && defined(__x86_64__)
#include <immintrin.h>
#define FEDSPARSE_WIDE __attribute__((target("avx2,popcnt")))

static int fedsparse_wide(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
}

/* Step rANS states, eight while there are eight and as many words; return how many were stepped.

   packed: of each of 4096 slots the symbol, the slot less the symbol's start, its frequency: 8, 12 and 12 bits.
   spread: bit i of a byte, as the lowest bit of byte i. */
FEDSPARSE_WIDE static Py_ssize_t fedsparse_rans(
    uint32_t *states, Py_ssize_t width, const uint16_t *words, Py_ssize_t there, Py_ssize_t *used,
    const uint32_t *packed, const uint64_t *spread, uint8_t *symbols
) {
    const __m256i slot = _mm256_set1_epi32(0xFFF), lowest_bytes = _mm256_set1_epi32(0x0C080400);
    Py_ssize_t lane, next = *used;
    for (lane = 0; width - lane >= 8 && there - next >= 8; lane += 8) {
        uint32_t *x = states + lane;
        const __m256i entry = _mm256_setr_epi32( /* on an EPYC twice as fast as AVX2's own gathering */
            packed[x[0] & 0xFFF], packed[x[1] & 0xFFF], packed[x[2] & 0xFFF], packed[x[3] & 0xFFF],
            packed[x[4] & 0xFFF], packed[x[5] & 0xFFF], packed[x[6] & 0xFFF], packed[x[7] & 0xFFF]
        );
        const __m256i fours = _mm256_shuffle_epi8(entry, lowest_bytes);
        _mm_storel_epi64(
            (__m128i *)(symbols + lane),
            _mm_unpacklo_epi32(_mm256_castsi256_si128(fours), _mm256_extracti128_si256(fours, 1))
        );
        const __m256i quotient = _mm256_srli_epi32(_mm256_loadu_si256((const __m256i *)x), 12);
        const __m256i state = _mm256_add_epi32(
            _mm256_mullo_epi32(_mm256_srli_epi32(entry, 20), quotient),
            _mm256_and_si256(_mm256_srli_epi32(entry, 8), slot)
        );
        const __m256i low = _mm256_cmpeq_epi32(_mm256_srli_epi32(state, 16), _mm256_setzero_si256());
        const int which = _mm256_movemask_ps(_mm256_castsi256_ps(low));
        const uint64_t rank = spread[which] * 0x0101010101010101 << 8; /* byte i: how many before i are low */
        const __m256i word = _mm256_permutevar8x32_epi32(
            _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(words + next))),
            _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(rank))
        );
        const __m256i filled = _mm256_or_si256(_mm256_slli_epi32(state, 16), word);
        _mm256_storeu_si256((__m256i *)x, _mm256_blendv_epi8(state, filled, low));
        next += __builtin_popcount(which);
    }
    *used = next;
    return lane;
}

/* Write where ones are, bits from the data's begin on, until there are 64; return how many there are, at most 71.

   octet, bits: where to go on, and what is left of that byte.
   ones: the places of a byte's ones, one after another in a byte each.
   places: of which `ready` are known, below 2^32; has room for 72. */
FEDSPARSE_WIDE static Py_ssize_t fedsparse_ones(
    const uint8_t *data, Py_ssize_t length, Py_ssize_t *octet, uint8_t *bits, const uint64_t *ones,
    uint32_t *places, Py_ssize_t ready
) {
    Py_ssize_t at = *octet;
    unsigned left = *bits;
    while (ready < 64 && at < length) {
        const __m256i within = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(ones[left]));
        const __m256i found = _mm256_add_epi32(_mm256_set1_epi32(8 * at), within);
        _mm256_storeu_si256((__m256i *)(places + ready), found);
        ready += __builtin_popcount(left);
        at++;
        left = at < length ? data[at] : 0;
    }
    *octet = at;
    *bits = left;
    return ready;
}

/* Write 64 coordinates: `first`, its index, the low bits of the gaps up to it, and 2^k times their quotients.

   planes: of the low bits, `k` with 64 each, at most 8.
   places: where the quotients end, 64; less `skipped` and its index, each is the sum of the quotients up to it. */
FEDSPARSE_WIDE static void fedsparse_coordinates(
    const uint64_t *planes, int k, const uint32_t *places, int64_t skipped, int64_t first, int64_t *result
) {
    const __m256i bit = _mm256_set1_epi64x(0x8040201008040201);
    const __m256i each_to_eight = _mm256_setr_epi64x(
        0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303
    );
    const __m128i shift = _mm_cvtsi32_si128(k);
    uint16_t sums[64]; /* of low bits, beginning anew with every eight */
    for (int half = 0; half < 2; half++) {
        __m256i low = _mm256_setzero_si256();
        for (int j = 0; j < k; j++) {
            const __m256i octets = _mm256_shuffle_epi8(_mm256_set1_epi32(planes[j] >> 32 * half), each_to_eight);
            const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(octets, bit), bit);
            low = _mm256_or_si256(low, _mm256_and_si256(set, _mm256_set1_epi8(1 << j)));
        }
        for (int part = 0; part < 2; part++) {
            __m256i sum = _mm256_cvtepu8_epi16(
                part ? _mm256_extracti128_si256(low, 1) : _mm256_castsi256_si128(low)
            );
            sum = _mm256_add_epi16(sum, _mm256_slli_si256(sum, 2));
            sum = _mm256_add_epi16(sum, _mm256_slli_si256(sum, 4));
            sum = _mm256_add_epi16(sum, _mm256_slli_si256(sum, 8));
            _mm256_storeu_si256((__m256i *)(sums + 32 * half + 16 * part), sum);
        }
    }
    for (int eight = 0; eight < 64; eight += 8) {
        for (int i = eight; i < eight + 8; i += 4) {
            const __m256i index = _mm256_add_epi64(_mm256_set1_epi64x(i), _mm256_setr_epi64x(0, 1, 2, 3));
            const __m256i place = _mm256_cvtepu32_epi64(_mm_loadu_si128((const __m128i *)(places + i)));
            const __m256i passed = _mm256_add_epi64(_mm256_set1_epi64x(skipped), index);
            const __m256i quotients = _mm256_sll_epi64(_mm256_sub_epi64(place, passed), shift);
            const __m256i sum = _mm256_cvtepu16_epi64(_mm_loadl_epi64((const __m128i *)(sums + i)));
            const __m256i least = _mm256_add_epi64(_mm256_set1_epi64x(first), index);
            const __m256i found = _mm256_add_epi64(_mm256_add_epi64(quotients, sum), least);
            _mm256_storeu_si256((__m256i *)(result + i), found);
        }
        first += sums[eight + 7];
    }
}

#else

static int fedsparse_wide(void) {
    return 0;
}

static Py_ssize_t fedsparse_rans(
    uint32_t *states, Py_ssize_t width, const uint16_t *words, Py_ssize_t there, Py_ssize_t *used,
    const uint32_t *packed, const uint64_t *spread, uint8_t *symbols
) {
    return 0;
}

static Py_ssize_t fedsparse_ones(
    const uint8_t *data, Py_ssize_t length, Py_ssize_t *octet, uint8_t *bits, const uint64_t *ones,
    uint32_t *places, Py_ssize_t ready
) {
    return 0;
}

static void fedsparse_coordinates(
    const uint64_t *planes, int k, const uint32_t *places, int64_t skipped, int64_t first, int64_t *result
) {}

#endif

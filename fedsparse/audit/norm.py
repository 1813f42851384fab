"""The sum of the squares of float32 values, exactly rounded: the same bits on every machine, whatever its vectors.

The result is that of ``math.fsum`` over the squares in float64, at a small part of the time: where sums are kept
per exponent, all of them are integers that float64 holds.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1 << 16  # values that are looked at together, so that what is derived from them stays in the cache
_FRACTION_BITS = 23
_EXPONENTS = 256
_HALF = 1 << 24  # a significand has 24 bits, its square 48: two halves, of which 2^29 each add up below 2^53
_LOWEST = -149  # exponent of a significand's last bit, for subnormal values and those next to them


def sum_of_squares(values: NDArray[np.float32]) -> float:
    """Return Σ v² of finite ``values``, (n,), n < 2^29, rounded once to the nearest float64."""
    high, low = np.zeros(_EXPONENTS), np.zeros(_EXPONENTS)
    for start in range(0, len(values), _CHUNK):
        bits = values[start : start + _CHUNK].view(np.uint32)
        exponents = (bits >> np.uint32(_FRACTION_BITS)).astype(np.uint8)  # without the sign, which is bit 8 of it
        significands = (bits & np.uint32((1 << _FRACTION_BITS) - 1)).astype(np.float64)
        significands += (exponents > 0) * float(1 << _FRACTION_BITS)
        squares = significands * significands
        upper = np.floor(squares / _HALF)
        high += np.bincount(exponents, upper, _EXPONENTS)
        low += np.bincount(exponents, squares - upper * _HALF, _EXPONENTS)
    total = sum(
        (int(high[exponent]) * _HALF + int(low[exponent])) << 2 * max(0, int(exponent) - 1)
        for exponent in np.flatnonzero(high + low)
    )
    return math.ldexp(float(total), 2 * _LOWEST)

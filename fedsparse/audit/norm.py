"""The sum of the squares of float32 values, exactly rounded: the same bits on every machine, whatever its vectors.

The result is that of ``math.fsum`` over the squares in float64, at a small part of the time: sums are kept per
exponent, and so all of them are integers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fedsparse import kernels

_HALF_BITS = 24  # a significand has 24 bits, its square 48: two halves, of which 2^29 each add up below 2^53
_LOWEST = -149  # exponent of a significand's last bit, for subnormal values and those next to them


def sum_of_squares(values: NDArray[np.float32]) -> float:
    """Return Σ v² of finite ``values``, (n,), n < 2^29, rounded once to the nearest float64."""
    high, low = kernels.squares(values)
    total = sum(
        ((int(high[exponent]) << _HALF_BITS) + int(low[exponent])) << 2 * max(0, int(exponent) - 1)
        for exponent in np.flatnonzero(high + low)
    )
    return math.ldexp(float(total), 2 * _LOWEST)

"""Sets of coordinates as increasing vectors, which NumPy's own set functions sort or hash again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_Vector = NDArray[np.int64]


def union(one: _Vector, other: _Vector) -> _Vector:
    """Return what either holds, strictly increasing; both are strictly increasing already."""
    if not len(other):
        return one
    if not len(one):
        return other
    if len(one) == len(other) and np.array_equal(one, other):
        return one
    both = np.concatenate([one, other])
    both.sort(kind="stable")  # finds the two runs and merges them
    found: _Vector = both[np.concatenate([[True], both[1:] != both[:-1]])]
    return found

"""How much one update may move, whole and in each tensor: as norm-bounded averaging, but tensor by tensor as well.

A bound on the whole norm (Sun et al. 2019, https://arxiv.org/abs/1911.07963) leaves it to the sender where to put
it. All of it on a few parameters that matter much, such as a head's, does more harm than the same length spread
out.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fedsparse.aggregation.holders import Part

_LEAST = 3  # of two norms there is no telling which is too large


def factors(norms: Sequence[float], bound: float | None) -> list[float]:
    """Return what each update is multiplied by, so that none is longer than so many times their median.

    Args:
        norms: of the updates, or of their parts; those of 0 have no say in what is much.
        bound: at least 1; None bounds nothing, and neither do fewer than three norms above 0.
    """
    positive = [norm for norm in norms if norm > 0]
    if bound is None or len(positive) < _LEAST:
        return [1.0] * len(norms)
    most = bound * statistics.median(positive)
    return [1.0 if norm <= most else most / norm for norm in norms]


def bounded(parts: Sequence[Part], names: Sequence[int], bound: float | None) -> list[Part]:
    """Return the parts of a tensor, each update's scaled down as a whole where it is too long.

    Args:
        parts: of the updates; one update may have several.
        names: whose each part is.
        bound: as for :func:`factors`.
    """
    if bound is None:
        return list(parts)
    squares = defaultdict[int, float](float)
    for part, name in zip(parts, names, strict=True):
        squares[name] += float(np.square(part.values, dtype=np.float64).sum())
    found = factors([math.sqrt(square) for square in squares.values()], bound)
    by_name = dict(zip(squares, found, strict=True))
    return [_scaled(part, by_name[name]) for part, name in zip(parts, names, strict=True)]


def _scaled(part: Part, factor: float) -> Part:
    return part if factor == 1 else replace(part, values=part.values * np.float32(factor))

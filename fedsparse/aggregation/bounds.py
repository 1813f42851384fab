"""How much one update may move, whole and in each tensor: as norm-bounded averaging, but tensor by tensor as well.

A bound on the whole norm (Sun et al. 2019, https://arxiv.org/abs/1911.07963) leaves it to the sender where to put
it. All of it on a few parameters that matter much, such as a head's, does more harm than the same length spread
out.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

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


def bounded(parts: Sequence[Part], updates: int, bound: float | None) -> list[Part]:
    """Return the updates' parts of a tensor, the longer ones scaled down if most of the updates hold it.

    Of a tensor that few hold, a few that lie could set the median, and take what others say away: more than two
    thirds must hold it, of whom those are not the half as long as they are less than a third of all.

    Args:
        parts: one of each update that holds the tensor.
        updates: how many there are in the round.
        bound: as for :func:`factors`.
    """
    if bound is None or 3 * len(parts) <= 2 * updates:
        return list(parts)
    norms = [float(np.square(part.values, dtype=np.float64).sum() ** 0.5) for part in parts]
    return [part.times(factor) for part, factor in zip(parts, factors(norms, bound), strict=True)]

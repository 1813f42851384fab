"""One tensor's merge, block after block of its coordinates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedsparse.aggregation.holders import Holders, Indices, Part
from fedsparse.aggregation.rules import Mean, Rule


def merge_tensor(
    rule: Rule, min_holders: int, parts: Sequence[Part], size: int, total: float
) -> tuple[Indices, NDArray[np.float32]]:
    """Return which coordinates of a tensor move, strictly increasing, (k,), and by how much, (k,).

    Args:
        rule: from the holders of a coordinate to its step.
        min_holders: updates that must hold a coordinate, or it stays.
        parts: what each update has of the tensor, in an order that does not depend on when they arrived.
        size: coordinates of the tensor.
        total: weight of all updates in the round.
    """
    most = min(size, sum(len(part.indices) for part in parts))
    moved, by, used = np.empty(most + 1, np.int64), np.empty(most + 1, np.float32), 0
    for holders in Holders.blocks(parts, size, total):
        if isinstance(rule, Mean) and holders.is_dense and min_holders <= 1:
            used = holders.write_means(rule.strength, moved, by, used)
            continue
        union, step = holders.union, rule.merge(holders)
        if min_holders > 1:
            enough = holders.count() >= min_holders
            union, step = union[enough], step[enough]
        end = used + len(union)
        moved[used:end], by[used:end] = union, step
        used = end
    moved.resize(used, refcheck=False)  # in place, so that nothing is copied
    by.resize(used, refcheck=False)
    moved.flags.writeable = by.flags.writeable = False
    return moved, by

"""Changing the support while training: drop what stayed small, grow where the gradient is large."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedsparse.delta import AdapterSpace
from fedsparse.errors import ConfigError
from fedsparse.sparsity.ranking import Ranks, highest
from fedsparse.sparsity.structure import Structure, Tiling
from fedsparse.sparsity.support import Scores, Support, score_arrays


def drop_and_grow(
    space: AdapterSpace,
    support: Support,
    values: Sequence[Tensor],
    scores: Scores,
    fraction: float,
    dense: Collection[int],
    *,
    structure: Structure = "unstructured",
    block: int = 8,
) -> Support:
    """Return the support after one RigL step (https://arxiv.org/abs/1911.11134); each tensor keeps its nnz.

    In every tensor the ``fraction`` of units with the smallest mean |value| is dropped, rounded down, and as many
    with the largest mean score grow among those that were not in the support before. Unlike in the paper, what was
    just dropped cannot grow again in the same step. Units are replaced by units of the same size, so smaller
    tiles at an edge only by others like them. Ties go to the first coordinate: it is kept, and it grows.

    Args:
        space: the adapter space.
        support: before the step.
        values: per tensor what was trained at the support, (k_t,).
        scores: dense |gradient| of the tensors that are not dense, all at once or in groups.
        fraction: share that is dropped, see :func:`drop_fraction`.
        dense: positions of the tensors that are taken whole; they stay as they are.
        structure: what is dropped and grown whole; the support has to consist of it.
        block: side of a tile, for "block".

    Raises:
        ConfigError: ``fraction`` is outside 0 to 1, or the support does not consist of whole units.
        DataError: a score is NaN or infinite, or a tensor is not scored.
    """
    if not 0 <= fraction <= 1:
        raise ConfigError(f"the fraction to drop, {fraction}, is no share", "Use a number from 0 to 1")
    sparse = [position for position in range(len(space.tensors)) if position not in dense]
    changed = list(support)
    for position, gradient in score_arrays(space, scores, sparse):
        tensor = space.tensors[position]
        tiling = Tiling.of(tensor.shape, structure, block)
        held = np.unique(tiling.units_of(support[position]))
        if tiling.size_of(held) != len(support[position]):
            raise ConfigError(
                f"the support of {tensor.name} does not consist of whole units of structure {structure!r}",
                "Use the structure that the support was chosen with",
            )
        sizes = np.zeros(tensor.size, np.float32)
        sizes[support[position]] = _magnitudes(values[position])
        changed[position] = tiling.coordinates(
            _replaced(tiling, held, tiling.means(sizes), tiling.means(gradient), fraction)
        )
    return tuple(changed)


def drop_fraction(step: int, steps: int, initial: float) -> float:
    """Return the share of units to drop at ``step``: ``initial`` at 0, along half a cosine to 0 at ``steps``.

    RigL's f_decay (https://arxiv.org/abs/1911.11134); 0 from ``steps`` on.
    """
    return 0.0 if step >= steps else initial / 2 * (1 + math.cos(math.pi * step / steps))


def keep_largest(support: Support, values: Sequence[Tensor], count: int, dense: Collection[int]) -> Support:
    """Return the ``count`` coordinates of the largest |value| over all tensors, besides the dense tensors.

    Magnitude pruning, coordinate by coordinate; with ``count`` from :func:`sparse_budget` at the density of
    :func:`cubic_density` it is Zhu and Gupta's gradual pruning (https://arxiv.org/abs/1710.01878). A smaller
    support stays as it is; ties go to the first coordinate.

    Args:
        support: before pruning.
        values: per tensor what was trained at the support, (k_t,).
        count: coordinates to keep in the tensors that are not dense.
        dense: positions of the tensors that are taken whole; they stay as they are.
    """
    sparse = [position for position in range(len(support)) if position not in dense]
    sizes = np.concatenate([np.empty(0, np.float32), *(_magnitudes(values[position]) for position in sparse)])
    kept = np.zeros(len(sizes), np.bool_)
    kept[highest(sizes, np.arange(len(sizes)), count)] = True
    cuts = np.cumsum([len(support[position]) for position in sparse])[:-1]
    parts = dict(zip(sparse, np.split(kept, cuts), strict=False))
    return tuple(indices[parts[p]] if p in parts else indices for p, indices in enumerate(support))


def _replaced(
    tiling: Tiling, held: NDArray[np.int64], sizes: Ranks, scores: Ranks, fraction: float
) -> NDArray[np.int64]:
    """Return the units held after the step, in no order."""
    is_held = np.zeros(tiling.units, np.bool_)
    is_held[held] = True
    after = []
    for _, units in tiling.classes():
        old, free = units[is_held[units]], units[~is_held[units]]
        count = min(int(fraction * len(old)), len(free))
        after.append(old[highest(sizes[old], old, len(old) - count)])
        after.append(free[highest(scores[free], free, count)])
    return np.concatenate(after)


def _magnitudes(values: Tensor) -> NDArray[np.float32]:
    magnitudes: NDArray[np.float32] = values.detach().float().abs().cpu().numpy()
    return magnitudes

"""The support: which coordinates of the adapter space one update trains and carries."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from fedsparse.adapters import Support
from fedsparse.delta import AdapterSpace
from fedsparse.errors import ConfigError


def choose_support(
    space: AdapterSpace, scores: Sequence[Tensor], density: float, dense: Collection[int]
) -> Support:
    """Return the best-scored coordinates over all tensors, besides the dense tensors whole.

    Args:
        scores: per tensor (size_t,); those of dense tensors are not looked at.
        density: share of the space's coordinates, dense tensors included, that the support never exceeds.
        dense: positions of the tensors that are taken whole.

    Raises:
        ConfigError: the dense tensors alone are more than ``density`` allows.
    """
    budget = sparse_budget(space, density, dense)
    sparse = [position for position in range(len(space.tensors)) if position not in dense]
    best = _best([scores[position] for position in sparse], budget)
    chosen = dict(zip(sparse, best, strict=True))
    return tuple(
        np.arange(tensor.size) if position in dense else chosen[position]
        for position, tensor in enumerate(space.tensors)
    )


def sparse_budget(space: AdapterSpace, density: float, dense: Collection[int]) -> int:
    """Return how many coordinates ``density`` leaves besides the dense tensors.

    Raises:
        ConfigError: the dense tensors alone are more than ``density`` allows.
    """
    whole = sum(space.tensors[position].size for position in dense)
    budget = int(density * space.size) - whole
    if budget < 0:
        raise ConfigError(
            f"density {density} allows {int(density * space.size)} of {space.size} coordinates, "
            f"but the dense tensors alone have {whole}",
            f"Raise training.density to at least {whole / space.size:.4g}, or name less in adapter.dense",
        )
    return budget


def _best(scores: Sequence[Tensor], count: int) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return, per tensor, the sorted indices of the ``count`` largest scores overall; ties go to the first."""
    if not scores:
        return []
    ranked = torch.sort(torch.cat(list(scores)), descending=True, stable=True).indices[:count]
    flat = np.sort(ranked.numpy())
    ends = np.cumsum([len(score) for score in scores])
    starts = ends - [len(score) for score in scores]
    cuts = np.searchsorted(flat, ends[:-1])
    return [part - start for part, start in zip(np.split(flat, cuts), starts, strict=True)]

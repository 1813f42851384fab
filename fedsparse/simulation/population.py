"""Virtual plants: one site's samples, shared out among many that see other classes in other proportions."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray

from fedsparse.training.partition import dirichlet_shares, partition


def draw_plants(strata: Sequence[Hashable], plants: int, alpha: float, seed: int) -> list[NDArray[np.int64]]:
    """Share samples out, each stratum by a Dirichlet draw of its own; every sample goes to one plant.

    Args:
        strata: what plants have unlike shares of, usually the class, of each sample, (n,).
        plants: how many; some may get few samples, or none.
        alpha: concentration; 0.1 gives nearly one plant per stratum, 100 gives all plants nearly the same.
        seed: decides the draw.

    Returns:
        Positions of each plant's samples, increasing.
    """
    shares = dirichlet_shares(strata, plants, alpha, seed)
    return [np.array(part, np.int64) for part in partition(strata, shares, seed)]

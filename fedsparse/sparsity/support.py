"""The support: which coordinates of the adapter space one update trains and carries."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedsparse.delta import AdapterSpace, TensorSpec
from fedsparse.errors import ConfigError, DataError
from fedsparse.sparsity.ranking import Keys, Ranks, Shelf
from fedsparse.sparsity.structure import Structure, Tiling

Support = tuple[NDArray[np.int64], ...]
"""Per tensor of the space its coordinates: strictly increasing flat indices, (k_t,)."""

Allocation = Literal["global", "uniform", "early"]
"""One ranking over all tensors, the same density in each, or one tensor after another from the input side on."""

Scores = Mapping[int, Tensor] | Iterable[Mapping[int, Tensor]]
"""By tensor position one score per coordinate, (size_t,), larger is more important; all at once or in groups."""


def choose_support(
    space: AdapterSpace,
    scores: Scores,
    density: float,
    dense: Collection[int],
    *,
    structure: Structure = "unstructured",
    block: int = 8,
    allocation: Allocation = "global",
) -> Support:
    """Return the best-scored units, besides the dense tensors whole; ties go to the first coordinate.

    Units (coordinates, rows or tiles) are ranked by their mean score per coordinate and taken from the best down;
    one that no longer fits is passed over, and smaller ones after it may still fit.

    Args:
        space: the adapter space.
        scores: of every tensor that is not dense; groups of any division and order lead to the same support, and
            only the best candidates are kept from one group to the next.
        density: share of the space's coordinates, dense tensors included, that the support never exceeds.
        dense: positions of the tensors that are taken whole.
        structure: what is taken or left whole; rows are those of axis 0, tiles those of the matrix view
            (shape[0], product of the rest), smaller at its edges.
        block: side of a tile, for "block".
        allocation: "global" is one ranking over all tensors. "uniform" first fills in each sparse tensor its share
            of the budget in proportion to its size, rounded down, with the tensor's best units; what that leaves,
            because of the rounding or because units do not divide it, goes to the best units left overall. "early"
            does the same with other shares: each tensor, in the space's order, may take all that is left. Where
            the shift lies in the input, as between photographs and sensor images, tuning the first layers is best
            (https://arxiv.org/abs/2210.11466).

    Raises:
        ConfigError: the dense tensors alone are more than ``density`` allows, or an option is unknown.
        DataError: a score is NaN or infinite, or a tensor is not scored.
    """
    selection = Selection(space, sparse_budget(space, density, dense), dense, structure, block, allocation)
    for position, values in score_arrays(space, scores, selection.tilings):
        selection.offer(position, selection.tilings[position].means(values))
    return selection.support()


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


class Selection:
    """Chooses units as :func:`choose_support` describes, from ranks that arrive tensor by tensor in any order.

    Args:
        budget: coordinates to choose besides the dense tensors.
        free: by position, in how many coordinates of a sparse tensor there are units that may be chosen, where
            others are offered with the rank -inf; all of them, if left out. No tensor gets a larger share.

    Attributes:
        tilings: by position, how each sparse tensor is cut into units.
    """

    def __init__(
        self,
        space: AdapterSpace,
        budget: int,
        dense: Collection[int],
        structure: Structure,
        block: int,
        allocation: Allocation,
        free: Mapping[int, int] | None = None,
    ) -> None:
        if allocation not in _SHARES:
            raise ConfigError(f"the allocation {allocation!r} is unknown", f"Use one of {', '.join(_SHARES)}")
        self._space = space
        self._budget = budget
        self.tilings = {
            position: Tiling.of(tensor.shape, structure, block)
            for position, tensor in enumerate(space.tensors)
            if position not in dense
        }
        starts = accumulate((tiling.units for tiling in self.tilings.values()), initial=0)
        self._starts = dict(zip(self.tilings, starts, strict=False))  # a unit's key is start + its number
        sizes = {position: tiling.size for position, tiling in self.tilings.items()}
        self._shares = _SHARES[allocation](sizes, sizes if free is None else free, budget)
        self._shelf = Shelf(self._unshared())
        self._own: list[Keys] = []  # taken by tensors from their own shares

    def offer(self, position: int, ranks: Ranks) -> None:
        """Consider the units of one tensor, by their ranks (units,); those of rank -inf are never chosen."""
        tiling, start = self.tilings[position], self._starts[position]
        free = ranks > -np.inf
        if share := self._shares.get(position, 0):
            own = Shelf(share)
            for size, units in tiling.classes():
                units = units[free[units]]
                own.offer(size, ranks[units], units)
            taken = own.take(share)
            free[taken] = False
            self._own.append(taken + start)
            self._budget -= tiling.size_of(taken)
        for size, units in tiling.classes():
            units = units[free[units]]
            self._shelf.offer(size, ranks[units], units + start)

    def support(self) -> Support:
        """Return what is chosen, once every sparse tensor was offered."""
        keys = np.sort(np.concatenate([*self._own, self._shelf.take(self._budget)]))
        ends = {p: start + self.tilings[p].units for p, start in self._starts.items()}
        chosen = {
            p: keys[np.searchsorted(keys, start) : np.searchsorted(keys, ends[p])] - start
            for p, start in self._starts.items()
        }
        return tuple(
            self.tilings[p].coordinates(chosen[p]) if p in chosen else np.arange(tensor.size)
            for p, tensor in enumerate(self._space.tensors)
        )

    def _unshared(self) -> int:
        """Return the most that may be left for all tensors: a share leaves less than its tensor's largest unit."""
        shared = sum(self._shares.values())
        left = sum(min(share, self.tilings[p].largest - 1) for p, share in self._shares.items())
        return self._budget - shared + left


def score_arrays(
    space: AdapterSpace, scores: Scores, positions: Collection[int]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Yield the scores of each of ``positions`` as they come, (size_t,).

    Raises:
        DataError: a score is NaN or infinite, or a tensor's scores are missing or of another size.
    """
    due = set(positions)
    for group in [scores] if isinstance(scores, Mapping) else scores:
        for position in sorted(due & group.keys()):
            due.remove(position)
            yield position, _finite(space.tensors[position], group[position])
        del group  # or it would stay in memory while the next is computed
    if due:
        raise DataError(f"the tensor {space.tensors[min(due)].name} has no scores", "Score every sparse tensor")


def _finite(tensor: TensorSpec, scores: Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = scores.detach().cpu().numpy()
    if values.shape != (tensor.size,):
        raise DataError(f"the scores of {tensor.name} have shape {values.shape}, not ({tensor.size},)")
    if not np.isfinite(values).all():
        raise DataError(
            f"a score of {tensor.name} is NaN or infinite",
            "Check the local data, and the loss of the state that training starts from",
        )
    return values


def _no_shares(sizes: Mapping[int, int], free: Mapping[int, int], budget: int) -> dict[int, int]:
    return {}


def _uniform_shares(sizes: Mapping[int, int], free: Mapping[int, int], budget: int) -> dict[int, int]:
    whole = sum(sizes.values())
    return {position: min(budget * size // whole, free[position]) for position, size in sizes.items()}


def _early_shares(sizes: Mapping[int, int], free: Mapping[int, int], budget: int) -> dict[int, int]:
    shares = {}
    for position in sorted(sizes):
        shares[position] = min(free[position], budget)
        budget -= shares[position]
    return shares


_SHARES: Mapping[Allocation, Callable[[Mapping[int, int], Mapping[int, int], int], dict[int, int]]] = {
    "global": _no_shares,
    "uniform": _uniform_shares,
    "early": _early_shares,
}

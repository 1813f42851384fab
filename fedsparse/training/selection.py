"""Which coordinates a stage trains."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedsparse.adapters import Adapter
from fedsparse.config import StageSettings
from fedsparse.delta.sorted import union
from fedsparse.errors import ConfigError
from fedsparse.sparsity import (
    SCORES,
    Loss,
    Support,
    drop_and_grow,
    gradient_magnitude,
    keep_largest,
    score_in_groups,
    seeded_support,
)
from fedsparse.sparsity.structure import Tiling
from fedsparse.sparsity.support import Selection, score_arrays
from fedsparse.training.stages import coordinates, no_unit_fits

_SCORES_AT_ONCE = 1 << 24  # coordinates: scores of larger models are taken in several passes, 64 MiB each


class Selector:
    """Chooses supports of one adapter.

    Args:
        adapter: what is trained.
        seed: of drawn supports.
        given: what every stage of a density above 0 trains, where that is known.
    """

    def __init__(self, adapter: Adapter, seed: int, given: Support | None = None) -> None:
        self._adapter = adapter
        self._seed = seed
        self._given = given
        self._sparse = [i for i in range(len(adapter.space.tensors)) if i not in adapter.dense]
        self._whole = coordinates(adapter.space, adapter.dense, 0)

    def choose(self, stage: StageSettings, density: float, losses: Sequence[Loss]) -> Support:
        """Return a support of ``density`` that holds what is in training already.

        Raises:
            ConfigError: the density is too small for any unit of the structure, what is drawn does not hold
                all that is in training, or all that would be trained scores 0.
            DataError: a score is NaN or infinite.
        """
        if density == 0:
            return self._head()
        if self._given is not None:
            return tuple(map(union, self._given, self._adapter.support))
        chosen = self._drawn(stage, density) if stage.source == "seeded" else self._best(stage, density, losses)
        self._require_some(stage, density, chosen)
        return chosen

    def prune(self, stage: StageSettings, density: float) -> Support:
        """Return what is left of the support at ``density``: the units with the largest mean |value|.

        Raises:
            ConfigError: that is nothing.
        """
        adapter, budget = self._adapter, self._room(density)
        if stage.structure == "unstructured" and stage.allocation == "global":
            left = keep_largest(adapter.support, adapter.values, budget, adapter.dense)
        else:
            left = self._largest_units(stage, budget)
        self._require_some(stage, density, left)
        return left

    def regrow(self, stage: StageSettings, fraction: float, losses: Sequence[Loss]) -> Support:
        """Return the support after one exchange of ``fraction`` of its units."""
        adapter = self._adapter
        groups = score_in_groups(gradient_magnitude, adapter, losses, self._sparse, _SCORES_AT_ONCE)
        return drop_and_grow(
            adapter.space,
            adapter.support,
            adapter.values,
            groups,
            fraction,
            adapter.dense,
            structure=stage.structure,
            block=stage.block,
        )

    def _largest_units(self, stage: StageSettings, room: int) -> Support:
        support, values = self._adapter.support, self._adapter.values
        held = self._held_units(stage)
        selection = self._selection(stage, room, {p: tiling.size_of(units) for p, (tiling, units) in held.items()})
        for position, (tiling, _) in held.items():
            selection.offer(position, _magnitudes(tiling, support[position], values[position]))
        return tuple(map(np.intersect1d, selection.support(), support))  # a unit may be held in part

    def _head(self) -> Support:
        adapter = self._adapter
        return tuple(
            np.arange(tensor.size if i in adapter.dense else 0) for i, tensor in enumerate(adapter.space.tensors)
        )

    def _best(self, stage: StageSettings, density: float, losses: Sequence[Loss]) -> Support:
        """Return what is held, and the best-scored units besides it."""
        space, support, held = self._adapter.space, self._adapter.support, self._held_units(stage)
        room = self._room(density) - sum(len(support[position]) for position in self._sparse)
        free = {p: tiling.size - tiling.size_of(units) for p, (tiling, units) in held.items()}
        selection = self._selection(stage, room, free)
        groups = score_in_groups(SCORES[stage.score], self._adapter, losses, self._sparse, _SCORES_AT_ONCE)
        telling = set()
        for position, scores in score_arrays(space, groups, self._sparse):
            if scores.any():
                telling.add(position)
            tiling, units = held[position]
            means = tiling.means(scores)
            means[units] = -np.inf
            selection.offer(position, means)
        chosen = selection.support()
        self._require_scores(stage, chosen, telling)
        return tuple(map(union, chosen, support))

    def _drawn(self, stage: StageSettings, density: float) -> Support:
        adapter = self._adapter
        chosen = seeded_support(
            adapter.space,
            density,
            adapter.dense,
            self._seed,
            structure=stage.structure,
            block=stage.block,
            allocation=stage.allocation,
        )
        for held, now in zip(adapter.support, chosen, strict=True):
            if len(np.setdiff1d(held, now, assume_unique=True)):
                raise ConfigError(
                    f"what stage {stage.name!r} draws at density {density} does not hold all that is in training",
                    'Use structure = "unstructured" and allocation = "global" in all stages that draw',
                )
        return chosen

    def _room(self, density: float) -> int:
        """Return how many coordinates a density allows besides the dense tensors."""
        return coordinates(self._adapter.space, self._adapter.dense, density) - self._whole

    def _held_units(self, stage: StageSettings) -> dict[int, tuple[Tiling, NDArray[np.int64]]]:
        """Return how each sparse tensor is cut into units, and those that are held, at least in part."""
        tensors, support = self._adapter.space.tensors, self._adapter.support
        tilings = {p: Tiling.of(tensors[p].shape, stage.structure, stage.block) for p in self._sparse}
        return {p: (tiling, np.unique(tiling.units_of(support[p]))) for p, tiling in tilings.items()}

    def _selection(self, stage: StageSettings, room: int, free: Mapping[int, int]) -> Selection:
        adapter = self._adapter
        return Selection(adapter.space, room, adapter.dense, stage.structure, stage.block, stage.allocation, free)

    def _require_scores(self, stage: StageSettings, chosen: Support, telling: Collection[int]) -> None:
        """Refuse to train only tensors that score 0 throughout, as all do behind a head of zeros.

        Args:
            telling: positions of the tensors with another score.
        """
        if stage.score == "magnitude":  # weights of 0 may well learn
            return
        taken = [position for position in self._sparse if len(chosen[position])]
        others = self._adapter.dense or any(map(len, self._adapter.support))
        if taken and not others and not any(position in telling for position in taken):
            raise ConfigError(
                f"stage {stage.name!r} has nothing to go by: every {stage.score!r} score of the tensors that it "
                "would train is exactly 0, and nothing else is trained",
                "Where the head is all zeros, list it in adapter.dense, so that it learns first: until then no "
                'gradient passes it. Otherwise use a score that needs no gradient, such as "magnitude", '
                'or source = "seeded"',
            )

    def _require_some(self, stage: StageSettings, density: float, chosen: Support) -> None:
        room = self._room(density)
        found = sum(map(len, chosen)) > self._whole
        if not found and self._sparse and (room or not self._whole):
            raise no_unit_fits(stage, density, room)


def _magnitudes(tiling: Tiling, held: NDArray[np.int64], values: Tensor) -> NDArray[np.floating]:
    """Return the mean |value| of each unit of a tensor, (units,), and -inf for those that are not held."""
    units = tiling.units_of(held)
    sums = np.bincount(units, weights=values.detach().abs().numpy(), minlength=tiling.units)
    means: NDArray[np.floating] = sums / tiling.sizes()
    means[np.bincount(units, minlength=tiling.units) == 0] = -np.inf
    return means

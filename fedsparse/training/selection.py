"""Which coordinates a stage trains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from fedsparse.adapters import Adapter
from fedsparse.config import StageSettings
from fedsparse.errors import ConfigError
from fedsparse.sparsity import (
    SCORES,
    Loss,
    Support,
    choose_support,
    drop_and_grow,
    gradient_magnitude,
    score_in_groups,
    seeded_support,
)

_SCORES_AT_ONCE = 1 << 24  # coordinates: scores of larger models are taken in several passes, 64 MiB each
_HELD = 1e30  # above any score, so that what is in training stays


class Selector:
    """Chooses supports of one adapter.

    Args:
        adapter: what is trained.
        seed: of drawn supports.
    """

    def __init__(self, adapter: Adapter, seed: int) -> None:
        self._adapter = adapter
        self._seed = seed
        self._sparse = [i for i in range(len(adapter.space.tensors)) if i not in adapter.dense]

    def choose(self, stage: StageSettings, density: float, losses: Sequence[Loss]) -> Support:
        """Return a support of ``density`` that holds what is in training already.

        Raises:
            ConfigError: the density is too small for the dense tensors or for what is in training.
        """
        adapter = self._adapter
        if density == 0:
            return self._head()
        how = {"structure": stage.structure, "block": stage.block, "allocation": stage.allocation}
        if stage.source == "seeded":
            return seeded_support(adapter.space, density, adapter.dense, self._seed, **how)  # type: ignore[arg-type]
        groups = score_in_groups(SCORES[stage.score], adapter, losses, self._sparse, _SCORES_AT_ONCE)
        return choose_support(adapter.space, self._holding(groups), density, adapter.dense, **how)  # type: ignore[arg-type]

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

    def _head(self) -> Support:
        adapter = self._adapter
        if not adapter.dense:
            raise ConfigError(
                "a stage of density 0 trains the dense tensors alone, but there are none",
                "Remove the stage, or name tensors in adapter.dense",
            )
        held = adapter.support
        return tuple(
            np.arange(tensor.size) if i in adapter.dense else held[i]
            for i, tensor in enumerate(adapter.space.tensors)
        )

    def _holding(self, groups: Iterator[dict[int, Tensor]]) -> Iterator[dict[int, Tensor]]:
        held = self._adapter.support
        for group in groups:
            for position, scores in group.items():
                scores[torch.from_numpy(held[position]).to(scores.device)] = _HELD
            yield group

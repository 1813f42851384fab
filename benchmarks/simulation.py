"""One federation in one process: the plants' own trainer, codec, admission and merging, without a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fedsparse import config
from fedsparse.adapters import build_adapter, load_base
from fedsparse.aggregation import Accumulator, Rule, admit
from fedsparse.cli.demo_site import CLASSES, Cell, read_cells, write_manifest
from fedsparse.delta import (
    Operation,
    Reason,
    RoundUpdate,
    SparseDelta,
    TrainingSettings,
    apply,
    compensate,
    encode,
    encode_update,
)
from fedsparse.training import Evaluator, LocalTrainer, cached_features, load_samples

_MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Progress:
    """A federation after one round.

    Attributes:
        balanced_accuracy: on the common test set.
        bytes_up: mean bytes of one plant's update.
        union_density: share of the space's coordinates that the merged adapter holds.
    """

    balanced_accuracy: float
    bytes_up: float
    union_density: float


class Bench:
    """The solar cells, the base model and everything computed from them once.

    Args:
        folder: where the frozen prefix's activations are kept.
        adapter: the adapter settings.
    """

    def __init__(self, folder: Path, adapter: config.AdapterSettings) -> None:
        torch.set_num_threads(1)
        folder.mkdir(parents=True, exist_ok=True)
        cells = read_cells()
        if not (folder / "cells.csv").exists():
            write_manifest(folder / "cells.csv", cells)
        self._samples = load_samples(folder / "cells.csv", CLASSES)
        by_path = {cell.path: cell for cell in cells}
        self.cells: list[Cell] = [by_path[path] for path in self._samples.paths]
        base = load_base(config.BaseModelSettings(), adapter, CLASSES, "image-classification")
        self._adapter = build_adapter(base, adapter)
        self.space = self._adapter.space
        self._features = cached_features(base, self._samples, folder, config.AugmentationSettings())

    def trainer(self, positions: Sequence[int]) -> LocalTrainer:
        """Return a plant's trainer on some of the images."""
        chosen = np.array(positions)
        return LocalTrainer(self._adapter, self._samples.subset(chosen), self._features.take(chosen))

    def evaluator(self, positions: Sequence[int]) -> Evaluator:
        """Return an evaluator on some of the images."""
        chosen = np.array(positions)
        return Evaluator(self._adapter, self._samples.labels[chosen], self._features.take(chosen))


def federate(
    trainers: Sequence[LocalTrainer], evaluator: Evaluator, rule: Rule, settings: TrainingSettings, rounds: int
) -> list[Progress]:
    """Run a federation of ``trainers`` for ``rounds`` rounds."""
    space = trainers[0].space
    state = SparseDelta.empty(space.fingerprint, Operation.SET)
    residuals = [SparseDelta.empty(space.fingerprint, Operation.ADD)] * len(trainers)
    history = []
    for number in range(1, rounds + 1):
        accumulator = Accumulator(space)
        sizes = []
        for place, trainer in enumerate(trainers):
            trained = trainer.train(state, settings, number)
            coding, most = settings.value_coding, int(settings.upload_density * space.size)
            sent, residuals[place] = compensate(trained.delta, residuals[place], coding, most=most)
            data = encode(sent, space, coding)
            payload = encode_update(RoundUpdate(number, number - 1, trained.samples, data, Reason.NONE))
            sizes.append(len(payload))
            accumulator.add(
                admit(payload, space, round=number, version=number - 1, max_bytes=_MAX_BYTES, max_density=1.0)
            )
        state = apply(state, accumulator.result(rule))
        quality = evaluator.evaluate(state)
        history.append(Progress(quality.balanced_accuracy, float(np.mean(sizes)), state.nnz / space.size))
    return history

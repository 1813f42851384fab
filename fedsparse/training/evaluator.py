"""A state's quality on one labelled set, with the base model kept in memory."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedsparse.adapters import DeltaAdapter
from fedsparse.delta import SparseDelta
from fedsparse.training.features import Features
from fedsparse.training.metrics import Quality, measure

_BATCH = 64


class Evaluator:
    """Measures states of one adapter space on one set of images.

    Args:
        adapter: on top of the base model; every evaluation changes its state.
        labels: the set's labels, (n,).
        features: the set's activations, n samples.
    """

    def __init__(self, adapter: DeltaAdapter, labels: NDArray[np.int64], features: Features) -> None:
        self._adapter = adapter
        self._labels = labels
        self._features = features

    def evaluate(self, state: SparseDelta) -> Quality:
        """Return the quality of base + ``state``.

        Raises:
            SpaceMismatchError: the state belongs to another space.
        """
        self._adapter.load(state)
        answers = classify(self._adapter.model, self._features, np.arange(len(self._labels)))
        return measure(self._labels, answers)


@torch.inference_mode()
def classify(model: nn.Module, features: Features, positions: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the most likely class of each sample at ``positions``, (len(positions),)."""
    answers = [
        model(features.batch(positions[start : start + _BATCH])).argmax(1).numpy()
        for start in range(0, len(positions), _BATCH)
    ]
    return np.concatenate(answers) if answers else np.empty(0, np.int64)

"""A state's quality on one labelled set, with the base model kept in memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fedsparse.adapters import Adapter
from fedsparse.delta import SparseDelta
from fedsparse.training.inputs import Inputs
from fedsparse.training.machine import Machine
from fedsparse.training.metrics import Quality
from fedsparse.training.tasks import ClassificationExam


class Evaluator:
    """Measures states of one adapter space on one set of samples.

    Args:
        adapter: on top of the base model; every evaluation changes its state.
        labels: the set's labels, (n,).
        inputs: what the network reads of the set, n samples.
    """

    def __init__(self, adapter: Adapter, labels: NDArray[np.int64], inputs: Inputs) -> None:
        self._adapter = adapter
        self._exam = ClassificationExam(inputs, labels, Machine())

    def evaluate(self, state: SparseDelta) -> Quality:
        """Return the quality of base + ``state``.

        Raises:
            SpaceMismatchError: the state belongs to another space.
        """
        return self._exam.quality(self._adapter.load(state).network)

"""What a classifier's answers are worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsparse.errors import DataError


@dataclass(frozen=True)
class Quality:
    """Figures on one labelled set.

    Attributes:
        balanced_accuracy: mean recall over the classes that occur, in [0, 1]; 1/classes is guessing.
        accuracy: share of right answers, in [0, 1].
        samples: size of the set.
    """

    balanced_accuracy: float
    accuracy: float
    samples: int


def measure(labels: NDArray[np.int64], answers: NDArray[np.int64]) -> Quality:
    """Compare answers with labels, both (n,).

    Raises:
        DataError: there is nothing to compare.
    """
    if len(labels) == 0 or labels.shape != answers.shape:
        raise DataError(f"{len(answers)} answers to {len(labels)} labels cannot be measured")
    right = labels == answers
    recalls = [right[labels == label].mean() for label in np.unique(labels)]
    return Quality(float(np.mean(recalls)), float(right.mean()), len(labels))

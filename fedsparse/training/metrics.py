"""What a classifier's probabilities are worth, and how far a small set can be trusted to say so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, recall_score, roc_auc_score, roc_curve

from fedsparse.errors import ConfigError, DataError
from fedsparse.training.resampling import (
    Floats,
    Labels,
    draw_weights,
    overconfidence,
    ranked_classes,
    sample_losses,
    weighted_figures,
)

METRICS: Mapping[str, bool] = MappingProxyType(
    {
        "balanced_accuracy": True,
        "accuracy": True,
        "macro_f1": True,
        "auroc": True,
        "recall_at_false_alarm": True,
        "calibration_error": False,
        "loss": False,
    }
)
"""The figures of :class:`Quality` that can choose a model, each with whether larger is better."""

_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Quality:
    """Figures on one labelled set; the answer is the most probable class.

    Attributes:
        balanced_accuracy: mean recall over the classes that occur, in [0, 1]; 1/classes is guessing.
        accuracy: share of right answers, in [0, 1].
        samples: size of the set.
        macro_f1: mean F1 over the classes that occur, in [0, 1].
        auroc: area under the ROC curve, in [0, 1], 0.5 is guessing: of the positive class where there are two,
            otherwise the mean of one class against the rest over those that occur; None where only one occurs.
        recall_at_false_alarm: best recall of the positive class, in [0, 1], over the thresholds that raise a false
            alarm on at most the permitted share of the others; None unless there are two classes and both occur.
        calibration_error: expected calibration error, in [0, 1]: mean distance between confidence and accuracy
            over 15 equal bins of confidence (https://arxiv.org/abs/1706.04599).
        loss: mean cross-entropy of the probabilities, in nats, each taken as at least 1e-12.
    """

    balanced_accuracy: float
    accuracy: float
    samples: int
    macro_f1: float
    auroc: float | None
    recall_at_false_alarm: float | None
    calibration_error: float
    loss: float


@dataclass(frozen=True)
class Interval:
    """Where a figure lies, both ends included."""

    low: float
    high: float


def measure(
    labels: Labels, probabilities: Floats, *, positive: int = 1, false_alarm_rate: float = 0.05
) -> Quality:
    """Compare probabilities with labels.

    Args:
        labels: class of each sample, (n,).
        probabilities: of each class, (n, classes).
        positive: the class to be found, where there are two.
        false_alarm_rate: permitted share of the other class's samples taken for the positive class.

    Raises:
        DataError: the set is empty, or labels and probabilities are not such or do not fit each other.
        ConfigError: ``positive`` or ``false_alarm_rate`` is out of range.
    """
    _check(labels, probabilities, positive, false_alarm_rate)
    answers = probabilities.argmax(1)
    occurring = np.unique(labels)
    over_classes = {"labels": occurring, "average": "macro", "zero_division": 0}
    ranked = ranked_classes(labels, probabilities, positive)
    areas = [roc_auc_score(labels == label, probabilities[:, label]) for label in ranked]
    recall = None
    if ranked and probabilities.shape[1] == 2:
        # Dropping thresholds on a straight line would drop the best within the rate.
        scores = probabilities[:, positive]
        false_alarms, recalls, _ = roc_curve(labels == positive, scores, drop_intermediate=False)
        recall = float(recalls[false_alarms <= false_alarm_rate].max())
    return Quality(
        balanced_accuracy=float(recall_score(labels, answers, **over_classes)),
        accuracy=float(accuracy_score(labels, answers)),
        samples=len(labels),
        macro_f1=float(f1_score(labels, answers, **over_classes)),
        auroc=float(np.mean(areas)) if areas else None,
        recall_at_false_alarm=recall,
        calibration_error=float(np.abs(overconfidence(labels, probabilities).sum(0)).sum() / len(labels)),
        loss=float(sample_losses(labels, probabilities).mean()),
    )


def intervals(
    labels: Labels,
    probabilities: Floats,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
    positive: int = 1,
    false_alarm_rate: float = 0.05,
) -> Mapping[str, Interval]:
    """Return a bootstrap percentile interval for every defined figure of :func:`measure`, by its name.

    Samples are drawn with replacement within each class (Efron & Tibshirani, An Introduction to the Bootstrap,
    1993, ch. 13), so that every class stays present. The interval covers the choice of these samples only: neither
    that of the split nor the randomness of training is in it, and a class with a single sample adds no width.
    Resampling adds noise to every bin of the calibration error, a sum of distances: the interval of a well
    calibrated model lies high, and may even exclude the figure itself.

    Args:
        level: share of the resampled figures that lies within, in (0, 1).
        resamples: how many sets are drawn.
        seed: the same seed gives the same intervals.

    Raises:
        DataError: as :func:`measure`.
        ConfigError: as :func:`measure`, or ``level`` or ``resamples`` is out of range.
    """
    _check(labels, probabilities, positive, false_alarm_rate)
    if not 0 < level < 1 or resamples < 1:
        raise ConfigError(
            f"{resamples} resamples at level {level} give no interval",
            "Take at least one resample, and a level between 0 and 1",
        )
    figures = [
        weighted_figures(labels, probabilities, weights, positive, false_alarm_rate)
        for weights in draw_weights(labels, resamples, np.random.default_rng(seed))
    ]
    ends = ((1 - level) / 2, (1 + level) / 2)
    return {
        name: Interval(*np.quantile(np.concatenate([part[name] for part in figures]), ends).tolist())
        for name in figures[0]
    }


def _check(labels: Labels, probabilities: Floats, positive: int, false_alarm_rate: float) -> None:
    if labels.ndim != 1 or probabilities.ndim != 2 or len(labels) != len(probabilities) or len(labels) == 0:
        raise DataError(f"probabilities {probabilities.shape} to labels {labels.shape} cannot be measured")
    classes = probabilities.shape[1]
    if classes < 2 or labels.min() < 0 or labels.max() >= classes:
        raise DataError(f"labels {labels.min()} to {labels.max()} do not fit probabilities of {classes} classes")
    # Written so that NaN fails too.
    if not (probabilities.min() >= 0 and np.abs(probabilities.sum(1) - 1).max() <= _SUM_TOLERANCE):
        raise DataError(
            f"probabilities from {probabilities.min():.4g} to {probabilities.max():.4g} are not finite, "
            f"are negative or do not sum to 1 within {_SUM_TOLERANCE}",
            "Turn logits into probabilities by a softmax",
        )
    if not 0 <= positive < classes or not 0 <= false_alarm_rate <= 1:
        raise ConfigError(
            f"positive class {positive} of {classes} at a false-alarm rate of {false_alarm_rate} is out of range",
            "Name a class that exists, and a rate between 0 and 1",
        )

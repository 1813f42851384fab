"""The figures of many resampled sets at once: a bootstrap that calls scikit-learn in a loop takes minutes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]

_BINS = 15
_SMALLEST_PROBABILITY = 1e-12
_WEIGHTS_AT_ONCE = 1 << 20  # bounds the memory, whatever the size of the set


def draw_weights(labels: Labels, resamples: int, draw: np.random.Generator) -> Iterator[Floats]:
    """Yield how often each sample is in each resampled set, (some of the resamples, n); class sizes stay."""
    at_once = max(1, _WEIGHTS_AT_ONCE // len(labels))
    for start in range(0, resamples, at_once):
        weights = np.empty((min(at_once, resamples - start), len(labels)))
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            count = len(members)
            weights[:, members] = draw.multinomial(count, np.full(count, 1 / count), size=len(weights))
        yield weights


def weighted_figures(
    labels: Labels, probabilities: Floats, weights: Floats, positive: int, false_alarm_rate: float
) -> dict[str, Floats]:
    """Return the defined figures of :class:`Quality`, each (resamples,), of sets given by weights.

    Args:
        labels: (n,).
        probabilities: (n, classes).
        weights: how often each sample counts, (resamples, n); every class that occurs must keep some weight.
    """
    occurring = np.unique(labels)
    own = labels[:, None] == occurring
    answers = probabilities.argmax(1)
    hits = weights @ (own & (answers == labels)[:, None])
    supports = weights @ own
    claims = weights @ (answers[:, None] == occurring)
    total = supports.sum(1)
    figures = {
        "balanced_accuracy": (hits / supports).mean(1),
        "accuracy": hits.sum(1) / total,
        "macro_f1": (2 * hits / (supports + claims)).mean(1),
        "calibration_error": np.abs(weights @ overconfidence(labels, probabilities)).sum(1) / total,
        "loss": weights @ sample_losses(labels, probabilities) / total,
    }
    curves = [
        _roc(labels == label, probabilities[:, label], weights, false_alarm_rate)
        for label in ranked_classes(labels, probabilities, positive)
    ]
    if curves:
        figures["auroc"] = np.mean([area for area, _ in curves], axis=0)
    if curves and probabilities.shape[1] == 2:
        figures["recall_at_false_alarm"] = curves[0][1]
    return figures


def ranked_classes(labels: Labels, probabilities: Floats, positive: int) -> list[int]:
    """Return the classes whose ROC curves count: the positive of two, or all that occur; none if one does."""
    occurring: list[int] = np.unique(labels).tolist()
    if len(occurring) == 1:
        return []
    return [positive] if probabilities.shape[1] == 2 else occurring


def sample_losses(labels: Labels, probabilities: Floats) -> Floats:
    """Return the cross-entropy of each sample in nats, (n,)."""
    own = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return -np.log(np.maximum(own, _SMALLEST_PROBABILITY))


def overconfidence(labels: Labels, probabilities: Floats) -> Floats:
    """Return confidence minus being right, in the column of the bin that the confidence falls in, (n, bins)."""
    confidence = probabilities.max(1).astype(np.float64)
    bins = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    right = labels == probabilities.argmax(1)
    gap: Floats = (confidence - right)[:, None] * (bins[:, None] == np.arange(_BINS))
    return gap


def _roc(found: NDArray[np.bool_], scores: Floats, weights: Floats, rate: float) -> tuple[Floats, Floats]:
    """Return the area under the curve and the best recall within ``rate`` false alarms, each (resamples,).

    Samples of one score are passed by a threshold together, so that ties count half, as in scikit-learn.
    """
    order = np.argsort(-scores, kind="stable")
    starts = np.flatnonzero(np.diff(scores[order], prepend=np.inf))
    in_order, is_found = weights[:, order], found[order]
    hits = np.add.reduceat(in_order * is_found, starts, axis=1).cumsum(1)
    alarms = np.add.reduceat(in_order * ~is_found, starts, axis=1).cumsum(1)
    recalls, false_alarms = hits / hits[:, -1:], alarms / alarms[:, -1:]
    area = np.trapezoid(np.pad(recalls, ((0, 0), (1, 0))), np.pad(false_alarms, ((0, 0), (1, 0))), axis=1)
    return area, np.where(false_alarms <= rate, recalls, 0).max(1)

"""Membership inference as arithmetic on scores: who tells trained-on samples from others, and how surely."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedsparse.errors import DataError
from fedsparse.leakage.intervals import Rate, area, difference, share

Scores = NDArray[np.float64]

LEAST = 20
"""Samples of either kind below which nothing is measured: a threshold is chosen on half of them."""

FALSE_ALARMS = (0.01, 0.001)
"""Shares of others wrongly accused at which Carlini et al. 2022 want attacks compared."""

_SPLITS = 20


@dataclass(frozen=True)
class Membership:
    """What one score tells of membership.

    Attributes:
        members: samples that were trained on.
        others: samples that were not.
        advantage: true minus false positive rate (Yeom et al. 2018, https://arxiv.org/abs/1709.01604) of the best
            threshold, chosen on one half of the samples and judged on the other: 0 is guessing, 1 is certainty.
            Below 0 it is chance.
        auc: probability that a member scores higher than another; 0.5 is guessing.
        found: by share of false alarms the share of members that is found, given the threshold that the others
            set; None where they are too few to tell.
    """

    members: int
    others: int
    advantage: Rate
    auc: Rate
    found: Mapping[float, Rate | None]


def measure(members: Scores, others: Scores, seed: int = 0) -> Membership:
    """Return what scores tell, where higher ones speak for membership.

    Args:
        members: scores of samples that were trained on, (n,).
        others: scores of samples that were not, (m,).
        seed: decides the halves.

    Raises:
        DataError: there are fewer than :data:`LEAST` of either, or a score is not finite.
    """
    if min(len(members), len(others)) < LEAST:
        raise DataError(
            f"{len(members)} samples trained on and {len(others)} held out tell nothing about membership",
            f"{LEAST} of each are the least",
        )
    if not (np.isfinite(members).all() and np.isfinite(others).all()):
        raise DataError("a score is NaN or infinite: the model's answers are no numbers")
    return Membership(
        len(members),
        len(others),
        _advantage(members, others, np.random.default_rng(seed)),
        area(_auc(members, others), len(members), len(others)),
        {rate: _found(members, others, rate) for rate in FALSE_ALARMS},
    )


def others_needed(false_alarms: float) -> int:
    """Return how many held-out samples it takes to speak of a share of false alarms."""
    return round(1 / false_alarms) - 1


def _advantage(members: Scores, others: Scores, draw: np.random.Generator) -> Rate:
    """Return the cross-fitted advantage, the mean over several splits into halves.

    The best threshold of the samples that it is judged on would show an advantage where there is none: 0.08 on
    average for 100 against 100. Every sample is judged once in each split, by a threshold that it had no part in.
    Half of the samples choose a little worse than all would, which lowers large advantages by 0.01 to 0.03.
    """
    hits, alarms = 0, 0
    for _ in range(_SPLITS):
        mine, theirs = _halves(members, draw), _halves(others, draw)
        for fitted, judged in ((0, 1), (1, 0)):
            threshold = _best_threshold(mine[fitted], theirs[fitted])
            hits += int((mine[judged] > threshold).sum())
            alarms += int((theirs[judged] > threshold).sum())
    return difference(share(hits / _SPLITS, len(members)), share(alarms / _SPLITS, len(others)))


def _halves(scores: Scores, draw: np.random.Generator) -> tuple[Scores, Scores]:
    shuffled = draw.permutation(scores)
    return shuffled[::2], shuffled[1::2]


def _best_threshold(members: Scores, others: Scores) -> float:
    candidates = np.concatenate([[-np.inf], np.unique(np.concatenate([members, others]))])
    advantage = _at_most(others, candidates) / len(others) - _at_most(members, candidates) / len(members)
    return float(candidates[np.argmax(advantage)])


def _at_most(scores: Scores, limits: Scores) -> NDArray[np.int64]:
    return np.searchsorted(np.sort(scores), limits, side="right")


def _auc(members: Scores, others: Scores) -> float:
    ordered = np.sort(others)
    below, upto = (np.searchsorted(ordered, members, side=side).mean() for side in ("left", "right"))
    return float((below + upto) / 2 / len(others))


def _found(members: Scores, others: Scores, false_alarms: float) -> Rate | None:
    """Return the share of members above the k-th highest of the others.

    With k = α · (m + 1) a new sample that was not trained on lies above it with probability α at most, whatever
    the scores' distribution; k = α · m would promise more than m samples can.
    """
    above = int(false_alarms * (len(others) + 1) + 1e-9)
    if not above:
        return None
    threshold = np.sort(others)[-above]
    return share(int((members > threshold).sum()), len(members))

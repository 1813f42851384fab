"""How far the holders of a coordinate agree, and the strength of shrinking that follows from it."""

from __future__ import annotations

import numpy as np

from fedsparse.aggregation.holders import Holders


class Agreement:
    """Estimates what plants have in common from the coordinates that some of them hold, but not all.

    The model is that of random effects: a plant's value is what all would want there plus a deviation of its own.
    Products of two plants' values at the same coordinate tell the mean square of the first, τ²; squares tell that
    of both, τ² + σ². The best linear estimate of the first from h alike holders is their sum over h + σ²/τ²
    (Robinson 1991, https://doi.org/10.1214/ss/1177011926): the shrunk rule, whose λ at a lone holder among n
    stands for the n - 1 others, so that λ = σ²/τ² / (n - 1).
    """

    def __init__(self) -> None:
        self._products = self._pairs = self._squares = self._weights = 0.0

    def add(self, holders: Holders) -> None:
        """Take what the updates say of some coordinates."""
        weights = holders.weights[holders.owners]
        values = holders.values.astype(np.float64)
        places = holders.places
        partly = holders.sums()[1] < holders.total * (1 - 1e-12)
        counted = partly[places]
        weights, values, places = weights[counted], values[counted], places[counted]
        sums = [np.bincount(places, terms) for terms in (weights * values, weights)]
        own = [(weights * values) ** 2, weights**2]
        self._products += float((sums[0] ** 2).sum() - own[0].sum())
        self._pairs += float((sums[1] ** 2).sum() - own[1].sum())
        self._squares += float((weights * values**2).sum())
        self._weights += float(weights.sum())

    def strength(self, plants: float) -> float:
        """Return λ in [0, 1]; 1 where nothing two plants hold tells of anything in common.

        Args:
            plants: n, the effective number of the round's updates, W² / Σw².
        """
        if self._pairs <= 0 or self._products <= 0 or plants <= 1:
            return 1.0
        common, whole = self._products / self._pairs, self._squares / self._weights
        return float(np.clip((whole / common - 1) / (plants - 1), 0.0, 1.0))

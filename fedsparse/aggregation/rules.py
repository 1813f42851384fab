"""Mask-aware merging rules: from a coordinate's pair (N, D) and the round's weight W to its step.

N is the weighted sum of the deltas of those who hold the coordinate, D the sum of their weights, W that of all
plants in the round. Dividing by D trusts a lone holder fully; dividing by W counts everybody else as a zero.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from fedsparse.errors import ConfigError

Vector = NDArray[np.float64]
Rule = Callable[[Vector, Vector, float], Vector]


def holders_mean(weighted: Vector, held: Vector, total: float) -> Vector:
    """Return N / D: the mean over the plants that hold the coordinate. Shapes ``(k,)``."""
    return weighted / held


def zero_fill(weighted: Vector, held: Vector, total: float) -> Vector:
    """Return N / W: plants without the coordinate count as zeros (FLASC's averaging). Shapes ``(k,)``."""
    return weighted / total


def shrunk(strength: float) -> Rule:
    """Return N / (D + strength · (W - D)): between holders' mean (0) and zero-fill (1).

    Args:
        strength: λ in [0, 1].
    """
    if not 0 <= strength <= 1:
        raise ConfigError(f"the shrunk rule's strength is {strength}", "Choose it between 0 and 1")

    def rule(weighted: Vector, held: Vector, total: float) -> Vector:
        return weighted / (held + strength * (total - held))

    return rule


def rule_named(name: str, strength: float) -> Rule:
    """Return the rule that federation.toml calls ``name``.

    Raises:
        ConfigError: there is none of that name.
    """
    rules = {"holders-mean": holders_mean, "zero-fill": zero_fill, "shrunk": shrunk(strength)}
    if name not in rules:
        raise ConfigError(f"no merging rule is called {name!r}", f"Choose one of {', '.join(rules)}")
    return rules[name]

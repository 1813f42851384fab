"""Schedules: how the density changes while training proceeds."""

from __future__ import annotations

from fedsparse.errors import ConfigError


def cubic_density(step: int, *, start_density: float, end_density: float, first: int, last: int) -> float:
    """Return the density at ``step``: fast at first, then ever slower, as in gradual pruning.

    d = end + (start − end) · (1 − (step − first) / (last − first))³, Zhu and Gupta 2017
    (https://arxiv.org/abs/1710.01878); exactly ``start_density`` until ``first`` and exactly ``end_density`` from
    ``last`` on, monotone between them, whether it shrinks or grows.

    Raises:
        ConfigError: ``first`` is after ``last``.
    """
    if first > last:
        raise ConfigError(
            f"a density schedule cannot begin at step {first} and end before, at {last}", "Swap the two"
        )
    if step >= last:
        return end_density
    if step <= first:
        return start_density
    rest = 1 - (step - first) / (last - first)
    density = end_density + (start_density - end_density) * (rest * rest * rest)
    low, high = sorted((start_density, end_density))
    return min(max(density, low), high)  # the sum may round past an end

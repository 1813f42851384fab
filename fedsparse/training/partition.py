"""Splits of one data set into a test set and unlike sites, for demos and benchmarks; no torch here."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from fedsparse.errors import DataError

Stratum = TypeVar("Stratum", bound=Hashable)


def hold_out(strata: Sequence[Stratum], share: float, seed: int) -> tuple[list[int], list[int]]:
    """Split positions into rest and test, every stratum alike.

    Args:
        strata: the stratum of each sample, (n,).
        share: of each stratum that becomes test, in (0, 1).
        seed: decides the draw.
    """
    rest: list[int] = []
    test: list[int] = []
    for members in _shuffled(strata, seed).values():
        cut = round(share * len(members))
        test += members[:cut]
        rest += members[cut:]
    return sorted(rest), sorted(test)


def partition(strata: Sequence[Stratum], shares: Mapping[Stratum, Sequence[float]], seed: int) -> list[list[int]]:
    """Split positions among sites that each see another share of every stratum.

    Args:
        strata: the stratum of each sample, (n,).
        shares: per stratum one share per site, together 1.
        seed: decides the draw.

    Returns:
        Per site its positions, increasing; together all positions, each once.

    Raises:
        DataError: a stratum has no shares, or its shares do not add up to 1.
    """
    sites = len(next(iter(shares.values())))
    parts: list[list[int]] = [[] for _ in range(sites)]
    for stratum, members in _shuffled(strata, seed).items():
        if stratum not in shares or abs(sum(shares[stratum]) - 1) > 1e-6 or len(shares[stratum]) != sites:
            raise DataError(f"the shares of {stratum!r} must be {sites} numbers that add up to 1")
        ends = np.rint(np.cumsum(shares[stratum]) * len(members)).astype(int)
        for part, start, end in zip(parts, [0, *ends[:-1]], ends, strict=True):
            part += members[start:end]
    return [sorted(part) for part in parts]


def dirichlet_shares(
    strata: Sequence[Stratum], sites: int, alpha: float, seed: int
) -> dict[Stratum, tuple[float, ...]]:
    """Draw shares for :func:`partition` as Hsu et al. 2019 (https://arxiv.org/abs/1909.06335) do.

    Args:
        alpha: concentration; 0.1 gives nearly one site per stratum, 100 gives all sites nearly the same.
    """
    draw = np.random.default_rng((seed, 1))
    return {stratum: tuple(draw.dirichlet([alpha] * sites).tolist()) for stratum in sorted(set(strata), key=str)}


def _shuffled(strata: Sequence[Stratum], seed: int) -> dict[Stratum, list[int]]:
    """Return the positions of each stratum in an order drawn from ``seed``."""
    members: dict[Stratum, list[int]] = {stratum: [] for stratum in sorted(set(strata), key=str)}
    for position, stratum in enumerate(strata):
        members[stratum].append(position)
    draw = np.random.default_rng(seed)
    return {stratum: [own[i] for i in draw.permutation(len(own))] for stratum, own in members.items()}

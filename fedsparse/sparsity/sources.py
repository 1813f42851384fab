"""Supports that no single site's data decides: drawn from a seed, or voted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from fedsparse.delta import AdapterSpace, SharedSupport, SparseDelta
from fedsparse.errors import ConfigError, SpaceMismatchError
from fedsparse.sparsity.ranking import Best
from fedsparse.sparsity.structure import Structure
from fedsparse.sparsity.support import Allocation, Selection, Support, sparse_budget

_DOMAIN = b"fedsparse seeded support 1\x00"


def seeded_support(
    space: AdapterSpace,
    density: float,
    dense: Collection[int],
    seed: int,
    *,
    structure: Structure = "unstructured",
    block: int = 8,
    allocation: Allocation = "global",
) -> Support:
    """Return a random support that everyone who knows the seed can derive, and that tells nothing about data.

    It is the same on every machine and for every version of NumPy, by this construction:

    1. The key of the tensor at ``position`` is the first 16 bytes of SHA-256 over the 27 bytes
       ``fedsparse seeded support 1`` and NUL, the seed (8 bytes, big-endian), the space's fingerprint (32 bytes)
       and ``position`` (4 bytes, big-endian); the bytes are two 64-bit words, each little-endian, k0 then k1.
    2. The tensor's stream is Philox4x64-10 (Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405) under
       (k0, k1) of the counters (1, 0, 0, 0), (2, 0, 0, 0), …, four 64-bit words each, in their order.
    3. The rank of unit i of the tensor is word i of its stream. Units are coordinates, rows or tiles, numbered in
       the order of their first coordinates.
    4. Units are taken as :func:`choose_support` does with these ranks as mean scores: the highest first, ties to
       the first coordinate, passing over what no longer fits.

    Ranks of one tensor at a time are in memory, 8 bytes per unit.

    Args:
        space: the adapter space.
        density: as for :func:`choose_support`, and so are ``dense``, ``structure``, ``block`` and ``allocation``.
        seed: from 0 to 2^64 - 1.

    Raises:
        ConfigError: as :func:`choose_support`, or the seed is out of range.
    """
    if not 0 <= seed < 1 << 64:
        raise ConfigError(f"the seed {seed} is out of range", "Use one from 0 to 2^64 - 1")
    selection = Selection(space, sparse_budget(space, density, dense), dense, structure, block, allocation)
    for position, tiling in selection.tilings.items():
        selection.offer(position, _stream(space, seed, position, tiling.units))
    return selection.support()


def support_of(agreed: SparseDelta, space: AdapterSpace) -> Support:
    """Return the coordinates that a delta names.

    Raises:
        SpaceMismatchError: it belongs to another space.
        DeltaError: it names none, or one that the space has not.
    """
    if agreed.space != space.fingerprint:
        raise SpaceMismatchError(
            f"the support belongs to the adapter space {agreed.space.hex()[:16]}, "
            f"here the space is {space.fingerprint.hex()[:16]}"
        )
    held = {tensor.tensor: tensor.indices for tensor in agreed.tensors}
    found = tuple(held.get(position, np.empty(0, np.int64)) for position in range(len(space.tensors)))
    return tuple(SharedSupport(space, found).indices)


def consensus_support(
    space: AdapterSpace,
    supports: Sequence[Support],
    density: float,
    dense: Collection[int],
    weights: Sequence[float] | None = None,
) -> Support:
    """Return the coordinates that most sites hold, by weight; ties go to the first coordinate.

    A coordinate that no site holds is never taken, so there may be fewer than ``density`` allows.

    Args:
        space: the adapter space.
        supports: one per site.
        density: share of the space's coordinates, dense tensors included, that the result never exceeds.
        dense: positions of the tensors that are taken whole, whatever the sites hold.
        weights: one per site, positive, such as its number of samples; every site counts as one without.

    Raises:
        ConfigError: the dense tensors alone are more than ``density`` allows, or a weight is not positive.
    """
    votes = np.ones(len(supports)) if weights is None else np.array(weights, np.float64)
    if len(votes) != len(supports) or not (np.isfinite(votes) & (votes > 0)).all():
        raise ConfigError(
            f"the weights {votes.tolist()} are not one positive number for each of {len(supports)} sites"
        )
    sizes = [tensor.size for tensor in space.tensors]
    starts = np.cumsum([0, *sizes])
    best = Best(sparse_budget(space, density, dense))
    for position in range(len(sizes)):
        if position not in dense:
            held, weight = _tally([support[position] for support in supports], votes)
            best.offer(weight, held + starts[position])
    keys = np.sort(best.held()[1])
    parts = np.split(keys, np.searchsorted(keys, starts[1:-1]))
    return tuple(
        np.arange(size) if position in dense else parts[position] - starts[position]
        for position, size in enumerate(sizes)
    )


def _tally(
    indices: Sequence[NDArray[np.int64]], votes: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the coordinates of one tensor that any site holds, increasing, and the weight behind each."""
    everyones = np.concatenate([np.empty(0, np.int64), *indices])
    held, which = np.unique(everyones, return_inverse=True)
    weight = np.repeat(votes, [len(part) for part in indices])
    return held, np.bincount(which, weights=weight, minlength=len(held)).astype(np.float64, copy=False)


def _stream(space: AdapterSpace, seed: int, position: int, count: int) -> NDArray[np.uint64]:
    message = _DOMAIN + seed.to_bytes(8, "big") + space.fingerprint + position.to_bytes(4, "big")
    key = np.frombuffer(sha256(message).digest()[:16], "<u8").astype(np.uint64)
    return np.random.Philox(key=key, counter=0).random_raw(count)  # NumPy starts at the counter after this one

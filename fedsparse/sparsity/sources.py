"""Supports that no single site's data decides: drawn from a seed, or voted."""

from __future__ import annotations

from collections.abc import Collection
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from fedsparse.delta import AdapterSpace, SharedSupport, SparseDelta
from fedsparse.errors import ConfigError, SpaceMismatchError
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


def _stream(space: AdapterSpace, seed: int, position: int, count: int) -> NDArray[np.uint64]:
    message = _DOMAIN + seed.to_bytes(8, "big") + space.fingerprint + position.to_bytes(4, "big")
    key = np.frombuffer(sha256(message).digest()[:16], "<u8").astype(np.uint64)
    return np.random.Philox(key=key, counter=0).random_raw(count)  # NumPy starts at the counter after this one

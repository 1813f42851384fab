"""A support that sender and receiver both know, so that a delta on it needs no indices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from fedsparse.delta.space import AdapterSpace
from fedsparse.errors import DeltaError

_DOMAIN = b"fedsparse support 1\x00"


@dataclass(frozen=True, eq=False)
class SharedSupport:
    """Coordinates named in advance: drawn from a seed, voted, or those of a version that both hold.

    Attributes:
        space: that they belong to.
        indices: per tensor, increasing; some may be empty.

    Raises:
        DeltaError: there are not as many as the space has tensors, none has a coordinate, or one is out of range.
    """

    space: AdapterSpace
    indices: Sequence[NDArray[np.int64]]

    def __post_init__(self) -> None:
        if len(self.indices) != len(self.space.tensors) or not any(map(len, self.indices)):
            raise DeltaError(f"a support names coordinates of {len(self.space.tensors)} tensors, and one at least")
        for spec, where in zip(self.space.tensors, self.indices, strict=True):
            if len(where) and (where[0] < 0 or where[-1] >= spec.size or np.any(np.diff(where) <= 0)):
                raise DeltaError(f"{spec.name}: coordinates must rise from 0 to {spec.size - 1}")

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 over the space and the coordinates, 32 bytes; docs/format.md defines it."""
        found = sha256(_DOMAIN + self.space.fingerprint)
        for position, where in self.parts:
            found.update(position.to_bytes(4, "big") + len(where).to_bytes(8, "big"))
            found.update(np.asarray(where, "<i8").tobytes())
        return found.digest()

    @property
    def parts(self) -> list[tuple[int, NDArray[np.int64]]]:
        """Position and coordinates of every tensor that has some."""
        return [(position, where) for position, where in enumerate(self.indices) if len(where)]

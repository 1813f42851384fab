"""The value that travels: sorted coordinates and one float each, per tensor."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedsparse import kernels
from fedsparse.errors import DeltaError


class Operation(IntEnum):
    """What a delta does to the coordinates it names."""

    ADD = 1
    SET = 2


class ValueCoding(IntEnum):
    """How values are written."""

    FP32 = 1
    BF16 = 2
    INT8 = 3
    INT4 = 4
    TERNARY = 5


@dataclass(frozen=True, eq=False)
class TensorDelta:
    """Values on a support of one tensor.

    Attributes:
        tensor: position in the adapter space.
        indices: flat indices, int64, shape ``(k,)``, strictly increasing, k ≥ 1.
        values: float32, shape ``(k,)``, finite; a negative zero becomes zero, so that equal values are equal bits.

    Both are copies, or arrays that were given read-only and own their memory: nobody changes them later.

    Raises:
        DeltaError: a condition above does not hold.
    """

    tensor: int
    indices: NDArray[np.int64]
    values: NDArray[np.float32]

    def __post_init__(self) -> None:
        indices, values = _own(self.indices, np.int64), _own(self.values, np.float32)
        if indices.ndim != 1 or indices.shape != values.shape or indices.size == 0:
            raise DeltaError(
                f"tensor {self.tensor}: indices {indices.shape} and values {values.shape} "
                "must be vectors of one length, at least 1"
            )
        if not kernels.increasing(indices):
            raise DeltaError(f"tensor {self.tensor}: indices must be strictly increasing from 0 on")
        self._keep(indices, values)

    @classmethod
    def _decoded(cls, tensor: int, indices: NDArray[np.int64], values: NDArray[np.float32]) -> Self:
        """Return the same for what the decoder has just made: as many values, and indices that it knows increase.

        Walking them once more would take a tenth of its time.
        """
        made = object.__new__(cls)
        object.__setattr__(made, "tensor", tensor)
        made._keep(_own(indices, np.int64), _own(values, np.float32))
        return made

    def _keep(self, indices: NDArray[np.int64], values: NDArray[np.float32]) -> None:
        endless, negative_zero = kernels.unusual(values)
        if endless:
            raise DeltaError(f"tensor {self.tensor}: a value is NaN or infinite")
        if negative_zero:
            values = np.where(values == 0, np.float32(0), values)
        indices.flags.writeable = values.flags.writeable = False
        object.__setattr__(self, "indices", indices)
        object.__setattr__(self, "values", values)

    def __eq__(self, other: object) -> bool:
        """Return whether both hold the same coordinates and the same bits."""
        return (
            isinstance(other, TensorDelta)
            and self.tensor == other.tensor
            and np.array_equal(self.indices, other.indices)
            and self.values.tobytes() == other.values.tobytes()
        )

    def __hash__(self) -> int:
        return hash((self.tensor, self.indices.tobytes(), self.values.tobytes()))


_Number = TypeVar("_Number", bound=np.generic)


def _own(given: NDArray[_Number], dtype: type[_Number]) -> NDArray[_Number]:
    """Return a copy, unless nobody else can change what is given."""
    kept = type(given) is np.ndarray and given.dtype == dtype and given.flags.owndata
    return given if kept and not given.flags.writeable and given.flags.c_contiguous else np.array(given, dtype)


@dataclass(frozen=True)
class SparseDelta:
    """A sparse change to an adapter, or an adapter's whole state (operation SET against the untouched base).

    Attributes:
        space: fingerprint of the adapter space, 32 bytes.
        operation: ADD or SET.
        tensors: strictly increasing in ``tensor``.

    Raises:
        DeltaError: a condition above does not hold.
    """

    space: bytes
    operation: Operation
    tensors: tuple[TensorDelta, ...]

    def __post_init__(self) -> None:
        if len(self.space) != 32:
            raise DeltaError(f"a space fingerprint has 32 bytes, not {len(self.space)}")
        positions = [tensor.tensor for tensor in self.tensors]
        if positions != sorted(set(positions)) or (positions and positions[0] < 0):
            raise DeltaError("tensors must be in strictly increasing position")

    @classmethod
    def empty(cls, space: bytes, operation: Operation) -> Self:
        """Return the delta that changes nothing."""
        return cls(space, operation, ())

    @property
    def nnz(self) -> int:
        """Number of coordinates named."""
        return sum(tensor.indices.size for tensor in self.tensors)

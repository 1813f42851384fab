"""Which coordinates of one tensor a delta names, in the shortest of several codings; docs/format.md defines them.

Every coding tells its length before it is written, so that the choice is exact and a decoder can check it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from fedsparse import kernels
from fedsparse.delta import rice, rows
from fedsparse.errors import DeltaError

Indices = NDArray[np.int64]
Shape = tuple[int, ...]


class IndexCoding(IntEnum):
    """How the coordinates are written; where two are equally short, the lower number."""

    ALL = 1
    BITMAP = 2
    GAPS = 3
    ROWS = 4
    TILES = 5
    ROW_RATES = 6


@dataclass(frozen=True)
class Plan:
    """One coding of a support.

    Attributes:
        coding: which.
        size: number of bytes.
        head: the first of them, the parameters.
        body: computes the others.
    """

    coding: IndexCoding
    size: int
    head: bytes
    body: Callable[[], bytes]

    def write(self) -> bytes:
        """Return the bytes."""
        return self.head + self.body()


def plan(indices: Indices, shape: Shape) -> Plan:
    """Return the shortest coding of ``indices``, (k,), strictly increasing, in a tensor of this shape."""
    size = math.prod(shape)
    if len(indices) == size:
        return Plan(IndexCoding.ALL, 0, b"", bytes)
    return min(_plans(indices, shape, size), key=lambda one: (one.size, one.coding))


def _plans(indices: Indices, shape: Shape, size: int) -> Iterator[Plan]:
    yield Plan(IndexCoding.BITMAP, _octets(size), b"", lambda: _bitmap(indices, size))
    gaps = _rice_plan(IndexCoding.GAPS, b"", indices)
    yield gaps
    if len(shape) == 1:
        return
    columns = size // shape[0]
    if (whole := rows.whole_rows(indices, columns)) is not None:
        yield _rice_plan(IndexCoding.ROWS, b"", whole)
    for side in rows.SIDES:
        if (tiles := rows.whole_tiles(indices, shape[0], columns, side)) is not None:
            yield _rice_plan(IndexCoding.TILES, bytes([side]), tiles)
    if rows.RowRates.least_size(len(indices), shape[0]) >= min(gaps.size, _octets(size)):
        return  # nor are arrays as long as the rows needed to tell
    if (rates := rows.RowRates.of(indices, shape[0], columns)) is not None:
        yield Plan(IndexCoding.ROW_RATES, rates.size, rates.head, rates.body)


def _rice_plan(coding: IndexCoding, head: bytes, indices: Indices) -> Plan:
    k, bits = rice.best_gap_parameter(indices)
    head += bytes([k])
    return Plan(coding, len(head) + _octets(bits), head, lambda: rice.encode(kernels.gaps(indices), k))


def read(coding: int, data: memoryview, count: int, shape: Shape, *, known_canonical: bool = False) -> Indices:
    """Read what the shortest plan of a support of ``count`` coordinates wrote, (count,), strictly increasing.

    Args:
        coding: that it is said to be in.
        data: of a stranger.
        count: of coordinates.
        shape: of the tensor.
        known_canonical: whether this plan was found to be the shortest before, and need not be again.

    Raises:
        DeltaError: it is not that.
    """
    size = math.prod(shape)
    if not 0 < count <= size:
        raise DeltaError(f"{count} coordinates are announced for a tensor of {size}")
    indices = _read(coding, np.frombuffer(data, np.uint8), count, shape, size)
    if len(indices) != count:
        raise DeltaError(f"{len(indices)} coordinates are there, {count} are announced")
    # Gaps, none below 0, were added up to less than the size; whatever else is added up is looked at.
    if coding != IndexCoding.GAPS and not kernels.increasing(indices):
        raise DeltaError("indices must be strictly increasing from 0 on")
    indices.flags.writeable = False  # so that nobody needs a copy to be safe from changes
    if known_canonical:
        return indices
    best = plan(indices, shape)
    if best.coding != coding or best.size != len(data) or best.head != data[: len(best.head)]:
        raise DeltaError(f"the coordinates are not in the shortest form, which takes {best.size} bytes")
    return indices


def _read(coding: int, data: NDArray[np.uint8], count: int, shape: Shape, size: int) -> Indices:
    columns = size // shape[0]
    if coding == IndexCoding.ALL and not len(data):
        return np.arange(count, dtype=np.int64)
    if coding == IndexCoding.BITMAP and len(data) == _octets(size):
        return _from_bitmap(data, count, size)
    if coding == IndexCoding.GAPS:
        return _from_gaps(data, count, size)
    if coding == IndexCoding.ROWS and count % columns == 0:
        return rows.from_rows(_from_gaps(data, count // columns, shape[0]), columns)
    if coding == IndexCoding.TILES and len(data) and data[0] in rows.SIDES and len(shape) > 1:
        side = int(data[0])
        if count % side**2 == shape[0] % side == columns % side == 0:
            tiles = _from_gaps(data[1:], count // side**2, size // side**2)
            return rows.from_tiles(tiles, columns, side)
    if coding == IndexCoding.ROW_RATES and len(shape) > 1:
        return rows.read_rates(data, count, shape[0], columns)
    raise DeltaError(f"index coding {coding} does not fit {len(data)} bytes for {count} of {size} coordinates")


def _from_gaps(data: NDArray[np.uint8], count: int, size: int) -> Indices:
    if len(data) == 0:
        raise DeltaError("the coordinates' bytes are missing")
    indices = rice.decode(data[1:], int(data[0]), count, size, cumulative=True)
    if indices[-1] >= size:
        raise DeltaError(f"coordinate {indices[-1]} of {size}")
    return indices


def _bitmap(indices: Indices, size: int) -> bytes:
    bits = np.zeros(size, np.bool_)
    bits[indices] = True
    return np.packbits(bits, bitorder="little").tobytes()


def _from_bitmap(data: NDArray[np.uint8], count: int, size: int) -> Indices:
    if int(np.bitwise_count(data).sum(dtype=np.int64)) != count or (size % 8 and int(data[-1]) >> size % 8):
        raise DeltaError(f"the bitmap does not name {count} of {size} coordinates")
    return np.flatnonzero(np.unpackbits(data, count=size, bitorder="little").view(np.bool_))


def _octets(bits: int) -> int:
    return -(-bits // 8)

"""Supports with a structure: whole rows, whole tiles, and rows of different density.

A tensor is seen as a matrix: rows along its first axis, columns along the product of the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedsparse import kernels
from fedsparse.delta import rice
from fedsparse.errors import DeltaError
from fedsparse.kernels.plain import row_gaps

Indices = NDArray[np.int64]

SIDES = (4, 8, 16, 32)  # of tiles
_LENGTH_BYTES = 4
_SPARSEST = 2  # rows per coordinate; a count costs a bit at least, and beyond this gaps are mostly shorter


def whole_rows(indices: Indices, columns: int) -> Indices | None:
    """Return the numbers of the rows that ``indices`` consist of, or None."""
    if len(indices) % columns or not _starts_a_run(indices, columns):
        return None
    runs = indices.reshape(-1, columns)
    starts = runs[:, 0]
    whole = bool(np.all(starts % columns == 0) and np.all(runs[:, -1] - starts == columns - 1))
    return starts // columns if whole else None


def from_rows(numbers: Indices, columns: int) -> Indices:
    """Return the coordinates of whole rows."""
    return (numbers[:, None] * columns + np.arange(columns)).reshape(-1)


def whole_tiles(indices: Indices, height: int, columns: int, side: int) -> Indices | None:
    """Return the numbers of the square tiles that ``indices`` consist of, along rows of tiles, or None."""
    if len(indices) % side**2 or height % side or columns % side or not _starts_a_run(indices, side):
        return None
    starts = indices[::side]
    if np.any(starts % side) or np.any(indices[side - 1 :: side] - starts != side - 1):
        return None
    tiles = np.sort(starts // (side * columns) * (columns // side) + starts % columns // side)
    corners = tiles[::side].copy()
    return corners if np.array_equal(tiles, np.repeat(corners, side)) and np.all(np.diff(corners) > 0) else None


def from_tiles(tiles: Indices, columns: int, side: int) -> Indices:
    """Return the coordinates of whole tiles."""
    across = columns // side
    corners = tiles // across * (side * columns) + tiles % across * side
    within = np.arange(side)
    return np.sort((corners[:, None, None] + within[:, None] * columns + within).reshape(-1))


def _starts_a_run(indices: Indices, length: int) -> bool:
    return bool(indices[length - 1] - indices[0] == length - 1)


@dataclass(frozen=True)
class RowRates:
    """Every row's number of coordinates, then its gaps with the parameter that suits that number.

    Attributes:
        indices: the coordinates, (m,).
        columns: of each row.
        counts: coordinates per row, (height,).
        widths: the Rice parameter of every row's gaps, (height,); 0 where there are none.
        parameter: of the counts.
        size: bytes in all.
        counts_size: bytes of the counts.
    """

    indices: Indices
    columns: int
    counts: Indices
    widths: NDArray[np.int64]
    parameter: int
    size: int
    counts_size: int

    @classmethod
    def of(cls, indices: Indices, height: int, columns: int) -> Self | None:
        """Return the form of a support, or None where there is but one row or there are too many."""
        if height == 1 or height > _SPARSEST * len(indices):
            return None
        counts = kernels.row_counts(indices, height, columns)
        widths = _widths(counts, columns)
        parameter, bits = rice.best_parameter(counts)
        inside = kernels.row_quotients(indices, columns, counts, widths) + int(widths @ counts) + len(indices)
        counts_size = -(-bits // 8)
        size = 1 + _LENGTH_BYTES + counts_size + -(-inside // 8)
        return cls(indices, columns, counts, widths, parameter, size, counts_size)

    @staticmethod
    def least_size(count: int, height: int) -> int:
        """Return the fewest bytes that ``count`` coordinates in so many rows take: a bit for each of both."""
        return 1 + _LENGTH_BYTES + -(-height // 8) + -(-count // 8)

    @property
    def head(self) -> bytes:
        """The counts' parameter and length in bytes."""
        return bytes([self.parameter]) + self.counts_size.to_bytes(_LENGTH_BYTES, "little")

    def body(self) -> bytes:
        """Return the bytes after the head."""
        widths = np.repeat(self.widths, self.counts)
        numbers = row_gaps(self.indices, self.columns, self.counts)
        return rice.encode(self.counts, self.parameter) + rice.encode_mixed(numbers, widths)


def read_rates(data: NDArray[np.uint8], count: int, height: int, columns: int) -> Indices:
    """Read what :class:`RowRates` wrote, (count,).

    Raises:
        DeltaError: it is not that.
    """
    start = 1 + _LENGTH_BYTES
    if len(data) < start:
        raise DeltaError("the rows' counts are missing")
    end = start + int.from_bytes(data[1:start].tobytes(), "little")
    counts = rice.decode(data[start:end], int(data[0]), height, count + 1)
    if int(counts.sum()) != count or int(counts.max()) > columns:
        raise DeltaError(f"the rows hold {int(counts.sum())} coordinates, {count} are announced")
    widths = np.repeat(_widths(counts, columns), counts)
    passed = np.cumsum(rice.decode_mixed(data[end:], widths, columns) + 1)
    ends = passed[np.cumsum(counts)[counts > 0] - 1]
    column = passed - 1 - np.repeat(np.concatenate([[0], ends[:-1]]), counts[counts > 0])
    if int(column.max()) >= columns:
        raise DeltaError(f"column {int(column.max())} of {columns}")
    indices: Indices = np.repeat(np.arange(height) * columns, counts) + column
    return indices


def _widths(counts: Indices, columns: int) -> Indices:
    """Return the Rice parameter of every row's gaps, from the number of its coordinates; 0 where it has none."""
    there = counts > 0
    widths = np.zeros(len(counts), np.int64)
    widths[there] = rice.parameters(np.full(int(there.sum()), columns), counts[there])
    return widths

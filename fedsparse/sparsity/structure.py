"""Structures: which coordinates of a tensor are taken or left together, as tiles of its matrix view."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from fedsparse.errors import ConfigError

Structure = Literal["unstructured", "row", "block"]
"""What is taken whole: a coordinate, a row (an output neuron or filter: one index of axis 0), or a square tile."""


@dataclass(frozen=True)
class Tiling:
    """A tensor's matrix view, (shape[0], product of the rest), cut into tiles; each tile is one unit.

    Units are numbered row of tiles by row of tiles, hence in the order of their first coordinates; those at the
    right and lower edge are smaller where the tile does not divide the matrix.

    Attributes:
        rows: of the matrix.
        columns: of the matrix.
        height: of a tile, at most ``rows``.
        width: of a tile, at most ``columns``.
    """

    rows: int
    columns: int
    height: int
    width: int

    @classmethod
    def of(cls, shape: tuple[int, ...], structure: Structure, block: int) -> Self:
        """Return how ``structure`` cuts a tensor of this shape; ``block`` is the side of a square tile.

        Raises:
            ConfigError: the structure is unknown, or ``block`` is below 1.
        """
        if block < 1:
            raise ConfigError(f"a block of side {block} holds no coordinate", "Use a side of at least 1")
        rows, columns = shape[0], math.prod(shape[1:])
        tiles = {"unstructured": (1, 1), "row": (1, columns), "block": (min(block, rows), min(block, columns))}
        if structure not in tiles:
            raise ConfigError(f"the mask structure {structure!r} is unknown", f"Use one of {', '.join(tiles)}")
        return cls(rows, columns, *tiles[structure])

    @property
    def units(self) -> int:
        """Number of units."""
        return -(-self.rows // self.height) * self._across

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return self.rows * self.columns

    @property
    def largest(self) -> int:
        """Number of coordinates of the largest unit."""
        return self.height * self.width

    @property
    def smallest(self) -> int:
        """Number of coordinates of the smallest unit, the one in the lower right corner."""
        return (self.rows % self.height or self.height) * (self.columns % self.width or self.width)

    @property
    def _across(self) -> int:
        return -(-self.columns // self.width)

    @property
    def _even(self) -> bool:
        return self.rows % self.height == 0 and self.columns % self.width == 0

    def sizes(self) -> NDArray[np.int64]:
        """Return the number of coordinates of every unit, (units,)."""
        return np.outer(_extents(self.rows, self.height), _extents(self.columns, self.width)).ravel()

    def size_of(self, units: NDArray[np.int64]) -> int:
        """Return the number of coordinates of ``units`` together."""
        return len(units) * self.largest if self._even else int(self.sizes()[units].sum())

    def classes(self) -> Iterator[tuple[int, NDArray[np.int64]]]:
        """Yield each size that units have, and the units of that size, increasing."""
        if self._even:
            yield self.largest, np.arange(self.units)
            return
        sizes = self.sizes()
        for size in np.unique(sizes):
            yield int(size), np.flatnonzero(sizes == size)

    def means(self, scores: NDArray[np.float32]) -> NDArray[np.floating]:
        """Return the mean score of every unit, (units,), from the scores of the coordinates, (rows · columns,).

        Sums are float64: units of equal scores get equal means, however many coordinates they have.
        """
        if self.largest == 1:
            return scores
        sums = scores.reshape(self.rows, self.columns)
        sums = np.add.reduceat(sums, np.arange(0, self.columns, self.width), axis=1, dtype=np.float64)
        sums = np.add.reduceat(sums, np.arange(0, self.rows, self.height), axis=0)
        means: NDArray[np.floating] = sums.ravel() / self.sizes()
        return means

    def coordinates(self, units: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the flat indices of the coordinates of ``units``, strictly increasing, (k,)."""
        if self.largest == 1:
            return np.sort(units)
        down, across = np.divmod(units, self._across)
        rows = down[:, None, None] * self.height + np.arange(self.height)[:, None]
        columns = across[:, None, None] * self.width + np.arange(self.width)
        inside = (rows < self.rows) & (columns < self.columns)
        return np.sort((rows * self.columns + columns)[inside])

    def units_of(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the unit that holds each flat index, (k,)."""
        rows, columns = np.divmod(indices, self.columns)
        units: NDArray[np.int64] = rows // self.height * self._across + columns // self.width
        return units


def structured_rows(indices: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[np.int64] | None:
    """Return the rows of a support of whole rows, (rows,), or None for any other support.

    Args:
        indices: strictly increasing flat indices, (k,).
        shape: the tensor's; axis 0 counts the rows.
    """
    columns = math.prod(shape[1:])
    if len(indices) % columns:
        return None
    runs = indices.reshape(-1, columns)
    first, last = runs[:, 0], runs[:, -1]  # increasing: nothing between them is missing if they are that far apart
    if np.any(first % columns) or np.any(last - first != columns - 1):
        return None
    return first // columns


def structured_tiles(
    indices: NDArray[np.int64], shape: tuple[int, ...], block: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Return where the tiles of a support of whole ``block`` × ``block`` tiles lie, or None for any other support.

    A smaller tile at an edge of the matrix view gives None too.

    Args:
        indices: strictly increasing flat indices, (k,).
        shape: the tensor's; its matrix view is (shape[0], product of the rest).
        block: side of a tile.

    Returns:
        Row of tiles and column of tiles of every tile, both (tiles,), row of tiles by row of tiles.
    """
    rows, columns = np.divmod(indices, math.prod(shape[1:]))
    down, across = shape[0] // block, math.prod(shape[1:]) // block
    if np.any(rows >= down * block) or np.any(columns >= across * block):
        return None
    tiles, counts = np.unique(rows // block * across + columns // block, return_counts=True)
    if np.any(counts != block * block):
        return None
    return tiles // max(across, 1), tiles % max(across, 1)


def _extents(whole: int, part: int) -> NDArray[np.int64]:
    """Return how long each piece is when ``whole`` is cut into pieces of ``part``; the last may be shorter."""
    return np.minimum(part, whole - np.arange(0, whole, part))

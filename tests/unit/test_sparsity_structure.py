from __future__ import annotations

import numpy as np
import pytest

from fedsparse.sparsity import structured_rows, structured_tiles


def _array(*indices: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(indices, np.int64)


@pytest.mark.parametrize(
    ("indices", "rows"),
    [
        ([0, 1, 2, 3], [0]),
        ([4, 5, 6, 7, 12, 13, 14, 15], [1, 3]),
        ([], []),
        ([0, 1, 2], None),
        ([1, 2, 3, 4], None),
        ([0, 1, 2, 4], None),
        ([0, 1, 2, 3, 5, 6, 7, 8], None),
        ([0, 1, 2, 7], None),
    ],
)
def test_rows_are_recognised_only_when_they_are_whole(indices: list[int], rows: list[int] | None) -> None:
    found = structured_rows(_array(*indices), (4, 2, 2))
    assert (None if found is None else found.tolist()) == rows


def test_every_coordinate_of_a_vector_is_a_row() -> None:
    found = structured_rows(_array(0, 2), (3,))
    assert found is not None
    assert found.tolist() == [0, 2]


@pytest.mark.parametrize(
    ("indices", "tiles"),
    [
        ([0, 1, 5, 6], ([0], [0])),
        ([2, 3, 7, 8, 10, 11, 15, 16], ([0, 1], [1, 0])),
        ([], ([], [])),
        ([0, 1, 5], None),
        ([1, 2, 6, 7], None),
        ([4, 9], None),  # a whole tile, but a smaller one at the edge
        ([0, 1, 5, 6, 20, 21], None),
    ],
)
def test_tiles_are_recognised_only_when_they_are_whole_and_of_full_size(
    indices: list[int], tiles: tuple[list[int], list[int]] | None
) -> None:
    found = structured_tiles(_array(*indices), (5, 5), 2)
    assert (None if found is None else tuple(part.tolist() for part in found)) == tiles


def test_a_matrix_smaller_than_a_tile_has_no_full_one() -> None:
    assert structured_tiles(_array(0, 1, 2, 3), (2, 2), 3) is None

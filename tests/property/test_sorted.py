from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedsparse.delta.sorted import union

coordinates = st.sets(st.integers(0, 60)).map(lambda found: np.array(sorted(found), np.int64))


@given(coordinates, coordinates)
def test_the_union_is_numpys(one: np.ndarray, other: np.ndarray) -> None:
    assert union(one, other).tolist() == np.union1d(one, other).tolist()

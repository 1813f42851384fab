from __future__ import annotations

from functools import partial

import pytest

from fedsparse.errors import ConfigError
from fedsparse.sparsity import cubic_density


@pytest.mark.parametrize(("start", "end"), [(0.3, 0.1), (0.1, 0.3), (1.0, 0.007), (0.2, 0.2)])
def test_the_density_is_exact_at_both_ends_and_monotone_between(start: float, end: float) -> None:
    density = partial(cubic_density, start_density=start, end_density=end, first=10, last=60)
    path = [density(step) for step in range(80)]
    assert path[:11] == [start] * 11
    assert path[60:] == [end] * 20
    assert path == sorted(path, reverse=start > end)


def test_the_density_is_fast_at_first_and_slow_at_the_end() -> None:
    halfway = cubic_density(50, start_density=1.0, end_density=0.2, first=0, last=100)
    assert halfway == pytest.approx(0.2 + 0.8 * 0.5**3)


def test_a_schedule_of_no_length_steps_to_the_end() -> None:
    density = partial(cubic_density, start_density=0.5, end_density=0.1, first=3, last=3)
    assert [density(2), density(3)] == [0.5, 0.1]


def test_a_schedule_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(ConfigError, match="begin at step 5 and end before, at 4"):
        cubic_density(0, start_density=0.5, end_density=0.1, first=5, last=4)

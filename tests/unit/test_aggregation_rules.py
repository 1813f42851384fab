from __future__ import annotations

import numpy as np
import pytest

from fedsparse.aggregation import holders_mean, rule_named, shrunk, zero_fill
from fedsparse.errors import ConfigError

WEIGHTED = np.array([6.0, -4.0])
HELD = np.array([2.0, 8.0])
TOTAL = 8.0


def test_the_holders_mean_is_n_over_d() -> None:
    assert holders_mean(WEIGHTED, HELD, TOTAL).tolist() == [3.0, -0.5]


def test_zero_fill_is_n_over_w() -> None:
    assert zero_fill(WEIGHTED, HELD, TOTAL).tolist() == [0.75, -0.5]


@pytest.mark.parametrize(("strength", "first"), [(0.0, 3.0), (0.5, 1.2), (1.0, 0.75)])
def test_shrinking_is_n_over_d_plus_the_strength_times_those_without(strength: float, first: float) -> None:
    assert shrunk(strength)(WEIGHTED, HELD, TOTAL).tolist() == pytest.approx([first, -0.5])


@pytest.mark.parametrize("strength", [-0.01, 1.01, float("nan")])
def test_a_strength_outside_its_range_is_refused(strength: float) -> None:
    with pytest.raises(ConfigError, match=f"strength is {strength}"):
        shrunk(strength)


def test_an_unknown_rule_is_refused_naming_those_there_are() -> None:
    with pytest.raises(ConfigError, match="no merging rule is called 'median'") as caught:
        rule_named("median", 0.5)
    assert caught.value.remedy == "Choose one of holders-mean, zero-fill, shrunk"

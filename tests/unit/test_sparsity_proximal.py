from __future__ import annotations

import pytest
import torch

from fedsparse.errors import ConfigError
from fedsparse.sparsity import soft_threshold_


def test_values_shrink_in_place_and_small_ones_become_zero() -> None:
    values = torch.nn.Parameter(torch.tensor([2.0, -2.0, 0.5, -0.5, 0.25, 0.0]))
    assert soft_threshold_(values, 0.5) is values
    assert values.tolist() == [1.5, -1.5, 0.0, 0.0, 0.0, 0.0]


def test_proximal_gradient_steps_find_the_closed_form_of_the_lasso() -> None:
    """min ½‖v − target‖² + λ‖v‖₁ has the soft-thresholded target as its solution."""
    target, penalty, rate = torch.tensor([1.0, -0.3, 0.05, -2.0]), 0.1, 0.5
    values = torch.zeros(4)
    for _ in range(60):
        values -= rate * (values - target)
        soft_threshold_(values, rate * penalty)
    assert values.tolist() == pytest.approx([0.9, -0.2, 0.0, -1.9], abs=1e-6)
    assert values[2] == 0


def test_a_negative_threshold_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"-0\.1 is negative"):
        soft_threshold_(torch.zeros(1), -0.1)

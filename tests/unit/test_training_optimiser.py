from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedsparse import config
from fedsparse.adapters import Attachment
from fedsparse.sparsity import Support
from fedsparse.training.optimiser import Adam, Optimiser, share_of_rate

from .training_samples import perceptron

NOTHING = np.empty(0, np.int64)
HEAD = (np.arange(48), np.arange(3))


def stage(**settings: Any) -> config.StageSettings:
    told = {"epochs": 1, "learning_rate": 0.1, "head_learning_rate": 0.01, "warm_up": 0.0, **settings}
    return config.StageSettings(name="only", **told)


def support(first: list[int], second: list[int]) -> Support:
    return np.array(first, np.int64), np.array(second, np.int64), *HEAD


def fill(attachment: Attachment, seed: int) -> tuple[Tensor, Tensor]:
    """Set gradients as a backward pass would, and return them."""
    draw = torch.Generator().manual_seed(seed)
    for values in (attachment.sparse, attachment.whole):
        assert values.grad is not None
        values.grad.copy_(torch.randn(len(values), generator=draw))
    assert attachment.sparse.grad is not None
    assert attachment.whole.grad is not None
    return attachment.sparse.grad.clone(), attachment.whole.grad.clone()


def vector(*values: float) -> nn.Parameter:
    parameter = nn.Parameter(torch.tensor(values))
    parameter.grad = torch.zeros_like(parameter)
    return parameter


def test_steps_are_those_of_torchs_adam() -> None:
    draw = torch.Generator().manual_seed(0)
    own, reference = (nn.Parameter(torch.linspace(-1, 1, 50)) for _ in range(2))
    adam, known = Adam(own), torch.optim.Adam([reference], lr=0.03)
    for step in range(100):
        own.grad = torch.randn(50, generator=draw) * 10.0 ** -(step % 5)
        reference.grad = own.grad.clone()
        adam.step(0.03)
        known.step()
        torch.testing.assert_close(own, reference, rtol=1e-4, atol=1e-5)


def test_a_coordinate_that_joins_late_moves_as_one_that_was_there_from_the_start() -> None:
    adam = Adam(vector(0.0))
    for _ in range(1000):
        adam.values.grad = torch.tensor([-1.0])
        adam.step(0.1)
    later = adam.moved(vector(0.0, 0.0), torch.tensor([0, -1]))
    for _ in range(10):
        later.values.grad = torch.tensor([-1.0, -1.0])
        later.step(0.1)
    assert later.values.tolist() == pytest.approx([1.0, 1.0], rel=1e-4)


def test_a_zero_gradient_moves_nothing() -> None:
    adam = Adam(vector(0.5, -0.5))
    adam.step(1.0)
    assert adam.values.tolist() == [0.5, -0.5]


def test_nothing_to_train_is_no_error() -> None:
    adam = Adam(vector())
    adam.step(1.0)
    assert len(adam.moved(vector(), torch.empty(0, dtype=torch.int64)).first) == 0


def test_scattered_and_dense_values_have_their_own_rates() -> None:
    attachment = perceptron().attach(support([1, 5], [7]))
    optimiser = Optimiser(attachment, stage(), steps=1, proximal=0.0)
    sparse, whole = fill(attachment, 1)
    optimiser.step()
    torch.testing.assert_close(attachment.sparse.detach(), -0.1 * sparse.sign(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(attachment.whole.detach(), -0.01 * whole.sign(), rtol=1e-5, atol=1e-6)
    assert optimiser.done == 1
    assert optimiser.nnz == 3 + 51
    assert not attachment.sparse.grad.any()
    assert not attachment.whole.grad.any()


def test_moments_of_what_stays_are_carried_exactly_and_new_ones_start_at_zero() -> None:
    adapter = perceptron()
    attachment = adapter.attach(support([1, 5, 9], [0, 7]))
    optimiser = Optimiser(attachment, stage(), steps=9, proximal=0.0)
    for seed in range(3):
        fill(attachment, seed)
        optimiser.step()
    before = {name: getattr(optimiser.sparse, name).clone() for name in ("values", "first", "second", "steps")}
    whole = {name: getattr(optimiser.whole, name).clone() for name in ("values", "first", "second", "steps")}
    moved = optimiser.moved(*adapter.move(support([0, 5, 9, 12], [7, 8])))
    places = [None, 1, 2, None, 4, None]
    for name, old in before.items():
        expected = [0.0 if place is None else old[place].item() for place in places]
        assert getattr(moved.sparse, name).tolist() == expected
    for name, old in whole.items():
        assert torch.equal(getattr(moved.whole, name), old)
    assert moved.done == 3
    assert moved.sparse.steps.tolist() == [0, 3, 3, 0, 3, 0]


def test_going_on_at_the_same_coordinates_changes_nothing() -> None:
    found = []
    for moves in (False, True):
        adapter = perceptron()
        attachment = adapter.attach(support([1, 5, 9], [0, 7]))
        optimiser = Optimiser(attachment, stage(l1=0.1), steps=6, proximal=0.1)
        for seed in range(6):
            fill(attachment, seed)
            optimiser.step()
            adapter.push()
            if moves:
                attachment, came_from = adapter.move(support([1, 5, 9], [0, 7]))
                optimiser = optimiser.moved(attachment, came_from)
        found.append(adapter.trained())
    assert found[0] == found[1]


def test_an_l1_penalty_shrinks_scattered_values_by_rate_and_strength_and_leaves_dense_ones() -> None:
    attachment = perceptron().attach(support([1, 5], [7]))
    with torch.no_grad():
        attachment.sparse.copy_(torch.tensor([1.0, -0.04, 0.0]))
        attachment.whole.fill_(0.001)
    optimiser = Optimiser(attachment, stage(l1=0.5), steps=1, proximal=0.0)
    optimiser.step()  # without gradients
    assert attachment.sparse.tolist() == pytest.approx([0.95, 0.0, 0.0])
    assert attachment.sparse[1] == 0
    assert attachment.whole.tolist() == pytest.approx([0.001] * 51)


def test_a_proximal_term_adds_the_values_to_their_gradients() -> None:
    attachment = perceptron().attach(support([1, 5], [7]))
    with torch.no_grad():
        attachment.sparse.copy_(torch.tensor([1.0, -2.0, 0.0]))
        attachment.whole.fill_(0.5)
    optimiser = Optimiser(attachment, stage(), steps=1, proximal=0.2)
    optimiser.step()
    assert optimiser.sparse.first.tolist() == pytest.approx([0.02, -0.04, 0.0])
    assert optimiser.whole.first.tolist() == pytest.approx([0.01] * 51)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", ["sparse", "whole"])
def test_values_that_are_not_finite_are_noticed(part: str, value: float) -> None:
    attachment = perceptron().attach(support([1, 5], [7]))
    optimiser = Optimiser(attachment, stage(), steps=1, proximal=0.0)
    assert optimiser.is_finite()
    with torch.no_grad():
        getattr(attachment, part)[0] = value
    assert not optimiser.is_finite()


@pytest.mark.parametrize(
    ("steps", "warm_up", "shares"),
    [
        (1, 0.0, [1]),
        (1, 0.9, [1]),
        (2, 0.5, [1, 1 / 2]),
        (4, 0.0, [1, 3 / 4, 2 / 4, 1 / 4]),
        (4, 0.5, [1 / 2, 1, 2 / 3, 1 / 3]),
        (5, 0.8, [1 / 4, 2 / 4, 3 / 4, 1, 1 / 2]),
        (6, 1 / 3, [1 / 2, 1, 4 / 5, 3 / 5, 2 / 5, 1 / 5]),
    ],
)
def test_rates_rise_in_the_warm_up_and_then_fall(steps: int, warm_up: float, shares: list[float]) -> None:
    assert [share_of_rate(step, steps, warm_up) for step in range(steps)] == pytest.approx(shares)


@pytest.mark.parametrize("warm_up", [0.0, 0.1, 1 / 3, 0.5, 0.99])
def test_every_step_has_a_positive_rate_and_one_the_full_one(warm_up: float) -> None:
    for steps in range(1, 120):
        shares = [share_of_rate(step, steps, warm_up) for step in range(steps)]
        assert min(shares) > 0
        assert max(shares) == 1


def test_a_rounds_rates_rise_for_a_third_of_its_steps() -> None:
    for steps in range(1, 400):
        rising = max(1, steps // 3)
        earlier = [min((step + 1) / rising, (steps - step) / (steps - rising + 1)) for step in range(steps)]
        assert [share_of_rate(step, steps, 1 / 3) for step in range(steps)] == earlier

from __future__ import annotations

import numpy as np
import pytest
import torch

from fedsparse.adapters import DeltaAdapter
from fedsparse.delta import AdapterSpace, TensorSpec
from fedsparse.errors import ConfigError
from fedsparse.sparsity import choose_support, gradient_magnitude

SPACE = AdapterSpace(bytes(32), (TensorSpec("a", (2, 3)), TensorSpec("head", (2,)), TensorSpec("b", (12,))))
SCORES = [torch.tensor([0.0, 9, 1, 1, 8, 0]), torch.zeros(2), torch.tensor([7.0, *[0.5] * 11])]


def test_the_best_scores_of_all_tensors_are_chosen_beside_the_dense_ones() -> None:
    chosen = choose_support(SPACE, SCORES, density=0.25, dense={1})
    assert [part.tolist() for part in chosen] == [[1, 4], [0, 1], [0]]


def test_ties_go_to_the_first_coordinate() -> None:
    chosen = choose_support(SPACE, [torch.ones(6), torch.zeros(2), torch.ones(12)], density=0.2, dense={1})
    assert [part.tolist() for part in chosen] == [[0, 1], [0, 1], []]


@pytest.mark.parametrize("density", [0.11, 0.3, 0.55, 1.0])
def test_the_support_never_exceeds_the_density(density: float) -> None:
    chosen = choose_support(SPACE, SCORES, density, dense={1})
    assert sum(part.size for part in chosen) == int(density * SPACE.size)
    assert all(np.all(np.diff(part) > 0) for part in chosen)


def test_a_density_below_the_dense_tensors_is_refused_naming_the_least() -> None:
    with pytest.raises(ConfigError, match=r"density 0\.05 .* at least 0\.1"):
        choose_support(SPACE, SCORES, density=0.05, dense={1})


class _Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(3), requires_grad=False)


def test_the_score_is_the_sum_of_gradient_magnitudes_over_batches() -> None:
    model = _Line()
    adapter = DeltaAdapter(model, AdapterSpace(bytes(32), (TensorSpec("w", (3,)),)))
    batches = [torch.tensor([1.0, -2, 0]), torch.tensor([-1.0, 1, 0])]
    losses = [lambda x=x: (model.w * x).sum() for x in batches]  # type: ignore[misc]
    (score,) = gradient_magnitude(adapter, losses)
    assert score.tolist() == [2.0, 3.0, 0.0]
    assert not model.w.requires_grad


def test_scoring_that_fails_leaves_the_model_frozen() -> None:
    model = _Line()
    adapter = DeltaAdapter(model, AdapterSpace(bytes(32), (TensorSpec("w", (3,)),)))

    def fail() -> torch.Tensor:
        raise ValueError("no batch")

    with pytest.raises(ValueError, match="no batch"):
        gradient_magnitude(adapter, [fail])
    assert not model.w.requires_grad

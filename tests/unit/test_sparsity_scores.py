from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from fedsparse.delta import AdapterSpace, TensorSpec
from fedsparse.errors import DataError
from fedsparse.sparsity import SCORES, Loss, Watched, choose_support, score_in_groups


class Model(nn.Module):
    """Every parameter is one tensor of the space; counts the passes over its batches."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([[1.0, -2.0], [0.5, 0.0]]), requires_grad=False)
        self.b = nn.Parameter(torch.tensor([3.0, -1.0, 2.0]), requires_grad=False)
        self.space = AdapterSpace(bytes(32), (TensorSpec("a", (2, 2)), TensorSpec("b", (3,))))
        self.backwards = 0

    def current(self, position: int) -> Tensor:
        return self.get_parameter(self.space.tensors[position].name).detach().view(-1)

    @contextmanager
    def watch(
        self, sink: Callable[[int, Tensor], None], positions: Collection[int] | None = None
    ) -> Iterator[None]:
        watched = range(len(self.space.tensors)) if positions is None else positions
        hooks = []
        for position in watched:
            weight = self.get_parameter(self.space.tensors[position].name).requires_grad_(True)

            def hook(weight: Tensor, position: int = position) -> None:
                assert weight.grad is not None
                sink(position, weight.grad.view(-1))
                weight.grad = None

            hooks.append(weight.register_post_accumulate_grad_hook(hook))  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for handle in hooks:
                handle.remove()
            self.requires_grad_(False)

    def losses(self) -> Sequence[Loss]:
        """Two batches, linear in the weights, so that what they are multiplied by is their gradient."""
        first = (torch.tensor([[1.0, -2], [0, 4]]), torch.tensor([0.0, 5, 1]))
        second = (torch.tensor([[-3.0, -2], [0, 1]]), torch.tensor([0.0, 1, 1]))
        return [lambda x=x: self._loss(*x) for x in (first, second)]  # type: ignore[misc]

    def _loss(self, a: Tensor, b: Tensor) -> Tensor:
        self.backwards += 1
        return (self.a * a).sum() + (self.b * b).sum()


EXPECTED = {
    "magnitude": ([1.0, 2, 0.5, 0], [3.0, 1, 2]),
    "gradient": ([4.0, 4, 0, 5], [0.0, 6, 2]),
    "snip": ([2.0, 8, 0, 0], [0.0, 6, 4]),
    "fisher": ([10.0, 8, 0, 17], [0.0, 26, 2]),
    "movement": ([2.0, -8, 0, 0], [0.0, 6, -4]),
}


def test_every_score_has_a_case_here() -> None:
    assert SCORES.keys() == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_score_equals_its_formula(name: str) -> None:
    model = Model()
    scores = SCORES[name](model, model.losses(), [0, 1])
    assert [scores[0].tolist(), scores[1].tolist()] == list(EXPECTED[name])
    assert {score.dtype for score in scores.values()} == {torch.float32}


@pytest.mark.parametrize("name", EXPECTED)
def test_scoring_changes_no_weight_and_keeps_no_gradient(name: str) -> None:
    model = Model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    SCORES[name](model, model.losses(), [0, 1])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(weight.grad is None and not weight.requires_grad for weight in model.parameters())


def test_only_the_positions_asked_for_are_scored() -> None:
    model = Model()
    scores = SCORES["snip"](model, model.losses(), [1])
    assert {position: score.tolist() for position, score in scores.items()} == {1: [0.0, 6, 4]}


def test_a_tensor_that_no_loss_depends_on_scores_zero() -> None:
    model = Model()
    scores = SCORES["gradient"](model, [lambda: model.b.sum()], [0, 1])
    assert [scores[0].tolist(), scores[1].tolist()] == [[0.0] * 4, [1.0] * 3]


def test_scoring_that_fails_leaves_the_model_unwatched() -> None:
    def fail() -> Tensor:
        raise ValueError("no batch")

    model = Model()
    with pytest.raises(ValueError, match="no batch"):
        SCORES["gradient"](model, [fail], [0, 1])
    assert not model.a.requires_grad


def test_gradients_cannot_be_scored_without_a_batch() -> None:
    with pytest.raises(DataError, match="no batch to score"):
        SCORES["fisher"](Model(), [], [0])


@pytest.mark.parametrize(("limit", "groups"), [(1, [[0], [1]]), (6, [[0], [1]]), (7, [[0, 1]]), (100, [[0, 1]])])
def test_groups_stay_within_the_limit_and_pass_over_the_batches_once_each(
    limit: int, groups: list[list[int]]
) -> None:
    model = Model()
    found = list(score_in_groups(SCORES["gradient"], model, model.losses(), {1, 0}, limit))
    assert [list(group) for group in found] == groups
    assert model.backwards == 2 * len(groups)


def test_scores_in_groups_choose_the_same_support_as_all_at_once() -> None:
    model: Watched = Model()
    losses = Model.losses(model)  # type: ignore[arg-type]
    groups = score_in_groups(SCORES["gradient"], model, losses, [0, 1], 1)
    chosen = choose_support(model.space, groups, 4 / 7, ())
    assert [part.tolist() for part in chosen] == [[0, 1, 3], [1]]

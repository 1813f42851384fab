from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from fedsparse.errors import ConfigError, DataError
from fedsparse.training.losses import (
    ClassificationLoss,
    class_weights,
    classification_loss,
    distillation_loss,
    language_loss,
    one_hot,
    proximal_gradient_,
)

WEIGHTS = torch.tensor([0.5, 2.0, 1.0])


def _batch(samples: int = 12, classes: int = 3) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(samples, classes, generator=draw) * 3
    return logits.requires_grad_(), torch.randint(classes, (samples,), generator=draw)


def _gradient(loss: Tensor, by: Tensor) -> Tensor:
    return torch.autograd.grad(loss, by)[0]


def test_one_hot_puts_all_probability_on_the_label() -> None:
    assert one_hot(torch.tensor([2, 0]), 3).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert one_hot(torch.tensor([1]), 2).dtype == torch.float32


def test_full_power_gives_every_class_the_same_total() -> None:
    weights = class_weights(np.repeat([0, 1, 2], [6, 2, 1]), 3)
    assert weights.tolist() == pytest.approx([0.5, 1.5, 3.0])
    assert weights.dtype == torch.float32


def test_half_power_weighs_by_the_root_of_the_count_and_no_power_not_at_all() -> None:
    labels = np.repeat([0, 1], [4, 1])
    assert class_weights(labels, 2, power=0.5).tolist() == pytest.approx([5 / 6, 10 / 6])
    assert class_weights(labels, 2, power=0).tolist() == [1, 1]


@pytest.mark.parametrize("power", [0, 0.5, 1])
def test_the_mean_weight_over_the_samples_is_one_and_an_absent_class_has_none(power: float) -> None:
    labels = np.random.default_rng(0).choice(22, size=400, p=np.arange(22) / 231)  # class 0 never occurs
    weights = class_weights(labels, 22, power=power)
    assert weights.shape == (22,)
    assert weights[0] == 0
    assert weights[torch.from_numpy(labels)].mean().item() == pytest.approx(1)


@pytest.mark.parametrize("labels", [[], [0, 3], [-1, 0]])
def test_labels_that_are_none_of_the_classes_cannot_be_weighted(labels: list[int]) -> None:
    with pytest.raises(DataError, match="3 classes"):
        class_weights(np.array(labels, np.int64), 3)


@pytest.mark.parametrize("power", [-0.1, 1.1, math.nan])
def test_a_power_out_of_range_is_refused(power: float) -> None:
    with pytest.raises(ConfigError, match="power"):
        class_weights(np.array([0, 1]), 2, power=power)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_of_labels_is_torchs_with_its_gradient(label_smoothing: float) -> None:
    logits, labels = _batch()
    ours = classification_loss(logits, labels, WEIGHTS, label_smoothing=label_smoothing)
    torchs = F.cross_entropy(logits, labels, weight=WEIGHTS, label_smoothing=label_smoothing)
    torch.testing.assert_close(ours, torchs)
    torch.testing.assert_close(_gradient(ours, logits), _gradient(torchs, logits))


def test_unweighted_cross_entropy_of_soft_targets_is_torchs() -> None:
    logits, labels = _batch()
    soft = 0.7 * one_hot(labels, 3) + 0.3 * one_hot(labels.roll(1), 3)
    ours = classification_loss(logits, soft, torch.ones(3), label_smoothing=0.1)
    torch.testing.assert_close(ours, F.cross_entropy(logits, soft, label_smoothing=0.1))


@pytest.mark.parametrize("kind", ["cross-entropy", "generalised-cross-entropy"])
def test_a_label_and_its_soft_target_have_the_same_loss(kind: ClassificationLoss) -> None:
    logits, labels = _batch()
    hard = classification_loss(logits, labels, WEIGHTS, kind=kind)
    torch.testing.assert_close(hard, classification_loss(logits, one_hot(labels, 3), WEIGHTS, kind=kind))


def test_a_mixed_target_weighs_as_the_labels_that_it_mixes() -> None:
    logits = torch.tensor([[0.4, -1.0, 0.2]])
    mixed = classification_loss(logits, torch.tensor([[0.25, 0.75, 0.0]]), WEIGHTS)
    costs = -F.log_softmax(logits, 1)[0]
    expected = (0.25 * 0.5 * costs[0] + 0.75 * 2.0 * costs[1]) / (0.25 * 0.5 + 0.75 * 2.0)
    torch.testing.assert_close(mixed, expected)


def test_generalised_cross_entropy_is_the_papers_formula() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])  # the labels have probability 1/2 and 1/4
    loss = classification_loss(
        logits, torch.tensor([0, 1]), torch.tensor([1.0, 3.0]), kind="generalised-cross-entropy", q=0.5
    )
    assert loss.item() == pytest.approx((2 * (1 - 0.5**0.5) + 3 * 2 * (1 - 0.5)) / 4)


def test_generalised_cross_entropy_runs_from_cross_entropy_to_the_mean_absolute_error() -> None:
    logits, labels = _batch()
    kind: ClassificationLoss = "generalised-cross-entropy"
    near_zero = classification_loss(logits, labels, WEIGHTS, kind=kind, q=1e-4)
    torch.testing.assert_close(near_zero, F.cross_entropy(logits, labels, weight=WEIGHTS), rtol=1e-3, atol=0)
    at_one = classification_loss(logits, labels, torch.ones(3), kind=kind, q=1)
    torch.testing.assert_close(at_one, 1 - logits.softmax(1)[torch.arange(12), labels].mean())


def test_a_sample_that_the_model_firmly_contradicts_pulls_no_longer() -> None:
    logits = torch.tensor([[200.0, 0.0]], requires_grad=True)
    label, even = torch.tensor([1]), torch.ones(2)
    robust = _gradient(classification_loss(logits, label, even, kind="generalised-cross-entropy"), logits)
    plain = _gradient(classification_loss(logits, label, even), logits)
    assert robust.abs().max() < 1e-6
    assert plain.tolist() == [[1, -1]]


@pytest.mark.parametrize("settings", [{"label_smoothing": -0.1}, {"label_smoothing": 1.1}, {"q": 0.0}, {"q": 1.5}])
def test_a_loss_setting_out_of_range_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        classification_loss(*_batch(), WEIGHTS, kind="generalised-cross-entropy", **settings)


def _clean_accuracy(kind: ClassificationLoss, seed: int) -> float:
    """Train a linear model on ten noisy clusters, two labels in five wrong; test it on right ones."""
    draw = torch.Generator().manual_seed(seed)
    centres = torch.randn(10, 50, generator=draw) * 4 / 50**0.5
    labels = torch.randint(10, (2600,), generator=draw)
    inputs = centres[labels] + torch.randn(2600, 50, generator=draw)
    wrong = torch.rand(600, generator=draw) < 0.4
    shown = torch.where(wrong, (labels[:600] + torch.randint(1, 10, (600,), generator=draw)) % 10, labels[:600])
    model = torch.zeros(50, 10, requires_grad=True)
    for _ in range(300):
        loss = classification_loss(inputs[:600] @ model, shown, torch.ones(10), kind=kind)
        model.data -= 5.0 * _gradient(loss, model)
    return ((inputs[600:] @ model).argmax(1) == labels[600:]).float().mean().item()


@pytest.mark.parametrize("seed", [0, 1])
def test_with_two_labels_in_five_wrong_the_generalised_loss_still_learns_the_right_ones(seed: int) -> None:
    plain, robust = _clean_accuracy("cross-entropy", seed), _clean_accuracy("generalised-cross-entropy", seed)
    assert robust > 0.72
    assert robust > plain + 0.1


def test_language_loss_is_the_mean_over_the_tokens_that_the_mask_asks_for() -> None:
    draw = torch.Generator().manual_seed(0)
    logits, tokens = torch.randn(2, 4, 7, generator=draw), torch.randint(7, (2, 4), generator=draw)
    mask = torch.tensor([[1, 1, 1, 0], [1, 0, 0, 1]])
    chances = logits.log_softmax(2)
    asked = [(0, 1), (0, 2), (1, 3)]
    expected = -sum(chances[n, t - 1, tokens[n, t]] for n, t in asked) / 3
    torch.testing.assert_close(language_loss(logits, tokens, mask), expected)
    torch.testing.assert_close(language_loss(logits, tokens, mask.bool()), expected)


def test_language_loss_of_equal_logits_is_the_log_of_the_vocabulary() -> None:
    loss = language_loss(torch.zeros(3, 5, 11), torch.zeros(3, 5, dtype=torch.int64), torch.ones(3, 5))
    assert loss.item() == pytest.approx(math.log(11))


def test_padding_and_the_last_position_get_no_gradient() -> None:
    logits = torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    language_loss(logits, torch.tensor([[1, 2, 3, 0]]), torch.tensor([[1, 1, 1, 0]])).backward()
    assert logits.grad is not None
    assert (logits.grad.abs().sum(2) > 0).tolist() == [[True, True, False, False]]


@pytest.mark.parametrize(("length", "mask"), [(1, 1), (3, 0)])
def test_where_no_token_is_to_be_predicted_the_loss_is_zero(length: int, mask: int) -> None:
    logits = torch.randn(2, length, 5).requires_grad_()
    loss = language_loss(logits, torch.ones(2, length, dtype=torch.int64), torch.full((2, length), mask))
    assert loss.item() == 0
    assert not _gradient(loss, logits).any()


def test_distillation_is_the_divergence_from_the_teacher_at_the_temperature() -> None:
    student, teacher = torch.tensor([[0.0, 0.0]]), torch.tensor([[2 * math.log(3), 0.0]])
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)  # the teacher's answer at 2: 3/4, 1/4
    assert distillation_loss(student, teacher, 2).item() == pytest.approx(4 * expected)
    twice = distillation_loss(student.repeat(2, 1), teacher.repeat(2, 1), 2)
    assert twice.item() == pytest.approx(4 * expected)


def test_distillation_moves_the_student_only_and_ends_at_the_teacher() -> None:
    student, teacher = _batch()[0], _batch()[0].detach().roll(1, 0).requires_grad_()
    ours, theirs = torch.autograd.grad(
        distillation_loss(student, teacher, 3), (student, teacher), allow_unused=True
    )
    assert theirs is None
    torch.testing.assert_close(ours, 3 * (((student / 3).softmax(1) - (teacher / 3).softmax(1)) / 12))
    assert distillation_loss(teacher + 5, teacher, 3).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_a_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(ConfigError, match="temperature"):
        distillation_loss(torch.zeros(1, 2), torch.zeros(1, 2), temperature)


def test_the_proximal_gradient_is_that_of_half_the_squared_distance() -> None:
    received = torch.tensor([1.0, -2.0, 0.5])
    values = torch.tensor([1.5, -2.0, 0.0], requires_grad=True)
    (0.2 / 2 * (values - received).square().sum()).backward()
    gradient = torch.tensor([1.0, 1.0, 1.0])
    proximal_gradient_(gradient, values - received, 0.2)
    assert values.grad is not None
    torch.testing.assert_close(gradient, 1 + values.grad)
    assert not gradient.requires_grad


def test_a_class_without_samples_is_left_alone_where_the_softmax_is_restricted() -> None:
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.3, 0.2, 4.0]], requires_grad=True)
    weights = torch.tensor([1.0, 1.0, 0.0])
    labels = torch.tensor([0, 1])
    loss = classification_loss(logits, labels, weights, restricted=True)
    assert loss.item() == pytest.approx(F.cross_entropy(logits[:, :2], labels).item(), rel=1e-5)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.equal(logits.grad[:, 2], torch.zeros(2))


def test_the_restricted_loss_of_all_classes_is_the_loss() -> None:
    logits, labels = torch.tensor([[1.0, -2.0], [0.3, 0.2]]), torch.tensor([0, 1])
    weights = torch.tensor([0.5, 1.5])
    whole = classification_loss(logits, labels, weights)
    assert torch.equal(classification_loss(logits, labels, weights, restricted=True), whole)


def test_a_site_of_one_class_still_learns_it() -> None:
    logits = torch.tensor([[1.0, -2.0]])
    weights, labels = torch.tensor([1.0, 0.0]), torch.tensor([0])
    assert classification_loss(logits, labels, weights, restricted=True).item() > 0.01

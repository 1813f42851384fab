from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from fedsparse import config
from fedsparse.errors import ConfigError, DataError
from fedsparse.training import Classification, ClassificationExam, LanguageModelling, Machine, Tokens, measure
from fedsparse.training.losses import class_weights, classification_loss, distillation_loss, one_hot
from fedsparse.training.mixing import mix
from fedsparse.training.tasks import answers

from .training_samples import POINT_CLASSES, Perceptron, Points, classification, points

FEW = np.array([4, 0, 7, 2, 9])
VARIANTS = np.array([0, 1, 1, 0, 1])


def draw() -> np.random.Generator:
    return np.random.default_rng(11)


def batch_loss(
    network: nn.Module, objective: config.ObjectiveSettings | None = None, **augmentation: Any
) -> Tensor:
    task = classification(objective=objective, augmentation=config.AugmentationSettings(**augmentation))
    task.start(Perceptron())
    return task.loss(network, FEW, VARIANTS, draw())


def logits_and_labels(network: nn.Module) -> tuple[Tensor, Tensor]:
    inputs, labels = points(48)
    return network(torch.from_numpy(inputs.values[FEW, VARIANTS])), torch.from_numpy(labels[FEW])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("kind", ["cross-entropy", "generalised-cross-entropy"])
def test_the_loss_is_that_of_the_objective_in_the_variants_asked_for(kind: Any, smoothing: float) -> None:
    network = Perceptron()
    logits, labels = logits_and_labels(network)
    loss = batch_loss(network, config.ObjectiveSettings(loss=kind, label_smoothing=smoothing))
    weights = torch.ones(POINT_CLASSES)
    torch.testing.assert_close(
        loss, classification_loss(logits, labels, weights, kind=kind, label_smoothing=smoothing)
    )
    if kind == "cross-entropy":
        torch.testing.assert_close(loss, F.cross_entropy(logits, labels, label_smoothing=smoothing))
    else:
        assert loss < F.cross_entropy(logits, labels)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_classes_weigh_by_their_counts_among_all_training_samples(balance: float) -> None:
    inputs, _ = points(48)
    labels = np.repeat([0, 1, 2], [40, 6, 2])
    objective = config.ObjectiveSettings(balance=balance)
    task = Classification(inputs, labels, 3, objective, config.AugmentationSettings(), Machine())
    chosen, network = np.array([0, 1, 44, 47]), Perceptron()
    logits = network(torch.from_numpy(inputs.values[chosen, 0]))
    weights = class_weights(labels, 3, power=balance)
    expected = F.cross_entropy(logits, torch.from_numpy(labels[chosen]), weights)
    torch.testing.assert_close(task.loss(network, chosen, np.zeros(4, np.int64), draw()), expected)


def test_mixed_samples_have_mixed_labels() -> None:
    network = Perceptron()
    inputs, labels = points(48)
    settings = config.AugmentationSettings(mixup=0.7)
    mixed, soft = mix(
        torch.from_numpy(inputs.values[FEW, VARIANTS]), one_hot(torch.from_numpy(labels[FEW]), 3), settings, draw()
    )
    assert ((soft > 0) & (soft < 1)).any()
    expected = classification_loss(network(mixed), soft, torch.ones(3))
    torch.testing.assert_close(batch_loss(network, mixup=0.7), expected)
    assert not torch.isclose(batch_loss(network, mixup=0.7), batch_loss(network))


def test_images_can_have_parts_of_others_pasted_in() -> None:
    images = np.random.default_rng(0).normal(0, 1, (6, 1, 2, 5, 5)).astype(np.float32)
    settings = config.AugmentationSettings(cutmix=1.0)
    labels = np.arange(6) % 3
    task = Classification(Points(images), labels, 3, config.ObjectiveSettings(), settings, Machine())
    network = nn.Sequential(nn.Flatten(), nn.Linear(50, 3))
    every = np.arange(6)
    mixed, soft = mix(torch.from_numpy(images[:, 0]), one_hot(torch.from_numpy(labels), 3), settings, draw())
    expected = classification_loss(network(mixed), soft, torch.ones(3))
    torch.testing.assert_close(task.loss(network, every, np.zeros(6, np.int64), draw()), expected)


def test_texts_cannot_be_mixed() -> None:
    tokens = Tokens(np.ones((4, 3), np.int32), np.ones((4, 3), np.int8))
    settings = config.AugmentationSettings(mixup=0.5)
    task = Classification(tokens, np.array([0, 1, 0, 1]), 2, config.ObjectiveSettings(), settings, Machine())
    with pytest.raises(ConfigError, match="these samples are texts"):
        task.loss(nn.Identity(), np.arange(4), np.zeros(4, np.int64), draw())


@pytest.mark.parametrize("way", ["mixup", "cutmix"])
def test_mixed_samples_have_no_answers_to_keep(way: str) -> None:
    with pytest.raises(ConfigError, match=r"objective\.distillation keeps the answers"):
        classification(
            objective=config.ObjectiveSettings(distillation=0.1),
            augmentation=config.AugmentationSettings(**{way: 0.5}),
        )


def test_distillation_adds_the_distance_from_the_starts_answers_to_the_first_variants() -> None:
    changed = Perceptron()
    nn.init.normal_(changed.head.weight, generator=torch.Generator().manual_seed(1)).requires_grad_()
    inputs, _ = points(48)
    teacher = Perceptron()(torch.from_numpy(inputs.values[FEW, 0]))
    objective = config.ObjectiveSettings(distillation=0.4, temperature=3.0)
    kept = distillation_loss(logits_and_labels(changed)[0], teacher, 3.0)
    loss = batch_loss(changed, objective)
    torch.testing.assert_close(loss, batch_loss(changed) + 0.4 * kept)
    loss.backward()
    assert changed.head.weight.grad is not None


def test_an_exam_measures_all_its_samples_in_their_first_variant() -> None:
    inputs, labels = points(150, seed=1)
    network = Perceptron()
    logits = answers(network, inputs, 150, Machine())
    torch.testing.assert_close(logits, network(torch.from_numpy(inputs.values[:, 0])))
    exam = ClassificationExam(inputs, labels, Machine())
    assert np.allclose(exam.probabilities(network), logits.double().softmax(1))
    assert exam.quality(network) == measure(labels, logits.double().softmax(1).numpy())


def test_the_positive_class_and_the_false_alarm_rate_reach_the_figures() -> None:
    inputs, labels = points(90, seed=1)
    labels = (labels > 0).astype(np.int64)
    network = nn.Linear(12, 2).requires_grad_(False)
    found = set()
    for positive in (0, 1):
        for rate in (0.0, 0.3):
            exam = ClassificationExam(inputs, labels, Machine(), positive=positive, false_alarm_rate=rate)
            expected = measure(labels, exam.probabilities(network), positive=positive, false_alarm_rate=rate)
            assert exam.quality(network) == expected
            found.add(expected.recall_at_false_alarm)
    assert len(found) == 4


def test_an_exam_without_samples_is_refused() -> None:
    with pytest.raises(DataError, match="no sample to measure"):
        ClassificationExam(points(3)[0], np.empty(0, np.int64), Machine())


class Table(nn.Module):
    """A language model whose logits depend on the last token alone."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(logits)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.table[ids]


PROBABILITIES = torch.tensor([[0.25, 0.25, 0.5], [0.125, 0.75, 0.125], [0.5, 0.25, 0.25]])
TEXTS = Tokens(
    np.array([[0, 2, 0, 1], [1, 1, 0, 0], [2, 0, 0, 0]], np.int32),
    np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], np.int8),
)
COSTS = [-math.log(0.5), -math.log(0.5), -math.log(0.25), -math.log(0.75)]  # 0→2, 2→0, 0→1; 1→1; the last has none


def language(texts: Tokens = TEXTS, **objective: Any) -> LanguageModelling:
    return LanguageModelling(texts, len(texts.ids), config.ObjectiveSettings(**objective), Machine())


def test_language_modelling_predicts_every_token_but_the_first_from_those_before() -> None:
    network = Table(PROBABILITIES.log())
    loss = language().loss(network, np.array([0, 1, 2]), np.zeros(3, np.int64), draw())
    assert loss.item() == pytest.approx(np.mean(COSTS))
    alone = language().loss(network, np.array([1]), np.zeros(1, np.int64), draw())
    assert alone.item() == pytest.approx(COSTS[3])
    loss.backward()
    assert network.table.grad is not None


def test_the_quality_of_a_language_model_counts_every_predicted_token_once() -> None:
    quality = language().quality(Table(PROBABILITIES.log()))
    assert quality.loss == pytest.approx(np.mean(COSTS))
    assert quality.accuracy == 0.75  # all but 0→1
    assert quality.samples == 3
    many = Tokens(np.repeat(TEXTS.ids, 9, axis=0), np.repeat(TEXTS.mask, 9, axis=0))
    again = language(many).quality(Table(PROBABILITIES.log()))
    assert (again.loss, again.accuracy, again.samples) == (pytest.approx(np.mean(COSTS)), 0.75, 27)


def test_texts_of_one_token_have_nothing_to_predict() -> None:
    single = Tokens(np.array([[1]], np.int32), np.array([[1]], np.int8))
    quality = language(single).quality(Table(PROBABILITIES.log()))
    assert (quality.loss, quality.accuracy) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("key", "value"), [("distillation", 0.1), ("label_smoothing", 0.1), ("loss", "generalised-cross-entropy")]
)
def test_what_is_for_classes_only_is_refused_for_language_models(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"objective.{key}"):
        language(**{key: value})

"""What is learnt: the loss of a batch, and the quality of the network's answers."""

from __future__ import annotations

from copy import copy
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsparse.config import AugmentationSettings, ObjectiveSettings
from fedsparse.errors import ConfigError, DataError
from fedsparse.training.inputs import Inputs, in_batches
from fedsparse.training.language import LanguageModelling, LanguageQuality
from fedsparse.training.losses import class_weights, classification_loss, distillation_loss, one_hot
from fedsparse.training.machine import Machine
from fedsparse.training.metrics import Quality, measure
from fedsparse.training.mixing import mix

__all__ = ["Classification", "ClassificationExam", "Exam", "LanguageModelling", "LanguageQuality", "Task"]

_BATCH = 64


class Task(Protocol):
    """One site's training samples and what is asked of them."""

    @property
    def samples(self) -> int:
        """How many there are."""

    @property
    def variants(self) -> int:
        """How many variants of each there are."""

    def start(self, network: nn.Module) -> None:
        """Note what is needed of the network as it is before training."""

    def loss(
        self,
        network: nn.Module,
        samples: NDArray[np.int64],
        variants: NDArray[np.int64],
        draw: np.random.Generator,
    ) -> Tensor:
        """Return the loss of one batch, ()."""


class Exam(Protocol):
    """A set that is not trained on."""

    def quality(self, network: nn.Module) -> Quality | LanguageQuality:
        """Return what the network's answers are worth."""


class Classification:
    """Samples with one label each.

    Args:
        inputs: of n samples.
        labels: (n,).
        classes: how many there are.
        objective: what is minimised.
        augmentation: only its mixing is of interest here.
        machine: where to compute.

    Raises:
        ConfigError: samples are to be mixed, and their answers kept.
        DataError: there are no labels, or some are not among the classes.
    """

    def __init__(
        self,
        inputs: Inputs,
        labels: NDArray[np.int64],
        classes: int,
        objective: ObjectiveSettings,
        augmentation: AugmentationSettings,
        machine: Machine,
    ) -> None:
        self._mixes = augmentation.mixup > 0 or augmentation.cutmix > 0
        if self._mixes and objective.distillation:
            raise ConfigError(
                "objective.distillation keeps the answers to samples as they are, but mixup or cutmix mixes them",
                "Leave out one of the two",
            )
        self._inputs = inputs
        self._labels = torch.from_numpy(np.array(labels))
        self._classes = classes
        self._objective = objective
        self._augmentation = augmentation
        self._machine = machine
        self._weights = class_weights(labels, classes, power=objective.balance).to(machine.device)
        self._teacher: Tensor | None = None

    def unrestricted(self) -> Self:
        """Return the same, whose loss is over all classes."""
        other = copy(self)
        other._objective = self._objective.model_copy(update={"restricted": False})
        return other

    @property
    def samples(self) -> int:
        """How many there are."""
        return len(self._labels)

    @property
    def variants(self) -> int:
        """How many variants of each sample there are."""
        return self._inputs.variants

    def start(self, network: nn.Module) -> None:
        """Note the network's answers, if training is to stay near them."""
        if self._objective.distillation:
            self._teacher = answers(network, self._inputs, self.samples, self._machine)

    def loss(
        self,
        network: nn.Module,
        samples: NDArray[np.int64],
        variants: NDArray[np.int64],
        draw: np.random.Generator,
    ) -> Tensor:
        """Return the loss of one batch, ()."""
        objective, targets = self._objective, self._labels[samples]
        batch = self._inputs.batch(samples, variants)
        if self._mixes:
            batch, targets = self._mixed(batch, targets, draw)
        logits = self._machine.run(network, batch)
        loss = classification_loss(
            logits,
            targets.to(logits.device),
            self._weights,
            kind=objective.loss,
            label_smoothing=objective.label_smoothing,
            restricted=objective.restricted,
        )
        if self._teacher is None:
            return loss
        kept = distillation_loss(logits, self._teacher[samples].to(logits.device), objective.temperature)
        return loss + objective.distillation * kept

    def _mixed(
        self, batch: tuple[Tensor, ...], labels: Tensor, draw: np.random.Generator
    ) -> tuple[tuple[Tensor], Tensor]:
        if not batch[0].is_floating_point():
            raise ConfigError("mixup and cutmix are for images, and these samples are texts", "Leave them out")
        mixed, targets = mix(batch[0], one_hot(labels, self._classes), self._augmentation, draw)
        return (mixed,), targets


class ClassificationExam:
    """Labelled samples that are not trained on.

    Args:
        inputs: of n samples.
        labels: (n,).
        machine: where to compute.
        positive: the class to be found, where there are two.
        false_alarm_rate: at which its recall is told.

    Raises:
        DataError: there is no sample.
    """

    def __init__(
        self,
        inputs: Inputs,
        labels: NDArray[np.int64],
        machine: Machine,
        *,
        positive: int = 1,
        false_alarm_rate: float = 0.05,
    ) -> None:
        if len(labels) == 0:
            raise DataError("there is no sample to measure the quality on", "Hold out at least one")
        self._inputs = inputs
        self.labels = labels
        self._machine = machine
        self._positive = positive
        self._false_alarm_rate = false_alarm_rate

    def probabilities(self, network: nn.Module) -> NDArray[np.float64]:
        """Return the probability of each class, (n, classes)."""
        logits = answers(network, self._inputs, len(self.labels), self._machine)
        found: NDArray[np.float64] = logits.double().softmax(1).numpy()
        return found

    def quality(self, network: nn.Module) -> Quality:
        """Return what the network's answers are worth."""
        return measure(
            self.labels,
            self.probabilities(network),
            positive=self._positive,
            false_alarm_rate=self._false_alarm_rate,
        )


@torch.inference_mode()
def answers(network: nn.Module, inputs: Inputs, samples: int, machine: Machine) -> Tensor:
    """Return the logits of all samples in their first variant, (samples, classes), on the CPU."""
    found = [machine.run(network, inputs.batch(batch)).cpu() for batch in in_batches(samples, _BATCH)]
    return torch.cat(found)

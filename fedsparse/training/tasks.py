"""What is learnt: the loss of a batch, and the quality of the network's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsparse.config import AugmentationSettings, ObjectiveSettings
from fedsparse.errors import ConfigError
from fedsparse.training.inputs import Inputs
from fedsparse.training.losses import class_weights, classification_loss, distillation_loss, language_loss, one_hot
from fedsparse.training.machine import Machine
from fedsparse.training.metrics import Quality, measure
from fedsparse.training.mixing import mix

Positions = NDArray[np.int64]

_BATCH = 64


@dataclass(frozen=True)
class LanguageQuality:
    """What a language model's predictions are worth on one set of texts.

    Attributes:
        loss: mean cross-entropy of a token given those before it, in nats.
        accuracy: share of tokens that were the most probable.
        samples: number of texts.
    """

    loss: float
    accuracy: float
    samples: int


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
        self._inputs = inputs
        self._labels = torch.from_numpy(np.array(labels))
        self._classes = classes
        self._objective = objective
        self._augmentation = augmentation
        self._mixes = augmentation.mixup > 0 or augmentation.cutmix > 0
        self._machine = machine
        self._weights = class_weights(labels, classes, power=objective.balance).to(machine.device)
        self._teacher: Tensor | None = None

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
            mixed, targets = mix(batch[0], one_hot(targets, self._classes), self._augmentation, draw)
            batch = (mixed,)
        logits = self._machine.run(network, batch)
        loss = classification_loss(
            logits,
            targets.to(logits.device),
            self._weights,
            kind=objective.loss,
            label_smoothing=objective.label_smoothing,
        )
        if self._teacher is None or self._mixes:
            return loss
        kept = distillation_loss(logits, self._teacher[samples].to(logits.device), objective.temperature)
        return loss + objective.distillation * kept


class ClassificationExam:
    """Labelled samples that are not trained on.

    Args:
        inputs: of n samples.
        labels: (n,).
        machine: where to compute.
        positive: the class to be found, where there are two.
        false_alarm_rate: at which its recall is told.
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


class LanguageModelling:
    """Texts of which every token is to be predicted from those before it; trained on, or as an exam.

    Args:
        inputs: of the texts.
        samples: how many there are.
        objective: what is minimised.
        machine: where to compute.

    Raises:
        ConfigError: the objective asks for what is only defined for classes.
    """

    def __init__(self, inputs: Inputs, samples: int, objective: ObjectiveSettings, machine: Machine) -> None:
        for key in ("distillation", "label_smoothing"):
            if getattr(objective, key):
                raise ConfigError(f"objective.{key} is for classification, not for causal-lm", "Leave it out")
        if objective.loss != "cross-entropy":
            raise ConfigError(f"objective.loss = {objective.loss!r} is for classification", "Leave it out")
        self._inputs = inputs
        self.samples = samples
        self.variants = 1
        self._machine = machine

    def start(self, network: nn.Module) -> None:
        """Do nothing."""

    def loss(
        self,
        network: nn.Module,
        samples: NDArray[np.int64],
        variants: NDArray[np.int64],
        draw: np.random.Generator,
    ) -> Tensor:
        """Return the loss of one batch, ()."""
        batch = self._inputs.batch(samples)
        logits = self._machine.run(network, batch)
        ids, mask = (part.to(logits.device) for part in batch)
        return language_loss(logits, ids, mask)

    @torch.inference_mode()
    def quality(self, network: nn.Module) -> LanguageQuality:
        """Return what the network's predictions are worth."""
        loss, right, predicted = 0.0, 0, 0
        for samples in _batches(self.samples):
            batch = self._inputs.batch(samples)
            logits = self._machine.run(network, batch)
            ids, mask = (part.to(logits.device) for part in batch)
            wanted = mask[:, 1:].bool()
            count = int(wanted.sum())
            loss += float(language_loss(logits, ids, mask)) * count
            right += int((logits[:, :-1].argmax(2) == ids[:, 1:])[wanted].sum())
            predicted += count
        return LanguageQuality(loss / max(predicted, 1), right / max(predicted, 1), self.samples)


@torch.inference_mode()
def answers(network: nn.Module, inputs: Inputs, samples: int, machine: Machine) -> Tensor:
    """Return the logits of all samples in their first variant, (samples, classes), on the CPU."""
    found = [machine.run(network, inputs.batch(batch)).cpu() for batch in _batches(samples)]
    return torch.cat(found)


def _batches(samples: int) -> Sequence[NDArray[np.int64]]:
    return [np.arange(start, min(start + _BATCH, samples)) for start in range(0, samples, _BATCH)]

"""Language modelling: what a causal language model learns from texts, and what its predictions are worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsparse.config import ObjectiveSettings
from fedsparse.errors import ConfigError
from fedsparse.training.inputs import Inputs, in_batches
from fedsparse.training.losses import language_loss
from fedsparse.training.machine import Machine

_BATCH = 8  # texts: every token's logits are as many as the vocabulary has entries


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
        for samples in in_batches(self.samples, _BATCH):
            batch = self._inputs.batch(samples)
            logits = self._machine.run(network, batch)
            ids, mask = (part.to(logits.device) for part in batch)
            wanted = mask[:, 1:].bool()
            count = int(wanted.sum())
            loss += float(language_loss(logits, ids, mask)) * count
            right += int((logits[:, :-1].argmax(2) == ids[:, 1:])[wanted].sum())
            predicted += count
        return LanguageQuality(loss / max(predicted, 1), right / max(predicted, 1), self.samples)

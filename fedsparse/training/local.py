"""One round at one site: score the coordinates, train the best ones, return the delta."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from typing import Self

from fedsparse.adapters import Adapter
from fedsparse.config import AugmentationSettings, ObjectiveSettings, StageSettings
from fedsparse.delta import Mask, SparseDelta, TrainingSettings
from fedsparse.sparsity import Support, seeded_support
from fedsparse.training.engine import train
from fedsparse.training.inputs import Inputs, Part
from fedsparse.training.machine import Machine
from fedsparse.training.metrics import Quality
from fedsparse.training.samples import Labelled
from fedsparse.training.tasks import Classification, ClassificationExam

HELD_OUT = 0.15
"""Share of a site's samples that it never trains on."""

SPLIT_SEED = 0
_WARM_UP = 1 / 3  # of a round's steps: every round starts Adam anew, and the merge averages noise away anyhow


@dataclass(frozen=True)
class Trained:
    """What one round of local training yields.

    Attributes:
        delta: the trained values, operation ADD.
        loss: mean class-balanced cross-entropy over the round, in nats.
        received: quality of the state it started from, on the site's own hold-out.
        samples: samples trained on.
    """

    delta: SparseDelta
    loss: float
    received: Quality
    samples: int


def round_stage(settings: TrainingSettings) -> StageSettings:
    """Return one round as a stage of training."""
    named = {"structure": settings.structure.name.lower(), "allocation": settings.allocation.name.lower()}
    return StageSettings(
        name="round",
        epochs=settings.epochs,
        density=settings.density,
        learning_rate=settings.learning_rate,
        head_learning_rate=settings.head_learning_rate,
        warm_up=_WARM_UP,
        **named,  # type: ignore[arg-type] # validated by pydantic
    )


class LocalTrainer:
    """Trains sparse deltas on one site's samples; base model and inputs stay in memory between rounds.

    Args:
        adapter: on top of the base model; every round changes its state.
        samples: the site's labelled samples.
        inputs: what the network reads of them.
        augmentation: only its mixing is of interest here; the inputs are varied already.
    """

    def __init__(
        self,
        adapter: Adapter,
        samples: Labelled,
        inputs: Inputs,
        augmentation: AugmentationSettings | None = None,
    ) -> None:
        self.space = adapter.space
        self.samples = samples
        self.inputs = inputs
        self.adapter = adapter
        training, held_out = samples.split(HELD_OUT, SPLIT_SEED)
        machine = Machine()
        self._task = Classification(
            Part(inputs, training),
            samples.labels[training],
            len(samples.classes),
            ObjectiveSettings(restricted=True),
            augmentation or AugmentationSettings(),
            machine,
        )
        self._exam = ClassificationExam(Part(inputs, held_out), samples.labels[held_out], machine)

    def alone(self) -> Self:
        """Return the trainer of the same site outside a federation: no other speaks for classes that it lacks."""
        other = copy(self)
        other._task = self._task.unrestricted()
        return other

    def train(
        self, state: SparseDelta, settings: TrainingSettings, round: int, support: Support | None = None
    ) -> Trained:
        """Train from base + ``state`` for one round; the same arguments give the same delta on the same machine.

        From the untouched base the head is trained for an epoch before the coordinates are chosen.

        Args:
            state: operation SET against the untouched base.
            settings: how to train.
            round: decides, with ``settings.seed``, the order of the samples.
            support: the coordinates to train, where they are agreed on; chosen on the site's samples without.

        Raises:
            SpaceMismatchError: the state belongs to another space.
            ConfigError: the density is too small for the dense tensors, or for one row besides them.
        """
        stage = round_stage(settings)
        if settings.mask is Mask.SEEDED:
            support = self._drawn(settings, round)
        # The base's head is all zeros, and would give every other coordinate the score 0: it learns first.
        untouched = not state.tensors and bool(self.adapter.dense)
        head = stage.model_copy(update={"name": "head", "density": 0.0, "epochs": 1})
        received = self._exam.quality(self.adapter.load(state).network)
        outcome = train(
            self.adapter,
            self._task,
            state,
            [head, stage] if untouched else [stage],
            seed=(settings.seed, round),
            batch_size=settings.batch_size,
            support=support,
        )
        return Trained(outcome.delta, outcome.loss, received, self._task.samples)

    def _drawn(self, settings: TrainingSettings, round: int) -> Support:
        return seeded_support(
            self.space,
            settings.density,
            self.adapter.dense,
            settings.seed + (round - 1) // settings.revote,
            structure=settings.structure.name.lower(),  # type: ignore[arg-type] # one of both names
            allocation=settings.allocation.name.lower(),  # type: ignore[arg-type] # one of three names
        )

"""A planned federation: one set of samples, shared out among virtual plants again and again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fedsparse import config
from fedsparse.adapters import Adapter, build_adapter, load_base
from fedsparse.aggregation import Policy
from fedsparse.delta import Operation, SparseDelta, TrainingSettings, apply
from fedsparse.errors import ConfigError
from fedsparse.simulation.federation import Progress, federate
from fedsparse.simulation.plants import Stragglers
from fedsparse.simulation.population import draw_plants
from fedsparse.training import Evaluator, Inputs, LocalTrainer, prepare
from fedsparse.training.division import Division, divide
from fedsparse.training.features import Progress as Reading

ALONE = "each plant alone"


@dataclass(frozen=True)
class Population:
    """The plants of one draw.

    Attributes:
        trainers: those with enough samples.
        left_out: how many have too few, or only one class.
    """

    trainers: tuple[LocalTrainer, ...]
    left_out: int


class Study:
    """Samples, base model and adapter of a planned federation, read once.

    Args:
        settings: what is planned.
        reading: told of the base model's activations as they are computed.

    Raises:
        FedsparseError: data, base model or adapter are not right; says which.
    """

    def __init__(self, settings: config.SimulateConfig, reading: Reading | None = None) -> None:
        self._settings = settings
        self.division = _divided(settings)
        classes = self.division.training.classes
        base = load_base(settings.base, settings.adapter, classes, settings.task.kind)
        self.adapter: Adapter = build_adapter(base, settings.adapter)
        cache = settings.output / "cache"
        training, holdout = self.division.training, self.division.holdout
        self._inputs: Inputs = prepare(base, training, cache, settings.augmentation, reading)
        self._evaluator = Evaluator(self.adapter, holdout.labels, prepare(base, holdout, cache, None, reading))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all samples with their labels, and whether they are trained on; hex."""
        told = hashlib.sha256()
        for part in (self.division.training, self.division.holdout):
            for digest, label in zip(part.digests, part.labels.tolist(), strict=True):
                told.update(f"{digest} {part.classes[label]}\n".encode())
            told.update(b"\n")
        return told.hexdigest()

    def population(self, draw: int) -> Population:
        """Share the samples out among plants.

        Raises:
            ConfigError: no plant gets enough.
        """
        plants = self._settings.plants
        samples = self.division.training
        parts = draw_plants(samples.labels.tolist(), plants.count, plants.alpha, draw)
        enough = [
            part for part in parts if len(part) >= plants.min_samples and len(np.unique(samples.labels[part])) > 1
        ]
        if not enough:
            raise ConfigError(
                f"of {plants.count} plants, among which {len(samples)} samples are shared out, none gets "
                f"plants.min_samples = {plants.min_samples} of two classes",
                "Lower plants.count or plants.min_samples, or raise plants.alpha",
            )
        trainers = tuple(self._trainer(part) for part in enough)
        return Population(trainers, len(parts) - len(enough))

    def rounds(self, population: Population, rule: config.RuleName, draw: int) -> Iterator[Progress]:
        """Run one federation, a round at a time."""
        plants = self._settings.plants
        aggregation = self._settings.aggregation.model_copy(update={"rule": rule})
        return federate(
            population.trainers,
            self._evaluator,
            Policy.of(aggregation),
            self._settings.server,
            self._schedule(draw),
            participation=plants.participation,
            stragglers=Stragglers(plants.stragglers, plants.delay),
        )

    def alone(self, population: Population, draw: int, watch: Callable[[int, float], None]) -> list[float]:
        """Return the balanced accuracy of each plant that trains as many rounds by itself.

        Args:
            watch: told of each plant, from 0, and its accuracy.
        """
        scores = []
        for number, trainer in enumerate(one.alone() for one in population.trainers):
            state = SparseDelta.empty(trainer.space.fingerprint, Operation.SET)
            for turn, training in enumerate(self._schedule(draw), 1):
                state = apply(state, trainer.train(state, training, turn).delta)
            scores.append(self._evaluator.evaluate(state).balanced_accuracy)
            watch(number, scores[-1])
        return scores

    def _trainer(self, part: np.ndarray[tuple[int], np.dtype[np.int64]]) -> LocalTrainer:
        samples, inputs = self.division.training.subset(part), self._inputs.take(part)
        return LocalTrainer(self.adapter, samples, inputs, self._settings.augmentation)

    def _schedule(self, draw: int) -> tuple[TrainingSettings, ...]:
        given = self._settings.training
        return given.model_copy(update={"seed": given.seed + draw}).schedule(self._settings.plants.rounds)


def _divided(settings: config.SimulateConfig) -> Division:
    task = config.TaskSettings(kind=settings.task.kind, classes=settings.task.classes)
    training = config.TrainSettings(holdout=settings.test_share)
    return divide(config.TrainConfig(data=settings.data, holdout=settings.holdout, task=task, training=training))

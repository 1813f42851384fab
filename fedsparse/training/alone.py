"""What a site reaches by itself: the same rounds without a federation, to compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fedsparse.delta import Operation, SparseDelta, TrainingSettings, apply
from fedsparse.training.evaluator import Evaluator
from fedsparse.training.local import LocalTrainer
from fedsparse.training.metrics import Quality


def train_alone(
    trainer: LocalTrainer, schedule: Sequence[TrainingSettings], evaluator: Evaluator
) -> Iterator[Quality]:
    """Yield the quality on the evaluator's set after each round of local training, one per settings."""
    trainer = trainer.alone()
    state = SparseDelta.empty(trainer.space.fingerprint, Operation.SET)
    for number, settings in enumerate(schedule, 1):
        state = apply(state, trainer.train(state, settings, number).delta)
        yield evaluator.evaluate(state)

"""What a site reaches by itself: the same rounds without a federation, to compare."""

from __future__ import annotations

from collections.abc import Iterator

from fedsparse.delta import Operation, SparseDelta, TrainingSettings, apply
from fedsparse.training.evaluator import Evaluator
from fedsparse.training.local import LocalTrainer
from fedsparse.training.metrics import Quality


def train_alone(
    trainer: LocalTrainer, settings: TrainingSettings, rounds: int, evaluator: Evaluator
) -> Iterator[Quality]:
    """Yield the quality on the evaluator's set after each of ``rounds`` rounds of local training."""
    state = SparseDelta.empty(trainer.space.fingerprint, Operation.SET)
    for number in range(1, rounds + 1):
        state = apply(state, trainer.train(state, settings, number).delta)
        yield evaluator.evaluate(state)

"""Rounds of a federation, one plant after another in this process."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fedsparse.aggregation import Accumulator, Policy, admit
from fedsparse.delta import (
    AdapterSpace,
    Operation,
    Reason,
    RoundUpdate,
    SparseDelta,
    Structure,
    TrainingSettings,
    ValueCoding,
    apply,
    compensate,
    difference,
    encode,
    encode_update,
)
from fedsparse.training import Evaluator, LocalTrainer, Trained

_MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Progress:
    """A federation after one round.

    Attributes:
        round: from 1.
        balanced_accuracy: on the evaluator's set.
        plants: how many took part.
        bytes_up: mean bytes of one plant's update.
        bytes_down: of the change of the version, or of the version whole where that is shorter.
        values_up: mean number of values in one plant's update.
        union_density: share of the space's coordinates that the merged adapter holds.
    """

    round: int
    balanced_accuracy: float
    plants: int
    bytes_up: float
    bytes_down: int
    values_up: float
    union_density: float


def federate(
    trainers: Sequence[LocalTrainer],
    evaluator: Evaluator,
    policy: Policy,
    settings: TrainingSettings,
    rounds: int,
    *,
    participation: float = 1.0,
) -> Iterator[Progress]:
    """Yield what each of ``rounds`` rounds leads to; the same arguments give the same on the same machine.

    Args:
        trainers: the plants; all of one adapter space.
        evaluator: measures the merged adapter.
        policy: how updates merge.
        settings: how plants train; the seed also draws who takes part.
        participation: share of the plants that a round asks, at least one.

    Raises:
        FedsparseError: training fails at a plant; here nothing hides the reason.
    """
    space = trainers[0].space
    state = SparseDelta.empty(space.fingerprint, Operation.SET)
    residuals = [SparseDelta.empty(space.fingerprint, Operation.ADD)] * len(trainers)
    asked = max(1, round(participation * len(trainers)))
    for number in range(1, rounds + 1):
        draw = np.random.default_rng((settings.seed, number))
        accumulator = Accumulator(space)
        sizes, values = [], []
        for place in np.sort(draw.permutation(len(trainers))[:asked]).tolist():
            trained = trainers[place].train(state, settings, number)
            payload, residuals[place] = _answer(trained, residuals[place], space, settings, number)
            update = admit(payload, space, round=number, version=number - 1, max_bytes=_MAX_BYTES, max_density=1.0)
            accumulator.add(update)
            sizes.append(len(payload))
            values.append(update.nnz)
        before, state = state, apply(state, accumulator.result(policy))
        down = min(len(encode(delta, space, ValueCoding.FP32)) for delta in (difference(before, state), state))
        yield Progress(
            number,
            evaluator.evaluate(state).balanced_accuracy,
            asked,
            statistics.mean(sizes),
            down,
            statistics.mean(values),
            state.nnz / space.size,
        )


def _answer(
    trained: Trained, residual: SparseDelta, space: AdapterSpace, settings: TrainingSettings, number: int
) -> tuple[bytes, SparseDelta]:
    """Return a plant's update as it would be sent, and what stays behind."""
    most = max(1, int(settings.upload_density * space.size))
    rows = space if settings.structure is Structure.ROW else None
    sent, kept = compensate(trained.delta, residual, settings.value_coding, most=most, rows=rows)
    metrics = {
        "holdout_balanced_accuracy": trained.received.balanced_accuracy,
        "train_loss": trained.loss,
        "train_seconds": 0.1,  # of the size that it has on the wire; another number would differ from run to run
    }
    data = encode(sent, space, settings.value_coding)
    return encode_update(RoundUpdate(number, number - 1, trained.samples, data, Reason.NONE, metrics)), kept

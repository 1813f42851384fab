"""Rounds of a federation, one plant after another in this process."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from fedsparse.aggregation import Accumulator, Memory, Policy, Server, Standing, admit, voted
from fedsparse.config import ServerSettings
from fedsparse.delta import (
    AdapterSpace,
    Mask,
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
from fedsparse.sparsity import support_of
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
        bytes_down: of the step, of the version's change or of the version whole, whichever is shortest, and of the
            coordinates that are asked for, where they are.
        values_up: mean number of values in one plant's update.
        union_density: share of the space's coordinates that the merged adapter holds.
        state: the merged adapter, SET against the untouched base.
        standings: how each update looked beside the others, and which were left out; in no order of the plants.
    """

    round: int
    balanced_accuracy: float
    plants: int
    bytes_up: float
    bytes_down: int
    values_up: float
    union_density: float
    state: SparseDelta = field(repr=False)
    standings: tuple[Standing, ...]

    def told(self) -> dict[str, float]:
        """Return the figures alone, for a record; of the standings how many updates were left out."""
        figures = {name: value for name, value in vars(self).items() if isinstance(value, int | float)}
        return {**figures, "left_out": sum(one.reason is not None for one in self.standings)}


def federate(
    trainers: Sequence[LocalTrainer],
    evaluator: Evaluator,
    policy: Policy,
    server: ServerSettings,
    schedule: Sequence[TrainingSettings],
    *,
    participation: float = 1.0,
) -> Iterator[Progress]:
    """Yield what each round leads to; the same arguments give the same on the same machine.

    Args:
        trainers: the plants; all of one adapter space.
        evaluator: measures the merged adapter.
        policy: how updates merge.
        server: how what is merged becomes a step.
        schedule: how plants train, in each round; the seed also draws who takes part.
        participation: share of the plants that a round asks, at least one.

    Raises:
        FedsparseError: training fails at a plant; here nothing hides the reason.
    """
    space = trainers[0].space
    state = SparseDelta.empty(space.fingerprint, Operation.SET)
    residuals = [SparseDelta.empty(space.fingerprint, Operation.ADD)] * len(trainers)
    asked = max(1, round(participation * len(trainers)))
    dense = trainers[0].adapter.dense
    steps, memory = (
        Server(space, server, dense=dense, rows=schedule[0].structure is Structure.ROW),
        Memory.empty(space),
    )
    for number, settings in enumerate(schedule, 1):
        draw = np.random.default_rng((settings.seed, number))
        accumulator = Accumulator(space)
        sizes, values = [], []
        left = dict[bytes, tuple[int, SparseDelta]]()  # what updates leave behind, should they be merged
        agreed = voted(settings, number, memory, space)
        support = None if agreed is None else support_of(agreed, space)
        for place in np.sort(draw.permutation(len(trainers))[:asked]).tolist():
            trained = trainers[place].train(state, settings, number, support)
            payload, residual = _answer(trained, residuals[place], space, settings, number)
            update = admit(payload, space, round=number, version=number - 1, max_bytes=_MAX_BYTES, max_density=1.0)
            accumulator.add(update)
            left[update.digest] = (place, residual)
            sizes.append(len(payload))
            values.append(update.nnz)
        accumulator, standings = accumulator.reviewed(policy.limits)
        for place, residual in (left[one.digest] for one in standings if one.reason is None):
            residuals[place] = residual
        step = steps.step(state, accumulator.result(policy), memory)
        before, state, memory = state, apply(state, step.delta), step.memory
        if settings.mask is Mask.CONSENSUS and agreed is None:
            memory = replace(memory, agreed=accumulator.agreed(policy, int(settings.density * space.size), dense))
        ways = (encode(delta, space, ValueCoding.FP32) for delta in (difference(before, state), state))
        down = min(map(len, (step.data, *ways)))
        down += 0 if agreed is None else len(encode(agreed, space, ValueCoding.TERNARY))
        yield Progress(
            number,
            evaluator.evaluate(state).balanced_accuracy,
            asked,
            statistics.mean(sizes),
            down,
            statistics.mean(values),
            state.nnz / space.size,
            state,
            standings,
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

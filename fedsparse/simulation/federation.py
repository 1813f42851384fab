"""Rounds of a federation, one plant after another in this process."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from fedsparse.aggregation import Accumulator, Asked, Memory, Policy, Server, Standing, voted
from fedsparse.config import ServerSettings
from fedsparse.delta import (
    Mask,
    Operation,
    SparseDelta,
    Structure,
    TrainingSettings,
    ValueCoding,
    apply,
    difference,
    encode,
)
from fedsparse.errors import DeltaError
from fedsparse.simulation.plants import PUNCTUAL, Answer, Plants, Stragglers
from fedsparse.sparsity import support_of
from fedsparse.training import Evaluator, LocalTrainer


@dataclass(frozen=True)
class Progress:
    """A federation after one round.

    Attributes:
        round: from 1.
        balanced_accuracy: on the evaluator's set.
        plants: how many were asked.
        bytes_up: mean bytes of one plant's update.
        bytes_down: of the step, of the version's change or of the version whole, whichever is shortest, and of the
            coordinates that are asked for, where they are.
        values_up: mean number of values in one plant's update.
        union_density: share of the space's coordinates that the merged adapter holds.
        state: the merged adapter, SET against the untouched base.
        standings: how each update looked beside the others, and which were left out; in no order of the plants.
        late: how many of the merged updates were asked for in an earlier round.
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
    late: int = 0

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
    stragglers: Stragglers = PUNCTUAL,
) -> Iterator[Progress]:
    """Yield what each round leads to; the same arguments give the same on the same machine.

    Args:
        trainers: the plants; all of one adapter space.
        evaluator: measures the merged adapter.
        policy: how updates merge.
        server: how what is merged becomes a step.
        schedule: how plants train, in each round; the seed also draws who takes part.
        participation: share of the plants that a round asks, at least one.
        stragglers: how many of those answer late; one that does is not asked meanwhile.

    Raises:
        FedsparseError: training fails at a plant; here nothing hides the reason.
    """
    space, dense = trainers[0].space, trainers[0].adapter.dense
    state = SparseDelta.empty(space.fingerprint, Operation.SET)
    steps = Server(space, server, dense=dense, rows=schedule[0].structure is Structure.ROW)
    plants, memory = Plants(trainers, participation, stragglers), Memory.empty(space)
    for number, settings in enumerate(schedule, 1):
        agreed = voted(settings, number, memory, space)
        asked = b"" if agreed is None else encode(agreed, space, ValueCoding.TERNARY)
        now = Asked.of(settings, number, number - 1, asked)
        answers = plants.ask(now, settings, state, None if agreed is None else support_of(agreed, space))
        accumulator, merged = Accumulator(space), dict[bytes, Answer]()
        for answer in plants.arrived(now):
            if (weight := _weight(policy, answer.asked, now)) is not None:
                accumulator.add(answer.update, weight)
                merged[answer.update.digest] = answer
        accumulator, standings = accumulator.reviewed(policy.limits)
        plants.settle(merged[one.digest] for one in standings if one.reason is None)
        step = steps.step(state, accumulator.result(policy), memory)
        before, state, memory = state, apply(state, step.delta), step.memory
        if settings.mask is Mask.CONSENSUS and agreed is None:
            memory = replace(memory, agreed=accumulator.agreed(policy, int(settings.density * space.size), dense))
        ways = (encode(delta, space, ValueCoding.FP32) for delta in (difference(before, state), state))
        yield Progress(
            number,
            evaluator.evaluate(state).balanced_accuracy,
            len(answers),
            statistics.mean(answer.size for answer in answers),
            min(map(len, (step.data, *ways))) + len(asked),
            statistics.mean(answer.update.nnz for answer in answers),
            state.nnz / space.size,
            state,
            standings,
            sum(merged[one.digest].asked != now for one in standings if one.reason is None),
        )


def _weight(policy: Policy, asked: Asked, now: Asked) -> float | None:
    """Return what an update's values are multiplied by; None where it comes too late."""
    if asked == now:
        return 1.0
    if policy.late is None:
        return None
    try:
        return policy.late.weight(policy.late.staleness(asked, now))
    except DeltaError:
        return None

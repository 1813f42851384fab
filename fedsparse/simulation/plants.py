"""The virtual plants between rounds: what each has left behind, and who still works on an earlier round's task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from fedsparse.aggregation import Admitted, Asked, admit
from fedsparse.delta import (
    Operation,
    Reason,
    RoundUpdate,
    SparseDelta,
    Structure,
    TrainingSettings,
    compensate,
    encode,
    encode_update,
)
from fedsparse.sparsity import Support
from fedsparse.training import LocalTrainer

_MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Stragglers:
    """Plants whose answer arrives after its round was closed.

    Attributes:
        share: of the plants that a round asks, rounded down; below 1.
        delay: for how many rounds.
    """

    share: float = 0.0
    delay: int = 1


PUNCTUAL = Stragglers()
"""Nobody is late."""


@dataclass(frozen=True)
class Answer:
    """A plant's update.

    Attributes:
        place: the plant's.
        asked: what it answers.
        due: the round in which it arrives.
        update: as it was admitted.
        size: bytes on the wire.
        residual: what it leaves behind, should it be merged.
    """

    place: int
    asked: Asked
    due: int
    update: Admitted
    size: int
    residual: SparseDelta


class Plants:
    """Asks some of the plants in every round; who is late takes part again once its answer has arrived.

    Args:
        trainers: the plants; all of one adapter space.
        participation: share of the plants that a round asks, at least one.
        stragglers: how many of those answer late.
    """

    def __init__(self, trainers: Sequence[LocalTrainer], participation: float, stragglers: Stragglers) -> None:
        self._trainers = trainers
        self._space = trainers[0].space
        self._most = max(1, round(participation * len(trainers)))
        self._stragglers = stragglers
        self._residuals = [SparseDelta.empty(self._space.fingerprint, Operation.ADD)] * len(trainers)
        self._open: list[Answer] = []

    def ask(
        self, now: Asked, settings: TrainingSettings, state: SparseDelta, support: Support | None
    ) -> list[Answer]:
        """Return what the plants answer that a round asks, whenever that arrives.

        Args:
            now: the round.
            settings: how to train; the seed also draws who takes part.
            state: to train from.
            support: the coordinates to train, where they are agreed on.
        """
        draw = np.random.default_rng((settings.seed, now.round))
        busy = {answer.place for answer in self._open}
        drawn = [place for place in draw.permutation(len(self._trainers)).tolist() if place not in busy]
        chosen = drawn[: self._most]
        late = set(chosen[: int(self._stragglers.share * len(chosen))])
        answers = []
        for place in sorted(chosen):
            due = now.round + (self._stragglers.delay if place in late else 0)
            answers.append(self._answer(place, now, due, settings, state, support))
        self._open += answers
        return answers

    def arrived(self, now: Asked) -> list[Answer]:
        """Return the answers that arrive in a round; their plants are free again."""
        arrived = [answer for answer in self._open if answer.due <= now.round]
        self._open = [answer for answer in self._open if answer.due > now.round]
        return arrived

    def settle(self, merged: Iterable[Answer]) -> None:
        """Let count what merged updates left behind; of others the plant goes on as if they had not been."""
        for answer in merged:
            self._residuals[answer.place] = answer.residual

    def _answer(
        self,
        place: int,
        now: Asked,
        due: int,
        settings: TrainingSettings,
        state: SparseDelta,
        support: Support | None,
    ) -> Answer:
        trained = self._trainers[place].train(state, settings, now.round, support)
        most = max(1, int(settings.upload_density * self._space.size))
        rows = self._space if settings.structure is Structure.ROW else None
        sent, residual = compensate(
            trained.delta, self._residuals[place], settings.value_coding, most=most, rows=rows
        )
        metrics = {
            "holdout_balanced_accuracy": trained.received.balanced_accuracy,
            "train_loss": trained.loss,
            "train_seconds": 0.1,  # of its size on the wire; another number would differ from run to run
        }
        data = encode(sent, self._space, settings.value_coding)
        payload = encode_update(RoundUpdate(now.round, now.version, trained.samples, data, Reason.NONE, metrics))
        update = admit(
            payload, self._space, round=now.round, version=now.version, max_bytes=_MAX_BYTES, max_density=1.0
        )
        return Answer(place, now, due, update, len(payload), residual)

"""Tasks without end: each plant gets its next one as soon as the last is answered."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from hashlib import sha256

import numpy as np
from flwr.app import Message

from benchmarks.linking.messages import SPACE
from benchmarks.linking.operator import Operator
from fedsparse.delta import (
    Operation,
    Reason,
    RoundTask,
    RoundUpdate,
    SparseDelta,
    TensorDelta,
    TrainingSettings,
    ValueCoding,
    decode_task,
    encode,
    encode_task,
    encode_update,
)
from fedsparse.envelope import unwrap, wrap

_POLL_SECONDS = 0.02
_REFUSED_EVERY = 7  # so many answers, one is none that the gate lets out


class Load:
    """Sends and collects in a thread of its own.

    Args:
        operator: whose SuperLink it goes through.
        plants: who gets tasks.

    Attributes:
        issued: plant by task.
        answers: SHA-256 of every answer, by task; more than one where a task was answered more than once.
    """

    def __init__(self, operator: Operator, plants: Iterable[str]) -> None:
        self._operator = operator
        self._idle = list(plants)
        self._stop = threading.Event()
        self._round = 0
        self.issued: dict[str, str] = {}
        self.answers: dict[str, list[bytes]] = {}
        self.errors: list[str] = []
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def open(self) -> set[str]:
        """The tasks that are not answered yet."""
        return set(self.issued) - set(self.answers)

    def stop(self, seconds: float) -> None:
        """Issue no more; wait so long for the answers to those that are open."""
        self._stop.set()
        self._thread.join(seconds)

    def _work(self) -> None:
        while not self._stop.is_set() or self.open:
            if not self._stop.is_set():
                self._issue()
            for answer in self._operator.grid.pull_messages(self.open):
                self._take(answer)
            time.sleep(_POLL_SECONDS)

    def _issue(self) -> None:
        nodes = {plant: self._operator.node(plant) for plant in self._idle}
        if not nodes:
            return
        self._round += 1
        messages = [Message(wrap(_task(self._round)), node, "train", group_id="1") for node in nodes.values()]
        for plant, task_id in zip(nodes, self._operator.grid.push_messages(messages), strict=True):
            if task_id:  # otherwise the plant's node has just been replaced: it gets another task
                self.issued[task_id] = plant
                self._idle.remove(plant)

    def _take(self, answer: Message) -> None:
        task_id = answer.metadata.reply_to_message_id
        if answer.has_content():
            self.answers.setdefault(task_id, []).append(sha256(unwrap(answer)).digest())
        else:
            self.answers.setdefault(task_id, [])
            self.errors.append(f"task {task_id[:12]}: error {answer.error.code}: {answer.error.reason}")
        self._idle.append(self.issued[task_id])


def _task(round: int) -> bytes:
    training = TrainingSettings(1.0, 1, 8, 1e-3, 1e-3, round)
    return encode_task(RoundTask(round, SPACE.fingerprint, 0, 0, (), b"", b"", b"", training))


class Answers:
    """What a plant's trainer would answer: another update every time, now and then something that may not leave.

    Args:
        seed: of its values.
    """

    def __init__(self, seed: int) -> None:
        self._draw = np.random.default_rng(seed)
        self.given: Counter[str] = Counter()

    def __call__(self, payload: bytes) -> bytes:
        """Answer the task in ``payload``."""
        asked = decode_task(payload, max_bytes=len(payload))
        self.given["all"] += 1
        if self.given["all"] % _REFUSED_EVERY == 0:
            return self._draw.bytes(200)
        values = self._draw.standard_normal(2).astype(np.float32)
        part = TensorDelta(0, np.array([1, 5], np.int64), values)
        delta = encode(SparseDelta(SPACE.fingerprint, Operation.ADD, (part,)), SPACE, ValueCoding.FP32)
        return encode_update(RoundUpdate(asked.round, asked.version, 100, delta, Reason.NONE))

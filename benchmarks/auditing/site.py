"""A plant's gateway with its real desk, gate and ledger, a SuperNode that does what it likes, and no hub."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import Empty

import numpy as np
from fedsparse_client.gateway.desk import Answer, Desk
from fedsparse_client.gateway.fleet import FleetApi
from fedsparse_client.gateway.gate import Gate
from flwr.app import Message
from starlette.testclient import TestClient

from fedsparse.audit import EgressPolicy, EntryKind, Ledger, Recorded
from fedsparse.bundle import bundle_sha256
from fedsparse.config import EgressSettings
from fedsparse.delta import (
    AdapterSpace,
    Operation,
    Reason,
    RoundTask,
    RoundUpdate,
    SparseDelta,
    TensorDelta,
    TensorSpec,
    TrainingSettings,
    ValueCoding,
    encode,
    encode_task,
    encode_update,
    quantise,
)
from fedsparse.envelope import wrap
from fedsparse.errors import EgressRefusedError
from fedsparse.v1 import ledger_pb2, link_pb2
from tests.unit.test_gateway_fleet import SuperNode

SPACE = AdapterSpace(
    bytes(range(32)), (TensorSpec("conv.weight", (500, 100)), TensorSpec("head.weight", (500, 100)))
)
TRAINING = TrainingSettings(
    density=0.05, epochs=1, batch_size=8, learning_rate=1e-3, head_learning_rate=1e-3, seed=7
)
SAMPLES = 120
_BODY_BYTES = 1 << 25
Reply = Callable[[Message], Message]


@dataclass(frozen=True)
class Outcome:
    """What became of an answer.

    Attributes:
        left: the exact bytes that may be sent; empty where nothing may.
        whole: whether they are what the SuperNode had answered.
        rule: that refused it, as the ledger has it; empty where none did.
        recorded: whether the ledger has what left, byte by byte, and what was refused.
    """

    left: bytes
    whole: bool
    rule: str
    recorded: bool


class Site:
    """Takes answers in as a gateway does, one round after the other.

    Args:
        folder: for the ledger.
        settings: the policy.
    """

    def __init__(self, folder: Path, settings: EgressSettings | None = None) -> None:
        self.settings = settings or EgressSettings()
        self.ledger = Ledger(folder, bytes(32), "kiso")
        self.ledger.set_space(SPACE)
        self.gate = Gate(EgressPolicy(self.settings), self.ledger, "hub.example:9443")
        self.desk = Desk(self.settings.max_update_bytes + (1 << 16))
        self.node = SuperNode(TestClient(FleetApi(self.desk, _BODY_BYTES).application()), self.desk)
        self.round = 0

    def close(self) -> None:
        """Close the ledger."""
        self.ledger.__exit__(None, None, None)

    def next_round(self) -> link_pb2.Task:
        """Return the task of a new round."""
        self.round += 1
        return self.task()

    def task(self) -> link_pb2.Task:
        """Return one more task of this round."""
        asked = RoundTask(self.round, SPACE.fingerprint, 0, 0, (), b"", b"", b"", TRAINING)
        number = f"{self.ledger.size:064x}"
        return link_pb2.Task(
            task_id=number, run_id=7, bundle_sha256=bundle_sha256(), round_task=encode_task(asked)
        )

    def answer(self, payload: bytes) -> Outcome:
        """Answer a new round with these bytes."""
        return self.judge(Answer(self.next_round(), payload))

    def judge(self, answer: Answer) -> Outcome:
        """Pass an answer through the gate."""
        before = self.ledger.size
        try:
            recorded = self.gate.decide(answer, SPACE)
        except EgressRefusedError as error:
            return Outcome(b"", False, error.rule, self.ledger.size > before)
        entries = list(self.ledger.entries(before + 1))
        rules = [entry.rule for entry in entries if int(entry.kind) == EntryKind.REFUSED]
        whole = recorded.payload == answer.payload
        return Outcome(recorded.payload, whole, rules[-1] if rules else "", self._has(recorded, entries))

    def reply(self, make: Reply) -> Outcome:
        """Give a SuperNode a new task, and take in whatever it pushes."""
        self.desk.offer(self.next_round())
        task = self.node.pull()
        self.node.push(make(task))
        try:
            return self.judge(self.desk.answers.get(timeout=1))
        except Empty:
            return Outcome(b"", False, "the desk takes none", True)

    def _has(self, recorded: Recorded, entries: list[ledger_pb2.LedgerEntry]) -> bool:
        last = entries[-1]
        kept = self.ledger.payload(last.payload_sha256)
        return (last.sequence, kept) == (recorded.sequence, recorded.payload)


def change(count: int, seed: int, coding: ValueCoding = ValueCoding.FP32) -> SparseDelta:
    """Return an honest change of so many values."""
    draw = np.random.default_rng(seed)
    tensors = []
    for position in range(2):
        indices = np.sort(draw.choice(50_000, count // 2, replace=False)).astype(np.int64)
        values = (draw.standard_normal(count // 2) * 0.01).astype(np.float32)
        tensors.append(TensorDelta(position, indices, values))
    return quantise(SparseDelta(SPACE.fingerprint, Operation.ADD, tuple(tensors)), coding, seed)


def update(
    number: int,
    delta: SparseDelta | bytes,
    coding: ValueCoding = ValueCoding.FP32,
    samples: int = SAMPLES,
    metrics: dict[str, float] | None = None,
) -> bytes:
    """Return an update of round ``number``."""
    encoded = delta if isinstance(delta, bytes) else encode(delta, SPACE, coding)
    return encode_update(RoundUpdate(number, 0, samples, encoded, Reason.NONE, metrics or {}))


def replying(payload: bytes) -> Reply:
    """Return what answers a task with a payload, as the app does."""
    return lambda task: Message(wrap(payload), reply_to=task)

"""A strategy at work between plants that answer when a test says so; only Flower behind it is a stand-in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from fedsparse_server.grid import PromptGrid
from fedsparse_server.strategy import Operator, SparseDeltaStrategy
from flwr.app import ArrayRecord, ConfigRecord, Error, Message
from flwr.serverapp import Grid

from fedsparse import config
from fedsparse.aggregation import Policy
from fedsparse.delta import AdapterSpace, RoundTask, SparseDelta, decode_task
from fedsparse.envelope import unwrap, wrap
from fedsparse.events import EventLog
from fedsparse.registry import Registry
from fedsparse.security import Role
from tests.unit.federation_samples import SPACE, Pki, change, settings, update

KISO, ISE, TENRYU = 1, 2, 3
NAMES = {KISO: "kiso", ISE: "ise", TENRYU: "tenryu", 9: "ise"}
MERGE = 'late = "merge"\nstaleness_exponent = 0.5\nmax_staleness = 2'


class FakeFlower:
    """As Flower's grid, without a SuperLink: keeps messages, and the answers that a test gives to them."""

    def __init__(self) -> None:
        self.nodes = [KISO, ISE, TENRYU]
        self.sent: dict[str, Message] = {}
        self.tasks: dict[int, RoundTask] = {}  # the last of each node
        self.newest: dict[int, str] = {}
        self.answers: dict[str, Message] = {}
        self.full = False  # takes no message

    def get_node_ids(self) -> list[int]:
        return self.nodes

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        names: list[str] = []
        for message in [] if self.full else messages:
            node, name = message.metadata.dst_node_id, f"m{len(self.sent)}"
            message.metadata.__dict__["_message_id"] = name
            self.sent[name], self.newest[node] = message, name
            payload = unwrap(message)
            self.tasks[node] = decode_task(payload, max_bytes=len(payload))
            names.append(name)
        return names

    def pull_messages(self, names: Iterable[str]) -> list[Message]:
        return [self.answers.pop(name) for name in names if name in self.answers]

    def answer(self, node: int, payload: bytes, name: str = "") -> None:
        name = name or self.newest[node]
        self.answers[name] = Message(wrap(payload), reply_to=self.sent[name])

    def fail(self, node: int) -> None:
        """Answer in the SuperLink's name, as where a message has expired."""
        name = self.newest[node]
        reply = Message(Error(code=1, reason="gone"), reply_to=self.sent[name])
        reply.metadata.__dict__["_src_node_id"] = 99
        self.answers[name] = reply


@dataclass
class Bench:
    """A strategy between rounds."""

    folder: Path
    flower: FakeFlower
    strategy: SparseDeltaStrategy
    grid: PromptGrid
    registry: Registry
    deltas: Iterator[SparseDelta] = field(default_factory=lambda: (change(n, n + 1) for n in range(0, 98, 2)))

    def start(self) -> None:
        """Begin a round, and let its tasks lie at the plants."""
        messages = self.strategy.configure_train(2, ArrayRecord(), ConfigRecord(), self.grid)
        self.grid.send_and_receive(messages, timeout=0.0)

    def finish(self, *nodes: int) -> None:
        """End a round with the answers of these plants, and whatever lies at Flower."""
        for node in nodes:
            self.flower.answer(node, self.update(node))
        for reply in self.flower.pull_messages(list(self.grid._waiting)):
            self.grid._tell(reply)
        self.strategy.aggregate_train(2, ())

    def update(self, node: int, delta: SparseDelta | None = None, **more: Any) -> bytes:
        task = self.flower.tasks[node]
        return update(delta or next(self.deltas), task.round, task.version, **more)

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = map(json.loads, (self.folder / "events.jsonl").read_text().splitlines())
        return [line for line in lines if line["event"] == kind]

    def plants(self) -> dict[str, dict[str, Any]]:
        """Return what the last committed round says of each plant."""
        return {plant["plant"]: plant for plant in self.events("round_committed")[-1]["plants"]}


def made(pki: Pki, folder: Path, late: str = MERGE, training: str = "", space: AdapterSpace = SPACE) -> Bench:
    path = settings(folder, ("kiso", "ise", "tenryu"))
    text = f"[training]\ndensity = 0.2\n{training}\n[aggregation]\nrule = 'holders-mean'\n{late}\n"
    text += "[server]\nvalue_coding = 'fp32'\n[rounds]\nmin_plants = 1\n"
    path.write_text(path.read_text() + text)
    loaded = config.load(path, config.FederationConfig)
    registry, flower = Registry(folder / "registry", space), FakeFlower()
    signer = pki.credentials(Role.HUB, "hub")
    strategy = SparseDeltaStrategy(
        loaded,
        space,
        registry,
        Policy.of(loaded.aggregation),
        EventLog(folder / "events.jsonl"),
        Operator(lambda: signer, NAMES.__getitem__, None),
    )
    grid = PromptGrid(cast(Grid, flower), lambda: None, strategy.receive, strategy.wants_late, strategy.not_sent)
    return Bench(folder, flower, strategy, grid, registry)

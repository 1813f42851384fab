"""The operator's Flower ServerApp: reads federation.toml and runs the strategy from the last version on."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp

from fedsparse import config
from fedsparse.aggregation import Policy
from fedsparse.delta import AdapterSpace, Operation, SparseDelta
from fedsparse.events import EventLog
from fedsparse.processes import die_with_parent
from fedsparse.registry import Registry
from fedsparse.security import Credentials, LiveCredentials, Role
from fedsparse.v1 import link_pb2
from fedsparse_server import evaluation
from fedsparse_server.bell import ring
from fedsparse_server.grid import PromptGrid
from fedsparse_server.heads import sign_head_anew
from fedsparse_server.strategy import Operator, SparseDeltaStrategy

CONFIG_VARIABLE = "FEDSPARSE_FEDERATION"

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds that are left."""
    die_with_parent()  # an orphan must not commit versions beside its successor
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    settings = config.load(Path(os.environ[CONFIG_VARIABLE]), config.FederationConfig)
    events = EventLog(settings.state / "events.jsonl")
    federation = link_pb2.Federation.FromString((settings.state / "federation.pb").read_bytes())
    space = AdapterSpace.from_proto(federation.space)
    operator = _operator(settings, space)
    registry = Registry(settings.state / "registry", space)
    if sign_head_anew(registry, operator.signer(), settings.hub.identity):
        events.emit("phase", name="signed anew", detail=f"version {registry.head()}")
    strategy = SparseDeltaStrategy(
        settings,
        space,
        registry,
        Policy.of(settings.aggregation),
        events,
        operator,
    )
    rounds = strategy.rounds_left()
    if rounds < settings.rounds.count:
        events.emit("phase", name="resuming", detail=f"{rounds} rounds are left")
    elif operator.evaluate is not None:
        untouched = SparseDelta.empty(space.fingerprint, Operation.SET)
        events.emit("baseline", **operator.evaluate(untouched))
    strategy.start(
        PromptGrid(grid, lambda: ring(settings.state), strategy.receive, strategy.wants_late, strategy.not_sent),
        ArrayRecord(),
        num_rounds=rounds,
        timeout=settings.rounds.deadline_seconds,
    )
    events.emit("run_finished", rounds=settings.rounds.count - strategy.rounds_left())


def _operator(settings: config.FederationConfig, space: AdapterSpace) -> Operator:
    credentials = LiveCredentials(settings.hub.identity, Role.HUB, logging.getLogger("hub").error)
    roster = settings.state / "roster.json"

    def name_of(node: int) -> str:
        nodes: dict[str, str] = json.loads(roster.read_text())["nodes"]
        return nodes.get(str(node), f"node {node}")

    def signer() -> Credentials:
        credentials.renew()
        return credentials.current

    return Operator(
        signer=signer,
        name_of=name_of,
        evaluate=evaluation.connect(settings, space) if settings.evaluation else None,
    )

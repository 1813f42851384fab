"""The operator's side: SuperLink and hub as real processes, and a driver in the ServerApp's place."""

from __future__ import annotations

import hashlib
import json
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from fedsparse_server.bell import ring
from fedsparse_server.grid import PromptGrid
from flwr.app import Message, RecordDict
from flwr.common.serde import fab_to_proto, run_from_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.proto.runtime_pb2 import AcquireTaskRequest, PullTaskInputRequest, SendTaskHeartbeatRequest
from flwr.supercore.auth import load_superexec_auth_secret
from flwr.supercore.constant import TaskType
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.grid.http_grid import HttpGrid

from benchmarks.linking.certificates import Certificates
from benchmarks.linking.messages import federation
from benchmarks.linking.waiting import eventually
from fedsparse.bundle import build_bundle
from fedsparse.errors import ProcessError
from fedsparse.processes import FLOWER_ENVIRONMENT, Child, free_port, script, stop_all
from fedsparse.security import HUB_ENVIRONMENT, Role

MAX_UPDATE_BYTES = 256 << 20
_START_SECONDS = 120.0
_BEAT_SECONDS = 10.0


@dataclass
class Round:
    """What became of messages that were sent together; every time by the monotonic clock.

    Attributes:
        started: before anything was handed to the SuperLink.
        sent: all of it lay there.
        answers: from the node to when its answer was in the driver's hands.
        errors: what Flower said in place of an answer.
    """

    started: float
    sent: float = 0.0
    answers: dict[int, float] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Until the last answer."""
        return max(self.answers.values()) - self.started


class Operator:
    """SuperLink, hub and driver.

    Args:
        folder: everything is written below it.
        certificates: of hub and plants.
        plants: who is let in.
    """

    def __init__(self, folder: Path, certificates: Certificates, plants: Sequence[str]) -> None:
        self.folder = folder
        self.state = folder / "state"
        self.address = f"127.0.0.1:{free_port()}"
        self.superlink = f"127.0.0.1:{free_port()}"
        self._certificates = certificates
        self._plants = plants
        self._children: list[Child] = []
        self._stopping = threading.Event()

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            stop_all(self._children)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        stop_all(self._children)

    def spawn(self, name: str, command: list[str], environment: Mapping[str, str] | None = None) -> Child:
        """Start one more process that ends with the operator's."""
        more = {"FLWR_HOME": str(self.folder / f"flwr-{name}"), **(environment or {})}
        child = Child(name, command, self.folder / f"{name}.log", {**FLOWER_ENVIRONMENT, **more})
        self._children.append(child)
        return child

    def _start(self) -> None:
        secret = self._write()
        port = self.superlink.rpartition(":")[2]
        self.superlink_process = self.spawn(
            "superlink",
            [
                *[script("flower-superlink"), "--insecure", "--host", "127.0.0.1", "--port", port],
                *["--disable-runtime-dependency-installation", "--isolation", "process"],
                *["--superexec-auth-secret-file", str(secret)],
            ],
        )
        self.superlink_process.wait_until(self._superlink_answers, _START_SECONDS)
        hub = [script("python"), "-u", "-m", "fedsparse_server.hub"]
        settings = ["--config", str(self.folder / "federation.toml"), "--superlink", self.superlink]
        self.hub_process = self.spawn("hub", [*hub, *settings], dict(HUB_ENVIRONMENT))
        self.hub_process.wait_until((self.state / "hub.ready").exists, _START_SECONDS)
        self._become_driver(secret)

    def _write(self) -> Path:
        self.state.mkdir(parents=True)
        (self.state / "federation.pb").write_bytes(federation().SerializeToString())
        home = self._certificates.home(Role.HUB, "hub")
        text = _FEDERATION.format(
            listen=self.address, plants=json.dumps(list(self._plants)), home=home, limit=MAX_UPDATE_BYTES
        )
        (self.folder / "federation.toml").write_text(text, encoding="utf-8")
        secret = self.folder / "runtime.secret"
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_hex(32))
        return secret

    def _superlink_answers(self) -> bool:
        try:
            return httpx.get(f"http://{self.superlink}/health", timeout=1.0).status_code < 500
        except httpx.HTTPError:
            return False

    def _become_driver(self, secret: Path) -> None:
        """Submit the product's own bundle and take the place of its ServerApp, as Flower's executor would."""
        control = ControlHttpClient.from_server_address(
            self.superlink, insecure=True, root_certificates=None, interceptors=[]
        )
        bundle = build_bundle()
        control.StartRun(StartRunRequest(fab=fab_to_proto(Fab(hashlib.sha256(bundle).hexdigest(), bundle, {}))))
        control.close()
        grid = HttpGrid(self.superlink, insecure=True, token=self._acquire(secret))
        runtime = grid._runtime_client
        threading.Thread(target=self._beat, args=(runtime,), daemon=True).start()
        given = runtime.PullTaskInput(PullTaskInputRequest())
        TaskIdentity.task_id, TaskIdentity.run_id = given.task_id, given.run.run_id
        TaskIdentity.node_id = given.context.node_id
        grid.set_run(run_from_proto(given.run))
        self._round = Round(0.0)
        self.grid = PromptGrid(grid, self._on_sent, self._on_reply)

    def _beat(self, runtime: RuntimeHttpClient) -> None:
        """Tell the SuperLink that the driver lives, and outlive one that does not hear it."""
        while not self._stopping.wait(_BEAT_SECONDS):
            with suppress(httpx.HTTPError, RuntimeError):
                runtime.SendTaskHeartbeat(SendTaskHeartbeatRequest())

    def _acquire(self, secret: Path) -> str:
        client = RuntimeHttpClient.from_server_address(
            server_address=self.superlink,
            insecure=True,
            root_certificates=None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperExec"),
                SuperExecAuthHttpInterceptor(
                    master_secret=load_superexec_auth_secret(secret_file=str(secret)) or b"",
                    protected_methods=frozenset({"/flwr.proto.Runtime/AcquireTask"}),
                ),
            ],
        )
        request = AcquireTaskRequest(supported_task_types=[TaskType.SERVER_APP])
        end = time.monotonic() + _START_SECONDS
        try:
            while time.monotonic() < end:
                if token := client.AcquireTask(request).token:
                    return str(token)
                time.sleep(0.1)
        finally:
            client.close()
        raise ProcessError("the SuperLink has no task for its ServerApp")

    def _on_sent(self) -> None:
        self._round.sent = time.monotonic()
        ring(self.state)

    def _on_reply(self, reply: Message) -> None:
        if reply.has_content():
            self._round.answers[reply.metadata.src_node_id] = time.monotonic()
        else:
            self._round.errors.append(f"error {reply.error.code} in place of an answer: {reply.error.reason}")

    def round(self, contents: Mapping[int, RecordDict], timeout: float = 120.0) -> Round:
        """Send each node its content and wait for all answers.

        Raises:
            ProcessError: not all came in time.
        """
        found = self.try_round(contents, timeout)
        if len(found.answers) < len(contents):
            told = f"{len(found.answers)} of {len(contents)} nodes answered in {timeout:.0f} s"
            raise ProcessError("; ".join([told, *found.errors]))
        return found

    def try_round(self, contents: Mapping[int, RecordDict], timeout: float) -> Round:
        """Do the same, but take what came in time."""
        self._round = Round(time.monotonic())
        messages = [Message(content, node, "train", group_id="1") for node, content in contents.items()]
        self.grid.send_and_receive(messages, timeout=timeout)
        return self._round

    @property
    def last(self) -> Round:
        """The round that was begun last."""
        return self._round

    def roster(self) -> dict[str, Any]:
        """Return who is present, as the hub wrote it."""
        try:
            found: dict[str, Any] = json.loads((self.state / "roster.json").read_text())
        except OSError:
            return {"nodes": {}, "present": []}
        return found

    def node(self, plant: str) -> int:
        """Return the Flower node of a plant, once it is present."""
        eventually(lambda: plant in self.roster()["present"], f"{plant} in the roster", _START_SECONDS)
        return [int(node) for node, owner in self.roster()["nodes"].items() if owner == plant][-1]  # the newest

    def lost(self) -> int:
        """Return how often the hub said that a plant has left."""
        path = self.state / "events.jsonl"
        return path.read_text().count('"plant_lost"') if path.exists() else 0


_FEDERATION = """\
[federation]
name = "bench"
classes = ["good", "bad"]

[hub]
listen = "{listen}"
plants = {plants}
max_update_bytes = {limit}

[hub.identity]
certificate = "{home}/hub.pem"
key = "{home}/hub.key"
authority = "{home}/ca.pem"
"""

"""`fedsparse server up`: starts the operator's processes in order, submits the run, resumes it if it fails."""

from __future__ import annotations

import fcntl
import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import httpx
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import ListRunsRequest, StartRunRequest
from flwr.proto.run_pb2 import RunStatus
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.fab import Fab

from fedsparse import config
from fedsparse.bundle import build_bundle
from fedsparse.errors import ProcessError
from fedsparse.events import EventLog
from fedsparse.processes import FLOWER_ENVIRONMENT, Child, free_port, script, stop_all
from fedsparse.security import Role, load_credentials
from fedsparse.security.handshakes import VERBOSITY
from fedsparse_server.app import CONFIG_VARIABLE

_ATTEMPTS = 5  # runs without a single new version before the supervisor gives up


class ServerSupervisor:
    """The operator's side as one thing that starts, runs and stops.

    Args:
        path: federation.toml.
        settings: the same, read and validated.
        say: told of each phase, for people.
    """

    def __init__(self, path: Path, settings: config.FederationConfig, say: Callable[[str], None]) -> None:
        self._path = path
        self._settings = settings
        self._say = say
        self._children: list[Child] = []
        self._superlink = f"127.0.0.1:{free_port()}"
        self.events = EventLog(settings.state / "events.jsonl")

    @property
    def superlink(self) -> str:
        """Address of Flower's SuperLink on loopback."""
        return self._superlink

    def start(self) -> None:
        """Start evaluator, SuperLink and hub, each once what it needs is there.

        Raises:
            FedsparseError: a setting, a certificate or a process is not right; says which.
        """
        settings = self._settings
        identity = settings.hub.identity
        load_credentials(identity.certificate, identity.key, identity.authority, Role.HUB)
        settings.state.mkdir(parents=True, exist_ok=True)
        self._take_state()
        for name in ("evaluator.ready", "hub.ready", "federation.pb"):
            (settings.state / name).unlink(missing_ok=True)
        self._say("loading the base model")
        evaluator = self._spawn("evaluator", [*self._module("evaluation"), "--config", str(self._path)])
        superlink = self._spawn(
            "superlink",
            [
                *[script("flower-superlink"), "--insecure", "--host", "127.0.0.1"],
                *["--port", self._superlink.rpartition(":")[2]],
                *["--database", str(settings.state / "superlink.db")],
                "--disable-runtime-dependency-installation",
            ],
        )
        evaluator.wait_until((settings.state / "federation.pb").exists, timeout=300)
        self._say("starting SuperLink and hub")
        superlink.wait_until(self._superlink_answers, timeout=120)
        hub = self._spawn(
            "hub",
            [*self._module("hub"), "--config", str(self._path), "--superlink", self._superlink],
        )
        hub.wait_until((settings.state / "hub.ready").exists, timeout=60)
        if settings.evaluation is not None:
            self._say("reading the held-out test set")
            evaluator.wait_until((settings.state / "evaluator.ready").exists, timeout=1800)

    def run(self, watch: Callable[[], None]) -> None:
        """Submit the run and wait for its rounds; submit again from the last version if it fails.

        Args:
            watch: called a few times a second.

        Raises:
            ProcessError: one of the processes stopped, or attempts no longer bring a new version.
        """
        client = self._control()
        try:
            for _ in range(_ATTEMPTS):
                run_id = self._submit(client)
                while (status := self._status(client, run_id)).status != "finished":
                    watch()
                    for child in self._children:
                        if child.name != "evaluator" or self._settings.evaluation is not None:
                            child.require_running()
                    time.sleep(0.3)
                watch()
                if self._finished():
                    return
                self._say(f"run {run_id} ended as {status.sub_status} before its last round: {status.details}")
        finally:
            client.close()
        raise ProcessError(
            f"the run failed {_ATTEMPTS} times",
            f"Read {self._settings.state / 'logs' / 'superlink.log'}",
        )

    def stop(self) -> None:
        """Stop everything that was started."""
        stop_all(self._children)
        self._children.clear()

    def _take_state(self) -> None:
        """Hold the state folder until this process ends: two servers would commit versions beside each other."""
        self._lock = (self._settings.state / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ProcessError(
                f"another server runs on the state folder {self._settings.state}",
                "Stop it first, or name another folder with `state`",
            ) from None

    def _module(self, name: str) -> list[str]:
        return [script("python"), "-u", "-m", f"fedsparse_server.{name}"]

    def _spawn(self, name: str, command: list[str]) -> Child:
        state = self._settings.state
        child = Child(
            name,
            command,
            state / "logs" / f"{name}.log",
            {
                **FLOWER_ENVIRONMENT,
                **(VERBOSITY if name == "hub" else {}),
                "FLWR_HOME": str(state / "flwr"),
                CONFIG_VARIABLE: str(self._path),
            },
        )
        self._children.append(child)
        return child

    def _superlink_answers(self) -> bool:
        try:
            return httpx.get(f"http://{self._superlink}/health", timeout=1.0).status_code < 500
        except httpx.HTTPError:
            return False

    def _control(self) -> ControlHttpClient:
        return ControlHttpClient.from_server_address(
            self._superlink, insecure=True, root_certificates=None, interceptors=[]
        )

    def _submit(self, client: ControlHttpClient) -> int:
        bundle = build_bundle()
        fab = Fab(hashlib.sha256(bundle).hexdigest(), bundle, {})
        reply = client.StartRun(StartRunRequest(fab=fab_to_proto(fab)))
        if not reply.HasField("run_id"):
            raise ProcessError("the SuperLink refused the run", "Read superlink.log in the state folder")
        return int(reply.run_id)

    def _status(self, client: ControlHttpClient, run_id: int) -> RunStatus:
        return client.ListRuns(ListRunsRequest(run_id=run_id)).run_dict[run_id].status

    def _finished(self) -> bool:
        from fedsparse.registry import Registry

        folder = self._settings.state / "registry"
        if not folder.exists():
            return False
        versions = Registry.open(folder).versions()
        return bool(versions) and versions[-1].round >= self._settings.rounds.count

"""`fedsparse server up`: starts the operator's processes in order, submits the run, resumes it if it fails."""

from __future__ import annotations

import hashlib
import os
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
from fedsparse.files import hold, private_folder, require_socket_path
from fedsparse.processes import FLOWER_ENVIRONMENT, HUB_LOOPBACK, Child, free_port, past_proxies, script, stop_all
from fedsparse.registry import Registry
from fedsparse.security import HUB_ENVIRONMENT, Role, load_credentials
from fedsparse_server.app import CONFIG_VARIABLE
from fedsparse_server.evaluation import socket_path

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
        os.environ.update(past_proxies())  # Flower's client for SuperLink has no setting for it
        self._superlink = f"{HUB_LOOPBACK}:{free_port(HUB_LOOPBACK)}"
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
        if due := load_credentials(settings.hub.identity, Role.HUB).renewal_due():
            self._say(due)
        if settings.evaluation is not None:
            config.require_source(settings.evaluation.path, "evaluation.path")
        require_socket_path(socket_path(settings))
        self._lock = hold(private_folder(settings.state) / "lock", "server")
        for name in ("evaluator.ready", "hub.ready", "federation.pb"):
            (settings.state / name).unlink(missing_ok=True)
        self._say("loading the base model")
        evaluator = self._spawn("evaluator", [*self._module("evaluation"), "--config", str(self._path)])
        superlink = self._spawn(
            "superlink",
            [
                *[script("flower-superlink"), "--insecure", "--host", HUB_LOOPBACK],
                *["--port", self._superlink.rpartition(":")[2]],
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
        attempts, head = 0, self._last_round()
        try:
            while attempts < _ATTEMPTS:
                status = self._run_once(client, watch)
                if (reached := self._last_round()) >= self._settings.rounds.count:
                    return
                attempts, head = (attempts + 1, head) if reached == head else (1, reached)
                why = f" ({status.details})" if status.details else ""
                committed = f"{head} of {self._settings.rounds.count} rounds are committed"
                self._say(f"the run ended as {status.sub_status}{why}: {committed}; starting the others again")
        finally:
            client.close()
        raise ProcessError(
            f"{_ATTEMPTS} runs in a row brought no new version",
            f"Read the reasons above and {self._settings.state / 'logs' / 'superlink.log'}",
        )

    def _run_once(self, client: ControlHttpClient, watch: Callable[[], None]) -> RunStatus:
        """Submit the run and watch it to its end."""
        try:
            run_id = self._submit(client)
            while (status := self._status(client, run_id)).status != "finished":
                watch()
                self._require_running()
                time.sleep(0.3)
        except httpx.HTTPError as error:
            self._require_running()
            raise ProcessError(f"the SuperLink does not answer: {error}", "Start again") from None
        watch()
        return status

    def _require_running(self) -> None:
        for child in self._children:
            if child.name != "evaluator" or self._settings.evaluation is not None:
                child.require_running()

    def stop(self) -> None:
        """Stop everything that was started."""
        stop_all(self._children)
        self._children.clear()

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
                **(HUB_ENVIRONMENT if name == "hub" else {}),
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

    def _last_round(self) -> int:
        """Return the round of the newest version, 0 before the first."""
        folder = self._settings.state / "registry"
        versions = Registry.open(folder).versions() if folder.exists() else []
        return versions[-1].round if versions else 0

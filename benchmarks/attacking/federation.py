"""The federation that is attacked: SuperLink, hub and two honest plants, each a process of its own."""

from __future__ import annotations

import hashlib
import json
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from flwr.cli.build import build_fab_from_disk
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import StartRunRequest
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.fab import Fab

from benchmarks.attacking.certificates import Pki
from benchmarks.attacking.messages import MAX_UPDATE_BYTES, federation, round_task
from fedsparse.files import write_atomic
from fedsparse.processes import FLOWER_ENVIRONMENT, Child, free_port, script, stop_all
from fedsparse.security import HUB_ENVIRONMENT, Credentials, Role

HONEST = ("kiso", "ise")
INSIDERS = ("mallory", "thief", "flooder", "greedy", "leaver", "gone", "sold")
_APP = Path(__file__).parent / "issuer_app"
_START_SECONDS = 120.0


class Log:
    """What an attacked process writes down.

    Args:
        path: of its log.
        fresh: whether all of it counts, from the process's start on.
    """

    def __init__(self, path: Path, *, fresh: bool = False) -> None:
        self._path = path
        self.fresh = fresh

    @property
    def exit_code(self) -> int | None:
        """Exit status, or None while it runs."""
        return None

    def size(self) -> int:
        """Return how long the log is now, in bytes."""
        return self._path.stat().st_size

    def told(self, since: int) -> str:
        """Return what it has gained."""
        return self._path.read_bytes()[since:].decode(errors="replace")


class Watched(Log):
    """A process under attack, and its log.

    Args:
        child: the process.
    """

    def __init__(self, child: Child, *, fresh: bool = False) -> None:
        super().__init__(child.log, fresh=fresh)
        self.child = child
        self.pid = child.pid

    @property
    def exit_code(self) -> int | None:
        """Exit status, or None while it is still the same process and runs."""
        return self.child.exit_code


class Honest:
    """One honest plant's process.

    Args:
        name: of the plant.
        home: its certificate.
        address: of the hub.
        log: its stderr.
    """

    def __init__(self, name: str, home: Path, address: str, log: Path) -> None:
        self.name = name
        command = [sys.executable, "-m", "benchmarks.attacking.plant", name, str(home), address]
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1
            )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)

    def ask(self, what: str, seconds: float = 20.0) -> dict[str, Any]:
        """Return its answer; a process that does not answer in time has trouble."""
        assert self._process.stdin is not None
        while not self._answers.empty():
            self._answers.get()
        try:
            self._process.stdin.write(f"{what}\n")
            found: dict[str, Any] = json.loads(self._answers.get(timeout=seconds))
        except (OSError, queue.Empty):
            return {"trouble": "the plant's process does not answer", "seconds": seconds, "lost": -1}
        return found

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


class Federation:
    """All of it.

    Args:
        folder: everything is written below it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pki = Pki(folder / "pki", "attacked")
        self.other = Pki(folder / "other", "other")
        self.sold = self.pki.credentials(Role.PLANT, "sold")  # by the issuing CA that is then given up
        self.pki.give_up_issuing()
        self.port = free_port()
        self.state = folder / "state"
        self._tasks = self.state / "tasks"
        self._tasks.mkdir(parents=True)
        self._superlink = f"127.0.0.1:{free_port()}"
        self._children: list[Child] = []
        self._stack = ExitStack()
        self._numbers = 0
        self.honest: list[Honest] = []
        self.revoked_seconds = float("inf")

    def __enter__(self) -> Self:
        self._stack.callback(self._stop)
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _stop(self) -> None:
        (self._tasks / "stop").touch()
        for plant in self.honest:
            plant.stop()
        stop_all(self._children)

    @property
    def address(self) -> str:
        """Of the hub."""
        return f"127.0.0.1:{self.port}"

    @property
    def revoked(self) -> Path:
        """The file that the hub's settings name."""
        return self.folder / "crl.pem"

    def credentials(self, name: str) -> Credentials:
        """Return a good certificate of a plant."""
        return self.pki.credentials(Role.PLANT, name)

    def copy_revoked(self) -> None:
        """Do what the operator does after `fedsparse pki revoke`."""
        write_atomic(self.revoked, self.pki.revoked)

    def spawn(self, name: str, command: list[str], environment: dict[str, str] | None = None) -> Child:
        """Start one more process that ends with the federation."""
        child = Child(name, command, self.folder / f"{name}.log", environment)
        self._children.append(child)
        return child

    def _start(self) -> None:
        settings = self._write()
        flower = {
            **FLOWER_ENVIRONMENT,
            "FLWR_HOME": str(self.folder / "flwr"),
            "ATTACKS_TASKS": str(self._tasks),
        }
        port = self._superlink.rpartition(":")[2]
        superlink = [script("flower-superlink"), "--insecure", "--host", "127.0.0.1", "--port", port]
        link = self.spawn("superlink", [*superlink, "--disable-runtime-dependency-installation"], flower)
        link.wait_until(self._superlink_answers, _START_SECONDS)
        hub = [sys.executable, "-u", "-m", "fedsparse_server.hub", "--config", str(settings)]
        child = self.spawn("hub", [*hub, "--superlink", self._superlink], dict(HUB_ENVIRONMENT))
        child.wait_until((self.state / "hub.ready").exists, _START_SECONDS)
        self.hub = Watched(child)
        self._submit()
        for name in HONEST:
            home = self.pki.issue(Role.PLANT, name)
            self.honest.append(Honest(name, home, self.address, self.folder / f"{name}.log"))
        self.wait(lambda: self.present() >= set(HONEST), "both honest plants", _START_SECONDS)
        link.wait_until((self._tasks / "ready").exists, _START_SECONDS)

    def _write(self) -> Path:
        home = self.pki.issue(Role.HUB, "hub", "127.0.0.1", "localhost")
        self.gone = self.credentials("gone")
        self.pki.revoke("gone")
        self.copy_revoked()
        (self.state / "federation.pb").write_bytes(federation().SerializeToString())
        plants = ", ".join(f'"{name}"' for name in (*HONEST, *INSIDERS))
        path = self.folder / "federation.toml"
        path.write_text(
            f"""
[federation]
name = "attacked"
classes = ["good", "bad"]

[hub]
listen = "127.0.0.1:{self.port}"
plants = [{plants}]
max_update_bytes = {MAX_UPDATE_BYTES}

[hub.identity]
certificate = "{home}/hub.pem"
key = "{home}/hub.key"
authority = "{home}/ca.pem"
revoked = "{self.revoked}"
"""
        )
        return path

    def _superlink_answers(self) -> bool:
        try:
            return httpx.get(f"http://{self._superlink}/health", timeout=1.0).status_code < 500
        except httpx.HTTPError:
            return False

    def _submit(self) -> None:
        client = ControlHttpClient.from_server_address(
            self._superlink, insecure=True, root_certificates=None, interceptors=[]
        )
        content = build_fab_from_disk(_APP)
        fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
        try:
            assert client.StartRun(StartRunRequest(fab=fab_to_proto(fab))).HasField("run_id")
        finally:
            client.close()

    def wait(self, holds: Callable[[], object], what: str, seconds: float = 15.0) -> None:
        """Wait until ``holds()``."""
        end = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > end:
                raise TimeoutError(f"never seen: {what}")
            time.sleep(0.02)

    def roster(self) -> dict[str, Any]:
        """Return the hub's roster."""
        try:
            found: dict[str, Any] = json.loads((self.state / "roster.json").read_text())
        except (OSError, ValueError):
            return {"nodes": {}, "present": []}
        return found

    def present(self) -> set[str]:
        """Return the plants that are present."""
        return set(self.roster()["present"])

    def issue_task(self, plant: str) -> None:
        """Have the operator's app send a task to a plant's newest Flower node."""
        nodes = [int(node) for node, owner in self.roster()["nodes"].items() if owner == plant]
        self._numbers += 1
        scratch = self._tasks / f"{nodes[-1]}-{self._numbers}.new"
        scratch.write_bytes(round_task())
        scratch.rename(scratch.with_suffix(".task"))

    def answers(self) -> list[str]:
        """Return the task ids of what has reached the operator, in order."""
        path = self._tasks / "answers.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line)["task_id"] for line in lines]

    def receipts(self, plant: str) -> int:
        """Return how many receipts the hub has kept for a plant."""
        path = self.state / "receipts" / f"{plant}.jsonl"
        return len(re.findall(rb"\n", path.read_bytes())) if path.exists() else 0

    def honest_round(self) -> float:
        """Have both honest plants answer a task; return the seconds until both answers reached the operator."""
        before, started = len(self.answers()), time.monotonic()
        for name in HONEST:
            self.issue_task(name)
        self.wait(lambda: len(self.answers()) >= before + len(HONEST), "the honest plants' answers", 20.0)
        return time.monotonic() - started

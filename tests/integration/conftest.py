"""A small federation of real processes on real images: SuperLink, hub, evaluator and three plants."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from fedsparse.cli.demo_site import Layout, lay_out

SMALL = """
[adapter]
cut = 14
image_size = 64

[training]
epochs = 4
"""


class Federation:
    """Starts and kills the processes of one federation the way people do: by its commands."""

    def __init__(self, folder: Path, rounds: int, more: str = "", kind: str = "delta") -> None:
        self.folder = folder
        small = SMALL.replace("[adapter]", f'[adapter]\nkind = "{kind}"')
        self.layout: Layout = lay_out(folder, rounds, thin=12, more=small + more)
        self.state = folder / "hub" / "state"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> subprocess.Popen[bytes]:
        """Start "server" or the plant ``name``."""
        if name == "server":
            arguments = ["server", "up", "--config", str(self.layout.federation)]
        else:
            arguments = ["client", "up", "--config", str(self.layout.sites[name])]
        with self.log(name).open("ab") as output:
            self._processes[name] = subprocess.Popen(
                [str(Path(sys.executable).parent / "fedsparse"), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return self._processes[name]

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.out"

    def kill(self, name: str) -> list[psutil.Process]:
        """Kill the agent (or supervisor) with SIGKILL; return what of it is still there ten seconds later."""
        home = self.layout.federation.parent if name == "server" else self.layout.sites[name].parent
        whole = [process for process in self.processes() if _belongs(process, home)]
        os.kill(self._processes[name].pid, signal.SIGKILL)
        self._processes.pop(name).wait()
        return psutil.wait_procs(whole, timeout=10)[1]

    def events(self) -> list[dict[str, Any]]:
        path = self.state / "events.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def wait_for(self, happened: Callable[[dict[str, Any]], bool], timeout: float = 240) -> dict[str, Any]:
        """Return the first event for which ``happened`` holds."""
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            for event in self.events():
                if happened(event):
                    return event
            for name, process in self._processes.items():
                if name == "server" and process.poll() not in (None, 0):
                    pytest.fail(f"{name} stopped: {self.log(name).read_text()[-3000:]}")
            time.sleep(0.1)
        pytest.fail(f"not seen within {timeout} s; the events were {self.events()[-5:]}")

    def wait_for_server(self, timeout: float = 240) -> None:
        assert self._processes["server"].wait(timeout) == 0, self.log("server").read_text()[-3000:]

    def processes(self) -> list[psutil.Process]:
        """Return every process that belongs to this federation, whoever its parent is now."""
        return [process for process in psutil.process_iter() if _belongs(process, self.folder)]

    def stop(self) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        for process in self._processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                process.kill()


def _belongs(process: psutil.Process, folder: Path) -> bool:
    try:
        return str(folder) in " ".join(process.cmdline()) + process.environ().get("FLWR_HOME", "")
    except psutil.Error:
        return False


@pytest.fixture(scope="module")
def federation_factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Federation]]:
    made: list[Federation] = []

    def make(rounds: int, more: str = "", kind: str = "delta") -> Federation:
        made.append(Federation(tmp_path_factory.mktemp("federation"), rounds, more, kind))
        return made[-1]

    yield make
    for federation in made:
        federation.stop()

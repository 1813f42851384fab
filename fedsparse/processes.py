"""Child processes that never outlive their parent and always leave a log to read."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fedsparse.errors import ProcessError

_PR_SET_PDEATHSIG = 1
_LAUNCH = "import sys; from fedsparse.processes import launch; launch(int(sys.argv[1]), sys.argv[2:])"

# Flower on loopback without telemetry, update checks or dependency installation, and with quick polling.
FLOWER_ENVIRONMENT: Mapping[str, str] = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
}

# Flower's calls on loopback need no password. Linux answers on all of 127.0.0.0/8, so each role has an address
# that nothing else uses, and deploy/nftables keeps every other user of the machine from it, whatever the port.
HUB_LOOPBACK = "127.87.0.1"
"""Where the hub's SuperLink listens."""
PLANT_LOOPBACK = "127.87.0.2"
"""Where a plant's gateway and its SuperNode listen."""


def die_with_parent() -> None:
    """Have the kernel kill this process the moment its parent dies (Linux prctl(2))."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def launch(parent: int, command: Sequence[str]) -> None:
    """Become ``command``, and die with the process ``parent``."""
    die_with_parent()
    if os.getppid() != parent:  # it died before the line above took effect
        sys.exit(1)
    os.execvp(command[0], list(command))  # noqa: S606 - a fixed command, no shell


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def past_proxies() -> dict[str, str]:
    """Return variables by which HTTP clients reach loopback themselves, whatever proxy the environment names.

    Who exempts 127.0.0.1 from a proxy does not know of the addresses here, and httpx takes no ranges.
    """
    given = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    exempt = ",".join(filter(None, (given, HUB_LOOPBACK, PLANT_LOOPBACK)))
    return {"no_proxy": exempt, "NO_PROXY": exempt}


def script(name: str) -> str:
    """Return the path of a console script installed beside this Python."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise ProcessError(f"{name} is not installed beside {sys.executable}", "Reinstall fedsparse")
    return str(path)


def _path() -> str:
    """Return PATH with this Python's own scripts first: Flower starts its helpers by bare name."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


class Child:
    """One supervised process, with its output in a log file.

    Args:
        name: shown to people, e.g. "trainer".
        command: program and arguments.
        log: file that receives stdout and stderr, appended.
        environment: variables on top of this process's own; proxies are not asked for loopback in any case.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _LAUNCH, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **past_proxies(), "PATH": _path(), **(environment or {})},
                start_new_session=True,  # Ctrl-C reaches the supervisor alone, which then stops in order
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit status, or None while it runs."""
        return self._process.poll()

    def last_words(self, lines: int = 6) -> str:
        """Return the end of the log."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return "\n".join(text.strip().splitlines()[-lines:])

    def require_running(self) -> None:
        """Raise ProcessError, with the end of its log, if the process has stopped."""
        if self.exit_code is not None:
            raise ProcessError(
                f"{self.name} stopped with status {self.exit_code}:\n{self.last_words()}",
                f"Its whole log is {self.log}",
            )

    def wait_until(self, ready: Callable[[], bool], timeout: float) -> None:
        """Return once ``ready()``; raise ProcessError if the process stops first or ``timeout`` seconds pass."""
        end = time.monotonic() + timeout
        while not ready():
            self.require_running()
            if time.monotonic() > end:
                raise ProcessError(f"{self.name} was not ready within {timeout:.0f} s:\n{self.last_words()}")
            time.sleep(0.05)

    def kill(self) -> None:
        """Kill it at once, with everything it started in its session."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self._process.pid, number)
        except ProcessLookupError:
            return

    def stop(self, grace: float = 8.0) -> None:
        """Ask it to stop (SIGTERM), then kill what is left of its session after ``grace`` seconds."""
        if self.exit_code is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
        self.kill()


def stop_all(children: Sequence[Child]) -> None:
    """Stop ``children`` in reverse order of start, all within one grace period."""
    running = [child for child in reversed(children) if child.exit_code is None]
    for child in running:
        child._process.terminate()
    end = time.monotonic() + 8.0
    for child in running:
        try:
            child._process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            continue
    for child in children:
        child.kill()


def interrupt_on_terminate() -> None:
    """Let SIGTERM end this process the way Ctrl-C does, so that ``finally`` blocks run."""

    def raise_interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, raise_interrupt)

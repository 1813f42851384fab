"""strace(1) on a process that runs: what calls it makes, and faults injected into them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MARK = "sched_yield"
"""The call by which the process says that what counts is over."""
_WAITING = ("rt_sigtimedwait", "restart_syscall")
_CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")
_ATTACHED = "attached"


@dataclass(frozen=True)
class Call:
    """One system call of a trace.

    Attributes:
        thread: who made it.
        name: e.g. "openat".
        said: arguments and result, file descriptors with their paths.
    """

    thread: int
    name: str
    said: str

    @property
    def path(self) -> str:
        """The file that the first argument, a descriptor, stands for."""
        found = re.match(r"\d+<([^>]*)>", self.said)
        return found[1] if found else ""


def why_not() -> str | None:
    """Return why nothing can be traced here; None where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    probe = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    return probe.stderr.strip() or f"strace ended with {probe.returncode}" if probe.returncode else None


@contextmanager
def traced(pid: int, log: Path, inject: str | None = None) -> Iterator[None]:
    """Trace a process, with the threads that it starts, until it ends; on leaving, the log is complete.

    Args:
        inject: what strace's -e inject= takes; a call's number counts by thread.

    Raises:
        RuntimeError: it cannot be traced.
    """
    words = ["strace", "-f", "-p", str(pid), "-y", "-s", "64", "-o", str(log)]
    with subprocess.Popen(
        [*words, *(() if inject is None else ("-e", f"inject={inject}"))], stderr=subprocess.PIPE, text=True
    ) as tracer:
        assert tracer.stderr is not None
        if _ATTACHED not in (said := tracer.stderr.readline()):
            tracer.kill()
            raise RuntimeError(f"strace does not trace {pid}: {said}")
        try:
            yield
            tracer.wait(30)
        finally:
            tracer.kill()


def read_calls(log: Path) -> list[Call]:
    """Return the calls of a trace up to the mark."""
    found: list[Call] = []
    for line in log.read_text(errors="replace").splitlines():
        if (match := _CALL.match(line)) is None:
            continue
        if match[2] == MARK:
            return found
        if match[2] in _WAITING:  # for the start; whether it is seen depends on the moment
            continue
        found.append(Call(int(match[1]), match[2], match[3]))
    return found


def ending(log: Path) -> str:
    """Return how the process ended, e.g. "exited with 0" or "killed by SIGKILL"."""
    found = re.findall(r"^\d+ +\+\+\+ (.*) \+\+\+$", log.read_text(errors="replace"), re.MULTILINE)
    return found[-1] if found else "nobody saw it end"


def struck(log: Path) -> bool:
    """Tell whether a fault was injected."""
    return "(INJECTED)" in log.read_text(errors="replace")

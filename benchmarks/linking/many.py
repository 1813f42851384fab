"""As many plants on one hub as an operator may have: whether all come, stay, and are reached by one round."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.linking.certificates import Certificates
from benchmarks.linking.messages import task
from benchmarks.linking.operator import Operator, Round
from benchmarks.linking.waiting import eventually
from fedsparse.envelope import wrap
from fedsparse.errors import ProcessError
from fedsparse.processes import Child, script

_CONNECT_SECONDS = 120.0
_ROUND_SECONDS = 120.0


@dataclass(frozen=True)
class Burden:
    """What a process takes while nothing happens.

    Attributes:
        cpu: share of one core.
        megabytes: resident.
    """

    name: str
    cpu: float
    megabytes: float
    threads: int
    files: int

    def row(self) -> dict[str, object]:
        """Return what the table shows."""
        return {
            "process": self.name,
            "idle_cpu_percent_of_a_core": round(100 * self.cpu, 1),
            "rss_mb": round(self.megabytes),
            "threads": self.threads,
            "files": self.files,
        }


@dataclass(frozen=True)
class Crowd:
    """How it went.

    Attributes:
        connect_seconds: from the first dial until all were in the roster, or until that was given up.
        connected: plants in the roster then.
        present: in the roster after the quiet time.
        online: nodes that Flower itself held for online then.
        lost: plants that the hub said had left.
        broken: streams that ended.
        sent_seconds: for the driver to lay all tasks at the SuperLink.
        delivered: seconds from then until each plant had its task.
        answered: seconds from then until each answer was in the driver's hands.
        troubles: what streams and updates met with, and how often.
    """

    plants: int
    connect_seconds: float
    connected: int
    present: int
    online: int
    lost: int
    broken: int
    sent_seconds: float
    delivered: list[float]
    answered: list[float]
    burdens: list[Burden]
    troubles: dict[str, int]


def measure(folder: Path, certificates: Certificates, names: list[str], quiet_seconds: float) -> Crowd:
    """Connect them all, leave them in peace for a while, and have one round."""
    with Operator(folder, certificates, names) as operator:
        out = folder / "crowd.jsonl"
        command = [script("python"), "-u", "-m", "benchmarks.linking.crowd", operator.address]
        start = time.monotonic()
        crowd = operator.spawn("crowd", [*command, str(certificates.folder), str(out), *names])
        try:
            eventually(
                lambda: len(operator.roster()["present"]) >= len(names), "all plants", _CONNECT_SECONDS, 0.2
            )
        except ProcessError:
            crowd.require_running()  # what it met with is told below
        seconds, connected = time.monotonic() - start, len(operator.roster()["present"])
        burdens = _watch(
            {"hub": operator.hub_process, "SuperLink": operator.superlink_process, "all plants": crowd},
            quiet_seconds,
        )
        present, online = len(operator.roster()["present"]), _online(operator)
        lost, broken = operator.lost(), len(_happenings(out, "lost"))
        found = _round(operator)
        delivered = [at - found.sent for at in _happenings(out, "task")]
        answered = [at - found.sent for at in found.answers.values()]
        sent = found.sent - found.started
        troubles = _troubles(out, found.errors)
    return Crowd(
        len(names), seconds, connected, present, online, lost, broken, sent, delivered, answered, burdens, troubles
    )


def _online(operator: Operator) -> int:
    try:
        return len(list(operator.grid.get_node_ids()))
    except httpx.HTTPError:  # a SuperLink that does not answer holds nobody for online
        return 0


def _round(operator: Operator) -> Round:
    roster = operator.roster()
    newest = {owner: int(node) for node, owner in roster["nodes"].items() if owner in roster["present"]}
    content = wrap(task())
    errors: list[str] = []

    def drive() -> None:
        try:
            operator.try_round(dict.fromkeys(newest.values(), content), _ROUND_SECONDS)
        except httpx.HTTPError as error:  # the SuperLink did not bear it: what came before counts
            errors.append(f"the SuperLink to the driver: {error!r}")

    thread = threading.Thread(target=drive, daemon=True)  # the driver tries to send for longer than that
    thread.start()
    thread.join(_ROUND_SECONDS)
    found = operator.last
    found.errors.extend(errors)
    if not found.sent:
        found.errors.append("the tasks were not all sent in time")
        found.sent = time.monotonic()
    return found


def _watch(children: dict[str, Child], seconds: float) -> list[Burden]:
    """Leave processes in peace, and return what they took."""
    processes = {name: psutil.Process(child.pid) for name, child in children.items()}
    before = {name: _cpu(process) for name, process in processes.items()}
    time.sleep(seconds)
    return [
        Burden(
            name,
            (_cpu(process) - before[name]) / seconds,
            process.memory_info().rss / 1e6,
            process.num_threads(),
            process.num_fds(),
        )
        for name, process in processes.items()
    ]


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _lines(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def _happenings(out: Path, what: str) -> list[float]:
    return [float(str(line["at"])) for line in _lines(out) if line["what"] == what]


def _troubles(out: Path, errors: list[str]) -> dict[str, int]:
    met = Counter(error[:120] for error in errors)
    met.update(f"{line['what']}: {str(line['detail'])[:120]}" for line in _lines(out) if line["detail"])
    return dict(met.most_common(8))

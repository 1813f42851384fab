"""Rounds in which nothing is trained, and how soon a plant has a task once the strategy has sent it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from fedsparse_client.app import SOCKET_VARIABLE
from fedsparse_client.gateway.link import Link

from benchmarks.linking.messages import SPACE, refusal, task
from benchmarks.linking.operator import Operator
from benchmarks.linking.plant import Plant
from benchmarks.linking.waiting import eventually
from fedsparse.audit import EntryDraft, EntryKind, Ledger
from fedsparse.envelope import wrap
from fedsparse.processes import free_port, script

_PAUSE_SECONDS = 0.5
_SECONDS = 60.0


class _Presence:
    """Records nothing: the ledger of this plant is nobody's."""

    def dialling(self) -> None:
        """See Presence."""

    def accepted(self) -> None:
        """See Presence."""

    def lost(self) -> list[str]:
        """See Presence."""
        return []


class Attendee:
    """A plant in this process: attends by the gateway's own Link, notes when tasks come, and declines them.

    Args:
        link: its connection.
        folder: for the ledger, without which nothing is sent.
        name: of the plant.
    """

    def __init__(self, link: Link, folder: Path, name: str) -> None:
        self._link = link
        self._folder = folder
        self._name = name
        self.came: list[float] = []
        threading.Thread(target=self._attend, daemon=True).start()

    def _attend(self) -> None:
        with Ledger(self._folder, bytes(32), self._name) as ledger:
            ledger.set_space(SPACE)
            for one in self._link.attend(SPACE.fingerprint, _Presence()):
                self.came.append(time.monotonic())
                draft = EntryDraft(kind=EntryKind.REASON, peer="hub", task_id=one.task_id, policy_sha256=bytes(32))
                self._link.push(ledger.append(draft, refusal()), ledger)


def notice(operator: Operator, node: int, attendee: Attendee, tasks: int) -> list[float]:
    """Return the seconds from each task's lying at the SuperLink to its arrival on the plant's stream."""
    found = []
    for number in range(tasks):
        before = len(attendee.came)
        sent = operator.round({node: wrap(task(seed=number))}).sent
        found.append(attendee.came[before] - sent)
        time.sleep(_PAUSE_SECONDS * (number % 5) / 5)  # not in step with anything
    return found


def bare_notice(operator: Operator, plant: Plant, tasks: int) -> list[float]:
    """Return the same of Flower's own SuperNode, which says in its log when it has a task."""
    command = [script("flower-supernode"), "--insecure", "--superlink", operator.superlink]
    command += ["--host", "127.0.0.1", "--port", str(free_port())]
    before = set(operator.grid.get_node_ids())
    socket = {SOCKET_VARIABLE: str(plant.state / "trainer.sock")}
    child = operator.spawn("bare-supernode", command, socket)
    eventually(lambda: set(operator.grid.get_node_ids()) - before, "the SuperNode's registration", _SECONDS)
    (node,) = set(operator.grid.get_node_ids()) - before
    found: list[float] = []
    for number in range(tasks):
        watch = _Watch(child.log, "Receiving:")
        sent = operator.round({node: wrap(task(seed=number))}).sent
        found.append(watch.seen() - sent)
        time.sleep(_PAUSE_SECONDS * (number % 5) / 5)
    child.stop()
    return found


class _Watch:
    """Notes when a log gets one more line with some words."""

    def __init__(self, path: Path, words: str) -> None:
        self._path, self._words = path, words
        self._before = self._count()
        self._at = 0.0
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _count(self) -> int:
        return self._path.read_text(errors="replace").count(self._words)

    def _look(self) -> None:
        eventually(lambda: self._count() > self._before, self._words, _SECONDS, 0.005)
        self._at = time.monotonic()

    def seen(self) -> float:
        """Return when, by the monotonic clock."""
        self._thread.join()
        return self._at


def rounds(operator: Operator, nodes: list[int], count: int) -> list[float]:
    """Return the seconds of each round in which every node gets a task and answers it at once."""
    operator.round({node: wrap(task()) for node in nodes})  # the first brings the app's bundle
    return [operator.round({node: wrap(task(seed=number)) for node in nodes}).seconds for number in range(count)]

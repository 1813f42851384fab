"""A plant with a good certificate that has turned hostile, and what the attacks of such a plant share."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import grpc

from benchmarks.attacking import messages, raw
from benchmarks.attacking.attack import Attack, in_words
from benchmarks.attacking.federation import Federation
from benchmarks.attacking.messages import SPACE, update
from fedsparse.v1 import link_pb2, link_pb2_grpc
from tests.unit.federation_samples import PlantLog

GROUP = "calls of a hostile plant"
_SECONDS = 5.0


class Insider:
    """Holds one connection and one stream at the hub; tasks wait in a queue.

    Args:
        federation: that it attacks.
        name: on its certificate.
        token: its session's.
    """

    def __init__(self, federation: Federation, name: str = "mallory", token: bytes = b"m" * 16) -> None:
        self.federation = federation
        self.name = name
        self.credentials = federation.credentials(name)
        self.log = PlantLog(name)
        self._channels: list[grpc.Channel] = []
        self._streams: list[Any] = []
        self._tasks: queue.Queue[str] = queue.Queue()
        self.stub = self.dial()
        self.attend(token)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in self._channels:
            channel.close()

    def dial(self, **options: object) -> link_pb2_grpc.LinkStub:
        """Return one more connection."""
        self._channels.append(raw.channel(self.federation.port, self.credentials, **options))
        return link_pb2_grpc.LinkStub(self._channels[-1])

    def channel(self) -> grpc.Channel:
        """Return the first connection."""
        return self._channels[0]

    def attend(self, token: bytes, stub: link_pb2_grpc.LinkStub | None = None) -> None:
        """Open a stream, and wait until the hub has let it in."""
        request = link_pb2.AttendRequest(protocol=3, space=SPACE.fingerprint, session=token)
        stream = (stub or self.stub).Attend(request)
        stream.initial_metadata()
        self._streams.append(stream)
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: Any) -> None:
        try:
            for task in stream:
                self._tasks.put(task.task_id)
        except grpc.RpcError:
            return

    def task(self) -> str:
        """Return the id of a new task."""
        while not self._tasks.empty():
            self._tasks.get()
        self.federation.issue_task(self.name)
        return self._tasks.get(timeout=_SECONDS)

    def update(self, task_id: str, payload: bytes, hash: bytes = messages.HASH) -> link_pb2.Update:
        """Return an update with an honest checkpoint: its ledger includes it, and continues what was witnessed."""
        return self.log.update(payload, task_id, hash, self.credentials.key)

    def push(self, task_id: str, payload: bytes, hash: bytes = messages.HASH) -> str:
        """Return how a Push ends."""
        return self.send(self.update(task_id, payload, hash))

    def send(self, update: link_pb2.Update) -> str:
        """Return how the Push of just these bytes ends."""
        ended = raw.push(self.stub, update)
        if ended.startswith("OK"):
            self.log.witnessed = max(self.log.witnessed, len(self.log.leaves))
        return ended


class Stage:
    """What these attacks share: a hostile plant that is present, with a task that stays open.

    Args:
        federation: that is attacked.
    """

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self._stack = ExitStack()

    @cached_property
    def insider(self) -> Insider:
        """The hostile plant."""
        return self._stack.enter_context(Insider(self.federation))

    @cached_property
    def task(self) -> str:
        """Its open task."""
        return self.insider.task()

    @cached_property
    def done(self) -> tuple[str, bytes]:
        """A task that it has answered honestly, and the receipt's bytes."""
        task_id = self.insider.task()
        receipt = self.insider.stub.Push(self.insider.update(task_id, update()), timeout=raw.SECONDS)
        self.insider.log.witnessed = receipt.body.checkpoint_size
        return task_id, receipt.SerializeToString(deterministic=True)

    def honest_task(self) -> str:
        """Return the id of a task of an honest plant."""
        return str(self.federation.honest[0].ask("state")["receipts"][-1][0])

    def close(self) -> None:
        """Hang up."""
        self._stack.close()


def refused(
    code: str,
    said: str,
    does: str,
    run: Callable[[Stage], str],
    log: str | None = None,
    limit: float = 15.0,
    group: str = GROUP,
) -> Attack:
    """Return an attack that must be answered by this status, in words that the hub's log has too."""
    line = log or f"refused ipv4:.*{said}"
    return Attack(group, does, f"{code}: {in_words(said)}", f"^{code}: .*{said}", line, run, limit=limit)

"""Which plants are present, and the Flower node that each has at the SuperLink."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from fedsparse.events import EventLog
from fedsparse_server.peers import RefusedError
from fedsparse_server.superlink import PulledTask, SuperLinkNode
from fedsparse_server.uploads import Upload

MAX_STREAMS = 3  # of one plant: the newest speaks for it, others may still be ending
_REMEMBERED_NODES = 100  # of one plant that have left, so that the strategy can still name them
_log = logging.getLogger("hub")


@dataclass
class Session:
    """One plant's presence: its Flower node and the tasks it has been given.

    Attributes:
        token: what the plant's gateway calls itself; whoever knows it may take this session up again.
        delivered: digests of updates that Flower has, but that have no receipt yet.
        upload: a large update that comes in parts: one at a time, for it takes memory.
        stream: counts the streams that have carried it; the last one does.
        pulling: held while a task is taken from the SuperLink, so that none is taken by a stream that was replaced
            after its successor had looked for tasks to send again.
    """

    node: SuperLinkNode
    token: bytes = b""
    outstanding: dict[str, PulledTask] = field(default_factory=dict)
    delivered: dict[str, bytes] = field(default_factory=dict)
    upload: Upload | None = None
    stream: int = 0
    ended: bool = False
    closed: bool = False
    wake: threading.Event = field(default_factory=threading.Event)
    timer: threading.Timer | None = None
    pulling: threading.Lock = field(default_factory=threading.Lock)

    def forget_expired(self) -> None:
        """Forget tasks that Flower no longer waits for."""
        now = time.time()
        for task_id, task in list(self.outstanding.items()):
            metadata = task.message.metadata
            if metadata.created_at and metadata.created_at + metadata.ttl < now:
                self.outstanding.pop(task_id, None)
        if self.upload is not None and self.upload.task_id not in self.outstanding:
            self.upload = None

    def is_carried_by(self, stream: int) -> bool:
        """Tell whether this stream is still the one that speaks for the plant."""
        return not self.ended and self.stream == stream


class Sessions:
    """Opens, resumes and ends them.

    A connection that drops is not a plant that has left: for ``grace`` seconds its node and its open task wait for
    the same gateway to dial again. A gateway that has none of them any more says so by another token.

    Args:
        open_node: returns a node at the SuperLink that has not registered yet.
        events: told when plants come and go.
        roster: JSON file that says which Flower node speaks for which plant.
        grace: seconds.
    """

    def __init__(
        self, open_node: Callable[[], SuperLinkNode], events: EventLog, roster: Path, grace: float
    ) -> None:
        self._open_node = open_node
        self._events = events
        self._roster = roster
        self._grace = grace
        self._present: dict[str, Session] = {}
        self._nodes: dict[str, str] = {}  # Flower node id -> plant, also of nodes that have left
        self._streams: Counter[str] = Counter()
        self._lock = threading.Lock()

    def of(self, plant: str) -> Session | None:
        """Return the session of a plant that is present."""
        with self._lock:
            return self._present.get(plant)

    def task(self, plant: str, task_id: str) -> tuple[Session, PulledTask] | None:
        """Return an open task of a plant, and the session that it belongs to."""
        with self._lock:
            session = self._present.get(plant)
            task = session.outstanding.get(task_id) if session else None
            return (session, task) if session is not None and task is not None else None

    @contextmanager
    def attend(self, plant: str, token: bytes) -> Iterator[tuple[Session, int]]:
        """Hold a plant's presence for one stream; yield its session and the number of the stream.

        Raises:
            RefusedError: the plant has too many streams.
            httpx.HTTPError: the SuperLink is out of reach.
            OSError: the roster cannot be written.
        """
        with self._one_more_stream(plant):
            session, stream = self._resume(plant, token) or (self._open(plant, token), 0)
            try:
                yield session, stream
            except (GeneratorExit, grpc.RpcError):  # how gRPC ends the stream of a plant that hung up
                self._leave(plant, session, stream, dropped=True)
                raise
            except BaseException:
                self._leave(plant, session, stream, dropped=False)
                raise
            self._leave(plant, session, stream, dropped=True)

    def turn_out(self, plant: str) -> None:
        """End a plant's session at once, whatever its stream is doing."""
        if (session := self.of(plant)) is not None:
            with self._lock:
                session.ended = True
                session.wake.set()
            self._end(plant, session)

    def wake(self) -> None:
        """Have every stream look for tasks now."""
        with self._lock:
            for session in self._present.values():
                session.wake.set()

    def close(self) -> None:
        """End all that wait for a plant to dial again."""
        with self._lock:
            waiting = [(plant, one) for plant, one in self._present.items() if one.timer is not None]
        for plant, session in waiting:
            self._expire(plant, session, session.stream)

    @contextmanager
    def _one_more_stream(self, plant: str) -> Iterator[None]:
        """Count the plant's streams: each holds a thread and a Flower node, and none may use up all."""
        with self._lock:
            self._streams[plant] += 1
            count = self._streams[plant]
        try:
            if count > MAX_STREAMS:
                raise RefusedError(grpc.StatusCode.UNAVAILABLE, f"{plant} has {MAX_STREAMS} open streams already")
            yield
        finally:
            with self._lock:
                self._streams[plant] -= 1

    def _resume(self, plant: str, token: bytes) -> tuple[Session, int] | None:
        """Let a new stream carry the session that the same gateway had before."""
        with self._lock:
            session = self._present.get(plant)
            if session is None or session.ended or not token or session.token != token:
                return None
            session.stream += 1
            stream = session.stream
            session.wake.set()
            if session.timer is not None:
                session.timer.cancel()
                session.timer = None
        _log.info("%s is present again", plant)
        return session, stream

    def _open(self, plant: str, token: bytes) -> Session:
        """Register a node and let it speak for the plant, in place of an earlier one."""
        session = Session(self._open_node().__enter__(), token)
        with self._lock:
            earlier = self._present.get(plant)
            self._present[plant] = session
            for node in [node for node, owner in self._nodes.items() if owner == plant][:-_REMEMBERED_NODES]:
                del self._nodes[node]
            self._nodes[str(session.node.node_id)] = plant
        if earlier is not None:
            self._replace(earlier)
        try:
            self._write_roster()
            _log.info("%s is present", plant)
            self._events.emit("plant_joined", plant=plant)
        except OSError:  # a full disk, say: a node that nobody holds would be given tasks for ever
            with suppress(OSError):
                self._end(plant, session)
            raise
        return session

    def _replace(self, earlier: Session) -> None:
        """Let a session end because the plant has a newer one; its stream does the rest, if it still has one."""
        with self._lock:
            earlier.ended = True
            earlier.wake.set()
            timer, earlier.timer = earlier.timer, None
        if timer is not None:
            timer.cancel()
            earlier.closed = True
            earlier.node.__exit__(None, None, None)

    def _leave(self, plant: str, session: Session, stream: int, *, dropped: bool) -> None:
        with self._lock:
            if session.stream != stream:
                _log.info("an older connection of %s has ended", plant)
                return
            if dropped and session.token and not session.ended and self._grace > 0:
                session.timer = threading.Timer(self._grace, self._expire, (plant, session, stream))
                session.timer.daemon = True
                session.timer.start()
                _log.info("the connection of %s dropped; it may dial again within %.0f s", plant, self._grace)
                return
        self._end(plant, session)

    def _expire(self, plant: str, session: Session, stream: int) -> None:
        with self._lock:
            if session.ended or session.stream != stream or session.timer is None:
                return
            session.timer.cancel()
            session.timer = None
            session.ended = True
        self._end(plant, session)

    def _end(self, plant: str, session: Session) -> None:
        """Take its node from the SuperLink, and the plant from the roster unless it has another session."""
        with self._lock:
            if session.closed:
                return
            session.closed = session.ended = True
            newest = self._present.get(plant) is session
            if newest:
                del self._present[plant]
        session.node.__exit__(None, None, None)
        if not newest:
            _log.info("an older connection of %s has ended", plant)
            return
        self._write_roster()
        _log.info("%s has left", plant)
        self._events.emit("plant_lost", plant=plant)

    def _write_roster(self) -> None:
        with self._lock:
            scratch = self._roster.with_suffix(".tmp")
            scratch.write_text(json.dumps({"nodes": self._nodes, "present": sorted(self._present)}))
            scratch.replace(self._roster)

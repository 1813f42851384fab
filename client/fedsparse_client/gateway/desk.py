"""The desk between the link and the SuperNode: one task at a time, reassembled answers on the way back."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from flwr.app import Message
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.date import now

from fedsparse.delta import Reason
from fedsparse.envelope import assemble, disassemble, object_ids, unwrap, wrap
from fedsparse.errors import DeltaError
from fedsparse.v1 import link_pb2

NODE_ID = 1_000_001  # this SuperNode's number on loopback; the hub knows the plant by its certificate
_TTL_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Delivery:
    """A task in the form that the SuperNode pulls."""

    task: link_pb2.Task
    header: MessageProto
    tree: ObjectTree
    objects: Mapping[str, bytes]


@dataclass(frozen=True)
class Answer:
    """What the site answers to a task, before the gate has looked at it: a payload, or a reason."""

    task: link_pb2.Task
    payload: bytes = b""
    reason: Reason = Reason.NONE


@dataclass
class _Upload:
    """An answer of which not all objects have arrived yet."""

    message_id: str
    missing: set[str]
    objects: dict[str, bytes] = field(default_factory=dict)


class Desk:
    """Thread-safe hand-over of tasks and answers.

    Args:
        max_bytes: most that one answer's objects may have together.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._waiting: deque[Delivery] = deque()
        self._open: Delivery | None = None
        self._upload: _Upload | None = None
        self._registrations = 0
        self._changed = threading.Condition()
        self.answers: queue.Queue[Answer] = queue.Queue()

    def offer(self, task: link_pb2.Task) -> None:
        """Put ``task`` in the queue for the SuperNode; a round that waits for its turn there is over by now."""
        delivery = _deliver(task)
        with self._changed:
            self._waiting.clear()
            self._waiting.append(delivery)
            self._changed.notify_all()

    def clear(self) -> list[str]:
        """Forget tasks that were not begun, and return which: the connection that they came by is gone."""
        with self._changed:
            forgotten = [delivery.task.task_id for delivery in self._waiting]
            self._waiting.clear()
            return forgotten

    def restart(self) -> None:
        """Fail what the SuperNode was doing: a new one has registered in its place."""
        with self._changed:
            self._registrations += 1
            self._changed.notify_all()
            if self._open is not None:
                self._close(Answer(self._open.task, reason=Reason.APP_FAILED))

    def next(self, timeout: float) -> Delivery | None:
        """Wait up to ``timeout`` seconds for a task and hand it out; never to a SuperNode since replaced."""
        with self._changed:
            caller = self._registrations

            def ready() -> bool:
                return caller != self._registrations or (bool(self._waiting) and self._open is None)

            if not self._changed.wait_for(ready, timeout) or caller != self._registrations:
                return None
            self._open = self._waiting.popleft()
            return self._open

    @property
    def run(self) -> int | None:
        """Number of the run whose task was handed out; None where none is open."""
        with self._changed:
            return self._open.task.run_id if self._open else None

    def object(self, name: str) -> bytes | None:
        """Return an object of the task that was handed out."""
        with self._changed:
            return self._open.objects.get(name) if self._open else None

    def expect(self, header: MessageProto, tree: ObjectTree) -> list[str]:
        """Begin an answer; return the ids of the objects it still needs.

        Raises:
            DeltaError: it answers no open task.
        """
        with self._changed:
            if self._open is None or header.metadata.reply_to_message_id != self._open.tree.object_id:
                raise DeltaError("the SuperNode answers a task that is not open")
            names = object_ids(tree)
            self._upload = _Upload(tree.object_id, set(names))
            return names

    def receive(self, name: str, content: bytes) -> bool:
        """Take one object of the answer; the last one completes it. Return whether it was expected."""
        with self._changed:
            upload = self._upload
            if self._open is None or upload is None:
                return False
            if name not in upload.missing:
                return name in upload.objects  # a retry: its first attempt arrived
            if sum(map(len, upload.objects.values())) + len(content) > self._max_bytes:
                self.refuse_oversized()
                return False
            upload.objects[name] = content
            upload.missing.discard(name)
            if not upload.missing:
                self._close(_read_answer(self._open.task, upload))
            return True

    def refuse_oversized(self) -> None:
        """Close the open task, whose answer is too large to be taken in: the SuperNode does not try again."""
        with self._changed:
            if self._open is not None:
                self._close(Answer(self._open.task, reason=Reason.REFUSED_BY_GATE))

    def _close(self, answer: Answer) -> None:
        self._open = None
        self._upload = None
        self.answers.put(answer)
        self._changed.notify_all()


def _deliver(task: link_pb2.Task) -> Delivery:
    """Put a task into a Flower message of our own making."""
    metadata = Metadata(
        run_id=task.run_id,
        message_id="",
        src_node_id=SUPERLINK_NODE_ID,
        dst_node_id=NODE_ID,
        reply_to_message_id="",
        group_id=task.task_id[:12],
        created_at=now().timestamp(),
        ttl=_TTL_SECONDS,
        message_type="train",
    )
    message: Message = make_message(metadata=metadata, content=wrap(task.round_task))
    return Delivery(task, *disassemble(message))


def _read_answer(task: link_pb2.Task, upload: _Upload) -> Answer:
    """Take the payload out of a complete answer; Flower's own error text stays here."""
    try:
        return Answer(task, payload=unwrap(assemble(upload.message_id, upload.objects)))
    except DeltaError:
        return Answer(task, reason=Reason.APP_FAILED)

"""Tasks as they go down the link: whole, or in parts from where the plant has them."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from dataclasses import dataclass

from fedsparse.delta.wire import field_head
from fedsparse.parts import PART_BYTES, parts
from fedsparse.v1 import link_pb2
from fedsparse_server.superlink import PulledTask


@dataclass(frozen=True)
class There:
    """What a plant says that it has already.

    Attributes:
        held: ids of whole tasks.
        partial: id of a task of which it has the first bytes; empty for none.
        partial_bytes: how many.
    """

    held: Container[str]
    partial: str
    partial_bytes: int

    def offset(self, task: PulledTask) -> int:
        """Return from which byte on a task is to be sent."""
        whole_parts = self.partial_bytes % PART_BYTES == 0 and self.partial_bytes < len(task.payload)
        return self.partial_bytes if task.task_id == self.partial and whole_parts else 0


def task_messages(task: PulledTask, offset: int, is_open: Callable[[], bool]) -> Iterator[bytes]:
    """Yield a task as link_pb2.Task in bytes: one message, or a head and parts (link.proto).

    Args:
        offset: from which byte on the plant lacks it; a whole number of parts.
        is_open: tells whether the stream goes on.
    """
    payload = task.payload
    head = link_pb2.Task(
        task_id=task.task_id, run_id=task.message.metadata.run_id, bundle_sha256=task.bundle_sha256
    )
    if len(payload) <= PART_BYTES:
        head.round_task = payload
        yield head.SerializeToString()
        return
    head.size, head.offset = len(payload), offset
    yield head.SerializeToString()
    for part in parts(payload, offset):
        if not is_open():
            return
        yield field_head(link_pb2.Task.ROUND_TASK_FIELD_NUMBER, len(part)) + part  # copied once, not three times

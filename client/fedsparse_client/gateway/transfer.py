"""Large payloads at the plant's end of the link: updates go up in parts, and tasks come down in parts."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from hashlib import sha256

import grpc

from fedsparse.errors import HubUnreachableError, LinkError
from fedsparse.parts import OFFSET, PART_BYTES, Assembly, parts
from fedsparse.v1 import link_pb2, link_pb2_grpc

_SECONDS = 60.0
_SECONDS_PER_PART = 10.0  # a line that carries less than 100 kB/s needs several calls, each of which goes on
_MOST_DIGITS = 18


def upload(stub: link_pb2_grpc.LinkStub, task_id: str, payload: bytes) -> None:
    """Bring a payload of more than ``PART_BYTES`` to the hub; go on from where an earlier call was cut off.

    Raises:
        grpc.RpcError: the hub refuses, or the connection drops; what has arrived stays there.
        HubUnreachableError: the call was cut off, by the hub's patience or because the link dials anew.
        LinkError: the hub asks for bytes that there are not.
    """
    try:
        _upload(stub, task_id, payload)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.CANCELLED:
            raise HubUnreachableError("the upload was cut off") from None
        raise
    except (grpc.FutureCancelledError, ValueError):  # ValueError: gRPC's word for a channel that was closed
        raise HubUnreachableError("the upload was cut off") from None


def _upload(stub: link_pb2_grpc.LinkStub, task_id: str, payload: bytes) -> None:
    told: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    size = len(payload)

    def messages() -> Iterator[link_pb2.UploadPart]:
        head = link_pb2.UploadHead(task_id=task_id, sha256=sha256(payload).digest(), size=size)
        yield link_pb2.UploadPart(head=head)
        if (offset := told.get()) is not None:
            for part in parts(payload, offset):
                yield link_pb2.UploadPart(data=bytes(part))

    call = stub.Upload.future(messages(), timeout=_SECONDS + _SECONDS_PER_PART * size / PART_BYTES)
    try:
        offset = _offset(call, size)
    except BaseException:
        told.put(None)  # gRPC's thread waits for it
        call.cancel()  # type: ignore[no-untyped-call]
        raise
    told.put(offset)
    call.result()  # where the hub has named no offset, it has refused: this says why


def _offset(call: grpc.Call, size: int) -> int | None:
    """Wait for the hub's word from where on it wants the data; None where the call has ended.

    Raises:
        LinkError: it is no place at which a part begins, nor the end.
    """
    given = dict(call.initial_metadata() or ()).get(OFFSET)
    if given is None:
        return None
    said = str(given)
    offset = int(said) if said.isdecimal() and len(said) <= _MOST_DIGITS else size + 1
    if offset > size or (offset < size and offset % PART_BYTES):
        raise LinkError(f"the hub wants the bytes from {said[:40]!r} on, of an update of {size}")
    return offset


class Incoming:
    """Puts tasks together; what a dropped connection has brought of one is kept for the next connection.

    Args:
        max_bytes: most that a task may have.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._head = link_pb2.Task()
        self._here: Assembly | None = None
        self._in_parts = False

    def begin(self) -> tuple[str, int]:
        """Begin with a new stream; return the task that is here in part, or "", and how many bytes."""
        self._in_parts = False
        return (self._head.task_id, len(self._here)) if self._here else ("", 0)

    def take(self, message: link_pb2.Task) -> link_pb2.Task | None:
        """Take the stream's next message; return the task that it completes.

        Raises:
            LinkError: it does not follow from those before, or announces too much; nothing is kept.
        """
        try:
            return self._whole(message) if message.task_id else self._part(message.round_task)
        except LinkError:
            self._drop()
            raise

    def _whole(self, message: link_pb2.Task) -> link_pb2.Task | None:
        """Take a whole task, or the head of one that comes in parts."""
        if not message.size:
            self._drop()
            return message
        if message.round_task or not PART_BYTES < message.size <= self._max:
            raise LinkError(
                f"the hub announces a task of {message.size} bytes in parts; it may have {PART_BYTES + 1} "
                f"to {self._max}"
            )
        here = self._here
        if here is None or self._head.task_id != message.task_id or here.size != message.size:
            here = Assembly(message.size)
        if message.offset != len(here):
            raise LinkError(f"the hub begins a task at its byte {message.offset}, {len(here)} are here")
        self._head, self._here, self._in_parts = message, here, True
        return None

    def _part(self, data: bytes) -> link_pb2.Task | None:
        if self._here is None or not self._in_parts:
            raise LinkError("the hub sends a part of no task")
        self._here.add(data)
        if not self._here.complete:
            return None
        head = self._head
        task = link_pb2.Task(
            task_id=head.task_id,
            run_id=head.run_id,
            bundle_sha256=head.bundle_sha256,
            round_task=self._here.take(),
        )
        self._drop()
        return task

    def _drop(self) -> None:
        self._head, self._here, self._in_parts = link_pb2.Task(), None, False

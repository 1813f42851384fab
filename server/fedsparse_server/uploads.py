"""Large updates that come in parts, ahead of their Push; what a dropped connection has brought is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

import grpc

from fedsparse.errors import LinkError
from fedsparse.parts import OFFSET, PART_BYTES, Assembly
from fedsparse.v1 import link_pb2
from fedsparse_server.calls import refuse

_DIGEST_BYTES = 32


class Hash(Protocol):
    """A hash under way."""

    def update(self, data: bytes, /) -> None:
        """Take more bytes."""

    def digest(self) -> bytes:
        """Return the hash of all bytes so far."""


@dataclass(frozen=True)
class Upload:
    """What a plant has uploaded for one task, or is uploading.

    Attributes:
        task_id: the task that it is to answer.
        sha256: of all of it, as its head says.
        parts: those that are here.
        hashed: these, as they came: to copy and hash hundreds of megabytes at the end takes as long as the line.
    """

    task_id: str
    sha256: bytes
    parts: Assembly
    hashed: Hash = field(default_factory=hashlib.sha256)

    def add(self, part: bytes) -> None:
        """Take the next part.

        Raises:
            LinkError: it has another length than the part at this place.
        """
        self.parts.add(part)
        self.hashed.update(part)

    def holds(self, task_id: str, digest: bytes) -> bool:
        """Tell whether it is these bytes for this task, and all of them."""
        is_whole = self.parts.complete and self.hashed.digest() == self.sha256
        return is_whole and (self.task_id, self.sha256) == (task_id, digest)


def checked_head(
    plant: str, messages: Iterator[link_pb2.UploadPart], most: int, context: grpc.ServicerContext
) -> link_pb2.UploadHead:
    """Return the head that an upload begins with, or end the call.

    Args:
        most: bytes that an update may have.
    """
    first = next(messages, link_pb2.UploadPart())
    head = first.head
    if first.data or len(head.sha256) != _DIGEST_BYTES or head.size <= PART_BYTES:
        _refuse(context, f"an upload of {plant} begins without a head, or with one of {head.size} bytes")
    if head.size > most:
        what = f"{plant} announces an update of {head.size} bytes, the limit is {most} (hub.max_update_bytes)"
        refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, what)
    return head


def begun(head: link_pb2.UploadHead, earlier: Upload | None) -> Upload:
    """Return the upload that a head goes on with, or begins."""
    same = earlier is not None and (earlier.task_id, earlier.sha256) == (head.task_id, head.sha256)
    if same and earlier is not None and earlier.parts.size == head.size:
        return earlier
    return Upload(head.task_id, head.sha256, Assembly(head.size))


def say_offset(context: grpc.ServicerContext, offset: int) -> None:
    """Tell the plant from which byte on to send; it sends nothing before."""
    context.send_initial_metadata(((OFFSET, str(offset)),))


def receive(
    plant: str,
    upload: Upload,
    messages: Iterator[link_pb2.UploadPart],
    context: grpc.ServicerContext,
    is_open: Callable[[], bool],
) -> bool:
    """Take the parts of ``upload``; return whether they are what its head says. A wrong part ends the call.

    Args:
        is_open: tells whether the session that it belongs to goes on.

    Raises:
        grpc.RpcError: the plant has hung up; the parts that are here stay good.
    """
    for message in messages:
        if not is_open():
            refuse(context, grpc.StatusCode.NOT_FOUND, f"the session of {plant} has ended, and its upload with it")
        if message.HasField("head"):
            _refuse(context, f"an upload of {plant} has a second head")
        try:
            upload.add(message.data)
        except LinkError as error:
            _refuse(context, f"an upload of {plant}: {error}")
        if upload.parts.complete:
            break
    if not upload.parts.complete:
        _refuse(context, f"an upload of {plant} ends after {len(upload.parts)} of {upload.parts.size} bytes")
    return upload.hashed.digest() == upload.sha256


def _refuse(context: grpc.ServicerContext, why: str) -> NoReturn:
    refuse(context, grpc.StatusCode.INVALID_ARGUMENT, why)

"""What the hub answers to plants; every request is hostile until it is checked."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import NoReturn

import grpc
import httpx

from fedsparse import config
from fedsparse.aggregation import admit_update
from fedsparse.delta import AdapterSpace, Reason, decode_task, decode_update
from fedsparse.errors import FedsparseError, LedgerError
from fedsparse.events import EventLog
from fedsparse.v1 import link_pb2
from fedsparse_server.calls import refuse
from fedsparse_server.peers import Door, Peer, RefusedError
from fedsparse_server.quiet import QUIET_SECONDS, QuietClients
from fedsparse_server.receipts import ReceiptBook
from fedsparse_server.sessions import Session, Sessions
from fedsparse_server.superlink import Looks, PulledTask
from fedsparse_server.tasks import There, task_messages
from fedsparse_server.uploads import begun, checked_head, receive, say_offset
from fedsparse_server.witness import Witness

PROTOCOL = 3
_POLL_SECONDS = 30.0  # how often a stream looks for tasks that no bell announced; each look costs the SuperLink
_TOKEN_BYTES = 16
_MOST_HELD = 16  # tasks that a plant may say it holds; it works on one
_log = logging.getLogger("hub")


class Hub:
    """Answers the calls of the link.

    Args:
        settings: the federation's settings.
        federation: what every plant is told on Describe.
        door: who is let in.
        sessions: who is present.
        receipts: where the hub's word for what it received is kept.
        events: told of ledgers that cannot be witnessed.
        quiet: told of every call, and asked for who makes none.
    """

    def __init__(
        self,
        settings: config.FederationConfig,
        federation: link_pb2.Federation,
        door: Door,
        sessions: Sessions,
        receipts: ReceiptBook,
        events: EventLog,
        quiet: QuietClients,
    ) -> None:
        self._settings = settings
        self._federation = federation
        self._space = AdapterSpace.from_proto(federation.space)
        self._door = door
        self._sessions = sessions
        self._receipts = receipts
        self._witness = Witness(receipts, events)
        self._quiet = quiet
        self._pushing = {plant: threading.Lock() for plant in settings.hub.plants}
        self._attending: dict[grpc.ServicerContext, Peer] = {}
        self._lock = threading.Lock()

    def turn_out(self) -> None:
        """End the streams of plants whose certificate no longer counts, whether or not those listen to them."""
        with self._lock:
            attending = list(self._attending.items())
        for context, peer in attending:
            try:
                self._door.check(peer)
            except RefusedError as refusal:
                _log.warning("refused %s: %s", context.peer(), refusal)
                self._sessions.turn_out(peer.name)
                context.cancel()  # type: ignore[no-untyped-call]

    def tell_of_quiet(self) -> None:
        """Log who shook hands and made no call."""
        for address in self._quiet.take():
            _log.info(
                "%s made no call within %.0f s of its TLS handshake: a plant that looked at the hub's certificate "
                "and hung up, or one that speaks no gRPC",
                address, QUIET_SECONDS,
            )  # fmt: skip

    def describe(
        self, peer: Peer, request: link_pb2.DescribeRequest, context: grpc.ServicerContext
    ) -> link_pb2.Federation:
        """Tell an admitted plant what this federation trains."""
        _require_protocol(request.protocol, context)
        _log.info("%s asked what is trained here", peer.name)
        return self._federation

    def attend(
        self, peer: Peer, request: link_pb2.AttendRequest, context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        """Hold a plant's presence and hand it tasks, until it hangs up."""
        _require_protocol(request.protocol, context)
        if request.space != self._space.fingerprint:
            refuse(
                context,
                grpc.StatusCode.FAILED_PRECONDITION,
                f"{peer.name} derived the adapter space {request.space.hex()[:16]}, "
                f"this federation trains {self._space.fingerprint.hex()[:16]}: "
                "the base models or adapter settings differ",
            )
        if len(request.session) not in (0, _TOKEN_BYTES) or len(request.held) > _MOST_HELD:
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"{peer.name} dials with a malformed session")
        try:
            with (
                self._watched(peer, context),
                self._sessions.attend(peer.name, request.session) as (
                    session,
                    stream,
                ),
            ):
                context.send_initial_metadata(())  # tells the plant that it is in
                context.add_callback(session.wake.set)  # a plant that hangs up is missed at once
                there = There(frozenset(request.held), request.partial, request.partial_bytes)
                yield from self._tasks(
                    peer, session, lambda: context.is_active() and session.is_carried_by(stream), there
                )
            self._door.check(peer)  # the plant is told where its certificate was the reason
        except RefusedError as refusal:
            refuse(context, refusal.code, str(refusal))
        except (httpx.HTTPError, OSError, FedsparseError) as error:
            refuse(context, grpc.StatusCode.UNAVAILABLE, f"no tasks can be handed out now: {error}")

    def push(self, peer: Peer, request: link_pb2.Update, context: grpc.ServicerContext) -> link_pb2.Receipt:
        """Check one update as hostile input, hand it to Flower, and give a signed receipt for it."""
        plant = peer.name
        with self._alone(plant, context):
            try:
                if (earlier := self._receipts.find(plant, request.task_id)) is None:
                    return self._take(peer, request, context)
            except (httpx.HTTPError, RuntimeError, FedsparseError) as error:
                # RuntimeError: the plant dialled again meanwhile, and the older node's client is closed.
                refuse(context, grpc.StatusCode.UNAVAILABLE, f"cannot take the update now: {error}")
        digest = request.uploaded_sha256 or sha256(request.round_update).digest()
        if (earlier.body.payload_sha256, earlier.body.ledger_hash) != (digest, request.ledger_hash):
            _refuse_other_bytes(plant, request, context)
        return earlier

    def upload(
        self, peer: Peer, messages: Iterator[link_pb2.UploadPart], context: grpc.ServicerContext
    ) -> link_pb2.Uploaded:
        """Take the bytes of a large update, from where an earlier call was cut off; its Push comes next."""
        plant = peer.name
        head = checked_head(plant, messages, self._settings.hub.max_update_bytes, context)
        with self._alone(plant, context), self._watched(peer, context):
            try:
                delivered = self._receipts.find(plant, head.task_id) is not None
            except LedgerError as error:
                refuse(context, grpc.StatusCode.UNAVAILABLE, f"cannot take the update now: {error}")
            if delivered:  # the receipt got lost, not the update
                say_offset(context, head.size)
                return link_pb2.Uploaded(size=head.size)
            session, _ = self._open_task(plant, head.task_id, context)
            session.upload = upload = begun(head, session.upload)
            say_offset(context, len(upload.parts))
            whole = upload.parts.complete or receive(plant, upload, messages, context, lambda: not session.ended)
            if not whole:
                session.upload = None
                refuse(
                    context,
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"what {plant} uploaded for the task {head.task_id[:12]!r} is not what its head says",
                )
            return link_pb2.Uploaded(size=head.size)

    @contextmanager
    def _watched(self, peer: Peer, context: grpc.ServicerContext) -> Iterator[None]:
        """Let :meth:`turn_out` end a call that may last."""
        with self._lock:
            self._attending[context] = peer
        try:
            yield
        finally:
            with self._lock:
                self._attending.pop(context, None)

    @contextmanager
    def _alone(self, plant: str, context: grpc.ServicerContext) -> Iterator[None]:
        """Take one update of a plant at a time: a task counts once, however often it is pushed at once."""
        lock = self._pushing[plant]
        if not lock.acquire(blocking=False):
            refuse(context, grpc.StatusCode.UNAVAILABLE, f"another update of {plant} is being taken just now")
        try:
            yield
        finally:
            lock.release()

    def _open_task(self, plant: str, task_id: str, context: grpc.ServicerContext) -> tuple[Session, PulledTask]:
        """Return an open task of a plant and the session that it belongs to, or refuse."""
        if (found := self._sessions.task(plant, task_id)) is None:
            refuse(context, grpc.StatusCode.NOT_FOUND, f"{plant} has no open task {task_id[:12]!r}")
        return found

    def _take(self, peer: Peer, request: link_pb2.Update, context: grpc.ServicerContext) -> link_pb2.Receipt:
        """Check an update that has no receipt yet, hand it to Flower once, and issue its receipt."""
        plant = peer.name
        session, task = self._open_task(plant, request.task_id, context)
        payload, digest = _payload(plant, session, request, context)
        try:
            self._check(payload, digest, task)
        except FedsparseError as error:
            session.upload = None
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"update from {plant}: {error}")
        if len(request.ledger_hash) != 32:
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "ledger_hash must have 32 bytes")
        checkpoint = self._witness.check(peer, request, context)
        if session.delivered.get(request.task_id, digest) != digest:
            _refuse_other_bytes(plant, request, context)
        if request.task_id not in session.delivered:
            self._deliver(session, task, payload, context)
            session.delivered[request.task_id] = digest
        receipt = self._receipts.issue(plant, request, digest, checkpoint)
        session.outstanding.pop(request.task_id, None)
        session.delivered.pop(request.task_id, None)
        session.upload = None
        session.wake.set()
        return receipt

    def _deliver(self, session: Session, task: PulledTask, payload: bytes, context: grpc.ServicerContext) -> None:
        """Hand an update to Flower; one that Flower will never take again is refused for good."""
        try:
            session.node.reply(task, payload)
        except httpx.HTTPStatusError as error:
            if not error.response.is_client_error:
                raise
            session.outstanding.pop(task.task_id, None)
            session.upload = None
            session.wake.set()
            refuse(context, grpc.StatusCode.NOT_FOUND, f"the run of the task {task.task_id[:12]!r} has ended")

    def _check(self, payload: bytes, digest: bytes, task: PulledTask) -> None:
        """Decode ``payload`` as a stranger's, and check that it answers ``task``.

        Raises:
            FedsparseError: says what is wrong with it.
        """
        limit = self._settings.hub.max_update_bytes
        expected = decode_task(task.payload, max_bytes=len(task.payload))
        update = decode_update(payload, max_bytes=limit)
        if update.reason is Reason.NONE:
            admit_update(
                update,
                digest,
                self._space,
                round=expected.round,
                version=expected.version,
                max_density=expected.training.density,
            )

    def admit(self, context: grpc.ServicerContext) -> Peer:
        """Return who calls, or refuse, saying which check failed."""
        self._quiet.spoke(context.peer())
        try:
            return self._door.admit(context.auth_context())  # type: ignore[arg-type] # lists of bytes in truth
        except RefusedError as refusal:
            refuse(context, refusal.code, str(refusal))

    def _tasks(self, peer: Peer, session: Session, is_open: Callable[[], bool], there: There) -> Iterator[bytes]:
        """Yield tasks while a stream speaks for its plant: first those that an earlier one may have lost."""
        with session.pulling:
            session.forget_expired()
            lost = [task for task in session.outstanding.values() if task.task_id not in there.held]
        for newest in lost[-1:]:  # of an older round nobody waits for an answer
            yield from task_messages(newest, there.offset(newest), is_open)
        looks = Looks(session.node, _POLL_SECONDS)
        while is_open():
            session.wake.clear()
            if not is_open():  # the plant may have hung up just before the bell was silenced
                return
            with session.pulling:
                task, pause = looks.look() if is_open() else (None, 0.0)
                session.forget_expired()
                if task is not None:
                    session.outstanding[task.task_id] = task
            if task is not None:
                _log.info("task %s for %s, %d bytes", task.task_id[:12], peer.name, len(task.payload))
                yield from task_messages(task, 0, is_open)
            session.wake.wait(pause)


def _payload(
    plant: str, session: Session, request: link_pb2.Update, context: grpc.ServicerContext
) -> tuple[bytes, bytes]:
    """Return the bytes that answer a task, those of the request or those uploaded before it, and their SHA-256."""
    if not request.uploaded_sha256:
        payload = request.round_update
        return payload, sha256(payload).digest()
    upload = session.upload
    if request.round_update or upload is None or not upload.holds(request.task_id, request.uploaded_sha256):
        what = f"{plant} pushes an update for the task {request.task_id[:12]!r} that it has not uploaded"
        refuse(context, grpc.StatusCode.UNAVAILABLE, what)
    return upload.parts.take(), upload.sha256


def _require_protocol(protocol: int, context: grpc.ServicerContext) -> None:
    if protocol != PROTOCOL:
        refuse(
            context,
            grpc.StatusCode.FAILED_PRECONDITION,
            f"the plant speaks link protocol {protocol}, this hub {PROTOCOL}: update the older side",
        )


def _refuse_other_bytes(plant: str, request: link_pb2.Update, context: grpc.ServicerContext) -> NoReturn:
    why = f"{plant} has already answered the task {request.task_id[:12]!r} with other bytes"
    refuse(context, grpc.StatusCode.ALREADY_EXISTS, why)

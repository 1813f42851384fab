"""The hub: the one port off loopback. Plants dial it over mutual TLS; behind it Flower stays on loopback."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import NoReturn

import grpc
import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from fedsparse import config
from fedsparse.aggregation import admit
from fedsparse.delta import AdapterSpace, Reason, decode_task, decode_update
from fedsparse.errors import FedsparseError, LinkError
from fedsparse.events import EventLog
from fedsparse.security import (
    Credentials,
    Role,
    identity_of,
    load_credentials,
    server_credentials,
    sign,
    watch_handshakes,
)
from fedsparse.v1 import link_pb2, link_pb2_grpc
from fedsparse_server.receipts import ReceiptBook
from fedsparse_server.superlink import PulledTask, SuperLinkNode

PROTOCOL = 1
_POLL_SECONDS = 0.15
_BUSY_POLL_SECONDS = 1.0
_MAX_STREAMS = 3  # of one plant: the newest speaks for it, others may still be ending
_SPARE_WORKERS = 32  # for calls that are not presence
_REMEMBERED_NODES = 100  # of one plant that have left, so that the strategy can still name them
_log = logging.getLogger("hub")


@dataclass
class _Session:
    """One plant's presence: its Flower node and the tasks it has been given.

    Attributes:
        delivered: digests of updates that Flower has, but that have no receipt yet.
    """

    node: SuperLinkNode
    outstanding: dict[str, PulledTask] = field(default_factory=dict)
    delivered: dict[str, bytes] = field(default_factory=dict)
    replaced: bool = False
    wake: threading.Event = field(default_factory=threading.Event)


class Hub(link_pb2_grpc.LinkServicer):
    """Serves the link.

    Args:
        settings: the federation's settings.
        federation: what every plant is told on Describe.
        superlink: "host:port" of the SuperLink on loopback.
        receipts: where the hub's word for what it received is kept.
        events: told when plants come and go.
        roster: JSON file that says which Flower node speaks for which plant.
    """

    def __init__(
        self,
        settings: config.FederationConfig,
        federation: link_pb2.Federation,
        superlink: str,
        receipts: ReceiptBook,
        events: EventLog,
        roster: Path,
    ) -> None:
        self._settings = settings
        self._federation = federation
        self._space = AdapterSpace.from_proto(federation.space)
        self._superlink = superlink
        self._receipts = receipts
        self._events = events
        self._roster = roster
        self._sessions: dict[str, _Session] = {}
        self._nodes: dict[str, str] = {}  # Flower node id -> plant, also of nodes that have left
        self._streams: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._pushing = {plant: threading.Lock() for plant in settings.hub.plants}

    def Describe(  # noqa: N802 - gRPC's naming
        self, request: link_pb2.DescribeRequest, context: grpc.ServicerContext
    ) -> link_pb2.Federation:
        """Tell an admitted plant what this federation trains."""
        plant = self._authenticate(context)
        _require_protocol(request.protocol, context)
        _log.info("%s asked what is trained here", plant)
        return self._federation

    def Attend(  # noqa: N802
        self, request: link_pb2.AttendRequest, context: grpc.ServicerContext
    ) -> Iterator[link_pb2.Task]:
        """Hold a plant's presence and hand it tasks, until it hangs up."""
        plant = self._authenticate(context)
        _require_protocol(request.protocol, context)
        if request.space != self._space.fingerprint:
            _refuse(
                context,
                grpc.StatusCode.FAILED_PRECONDITION,
                f"{plant} derived the adapter space {request.space.hex()[:16]}, "
                f"this federation trains {self._space.fingerprint.hex()[:16]}: "
                "the base models or adapter settings differ",
            )
        with self._one_more_stream(plant, context):
            try:
                with SuperLinkNode(self._superlink) as node:
                    session = _Session(node)
                    try:
                        self._enter(plant, session)
                        context.send_initial_metadata(())  # tells the plant that it is in
                        yield from self._tasks(plant, session, context)
                    finally:
                        self._leave(plant, session)
            except (httpx.HTTPError, OSError, FedsparseError) as error:
                _refuse(context, grpc.StatusCode.UNAVAILABLE, f"no tasks can be handed out now: {error}")

    def Push(  # noqa: N802
        self, request: link_pb2.Update, context: grpc.ServicerContext
    ) -> link_pb2.Receipt:
        """Check one update as hostile input, hand it to Flower, and give a signed receipt for it."""
        plant = self._authenticate(context)
        lock = self._pushing[plant]  # a task counts once, however often it is pushed at the same time
        if not lock.acquire(blocking=False):
            _refuse(context, grpc.StatusCode.UNAVAILABLE, f"another update of {plant} is being taken just now")
        try:
            if (earlier := self._receipts.find(plant, request.task_id)) is None:
                return self._take(plant, request, context)
        except (httpx.HTTPError, RuntimeError, FedsparseError) as error:
            # RuntimeError: the plant dialled again meanwhile, and the older node's client is closed.
            _refuse(context, grpc.StatusCode.UNAVAILABLE, f"cannot take the update now: {error}")
        finally:
            lock.release()
        digest = sha256(request.round_update).digest()
        if (earlier.body.payload_sha256, earlier.body.ledger_hash) != (digest, request.ledger_hash):
            _refuse_other_bytes(plant, request, context)
        return earlier

    def _take(self, plant: str, request: link_pb2.Update, context: grpc.ServicerContext) -> link_pb2.Receipt:
        """Check an update that has no receipt yet, hand it to Flower once, and issue its receipt."""
        with self._lock:
            session = self._sessions.get(plant)
            task = session.outstanding.get(request.task_id) if session else None
        if session is None or task is None:
            _refuse(context, grpc.StatusCode.NOT_FOUND, f"{plant} has no open task {request.task_id[:12]!r}")
        try:
            self._check(request.round_update, task)
        except FedsparseError as error:
            _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"update from {plant}: {error}")
        if len(request.ledger_hash) != 32:
            _refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "ledger_hash must have 32 bytes")
        digest = sha256(request.round_update).digest()
        if session.delivered.get(request.task_id, digest) != digest:
            _refuse_other_bytes(plant, request, context)
        if request.task_id not in session.delivered:
            self._deliver(session, task, request, context)
            session.delivered[request.task_id] = digest
        receipt = self._receipts.issue(plant, request.task_id, request.round_update, request.ledger_hash)
        session.outstanding.pop(request.task_id, None)
        session.delivered.pop(request.task_id, None)
        session.wake.set()
        return receipt

    def _deliver(
        self, session: _Session, task: PulledTask, request: link_pb2.Update, context: grpc.ServicerContext
    ) -> None:
        """Hand an update to Flower; one that Flower will never take again is refused for good."""
        try:
            session.node.reply(task, request.round_update)
        except httpx.HTTPStatusError as error:
            if not error.response.is_client_error:
                raise
            session.outstanding.pop(request.task_id, None)
            session.wake.set()
            _refuse(context, grpc.StatusCode.NOT_FOUND, f"the run of the task {request.task_id[:12]!r} has ended")

    def _check(self, payload: bytes, task: PulledTask) -> None:
        """Decode ``payload`` as a stranger's, and check that it answers ``task``.

        Raises:
            FedsparseError: says what is wrong with it.
        """
        limit = self._settings.hub.max_update_bytes
        expected = decode_task(task.payload, max_bytes=len(task.payload))
        if decode_update(payload, max_bytes=limit).reason is Reason.NONE:
            admit(
                payload,
                self._space,
                round=expected.round,
                version=expected.version,
                max_bytes=limit,
                max_density=expected.training.density,
            )

    def _authenticate(self, context: grpc.ServicerContext) -> str:
        """Return the plant's name from its certificate, or refuse, saying which check failed."""
        peer = context.auth_context()
        version, pem = (bytes(peer.get(key, [b""])[0]) for key in ("ssl_tls_version", "x509_pem_cert"))
        if version != b"TLSv1.3":
            spoken = version.decode(errors="replace") or "nothing"
            _refuse(context, grpc.StatusCode.UNAUTHENTICATED, f"{spoken} is spoken, TLSv1.3 is needed")
        try:
            identity = identity_of(x509.load_pem_x509_certificate(pem))
        except (ValueError, FedsparseError) as error:
            _refuse(context, grpc.StatusCode.UNAUTHENTICATED, f"the client's certificate: {error}")
        if identity.role is not Role.PLANT:
            _refuse(
                context,
                grpc.StatusCode.PERMISSION_DENIED,
                f"the certificate of {identity.uri} is a {identity.role.value}'s, a plant's is needed",
            )
        if identity.name not in self._settings.hub.plants:
            _refuse(
                context,
                grpc.StatusCode.PERMISSION_DENIED,
                f"{identity.uri} is not on this hub's list of plants",
            )
        return identity.name

    @contextmanager
    def _one_more_stream(self, plant: str, context: grpc.ServicerContext) -> Iterator[None]:
        """Count the plant's streams: each holds a thread and a Flower node, and none may use up all."""
        with self._lock:
            self._streams[plant] += 1
            count = self._streams[plant]
        try:
            if count > _MAX_STREAMS:
                _refuse(context, grpc.StatusCode.UNAVAILABLE, f"{plant} has {_MAX_STREAMS} open streams already")
            yield
        finally:
            with self._lock:
                self._streams[plant] -= 1

    def _enter(self, plant: str, session: _Session) -> None:
        with self._lock:
            if (earlier := self._sessions.get(plant)) is not None:
                earlier.replaced = True  # the same plant dialled again: the newer connection speaks for it
                earlier.wake.set()
            self._sessions[plant] = session
            for node in [node for node, owner in self._nodes.items() if owner == plant][:-_REMEMBERED_NODES]:
                del self._nodes[node]
            self._nodes[str(session.node.node_id)] = plant
            self._write_roster()
        _log.info("%s is present", plant)
        self._events.emit("plant_joined", plant=plant)

    def _leave(self, plant: str, session: _Session) -> None:
        with self._lock:
            if self._sessions.get(plant) is not session:
                _log.info("an older connection of %s has ended", plant)
                return
            del self._sessions[plant]
            self._write_roster()
        _log.info("%s has left", plant)
        self._events.emit("plant_lost", plant=plant)

    def _write_roster(self) -> None:
        scratch = self._roster.with_suffix(".tmp")
        scratch.write_text(json.dumps({"nodes": self._nodes, "present": sorted(self._sessions)}))
        scratch.replace(self._roster)

    def _tasks(self, plant: str, session: _Session, context: grpc.ServicerContext) -> Iterator[link_pb2.Task]:
        context.add_callback(session.wake.set)  # a plant that hangs up is missed at once
        while context.is_active() and not session.replaced:
            task = session.node.pull()
            if task is None:
                # A plant works on one task at a time: while it does, its cores are better spent on training.
                session.wake.wait(_BUSY_POLL_SECONDS if session.outstanding else _POLL_SECONDS)
                session.wake.clear()
                continue
            session.outstanding[task.task_id] = task
            _log.info("task %s for %s, %d bytes", task.task_id[:12], plant, len(task.payload))
            yield link_pb2.Task(
                task_id=task.task_id,
                run_id=task.message.metadata.run_id,
                bundle_sha256=task.bundle_sha256,
                round_task=task.payload,
            )


def _require_protocol(protocol: int, context: grpc.ServicerContext) -> None:
    if protocol != PROTOCOL:
        _refuse(
            context,
            grpc.StatusCode.FAILED_PRECONDITION,
            f"the plant speaks link protocol {protocol}, this hub {PROTOCOL}: update the older side",
        )


def _refuse_other_bytes(plant: str, request: link_pb2.Update, context: grpc.ServicerContext) -> NoReturn:
    why = f"{plant} has already answered the task {request.task_id[:12]!r} with other bytes"
    _refuse(context, grpc.StatusCode.ALREADY_EXISTS, why)


def _refuse(context: grpc.ServicerContext, code: grpc.StatusCode, why: str) -> NoReturn:
    """End the call; the same line is told on both ends."""
    _log.warning("refused %s: %s", context.peer(), why)
    context.abort(code, why)
    raise AssertionError("abort returns never")


def listen(hub: Hub, settings: config.FederationConfig, credentials: Credentials) -> tuple[grpc.Server, int]:
    """Return a server of ``hub`` that runs, and its port.

    Raises:
        LinkError: the address in the settings is taken, or is not this machine's.
    """
    server = grpc.server(
        ThreadPoolExecutor(max_workers=_MAX_STREAMS * len(settings.hub.plants) + _SPARE_WORKERS),
        options=[
            ("grpc.max_receive_message_length", settings.hub.max_update_bytes + 4096),
            ("grpc.max_concurrent_streams", 8),  # of one connection
            ("grpc.so_reuseport", 0),
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ],
    )
    link_pb2_grpc.add_LinkServicer_to_server(hub, server)
    try:
        port = server.add_secure_port(settings.hub.listen, server_credentials(credentials))
    except RuntimeError as error:
        raise LinkError(
            f"the hub cannot listen on {settings.hub.listen}: {error}", "Free the port, or change hub.listen"
        ) from None
    server.start()
    return server, port


def serve(settings: config.FederationConfig, superlink: str, events: EventLog) -> None:
    """Serve until SIGTERM."""
    identity = settings.hub.identity
    credentials = load_credentials(identity.certificate, identity.key, identity.authority, Role.HUB)
    certificate = x509.load_pem_x509_certificate(credentials.certificate).public_bytes(Encoding.DER)
    receipts = ReceiptBook(settings.state / "receipts", lambda data: sign(credentials.key, data), certificate)
    federation = link_pb2.Federation.FromString((settings.state / "federation.pb").read_bytes())
    hub = Hub(settings, federation, superlink, receipts, events, settings.state / "roster.json")
    server, _ = listen(hub, settings, credentials)
    _log.info("listening on %s", settings.hub.listen)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    signal.signal(signal.SIGINT, lambda number, frame: stop.set())
    (settings.state / "hub.ready").write_text(str(os.getpid()))
    stop.wait()
    server.stop(grace=1.0).wait()


def main() -> None:
    """Run as a process of the supervisor's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--superlink", required=True)
    options = parser.parse_args()
    try:
        _run(config.load(options.config, config.FederationConfig), options.superlink)
    except FedsparseError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(1)


def _run(settings: config.FederationConfig, superlink: str) -> None:
    with watch_handshakes(lambda check: _log.warning("refused a client: %s", check)) as stderr:
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=stderr, force=True
        )
        logging.getLogger("httpx").setLevel(logging.WARNING)
        serve(settings, superlink, EventLog(settings.state / "events.jsonl"))


if __name__ == "__main__":
    main()

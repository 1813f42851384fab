"""The hub: the one port off loopback. Plants dial it over mutual TLS; behind it Flower stays on loopback."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from cryptography import x509

from fedsparse import config
from fedsparse.errors import FedsparseError, LinkError
from fedsparse.events import EventLog
from fedsparse.parts import MESSAGE_BYTES
from fedsparse.security import (
    Daily,
    Handshake,
    LiveCredentials,
    Revocations,
    Role,
    mark_option,
    server_credentials,
    watch_handshakes,
)
from fedsparse.v1 import link_pb2
from fedsparse_server.bell import follow
from fedsparse_server.calls import CALLS_AT_ONCE, HEADER_BYTES, Calls, Method
from fedsparse_server.peers import Door
from fedsparse_server.quiet import QuietClients
from fedsparse_server.receipts import ReceiptBook
from fedsparse_server.service import Hub
from fedsparse_server.sessions import Sessions
from fedsparse_server.superlink import Shelf, SuperLinkNode

_LINK = "/fedsparse.v1.Link"
_CHECK_SECONDS = 2.0  # how often it is seen who may no longer be in, and whether certificates have changed
_SPARE_WORKERS = 32  # for callers who are turned away
_log = logging.getLogger("hub")


def listen(
    hub: Hub, settings: config.FederationConfig, credentials: LiveCredentials, mark: str
) -> tuple[grpc.Server, int]:
    """Return a server of ``hub`` that runs, and its port.

    Args:
        mark: by which its handshakes are known in gRPC's log.

    Raises:
        LinkError: the address in the settings is taken, or is not this machine's.
    """
    server = grpc.server(
        ThreadPoolExecutor(max_workers=CALLS_AT_ONCE * len(settings.hub.plants) + _SPARE_WORKERS),
        options=[
            ("grpc.max_receive_message_length", MESSAGE_BYTES),
            ("grpc.max_concurrent_streams", 8),  # of one connection
            ("grpc.max_metadata_size", HEADER_BYTES),
            ("grpc.absolute_max_metadata_size", HEADER_BYTES),
            ("grpc.so_reuseport", 0),
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.server_handshake_timeout_ms", 20_000),
            mark_option(mark),
        ],
    )
    methods = {
        f"{_LINK}/Describe": Method(hub.describe, link_pb2.DescribeRequest),
        f"{_LINK}/Attend": Method(hub.attend, link_pb2.AttendRequest, streams=True),
        f"{_LINK}/Push": Method(hub.push, link_pb2.Update),
        f"{_LINK}/Upload": Method(hub.upload, link_pb2.UploadPart, gathers=True),
    }
    server.add_generic_rpc_handlers((Calls(hub.admit, methods),))
    try:
        port = server.add_secure_port(settings.hub.listen, server_credentials(credentials))
    except RuntimeError as error:
        raise LinkError(
            f"the hub cannot listen on {settings.hub.listen}: {error}", "Free the port, or change hub.listen"
        ) from None
    server.start()
    return server, port


def serve(
    settings: config.FederationConfig, superlink: str, events: EventLog, quiet: QuietClients, mark: str
) -> None:
    """Serve until SIGTERM."""
    identity, state = settings.hub.identity, settings.state
    credentials = LiveCredentials(identity, Role.HUB, _log.error)

    def roots() -> tuple[x509.Certificate, ...]:
        return credentials.current.roots

    door = Door(settings.hub.plants, roots, Revocations(identity.revoked, roots))
    shelf = Shelf()
    sessions = Sessions(
        lambda: SuperLinkNode(superlink, shelf), events, state / "roster.json", settings.hub.grace_seconds
    )
    receipts = ReceiptBook(state / "receipts", lambda: credentials.current)
    federation = link_pb2.Federation.FromString((state / "federation.pb").read_bytes())
    hub = Hub(settings, federation, door, sessions, receipts, events, quiet)
    server, _ = listen(hub, settings, credentials, mark)
    _log.info("listening on %s", settings.hub.listen)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stop.set())
    signal.signal(signal.SIGINT, lambda number, frame: stop.set())
    (state / "hub.ready").write_text(str(os.getpid()))
    threading.Thread(target=_keep_watch, args=(hub, credentials, stop), daemon=True).start()
    follow(state, sessions.wake, stop)
    server.stop(grace=1.0).wait()
    sessions.close()


def _keep_watch(hub: Hub, credentials: LiveCredentials, stop: threading.Event) -> None:
    """Take new certificates up, and turn out whose certificate no longer counts, until ``stop`` is set."""
    daily = Daily()
    while not stop.wait(_CHECK_SECONDS):
        try:
            if due := daily.once(credentials.current.renewal_due):
                _log.warning("%s", due)
            if credentials.renew():
                _log.info(
                    "the certificate or a CA has changed: new connections get it, receipts are signed with it"
                )
            hub.turn_out()
            hub.tell_of_quiet()
        except Exception:  # a thread that ends without a word would leave revoked plants in for ever
            _log.exception("certificates could not be looked at")


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
    quiet = QuietClients()

    def on_handshake(handshake: Handshake) -> None:
        if handshake.failure is None:
            quiet.shook_hands(handshake.peer)
        else:
            _log.warning("refused %s: %s", handshake.peer, handshake.failure)

    mark = secrets.token_hex(16)
    with watch_handshakes(mark, on_handshake) as stderr:
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(name)s %(message)s", stream=stderr, force=True
        )
        logging.getLogger("httpx").setLevel(logging.WARNING)
        serve(settings, superlink, EventLog(settings.state / "events.jsonl"), quiet, mark)


if __name__ == "__main__":
    main()

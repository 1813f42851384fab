"""The plant's end of the link: dials the hub, never listens, and pushes only what the ledger has recorded."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from hashlib import sha256
from types import TracebackType
from typing import Protocol, Self

import grpc

from fedsparse.audit import Receipted, Recorded, check_receipt
from fedsparse.errors import HubUnreachableError, LinkError, ReceiptError
from fedsparse.security import Credentials, channel_credentials, probe
from fedsparse.v1 import link_pb2, link_pb2_grpc

PROTOCOL = 1
_PUSH_SECONDS = 60.0
_FIRST_BACKOFF_SECONDS = 0.5
_LAST_BACKOFF_SECONDS = 15.0
_log = logging.getLogger("gateway")

_RETRYABLE = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
_FINAL = {  # what the hub says of a plant that it will not have, now or later
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNIMPLEMENTED,
}


class Presence(Protocol):
    """Is told how the plant's presence at the hub comes and goes."""

    def dialling(self) -> None:
        """Record the dial: it comes next."""

    def accepted(self) -> None:
        """Note that the hub has let this plant in."""

    def lost(self) -> None:
        """Note that the connection has dropped."""


class Link:
    """A channel to the hub.

    Args:
        address: "host:port" of the hub.
        credentials: this plant's certificate and key, and the CA the hub must chain to.
        max_bytes: most that one message from the hub may have.
    """

    def __init__(self, address: str, credentials: Credentials, max_bytes: int) -> None:
        self._address = address
        self._credentials = credentials
        self._channel = grpc.secure_channel(
            address,
            channel_credentials(credentials),
            options=[
                ("grpc.max_receive_message_length", max_bytes),
                ("grpc.keepalive_time_ms", 10_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.initial_reconnect_backoff_ms", 500),
                ("grpc.max_reconnect_backoff_ms", 15_000),
            ],
        )
        self._stub = link_pb2_grpc.LinkStub(self._channel)
        self._stop = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up; calls under way end."""
        self._stop.set()
        self._channel.close()

    def check(self) -> None:
        """Do one TLS handshake by itself, which says more than gRPC about what failed.

        Raises:
            LinkError: names the check that failed.
        """
        host, _, port = self._address.rpartition(":")
        probe(host.strip("[]"), int(port), self._credentials)

    def describe(self) -> link_pb2.Federation:
        """Ask what this federation trains.

        Raises:
            HubUnreachableError: it does not answer now.
            LinkError: the hub refused.
        """
        try:
            return self._stub.Describe(link_pb2.DescribeRequest(protocol=PROTOCOL), timeout=_PUSH_SECONDS)
        except grpc.RpcError as error:
            kind = HubUnreachableError if error.code() in _RETRYABLE else LinkError
            raise kind(f"the hub at {self._address}: {_reason(error)}") from None

    def attend(self, space: bytes, presence: Presence) -> Iterator[link_pb2.Task]:
        """Be present, and yield tasks as they come; dial again whenever the connection drops.

        Args:
            space: fingerprint of the adapter space this site derived.
            presence: told of every dial, acceptance and loss.

        Raises:
            LinkError: the hub refuses this plant for good.
            LedgerError: the dial cannot be recorded.
        """
        backoff = _FIRST_BACKOFF_SECONDS
        while not self._stop.is_set():
            presence.dialling()
            try:
                call = self._stub.Attend(link_pb2.AttendRequest(protocol=PROTOCOL, space=space))
                call.initial_metadata()  # waits for the hub's verdict
                if call.is_active():
                    presence.accepted()
                for task in call:
                    backoff = _FIRST_BACKOFF_SECONDS
                    yield task
            except grpc.RpcError as error:
                if self._stop.is_set():
                    return
                presence.lost()
                if error.code() in _FINAL:
                    raise LinkError(f"the hub at {self._address}: {_reason(error)}") from None
                _log.warning("connection to the hub lost (%s); next try in %.1f s", _reason(error), backoff)
            else:
                presence.lost()
            self._stop.wait(backoff)
            backoff = min(2 * backoff, _LAST_BACKOFF_SECONDS)

    def push(self, task_id: str, recorded: Recorded) -> link_pb2.Receipt:
        """Send what the ledger has recorded; try again while the hub is out of reach.

        A retry is harmless: the hub answers the same task with the same receipt.

        Raises:
            ReceiptError: it was sent, but the receipt for it is wrong.
            LinkError: the hub refused it, or this gateway is stopping.
        """
        update = link_pb2.Update(task_id=task_id, round_update=recorded.payload, ledger_hash=recorded.entry_hash)
        backoff = _FIRST_BACKOFF_SECONDS
        while not self._stop.is_set():
            try:
                receipt = self._stub.Push(update, timeout=_PUSH_SECONDS)
                self._check_receipt(receipt, task_id, recorded)
                return receipt
            except grpc.RpcError as error:
                if error.code() not in _RETRYABLE:
                    raise LinkError(f"the hub at {self._address}: {_reason(error)}") from None
                _log.warning("update not delivered (%s); next try in %.1f s", _reason(error), backoff)
            self._stop.wait(backoff)
            backoff = min(2 * backoff, _LAST_BACKOFF_SECONDS)
        raise LinkError("the gateway is stopping; the update was recorded but not delivered")

    def _check_receipt(self, receipt: link_pb2.Receipt, task_id: str, recorded: Recorded) -> None:
        """Refuse a wrong receipt: in the ledger it would contradict an honest record for ever."""
        expected = Receipted(task_id, sha256(recorded.payload).digest(), recorded.entry_hash)
        data = receipt.SerializeToString(deterministic=True)
        problems = list(check_receipt(data, expected, self._credentials.authority))
        if receipt.body.plant != self._credentials.identity.name:
            problems.append(f"is for the plant {receipt.body.plant!r}")
        if problems:
            raise ReceiptError(f"the hub at {self._address} gave a receipt that {problems[0]}")


def _reason(error: grpc.RpcError) -> str:
    """Return the hub's own words, or gRPC's."""
    return f"{error.code().name.lower().replace('_', ' ')}: {error.details()}"

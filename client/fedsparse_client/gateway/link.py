"""The plant's end of the link: dials the hub, never listens, and pushes only what the ledger has recorded."""

from __future__ import annotations

import logging
import secrets
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from hashlib import sha256
from types import TracebackType
from typing import Protocol, Self

import grpc

from fedsparse.audit import STALE_SIZE, Ledger, Receipted, Recorded, agrees, check_receipt, statement
from fedsparse.errors import HubUnreachableError, LinkError, NotAdmittedError, ReceiptError
from fedsparse.parts import PART_BYTES
from fedsparse.security import Daily, LiveCredentials, Revocations, channel_credentials, probe, sign
from fedsparse.v1 import link_pb2, link_pb2_grpc
from fedsparse_client.gateway.transfer import Incoming, upload

PROTOCOL = 3
SESSION_BYTES = 16
_PUSH_SECONDS = 60.0
_FIRST_BACKOFF_SECONDS = 0.5
_LAST_BACKOFF_SECONDS = 5.0  # well within the time for which the hub keeps an open task
_WATCH_SECONDS = 2.0
_MOST_HELD = 16
_MESSAGE_BYTES = 64 << 20  # of what is not a task: a federation's space names every tensor
_MOST_DIGITS = 18  # of a ledger's size: Python refuses to read a number of some thousand
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

    def lost(self) -> Iterable[str]:
        """Note that the connection has dropped, and return the tasks that were not begun."""


class Link:
    """A channel to the hub.

    Args:
        address: "host:port" of the hub.
        credentials: this plant's certificate and key, and the CA the hub must chain to. When their files change,
            the hub is dialled anew with what they hold then.
        max_bytes: most that one task from the hub may have.
        revocations: whose word no longer counts.
        proxy: "host:port" of an HTTP proxy that tunnels to the hub; what the environment says of proxies is not
            heeded.
        session: 16 random bytes that an earlier gateway of this plant may have dialled with; empty for new ones.
    """

    def __init__(
        self,
        address: str,
        credentials: LiveCredentials,
        max_bytes: int,
        revocations: Revocations,
        proxy: str | None = None,
        session: bytes = b"",
    ) -> None:
        self._address = address
        self._proxy = proxy
        self._session = session or secrets.token_bytes(SESSION_BYTES)
        self._credentials = credentials
        self._incoming = Incoming(max_bytes)
        self._revocations = revocations
        self._held: deque[str] = deque(maxlen=_MOST_HELD)  # tasks that the hub need not send again
        self._channel = self._dial()
        self._attending: grpc.Call | None = None
        self._pushing = threading.Lock()
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

    def _dial(self) -> grpc.Channel:
        return grpc.secure_channel(
            self._address,
            channel_credentials(self._credentials.current),
            options=[
                ("grpc.max_receive_message_length", _MESSAGE_BYTES),
                ("grpc.keepalive_time_ms", 10_000),
                ("grpc.keepalive_timeout_ms", 10_000),
                ("grpc.initial_reconnect_backoff_ms", 500),
                ("grpc.max_reconnect_backoff_ms", 5_000),
                ("grpc.use_local_subchannel_pool", 1),  # a new channel makes a new connection
                ("grpc.enable_http_proxy", int(self._proxy is not None)),
                *([("grpc.http_proxy", f"http://{self._proxy}")] if self._proxy else []),
            ],
        )

    @property
    def _stub(self) -> link_pb2_grpc.LinkStub:
        return link_pb2_grpc.LinkStub(self._channel)

    def check(self) -> None:
        """Do one TLS handshake by itself, which says more than gRPC about what failed.

        Raises:
            HandshakeError: it ended before the hub had accepted us, and nothing says why.
            HubUnreachableError: nothing answers.
            NotAdmittedError: names the check that failed.
        """
        proxy = _host_and_port(self._proxy) if self._proxy else None
        probe(*_host_and_port(self._address), self._credentials.current, self._revocations, proxy)

    def _check_again(self) -> None:
        """Where the site has a revocation list, see once more whether the hub's certificate still counts.

        gRPC asks nobody about it. This is another connection than the one that carries the calls: it tells a hub
        that has not been given its new certificate, and not a thief who also answers in the hub's place.

        Raises:
            HubUnreachableError: it does not answer now.
            NotAdmittedError: its certificate does not count.
        """
        if self._revocations.any_list:
            self.check()

    def renew(self) -> bool:
        """Dial anew if there is another certificate, key or CA; return whether there is.

        The hub takes up the session where it is, so a task under way is not lost.
        """
        if not self._credentials.renew():
            return False
        _log.info("the certificate or a CA has changed: dialling anew")
        with self._pushing:  # an update under way is delivered first
            old, self._channel = self._channel, self._dial()
        if self._attending is not None:
            self._attending.cancel()  # type: ignore[no-untyped-call]
        old.close()
        return True

    def describe(self) -> link_pb2.Federation:
        """Ask what this federation trains.

        Raises:
            HubUnreachableError: it does not answer now.
            NotAdmittedError: the hub refused.
        """
        try:
            return self._stub.Describe(link_pb2.DescribeRequest(protocol=PROTOCOL), timeout=_PUSH_SECONDS)
        except grpc.RpcError as error:
            kind = HubUnreachableError if error.code() in _RETRYABLE else NotAdmittedError
            raise kind(f"the hub at {self._address}: {_reason(error)}") from None

    def attend(self, space: bytes, presence: Presence) -> Iterator[link_pb2.Task]:
        """Be present, and yield tasks as they come; dial again whenever the connection drops.

        Args:
            space: fingerprint of the adapter space this site derived.
            presence: told of every dial, acceptance and loss.

        Raises:
            NotAdmittedError: the hub refuses this plant.
            LedgerError: the dial cannot be recorded.
        """
        threading.Thread(target=self._watch_files, daemon=True).start()
        backoff = _FIRST_BACKOFF_SECONDS
        while not self._stop.is_set():
            presence.dialling()
            channel = self._channel
            try:
                self._check_again()
                for task in self._attend_once(space, presence):
                    backoff = _FIRST_BACKOFF_SECONDS
                    yield task
            except grpc.RpcError as error:
                if self._stop.is_set():
                    return
                self._forget(presence.lost())
                if channel is not self._channel:  # we hung up ourselves, to dial with another certificate
                    continue
                if error.code() in _FINAL:
                    raise NotAdmittedError(f"the hub at {self._address}: {_reason(error)}") from None
                _log.warning("connection to the hub lost (%s); next try in %.1f s", _reason(error), backoff)
            except HubUnreachableError as error:
                _log.warning("%s; next try in %.1f s", error, backoff)
            except ValueError:  # gRPC's word for a channel that was closed meanwhile
                if self._stop.is_set():
                    return
                self._forget(presence.lost())
                continue
            else:
                self._forget(presence.lost())
            self._stop.wait(backoff)
            backoff = min(2 * backoff, _LAST_BACKOFF_SECONDS)

    def _attend_once(self, space: bytes, presence: Presence) -> Iterator[link_pb2.Task]:
        partial, partial_bytes = self._incoming.begin()
        request = link_pb2.AttendRequest(
            protocol=PROTOCOL,
            space=space,
            session=self._session,
            held=sorted(self._held),
            partial=partial,
            partial_bytes=partial_bytes,
        )
        call = self._attending = self._stub.Attend(request)
        call.initial_metadata()  # waits for the hub's verdict
        if call.is_active():
            presence.accepted()
        for message in call:
            try:
                task = self._incoming.take(message)
            except LinkError as error:
                _log.warning("hanging up: %s", error)
                if message.task_id:  # the hub need not try again
                    self._held.append(message.task_id)
                call.cancel()  # type: ignore[no-untyped-call]
                return
            if task is not None:
                self._held.append(task.task_id)
                yield task

    def _forget(self, tasks: Iterable[str]) -> None:
        """Let the hub send tasks again that were not begun."""
        for task_id in tasks:
            if task_id in self._held:
                self._held.remove(task_id)

    def _watch_files(self) -> None:
        daily = Daily()
        while not self._stop.wait(_WATCH_SECONDS):
            try:
                if due := daily.once(self._credentials.current.renewal_due):
                    _log.warning("%s", due)
                self.renew()
            except Exception:  # a thread that ends without a word would leave old keys in use for ever
                _log.exception("the certificate files could not be looked at")

    def hold(self, tasks: Iterable[str]) -> None:
        """Note tasks that the hub need not send: what answers them is recorded already."""
        self._held.extend(tasks)

    def push(self, recorded: Recorded, ledger: Ledger) -> link_pb2.Receipt:
        """Send what the ledger has recorded; try again while the hub is out of reach.

        A retry is harmless: the hub answers the same task with the same receipt.

        Args:
            ledger: the one that recorded it; the hub witnesses it.

        Raises:
            ReceiptError: it was sent, but the receipt for it is wrong.
            LedgerError: the hub has seen this ledger longer than it is.
            LinkError: the hub refused it, it was not recorded to leave, or this gateway is stopping.
        """
        if not recorded.leaves:
            raise LinkError(f"entry {recorded.sequence} is {recorded.kind.name}: it must not leave")
        witnessed = ledger.witnessed
        backoff = _FIRST_BACKOFF_SECONDS
        while not self._stop.is_set():
            try:
                self._check_again()
                update = self._update(recorded, ledger, witnessed)
                if update.uploaded_sha256:  # it may take minutes: not while a new certificate would wait for it
                    upload(self._stub, recorded.task_id, recorded.payload)
                with self._pushing:
                    receipt = self._stub.Push(update, timeout=_PUSH_SECONDS)
                self._check_receipt(receipt, recorded, ledger)
                return receipt
            except HubUnreachableError as error:
                _log.warning("update not delivered (%s); next try in %.1f s", error, backoff)
            except grpc.RpcError as error:
                if (size := _stale_size(error)) is not None and witnessed == ledger.witnessed != size:
                    witnessed = size  # a receipt that did not arrive witnessed more than this plant knows of
                    continue  # once: a hub that says another size every time is not answered for ever
                if error.code() not in _RETRYABLE:
                    raise LinkError(f"the hub at {self._address}: {_reason(error)}") from None
                _log.warning("update not delivered (%s); next try in %.1f s", _reason(error), backoff)
            self._stop.wait(backoff)
            backoff = min(2 * backoff, _LAST_BACKOFF_SECONDS)
        raise LinkError("the gateway is stopping; the update was recorded but not delivered")

    def _update(self, recorded: Recorded, ledger: Ledger, witnessed: int) -> link_pb2.Update:
        """Return what the hub is sent: the bytes, and proof that the ledger has them and goes on as it was."""
        checkpoint = ledger.prove(recorded, witnessed)
        said = statement(ledger.origin, ledger.key)
        checkpoint.key_signature = sign(self._credentials.current.key, said)
        return link_pb2.Update(
            task_id=recorded.task_id,
            **_carried(recorded.payload),
            ledger_hash=recorded.entry_hash,
            checkpoint=checkpoint,
        )

    def _check_receipt(self, receipt: link_pb2.Receipt, recorded: Recorded, ledger: Ledger) -> None:
        """Refuse a wrong receipt: in the ledger it would contradict an honest record for ever."""
        expected = Receipted(recorded.task_id, sha256(recorded.payload).digest(), recorded.entry_hash)
        data = receipt.SerializeToString(deterministic=True)
        now = self._credentials.current
        problems = list(check_receipt(data, expected, now.authority, ledger, self._revocations, fresh=True))
        if not agrees(receipt.body, ledger):
            problems.append("witnesses another history than this ledger's")
        if receipt.body.plant != now.identity.name:
            problems.append(f"is for the plant {receipt.body.plant!r}")
        if problems:
            raise ReceiptError(f"the hub at {self._address} gave a receipt that {problems[0]}")


def _carried(payload: bytes) -> dict[str, bytes]:
    """Return the field of an Update that brings a payload, or tells which one was brought before."""
    if len(payload) > PART_BYTES:
        return {"uploaded_sha256": sha256(payload).digest()}
    return {"round_update": payload}


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _stale_size(error: grpc.RpcError) -> int | None:
    """Return the size from which on the hub needs a proof, where that is why it refused."""
    trailing: Iterable[tuple[str, str | bytes]] = error.trailing_metadata() or ()  # type: ignore[assignment]
    size = str(dict(trailing).get(STALE_SIZE, ""))
    said = error.code() is grpc.StatusCode.ABORTED and size.isdecimal() and len(size) <= _MOST_DIGITS
    return int(size) if said else None


def _reason(error: grpc.RpcError) -> str:
    """Return the hub's own words, or gRPC's."""
    return f"{error.code().name.lower().replace('_', ' ')}: {error.details()}"

"""The hub's calls as gRPC sees them: whoever calls is admitted before a byte of the request is awaited or decoded.

gRPC's generated code waits for the request first, for ever and in one of the hub's threads, answers unknown
methods by itself, and logs neither with the caller's name. Here every call is taken as a stream of requests, of
which the first counts; on the wire that is the same.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from fedsparse.parts import MESSAGE_BYTES
from fedsparse_server.peers import Peer

CALLS_AT_ONCE = 8
"""Of one plant, streams of tasks included; each holds a thread of the hub's."""

HEADER_BYTES = 8 << 10
"""Most that the headers of a call may have; a gateway's have some hundred."""

_REQUEST_SECONDS = 60.0  # in which a request must have come whole
_log = logging.getLogger("hub")


def refuse(context: grpc.ServicerContext, code: grpc.StatusCode, why: str) -> NoReturn:
    """End the call; the same line is told on both ends."""
    _log.warning("refused %s: %s", context.peer(), why)
    context.abort(code, why)
    raise AssertionError("abort returns never")


@dataclass(frozen=True)
class Method:
    """What answers a call.

    Attributes:
        answer: gets who calls, the request and gRPC's context.
        request: the message that it takes.
        streams: whether it answers with a stream; of messages, or of their bytes.
        gathers: whether it takes a stream of requests, each of which must come in time.
    """

    answer: Callable[[Peer, Any, grpc.ServicerContext], Any]
    request: type[Any]
    streams: bool = False
    gathers: bool = False


class Calls(grpc.GenericRpcHandler):  # type: ignore[type-arg] # generic in the stubs alone
    """Routes calls by the name of their method, and refuses all others.

    Args:
        admit: returns who calls, or ends the call.
        methods: by name, "/package.Service/Method".
    """

    def __init__(self, admit: Callable[[grpc.ServicerContext], Peer], methods: Mapping[str, Method]) -> None:
        self._admit = admit
        self._methods = methods
        self._open: Counter[str] = Counter()
        self._lock = threading.Lock()

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return what answers a method."""
        name = str(handler_call_details.method)
        if (size := _header_bytes(handler_call_details)) > HEADER_BYTES:
            return grpc.stream_stream_rpc_method_handler(self._crowded(size))
        method = self._methods.get(name)
        if method is None:
            return grpc.stream_stream_rpc_method_handler(self._unknown(name))
        if method.streams:
            return grpc.stream_stream_rpc_method_handler(self._many(method), None, _data)
        return grpc.stream_unary_rpc_method_handler(self._one(method), None, _data)

    def _one(self, method: Method) -> Callable[[Iterator[bytes], grpc.ServicerContext], Any]:
        def call(requests: Iterator[bytes], context: grpc.ServicerContext) -> Any:
            peer = self._admit(context)
            take = _every if method.gathers else _first
            with self._counted(peer, context):
                return method.answer(peer, take(requests, method.request, peer, context), context)

        return call

    def _many(self, method: Method) -> Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[Any]]:
        def call(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
            peer = self._admit(context)
            with self._counted(peer, context):
                yield from method.answer(peer, _first(requests, method.request, peer, context), context)

        return call

    def _unknown(self, name: str) -> Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]:
        def call(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            what = f"{self._admit(context).name} calls {name[:80]!r}, which this hub does not serve"
            refuse(context, grpc.StatusCode.UNIMPLEMENTED, what)

        return call

    def _crowded(self, size: int) -> Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]:
        """Refuse what gRPC lets through: a single header far above its own limits."""

        def call(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
            what = f"{self._admit(context).name} sends {size} bytes of headers, the limit is {HEADER_BYTES}"
            refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, what)

        return call

    @contextmanager
    def _counted(self, peer: Peer, context: grpc.ServicerContext) -> Iterator[None]:
        with self._lock:
            self._open[peer.name] += 1
            count = self._open[peer.name]
        try:
            if count > CALLS_AT_ONCE:
                refuse(context, grpc.StatusCode.UNAVAILABLE, f"{peer.name} makes {count} calls at once")
            yield
        finally:
            with self._lock:
                self._open[peer.name] -= 1


def _header_bytes(details: grpc.HandlerCallDetails) -> int:
    return sum(len(name) + len(value) for name, value in details.invocation_metadata or ())


def _first(requests: Iterator[bytes], kind: type[Any], peer: Peer, context: grpc.ServicerContext) -> Any:
    """Wait for the request, but not for ever, and decode it."""
    data = _awaited(requests, peer, context, last=False)
    if (
        data is None
    ):  # not an empty request, which is b"": gRPC has refused it, and may not have ended the call yet
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no request came")
    return _decoded(data, kind, peer, context)


def _every(requests: Iterator[bytes], kind: type[Any], peer: Peer, context: grpc.ServicerContext) -> Iterator[Any]:
    """Yield requests as they come; for each the plant has as long as for a single one."""
    while (data := _awaited(requests, peer, context, last=True)) is not None:
        yield _decoded(data, kind, peer, context)


def _awaited(requests: Iterator[bytes], peer: Peer, context: grpc.ServicerContext, *, last: bool) -> bytes | None:
    """Return the next request; None where none comes, which is logged unless they may end here (``last``)."""
    where = context.peer()  # of a call that has ended gRPC no longer knows it
    timer = threading.Timer(_REQUEST_SECONDS, _give_up, (peer, context))
    timer.daemon = True
    timer.start()
    try:
        data = next(requests, None)
    except grpc.RpcError:
        _log_cut_off(where, peer)
        raise
    finally:
        timer.cancel()
    if data is None and not (last and context.is_active()):
        _log_cut_off(where, peer)
    return data


def _log_cut_off(where: str, peer: Peer) -> None:
    """Note that gRPC has ended a call: what it tells the caller, it tells nobody here."""
    _log.warning(
        "refused %s: no whole request of %s came; it hung up, or sent more than %d bytes",
        where, peer.name, MESSAGE_BYTES,
    )  # fmt: skip


def _decoded(data: bytes, kind: type[Any], peer: Peer, context: grpc.ServicerContext) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError:
        what = f"{peer.name} sent {len(data)} bytes that are no {kind.__name__}"
        refuse(context, grpc.StatusCode.INVALID_ARGUMENT, what)


def _give_up(peer: Peer, context: grpc.ServicerContext) -> None:
    _log.warning("refused %s: %s sent no request within %.0f s", context.peer(), peer.name, _REQUEST_SECONDS)
    context.cancel()  # type: ignore[no-untyped-call]


def _data(message: Any) -> bytes:
    data: bytes = message if isinstance(message, bytes) else message.SerializeToString()
    return data

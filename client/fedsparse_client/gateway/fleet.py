"""Flower's Fleet API on loopback, answered by the gateway itself: nothing of it leaves the site."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, cast

from flwr.proto.fab_pb2 import Fab, GetFabRequest, GetFabResponse
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    ActivateNodeResponse,
    DeactivateNodeRequest,
    DeactivateNodeResponse,
    PullMessagesRequest,
    PullMessagesResponse,
    PushMessagesRequest,
    PushMessagesResponse,
    RegisterNodeFleetRequest,
    RegisterNodeFleetResponse,
    UnregisterNodeFleetRequest,
    UnregisterNodeFleetResponse,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest, SendNodeHeartbeatResponse
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.run_pb2 import GetRunRequest, GetRunResponse, Run
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE
from google.protobuf.message import Message
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from fedsparse.approval import require_approved
from fedsparse.audit.control import Code
from fedsparse.bundle import build_bundle, bundle_sha256
from fedsparse.errors import DeltaError, ProcessError
from fedsparse_client.gateway.control import SESSION_ID, RefusedCallError, Tally, read_call
from fedsparse_client.gateway.desk import NODE_ID, Desk

_log = logging.getLogger("gateway")
_LONG_POLL_SECONDS = 15.0  # below the 30 s after which Flower's HTTP client gives up
_Request = TypeVar("_Request", bound=Message)
_NOT_STORED = PushObjectResponse(stored=False)


class FleetApi:
    """The twelve calls a SuperNode makes, against a :class:`Desk`; each is looked at field by field and counted.

    Of a request it reads method, path and body. No header: only the HTTP server does, to find where a body ends.
    So no header can say anything to what leaves.

    Args:
        desk: where tasks wait and answers are put together.
        max_bytes: most that one call's body may have.
        approved: folder of the app bundles that may run here; None lets the installed one run.
        tally: counts the calls.
    """

    def __init__(
        self, desk: Desk, max_bytes: int, approved: Path | None = None, tally: Tally | None = None
    ) -> None:
        self._desk = desk
        self._max_bytes = max_bytes
        self._approved = approved
        self._tally = tally or Tally()

    def application(self) -> Starlette:
        """Return the ASGI application."""
        application = Starlette(
            exception_handlers={404: self._unknown, 405: self._unknown},
            routes=[
                self._route("register-node", RegisterNodeFleetRequest, self._register),
                self._route("activate-node", ActivateNodeRequest, lambda _: ActivateNodeResponse(node_id=NODE_ID)),
                self._route("deactivate-node", DeactivateNodeRequest, lambda _: DeactivateNodeResponse()),
                self._route(
                    "unregister-node", UnregisterNodeFleetRequest, lambda _: UnregisterNodeFleetResponse()
                ),
                self._route(
                    "send-node-heartbeat",
                    SendNodeHeartbeatRequest,
                    lambda _: SendNodeHeartbeatResponse(success=True),
                ),
                self._route("pull-messages", PullMessagesRequest, self._pull),
                self._route("pull-object", PullObjectRequest, self._pull_object),
                self._route(
                    "confirm-message-received",
                    ConfirmMessageReceivedRequest,
                    lambda _: ConfirmMessageReceivedResponse(),
                ),
                self._route("get-run", GetRunRequest, self._run),
                self._route("get-fab", GetFabRequest, self._fab),
                self._route("push-messages", PushMessagesRequest, self._push, self._desk.refuse_oversized),
                self._route("push-object", PushObjectRequest, self._push_object, self._desk.refuse_oversized),
                WebSocketRoute("/{path:path}", self._no_socket),
            ],
        )
        application.router.redirect_slashes = False  # it would answer with a Host header, and go uncounted
        return application

    def _route(
        self,
        name: str,
        request_type: type[_Request],
        answer: Callable[[_Request], Message],
        on_oversized: Callable[[], None] = lambda: None,
    ) -> Route:
        def answered(body: bytes) -> Message:
            request = read_call(body, request_type, self._desk.run)
            return answer(cast(_Request, request))

        async def endpoint(request: Request) -> Response:
            body = bytearray()
            async for chunk in request.stream():
                body += chunk
                if len(body) > self._max_bytes:
                    on_oversized()
                    return self._refused(name, Code.OVERSIZED, 413, f"more than {self._max_bytes} bytes")
            try:
                reply = await run_in_threadpool(answered, bytes(body))
            except RefusedCallError as error:
                return self._refused(name, error.code, 400, str(error))
            except (DeltaError, ProcessError) as error:
                return self._refused(name, Code.UNEXPECTED, 400, str(error))
            if reply == _NOT_STORED:
                self._tally.refuse(Code.UNEXPECTED)
            else:
                self._tally.accept(name, len(body))
            return Response(reply.SerializeToString(), media_type=PROTOBUF_MEDIA_TYPE)

        return Route(f"/v1/fleet/{name}", endpoint, methods=["POST"])

    def _register(self, _: RegisterNodeFleetRequest) -> RegisterNodeFleetResponse:
        self._desk.restart()
        return RegisterNodeFleetResponse(node_id=NODE_ID)

    def _pull(self, _: PullMessagesRequest) -> PullMessagesResponse:
        delivery = self._desk.next(_LONG_POLL_SECONDS)
        if delivery is None:
            return PullMessagesResponse()
        return PullMessagesResponse(messages_list=[delivery.header], message_object_trees=[delivery.tree])

    def _pull_object(self, request: PullObjectRequest) -> PullObjectResponse:
        content = self._desk.object(request.object_id)
        return PullObjectResponse(
            object_found=content is not None,
            object_available=content is not None,
            object_content=content or b"",
        )

    def _run(self, request: GetRunRequest) -> GetRunResponse:
        run = Run(
            run_id=request.run_id,
            fab_id="fedsparse/fedsparse-app",
            fab_version="0.1.0",
            fab_hash=bundle_sha256(),
        )
        return GetRunResponse(run=run)

    def _fab(self, request: GetFabRequest) -> GetFabResponse:
        """Hand out the bundle that this site built from its own installation."""
        if request.hash_str != bundle_sha256():
            raise DeltaError(f"the app bundle {request.hash_str[:12]} is not the one installed here")
        require_approved(bundle_sha256(), self._approved)
        return GetFabResponse(fab=Fab(hash_str=bundle_sha256(), content=build_bundle()))

    def _push(self, request: PushMessagesRequest) -> PushMessagesResponse:
        if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
            raise DeltaError("a SuperNode pushes one message at a time")
        names = self._desk.expect(request.messages_list[0], request.message_object_trees[0])
        return PushMessagesResponse(objects_to_push=names, session_id=SESSION_ID)

    def _push_object(self, request: PushObjectRequest) -> PushObjectResponse:
        stored = self._desk.receive(request.object_id, request.object_content)
        if not stored:
            _log.warning("refused push-object: %r is no object that is waited for", request.object_id[:64])
        return PushObjectResponse(stored=stored)

    def _refused(self, call: str, code: Code, status: int, why: str) -> Response:
        """Refuse a call on loopback; why stands in the log alone, and its code is counted."""
        _log.warning("refused %s: %s: %s", call, code.value, why)
        self._tally.refuse(code)
        return Response(status_code=status)

    async def _unknown(self, request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 404
        why = f"no call of Flower's Fleet API by {request.method[:20]!r}"
        path = request.scope["path"]  # not request.url, which is made with the Host header
        return self._refused(repr(path[:200]), Code.NO_SUCH_CALL, status, why)

    async def _no_socket(self, socket: WebSocket) -> None:
        self._refused(repr(socket.scope["path"][:200]), Code.NO_SUCH_CALL, 403, "no call over a WebSocket")
        await socket.close()

"""The gateway as a SuperNode sees it: Flower's own messages over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, MutableMapping
from typing import Any, NoReturn, TypeVar

import pytest
from fedsparse_client.gateway import fleet
from fedsparse_client.gateway.control import Tally
from fedsparse_client.gateway.desk import NODE_ID, Answer, Desk
from fedsparse_client.gateway.fleet import FleetApi
from flwr.app import Message
from flwr.app.error import Error
from flwr.common.serde import message_from_proto
from flwr.proto.fab_pb2 import GetFabRequest, GetFabResponse
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
from flwr.proto.run_pb2 import GetRunRequest, GetRunResponse
from google.protobuf.message import Message as ProtoMessage
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from fedsparse.audit.control import CALLS, ControlCount
from fedsparse.bundle import build_bundle, bundle_sha256
from fedsparse.delta import Reason
from fedsparse.envelope import assemble, disassemble, object_ids, unwrap, wrap
from tests.unit.federation_samples import link_task, round_task

ANSWER_LIMIT, BODY_LIMIT = 20_000, 50_000
Reply = TypeVar("Reply", bound=ProtoMessage)


class SuperNode:
    """Makes the calls that Flower's SuperNode makes."""

    def __init__(self, http: TestClient, desk: Desk) -> None:
        self.http = http
        self.desk = desk

    def ask(self, name: str, request: ProtoMessage, kind: type[Reply]) -> Reply:
        response = self.http.post(f"/v1/fleet/{name}", content=request.SerializeToString())
        assert response.status_code == 200, response.status_code
        return kind.FromString(response.content)

    def status(self, name: str, body: bytes) -> int:
        return self.http.post(f"/v1/fleet/{name}", content=body).status_code

    def pull(self) -> Message:
        """Pull the next task with all its objects."""
        pulled = self.ask("pull-messages", PullMessagesRequest(), PullMessagesResponse)
        tree, objects = pulled.message_object_trees[0], {}
        for name in object_ids(tree):
            reply = self.ask("pull-object", PullObjectRequest(object_id=name), PullObjectResponse)
            assert reply.object_found
            assert reply.object_available
            objects[name] = reply.object_content
        message = assemble(tree.object_id, objects)
        message.metadata.__dict__.update(message_from_proto(pulled.messages_list[0]).metadata.__dict__)
        return message

    def push(self, answer: Message) -> list[int]:
        """Push an answer in its objects; return each object's status code."""
        header, tree, objects = disassemble(answer)
        request = PushMessagesRequest(messages_list=[header], message_object_trees=[tree])
        pushed = self.ask("push-messages", request, PushMessagesResponse)
        return [
            self.status(
                "push-object",
                PushObjectRequest(object_id=name, object_content=objects[name]).SerializeToString(),
            )
            for name in pushed.objects_to_push
        ]


@pytest.fixture
def node() -> Iterator[SuperNode]:
    desk = Desk(ANSWER_LIMIT)
    with TestClient(FleetApi(desk, BODY_LIMIT).application()) as http:
        yield SuperNode(http, desk)


def offered(node: SuperNode) -> Message:
    node.desk.offer(link_task())
    return node.pull()


def test_a_task_is_pulled_and_its_answer_arrives_as_the_very_bytes(node: SuperNode) -> None:
    task = offered(node)
    assert unwrap(task) == round_task()
    payload = bytes(range(256)) * 50
    assert set(node.push(Message(wrap(payload), reply_to=task))) == {200}
    assert node.desk.answers.get_nowait() == Answer(link_task(), payload=payload)


def test_an_empty_pull_ends_without_a_message(node: SuperNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "_LONG_POLL_SECONDS", 0.01)
    assert node.ask("pull-messages", PullMessagesRequest(), PullMessagesResponse) == PullMessagesResponse()


def test_the_calls_around_a_task_are_answered(node: SuperNode) -> None:
    register = node.ask("register-node", RegisterNodeFleetRequest(), RegisterNodeFleetResponse)
    activate = node.ask("activate-node", ActivateNodeRequest(), ActivateNodeResponse)
    assert register.node_id == activate.node_id == NODE_ID
    beat = node.ask("send-node-heartbeat", SendNodeHeartbeatRequest(), SendNodeHeartbeatResponse)
    assert beat.success
    node.ask("confirm-message-received", ConfirmMessageReceivedRequest(), ConfirmMessageReceivedResponse)
    node.ask("deactivate-node", DeactivateNodeRequest(), DeactivateNodeResponse)
    node.ask("unregister-node", UnregisterNodeFleetRequest(), UnregisterNodeFleetResponse)


def test_a_new_registration_fails_the_open_task(node: SuperNode) -> None:
    offered(node)
    node.ask("register-node", RegisterNodeFleetRequest(), RegisterNodeFleetResponse)
    assert node.desk.answers.get_nowait().reason is Reason.APP_FAILED


def test_the_run_names_the_bundle_that_is_installed_here(node: SuperNode) -> None:
    run = node.ask("get-run", GetRunRequest(run_id=7), GetRunResponse).run
    assert (run.run_id, run.fab_hash) == (7, bundle_sha256())


def test_the_bundle_handed_out_is_the_sites_own(node: SuperNode) -> None:
    fab = node.ask("get-fab", GetFabRequest(hash_str=bundle_sha256()), GetFabResponse).fab
    assert (fab.hash_str, fab.content) == (bundle_sha256(), build_bundle())


@pytest.mark.parametrize("hash_str", ["", "0" * 64])
def test_a_bundle_with_another_hash_is_not_handed_out(node: SuperNode, hash_str: str) -> None:
    assert node.status("get-fab", GetFabRequest(hash_str=hash_str).SerializeToString()) == 400


def test_an_unknown_object_is_not_found(node: SuperNode) -> None:
    offered(node)
    reply = node.ask("pull-object", PullObjectRequest(object_id="0" * 64), PullObjectResponse)
    assert reply == PullObjectResponse(object_found=False, object_available=False)


def test_an_object_nobody_asked_for_is_not_stored(node: SuperNode) -> None:
    offered(node)
    request = PushObjectRequest(object_id="0" * 64, object_content=b"x")
    assert node.ask("push-object", request, PushObjectResponse).stored is False


def test_an_answer_to_a_task_that_is_not_open_is_refused(node: SuperNode) -> None:
    task = offered(node)
    node.push(Message(wrap(b"done"), reply_to=task))
    header, tree, _ = disassemble(Message(wrap(b"again"), reply_to=task))
    request = PushMessagesRequest(messages_list=[header], message_object_trees=[tree])
    assert node.status("push-messages", request.SerializeToString()) == 400
    assert node.desk.answers.qsize() == 1


@pytest.mark.parametrize(("messages", "trees"), [(0, 0), (2, 2), (1, 0), (0, 1)])
def test_anything_but_one_message_at_a_time_is_refused(node: SuperNode, messages: int, trees: int) -> None:
    header, tree, _ = disassemble(Message(wrap(b"done"), reply_to=offered(node)))
    request = PushMessagesRequest(messages_list=[header] * messages, message_object_trees=[tree] * trees)
    assert node.status("push-messages", request.SerializeToString()) == 400


def test_an_answer_above_the_gates_limit_becomes_a_refusal_by_the_gate(node: SuperNode) -> None:
    node.push(Message(wrap(bytes(ANSWER_LIMIT)), reply_to=offered(node)))
    assert node.desk.answers.get_nowait() == Answer(link_task(), reason=Reason.REFUSED_BY_GATE)


def test_an_object_above_the_bodys_limit_frees_the_desk_for_the_next_task(node: SuperNode) -> None:
    """Flower's SuperNode logs the error and drops the answer: nobody would ever close this task."""
    statuses = node.push(Message(wrap(bytes(BODY_LIMIT)), reply_to=offered(node)))
    assert 413 in statuses
    assert node.desk.answers.get_nowait() == Answer(link_task(), reason=Reason.REFUSED_BY_GATE)
    assert unwrap(offered(node)) == round_task()


def test_a_body_above_the_limit_of_any_other_call_is_refused_and_changes_nothing(node: SuperNode) -> None:
    offered(node)
    assert node.status("register-node", bytes(BODY_LIMIT + 1)) == 413
    assert node.desk.answers.empty()


def test_a_flower_error_becomes_a_reason_and_its_text_goes_nowhere(node: SuperNode) -> None:
    node.push(Message(Error(code=2, reason="secret: row 7"), reply_to=offered(node)))
    answer = node.desk.answers.get_nowait()
    assert answer == Answer(link_task(), reason=Reason.APP_FAILED)
    assert "secret" not in repr(answer)


def test_garbage_is_a_bad_request_and_no_crash(node: SuperNode) -> None:
    assert node.status("push-messages", b"\xff\xff\xff") == 400


@pytest.mark.parametrize("path", ["/", "/v1/fleet/no-such-call", "/v1/control/start-run", "/health"])
def test_nothing_else_is_served(node: SuperNode, path: str) -> None:
    assert node.http.post(path).status_code == 404


def test_only_posts_are_served(node: SuperNode) -> None:
    assert node.http.get("/v1/fleet/get-run").status_code == 405


CANARY = "c2VjcmV0OiByb3cgNw"
TELLING = {
    "User-Agent": CANARY,
    "Authorization": f"Bearer {CANARY}",
    "Cookie": f"session={CANARY}",
    "X-Forwarded-For": CANARY,
    "Traceparent": CANARY,
    "Flower-Timestamp": CANARY,
    f"X-{CANARY}": "1",
    "Content-Type": f"application/{CANARY}",
    "Accept-Encoding": CANARY,
    "Host": f"{CANARY}.example",
}


def test_what_headers_and_queries_say_goes_nowhere() -> None:
    """All that goes on from here is the answer, to the gate, and the counts, to the ledger."""

    def calls(headers: dict[str, str], query: str) -> tuple[Answer, ControlCount | None, str]:
        desk, tally = Desk(ANSWER_LIMIT), Tally()
        application = FleetApi(desk, BODY_LIMIT, tally=tally).application()
        with TestClient(application, headers=headers, follow_redirects=False) as http:
            node = SuperNode(http, desk)
            node.push(Message(wrap(b"done"), reply_to=offered(node)))
            odd = [http.post(f"/v1/fleet/{name}{query}") for name in ("get-run/", "no-such-call", "get-fab")]
            odd.append(http.get(f"/v1/fleet/get-run{query}"))
        assert [one.status_code for one in odd] == [404, 404, 400, 405]
        return desk.answers.get_nowait(), tally.count(), "".join(f"{one.headers}{one.text}" for one in odd)

    bare, counted, _ = calls({}, "")
    told, again, said = calls(TELLING, f"?{CANARY}={CANARY}")
    assert told == bare
    assert counted is not None
    assert again is not None
    assert (again.accepted, again.refused) == (counted.accepted, counted.refused)
    assert counted.refused == {"no-such-call": 3, "unexpected": 1}
    assert CANARY not in f"{told}{again}{said}"


class _Unread(list[tuple[bytes, bytes]]):
    """Headers that nobody may look at."""

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        raise AssertionError("a header was read")

    def __getitem__(self, _: object) -> NoReturn:
        raise AssertionError("a header was read")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/fleet/send-node-heartbeat", b"", 200),
        ("POST", "/v1/fleet/get-run", b"", 200),
        ("POST", "/v1/fleet/push-messages", b"", 400),
        ("POST", "/v1/fleet/pull-object", b"\xff", 400),
        ("POST", "/v1/fleet/register-node", bytes(BODY_LIMIT + 1), 413),
        ("POST", "/v1/fleet/no-such-call", b"", 404),
        ("POST", "/v1/fleet/get-run/", b"", 404),
        ("GET", "/v1/fleet/get-run", b"", 405),
        ("OPTIONS", "*", b"", 404),
        *(("POST", f"/v1/fleet/{name}", b"\xff", 400) for name in CALLS),
    ],
)
def test_no_header_is_read(method: str, path: str, body: bytes, status: int) -> None:
    tally, sent = Tally(), []
    application = FleetApi(Desk(ANSWER_LIMIT), BODY_LIMIT, tally=tally).application()
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": _Unread(),
    }

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(application(scope, receive, send))
    assert sent[0]["status"] == status
    counted = tally.count()
    assert counted is not None
    assert (sum(counted.accepted.values()), sum(counted.refused.values())) == ((1, 0) if status == 200 else (0, 1))


@pytest.mark.parametrize("path", ["/", "/v1/fleet/get-run"])
def test_a_websocket_is_refused_and_counted(path: str) -> None:
    tally = Tally()
    with (
        TestClient(FleetApi(Desk(ANSWER_LIMIT), BODY_LIMIT, tally=tally).application()) as http,
        pytest.raises(WebSocketDisconnect),
        http.websocket_connect(path, headers={"X-Secret": CANARY}),
    ):
        pass
    counted = tally.count()
    assert counted is not None
    assert counted.refused == {"no-such-call": 1}

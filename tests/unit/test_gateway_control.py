"""Every field of a SuperNode's calls is looked at, and every call is counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fedsparse_client.gateway import fleet
from fedsparse_client.gateway.control import RefusedCallError, Tally, read_call
from fedsparse_client.gateway.desk import NODE_ID, Desk
from fedsparse_client.gateway.fleet import FleetApi
from flwr.app import Message
from flwr.common.serde import message_from_proto
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
)
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ObjectTree,
    PullObjectRequest,
    PushObjectRequest,
)
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.node_pb2 import Node
from flwr.proto.recorddict_pb2 import RecordDict
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supernode.fleet_http_connection import http_request_response
from google.protobuf.message import Message as ProtoMessage
from starlette.testclient import TestClient

from fedsparse.audit.control import Code
from fedsparse.envelope import assemble, disassemble, object_ids, unwrap, wrap
from fedsparse.processes import free_port
from tests.unit.federation_samples import eventually, link_task

NODE = Node(node_id=NODE_ID)
NAME = "0" * 64


def _pem(key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


KEY = _pem(ec.generate_private_key(ec.SECP384R1()).public_key())


@pytest.mark.parametrize(
    "request_",
    [
        RegisterNodeFleetRequest(public_key=KEY),
        ActivateNodeRequest(public_key=KEY, heartbeat_interval=30),
        DeactivateNodeRequest(node_id=NODE_ID),
        SendNodeHeartbeatRequest(node=NODE, heartbeat_interval=30),
        PullMessagesRequest(node=NODE),
        PullObjectRequest(node=NODE, run_id=7, object_id=NAME),
        ConfirmMessageReceivedRequest(node=NODE, run_id=7, message_object_id=NAME),
        GetRunRequest(node=NODE, run_id=7),
        GetFabRequest(node=NODE, run_id=7, hash_str=NAME),
        PushMessagesRequest(
            node=NODE,
            messages_list=[MessageProto()],
            message_object_trees=[ObjectTree(object_id=NAME, children=[ObjectTree(object_id=NAME)])],
            clientapp_runtime_list=[1.5],
        ),
        PushObjectRequest(node=NODE, run_id=7, object_id=NAME, object_content=b"x", session_id="gateway"),
    ],
    ids=lambda request: type(request).__name__,
)
def test_what_a_supernode_says_passes(request_: ProtoMessage) -> None:
    assert read_call(request_.SerializeToString(), type(request_), run=7) == request_
    assert read_call(b"", type(request_), run=7) == type(request_)()


def _deep(levels: int) -> ObjectTree:
    tree = ObjectTree(object_id=NAME)
    for _ in range(levels):
        tree = ObjectTree(object_id=NAME, children=[tree])
    return tree


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (RegisterNodeFleetRequest(public_key=b"an image"), "public_key"),
        (RegisterNodeFleetRequest(public_key=KEY + b"\nan image"), "public_key"),
        (ActivateNodeRequest(public_key=_pem(ed25519.Ed25519PrivateKey.generate().public_key())), "public_key"),
        (ActivateNodeRequest(heartbeat_interval=30.0412), "heartbeat_interval"),
        (SendNodeHeartbeatRequest(heartbeat_interval=float("nan")), "heartbeat_interval"),
        (SendNodeHeartbeatRequest(heartbeat_interval=-0.0), "heartbeat_interval"),
        (SendNodeHeartbeatRequest(node=Node(node_id=5)), "node"),
        (DeactivateNodeRequest(node_id=5), "node_id"),
        (PullMessagesRequest(message_ids=["secret"]), "message_ids"),
        (PullObjectRequest(object_id="secret"), "object_id"),
        (PullObjectRequest(object_id=NAME + "\n"), "object_id"),
        (PullObjectRequest(run_id=8), "run_id"),
        (ConfirmMessageReceivedRequest(message_object_id="F" * 64), "message_object_id"),
        (GetFabRequest(hash_str="secret"), "hash_str"),
        (PushMessagesRequest(clientapp_runtime_list=[1.0, 2.0]), "clientapp_runtime_list"),
        (PushMessagesRequest(clientapp_runtime_list=[float("inf")]), "clientapp_runtime_list"),
        (PushMessagesRequest(message_object_trees=[ObjectTree(object_id="secret")]), "message_object_trees"),
        (PushMessagesRequest(message_object_trees=[_deep(20)]), "message_object_trees"),
        (
            PushMessagesRequest(
                messages_list=[MessageProto(content=RecordDict(items=[RecordDict.Item(key="secret")]))]
            ),
            "messages_list",
        ),
        (PushObjectRequest(session_id="secret"), "session_id"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_any_other_value_is_refused_by_its_field(request_: ProtoMessage, field: str) -> None:
    with pytest.raises(RefusedCallError, match=rf"\.{field} has a value") as refused:
        read_call(request_.SerializeToString(), type(request_), run=7)
    assert refused.value.code is Code.VALUE


@pytest.mark.parametrize(
    "body",
    [
        b"\xff\xff\xff",
        PullMessagesRequest(node=NODE).SerializeToString() + b"\x7a\x06secret",  # an unknown field
        b"\x0a\x0a" + NODE.SerializeToString() + b"\x7a\x04hide",  # one further down
        b"\x0a\x00" * 40,  # a field again and again
        b"\x0a\x05\x08\xc1\x84\xbd\x00",  # the node's number in a longer varint
    ],
)
def test_bytes_beside_the_fields_are_refused(body: bytes) -> None:
    with pytest.raises(RefusedCallError) as refused:
        read_call(body, PullMessagesRequest, run=None)
    assert refused.value.code is Code.MALFORMED


def test_without_a_task_any_run_may_be_named() -> None:
    assert read_call(GetRunRequest(run_id=3).SerializeToString(), GetRunRequest, run=None)


def test_calls_are_counted_and_of_refused_ones_the_code_alone() -> None:
    tally = Tally()
    assert tally.count() is None
    with TestClient(FleetApi(Desk(1000), 1000, tally=tally).application()) as http:

        def post(name: str, request: ProtoMessage | bytes) -> int:
            body = request if isinstance(request, bytes) else request.SerializeToString()
            return http.post(f"/v1/fleet/{name}", content=body).status_code

        beat = SendNodeHeartbeatRequest(node=NODE, heartbeat_interval=30)
        assert [post("send-node-heartbeat", beat) for _ in range(3)] == [200] * 3
        assert post("register-node", RegisterNodeFleetRequest(public_key=KEY)) == 200
        assert post("send-node-heartbeat", SendNodeHeartbeatRequest(heartbeat_interval=0.0412)) == 400
        assert post("pull-messages", b"\xff") == 400
        assert post("register-node", bytes(1001)) == 413
        assert post("push-logs", b"secret") == 404
        assert post("push-object", PushObjectRequest(object_id=NAME)) == 200  # and is told that it is not stored
        assert post("push-messages", b"") == 400
    found = tally.count()
    assert found is not None
    assert found.accepted == {"send-node-heartbeat": 3, "register-node": 1}
    assert found.refused == {"value": 1, "malformed": 1, "oversized": 1, "no-such-call": 1, "unexpected": 2}
    assert found.bytes == 3 * beat.ByteSize() + RegisterNodeFleetRequest(public_key=KEY).ByteSize()
    assert "secret" not in repr(found)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Desk, Tally, int]]:
    monkeypatch.setattr(fleet, "_LONG_POLL_SECONDS", 0.2)
    desk, tally, port = Desk(20_000), Tally(), free_port()
    application = FleetApi(desk, 50_000, tally=tally).application()
    server = uvicorn.Server(uvicorn.Config(application, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    eventually(lambda: server.started, "the gateway's port")
    yield desk, tally, port
    server.should_exit = True
    thread.join(20)


def test_flowers_own_supernode_does_a_task_and_none_of_its_calls_is_refused(
    served: tuple[Desk, Tally, int],
) -> None:
    desk, tally, port = served
    with http_request_response(f"127.0.0.1:{port}", insecure=True, max_retries=0) as calls:
        node, receive, send, get_run, get_fab, pull_object, push_object, confirm = calls
        assert node == NODE_ID
        assert receive() is None
        desk.offer(link_task())
        pulled = receive()
        assert pulled is not None
        header, tree = pulled
        run = header.metadata.run_id
        assert get_fab(get_run(run).fab_hash, run).content
        task = assemble(tree.object_id, {name: pull_object(run, name) for name in object_ids(tree)})
        task.metadata.__dict__.update(header.metadata.__dict__)
        confirm(run, tree.object_id)
        bare, answer_tree, objects = disassemble(Message(wrap(b"answer"), reply_to=task))
        wanted, session = send(message_from_proto(bare), answer_tree, 0.25)
        for name in wanted:
            push_object(run, session, name, objects[name])
        eventually(lambda: "send-node-heartbeat" in repr(tally.count()), "a heartbeat", 40)
    assert unwrap(task) == link_task().round_task
    assert desk.answers.get_nowait().payload == b"answer"
    found = tally.count()
    assert found is not None
    assert found.refused == {}
    assert len(found.accepted) == 12

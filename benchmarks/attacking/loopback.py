"""Attacks on a plant's gateway from the plant's own machine: on the port that its SuperNode uses."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator

import httpx
import psutil
from flwr.app import Message
from flwr.common.serde import message_from_proto
from flwr.proto.fab_pb2 import GetFabRequest
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse, PushMessagesRequest
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse, PushObjectRequest, PushObjectResponse

from benchmarks.attacking.attack import GATEWAY, Attack
from benchmarks.attacking.gateways import Stage
from benchmarks.attacking.messages import update
from benchmarks.attacking.site import MAX_UPDATE_BYTES
from fedsparse.envelope import assemble, disassemble, object_ids, wrap
from fedsparse.processes import PLANT_LOOPBACK

_GROUP = "the gateway's loopback port"
_KERNEL = "nothing is refused: the kernel answers where nobody listens"
_SECONDS = 8.0
_OVERSIZED = MAX_UPDATE_BYTES + (1 << 20) + 1


class _SuperNode:
    """Makes Flower's calls, honest and others.

    Args:
        port: of the gateway.
    """

    def __init__(self, port: int) -> None:
        self._base = f"http://{PLANT_LOOPBACK}:{port}/v1/fleet/"

    def post(self, route: str, content: bytes | Iterator[bytes]) -> httpx.Response:
        """Make one call."""
        return httpx.post(self._base + route, content=content, timeout=_SECONDS, trust_env=False)

    def pull(self) -> Message:
        """Return the task that is next."""
        pulled = PullMessagesResponse.FromString(
            self.post("pull-messages", PullMessagesRequest().SerializeToString()).content
        )
        header, tree = pulled.messages_list[0], pulled.message_object_trees[0]
        found = {name: self._object(name) for name in object_ids(tree)}
        task = assemble(tree.object_id, found)
        task.metadata.__dict__.update(message_from_proto(header).metadata.__dict__)
        return task

    def _object(self, name: str) -> bytes:
        reply = self.post("pull-object", PullObjectRequest(object_id=name).SerializeToString())
        return bytes(PullObjectResponse.FromString(reply.content).object_content)

    def push(self, task: Message, payload: bytes) -> str:
        """Answer a task; return what became of the first call that failed."""
        header, tree, objects = disassemble(Message(wrap(payload), reply_to=task))
        begun = PushMessagesRequest(messages_list=[header], message_object_trees=[tree])
        reply = self.post("push-messages", begun.SerializeToString())
        for name in object_ids(tree) if reply.status_code == 200 else ():
            stored = PushObjectRequest(object_id=name, object_content=objects[name])
            reply = self.post("push-object", stored.SerializeToString())
        return f"HTTP {reply.status_code}"


def attacks() -> list[Attack]:
    """Return them in the order in which they are run."""
    return [*_listening(), *_routes(), *_bodies(), *_answers()]


def _attack(does: str, status: int, run: Callable[[Stage], str], log: str = "refused|Invalid HTTP") -> Attack:
    return Attack(_GROUP, does, f"HTTP {status}", f"^HTTP {status}", log, run, GATEWAY)


def _posted(route: str, content: Callable[[], bytes | Iterator[bytes]]) -> Callable[[Stage], str]:
    return lambda stage: f"HTTP {_SuperNode(stage.site.port).post(route, content()).status_code}"


def _raw(request: bytes) -> Callable[[Stage], str]:
    def run(stage: Stage) -> str:
        with socket.create_connection((PLANT_LOOPBACK, stage.site.port), _SECONDS) as plain:
            plain.sendall(request)
            return "HTTP " + plain.recv(100).decode(errors="replace").partition(" ")[2].splitlines()[0]

    return run


def _listening() -> list[Attack]:
    def looks(stage: Stage) -> str:
        found = psutil.Process(stage.site.watched.pid).net_connections(kind="inet")
        where = sorted({one.laddr.ip for one in found if one.status == psutil.CONN_LISTEN})
        return f"listening on {', '.join(where)}"

    return [
        Attack(_GROUP, "a look for ports off loopback", "nothing listens off loopback",
               rf"^listening on {re.escape(PLANT_LOOPBACK)}$", None, looks, GATEWAY, why_no_log=_KERNEL),
    ]  # fmt: skip


def _routes() -> list[Attack]:
    climb = b"POST /v1/fleet/../../../../etc/passwd HTTP/1.1\r\nHost: gateway\r\nContent-Length: 0\r\n\r\n"
    other = b"POST /v1/control/start-run HTTP/1.1\r\nHost: gateway\r\nContent-Length: 0\r\n\r\n"
    get = b"GET /v1/fleet/get-fab HTTP/1.1\r\nHost: gateway\r\n\r\n"
    return [
        _attack("an unknown route", 404, _posted("promote", bytes)),
        _attack("SuperLink's control API", 404, _raw(other)),
        _attack("a path that climbs to /etc/passwd", 404, _raw(climb)),
        _attack("a GET on a route for POST", 405, _raw(get)),
        _attack("no HTTP at all", 400, _raw(b"\x16\x03\x01\x02\x00\r\n\r\n"), "Invalid HTTP request"),
    ]


def _bodies() -> list[Attack]:
    def endless() -> Iterator[bytes]:
        for _ in range(64):
            yield bytes(1 << 20)

    def cut(stage: Stage) -> str:
        try:
            return _posted("push-object", endless)(stage)
        except httpx.WriteError:  # the answer came before all was sent
            return "HTTP 413, and the connection is closed"

    other = GetFabRequest(hash_str="0" * 64).SerializeToString()
    return [
        _attack("another app bundle than the installed one", 400, _posted("get-fab", lambda: other)),
        _attack("malformed protobuf", 400, _posted("push-messages", lambda: b"\xff" * 40)),
        _attack("no message in a push", 400, _posted("push-messages", bytes)),
        _attack("a body above the limit", 413, _posted("register-node", lambda: bytes(_OVERSIZED))),
        _attack("a chunked body of 64 MiB", 413, cut),
    ]  # fmt: skip


def _answers() -> list[Attack]:
    def no_task(stage: Stage) -> str:
        stored = PushObjectRequest(object_id="0" * 64, object_content=b"x").SerializeToString()
        reply = _SuperNode(stage.site.port).post("push-object", stored)
        return f"stored {PushObjectResponse.FromString(reply.content).stored}"

    def late(stage: Stage) -> str:
        """Answer a task twice: the second time it is no longer open."""
        node = _SuperNode(stage.site.port)
        stage.hub.send(stage.task())
        task = node.pull()
        node.push(task, update(b"x"))
        stage.answer()
        return node.push(task, update(b"x"))

    def answered(payload: bytes, given: bytes | None = None) -> Callable[[Stage], str]:
        def run(stage: Stage) -> str:
            node = _SuperNode(stage.site.port)
            stage.hub.send(stage.task(payload=given))
            node.push(node.pull(), payload)
            return stage.answer()

        return run

    def reason(does: str, name: str, log: str, run: Callable[[Stage], str]) -> Attack:
        refused = f"the hub gets the reason {name}, and nothing else"
        return Attack(_GROUP, does, refused, f"^reason {name}$", log, run, GATEWAY)

    gate = "refused by rule"
    return [
        Attack(_GROUP, "an object for no open task", "not stored", "^stored False$", "refused", no_task, GATEWAY),
        _attack("an answer to a task that is no longer open", 400, late),
        reason("raw bytes instead of an update", "REFUSED_BY_GATE", f"{gate} malformed",
               answered(b"secret" * 1000)),
        reason("an update of another round", "REFUSED_BY_GATE", f"{gate} wrong-task", answered(update(round=9))),
        reason("hidden data after an update", "REFUSED_BY_GATE", f"{gate} malformed",
               answered(update() + b"\x7a\x01x")),
        reason("a malformed task from the hub, answered with an update", "TASK_MALFORMED", "refused the task",
               answered(update(), b"\xff" * 40)),
    ]  # fmt: skip

"""Attacks by a plant that may dial, with calls that it may not make."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import grpc

from benchmarks.attacking import raw, updates
from benchmarks.attacking.attack import QUIET, Attack
from benchmarks.attacking.insider import GROUP, Insider, Stage, refused
from benchmarks.attacking.messages import OTHER_SPACE, SPACE, update
from fedsparse.v1 import link_pb2


def attacks() -> list[Attack]:
    """Return them in the order in which they are run."""
    return [*_protocol(), *_sessions(), *_others(), *updates.attacks(), *_methods(), *_flood()]


def _attend(request: link_pb2.AttendRequest) -> Callable[[Stage], str]:
    def run(stage: Stage) -> str:
        stream = stage.insider.dial().Attend(request, timeout=raw.SECONDS)
        try:
            return f"a task: {next(iter(stream))}"
        except grpc.RpcError as error:
            return raw.status(error)

    return run


def _protocol() -> list[Attack]:
    said = "speaks link protocol 4, this hub 3"
    token = link_pb2.AttendRequest(protocol=3, space=SPACE.fingerprint, session=b"short")
    held = link_pb2.AttendRequest(protocol=3, space=SPACE.fingerprint, held=["x"] * 17)

    def another(stage: Stage) -> str:
        try:
            stage.insider.stub.Describe(link_pb2.DescribeRequest(protocol=4), timeout=raw.SECONDS)
        except grpc.RpcError as error:
            return raw.status(error)
        return "OK"

    return [
        refused("FAILED_PRECONDITION", said, "Describe in another protocol version", another),
        refused("FAILED_PRECONDITION", said, "Attend in another protocol version",
                _attend(link_pb2.AttendRequest(protocol=4, space=SPACE.fingerprint))),
        refused("FAILED_PRECONDITION", "the base models or adapter settings differ",
                "Attend with another adapter space",
                _attend(link_pb2.AttendRequest(protocol=3, space=OTHER_SPACE.fingerprint))),
        refused("INVALID_ARGUMENT", "malformed session", "Attend with a session token of 5 bytes",
                _attend(token)),
        refused("INVALID_ARGUMENT", "malformed session", "Attend with 17 tasks held", _attend(held)),
    ]  # fmt: skip


def _sessions() -> list[Attack]:
    none = "thief has no open task"

    def stolen(stage: Stage) -> str:
        """Take up an honest plant's session by its token, and answer the task that it has just answered."""
        state = stage.federation.honest[0].ask("state")
        with Insider(stage.federation, "thief", bytes.fromhex(state["session"])) as thief:
            return thief.push(state["receipts"][-1][0], update())

    def stale(stage: Stage) -> str:
        """Leave a task open, dial again as another gateway, and answer the old task."""
        with Insider(stage.federation, "thief", b"1" * 16) as first:
            task_id = first.task()
            first.attend(b"2" * 16, first.dial())
            return first.push(task_id, update())

    return [
        refused("NOT_FOUND", none, "another plant's session token, to reach its task", stolen),
        refused("NOT_FOUND", none, "a task of before, after dialling again with another token", stale),
    ]


def _others() -> list[Attack]:
    none = "mallory has no open task"
    other = "already answered the task .* with other bytes"

    def replay(stage: Stage) -> str:
        task_id, receipt = stage.done
        stage.federation.wait(lambda: task_id in stage.federation.answers(), "the first answer")
        receipts = stage.federation.receipts("mallory")
        request = stage.insider.update(task_id, update())
        again = stage.insider.dial().Push(request, timeout=raw.SECONDS)
        same = again.SerializeToString(deterministic=True) == receipt
        time.sleep(0.5)  # a second answer would have come by now
        counted = stage.federation.answers().count(task_id)
        more = stage.federation.receipts("mallory") - receipts
        return (
            f"{'the same' if same else 'another'} receipt, {more} more kept, the answer counted {counted} time(s)"
        )

    def race(stage: Stage) -> str:
        """Push one task eight times at once, each with other bytes."""
        task_id, ends = stage.insider.task(), []
        threads = [
            threading.Thread(target=lambda n=n: ends.append(stage.insider.push(task_id, update(samples=100 + n))))
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        stage.federation.wait(lambda: task_id in stage.federation.answers(), "the answer")
        time.sleep(0.5)
        taken = sum(end.startswith("OK") for end in ends)
        return f"{taken} taken, counted {stage.federation.answers().count(task_id)} time(s)"

    return [
        refused("NOT_FOUND", none, "an update without any task",
                lambda stage: stage.insider.push("a" * 64, update())),
        refused("NOT_FOUND", none, "an update for another plant's task, and so another plant's receipt",
                lambda stage: stage.insider.push(stage.honest_task(), update())),
        refused("NOT_FOUND", none, "a task id with a line feed and a forged log line",
                lambda stage: stage.insider.push("\n2026 hub kiso has left", update()),
                r"refused ipv4:.*no open task '\\n2026 hub "),
        refused("NOT_FOUND", none, "a task id of 3,000 letters",
                lambda stage: stage.insider.push("a" * 3000, update())),
        Attack(GROUP, "a whole earlier update again, on a new connection", "the same receipt, and it counts once",
               r"the same receipt, 0 more kept, the answer counted 1 time\(s\)", None, replay,
               why_no_log="nothing is refused: a retry is the plant's right"),
        refused("ALREADY_EXISTS", other, "other bytes for a task that has its receipt",
                lambda stage: stage.insider.push(stage.done[0], update(samples=101))),
        refused("ALREADY_EXISTS", other, "the same bytes with another ledger hash",
                lambda stage: stage.insider.push(stage.done[0], update(), hash=b"x" * 32)),
        Attack(GROUP, "one task answered eight times at once, with other bytes each",
               "one is taken, and counts once", r"^1 taken, counted 1 time\(s\)",
               "refused ipv4:.*(with other bytes|is being taken just now)", race),
    ]  # fmt: skip


def _by_name(path: str, data: bytes) -> Callable[[Stage], str]:
    def run(stage: Stage) -> str:
        call = stage.insider.channel().unary_unary(path, bytes, bytes)
        try:
            return f"OK: {call(data, timeout=raw.SECONDS)!r}"
        except grpc.RpcError as error:
            return raw.status(error)

    return run


def _http_1(stage: Stage) -> str:
    with raw.tls(
        stage.federation.port, stage.federation.credentials("mallory"), protocols=("http/1.1", "h2")
    ) as one:
        one.sendall(b"POST /v1/fleet/register-node HTTP/1.1\r\nHost: hub\r\nContent-Length: 0\r\n\r\n")
        return raw.heard(one, 3.0)


def _http_2(path: str) -> Callable[[Stage], str]:
    def run(stage: Stage) -> str:
        block = b"\x83\x87\x04" + raw._text(path.encode()) + b"\x01" + raw._text(b"localhost")
        block += raw.literal("content-type", b"application/protobuf")
        frames = raw.frame(raw.HEADERS, raw.END_HEADERS, 1, block) + raw.frame(
            raw.DATA, raw.END_STREAM, 1, b"\x0a\x00"
        )
        with raw.greeted(stage.federation.port, stage.federation.credentials("mallory")) as connection:
            raw.sent(connection, frames)
            return raw.heard(connection, 3.0, until=b"grpc-status")

    return run


def _methods() -> list[Attack]:
    unknown, none = "UNIMPLEMENTED", "which this hub does not serve"
    broken = b"\xff" * 40
    return [
        *(
            refused("INVALID_ARGUMENT", "sent 40 bytes that are no", f"malformed protobuf for {method}",
                    _by_name(raw.SERVICE + method, broken))
            for method in ("Describe", "Attend", "Push")
        ),
        refused(unknown, none, "an unknown method of the link", _by_name(raw.SERVICE + "Promote", b"")),
        refused(unknown, none, "an unknown service (the plant's own trainer)",
                _by_name("/fedsparse.v1.Trainer/Train", b"")),
        refused(unknown, none, "gRPC's reflection", _by_name("/grpc.reflection.v1.ServerReflection/"
                "ServerReflectionInfo", b"")),
        refused(unknown, none, "SuperLink's old gRPC (flwr.proto.Fleet/CreateNode)",
                _by_name("/flwr.proto.Fleet/CreateNode", b"")),
        refused(unknown, none, "SuperLink's control API (flwr.proto.Control/StartRun)",
                _by_name("/flwr.proto.Control/StartRun", b"")),
        refused(unknown, none, "a path that climbs (/fedsparse.v1.Link/../flwr.proto.Control/StartRun)",
                _by_name(raw.SERVICE + "../flwr.proto.Control/StartRun", b"")),
        Attack(GROUP, "SuperLink's route /v1/fleet/register-node in HTTP/2", "UNIMPLEMENTED, or HTTP 404 or 415",
               "grpc-status 12|RST_STREAM|HTTP", QUIET, _http_2("/v1/fleet/register-node")),
        Attack(GROUP, "SuperLink's route /v1/fleet/register-node in HTTP/1.1 over TLS", "the connection ends",
               "closed|TLS|GOAWAY", QUIET, _http_1),
    ]  # fmt: skip


def _flood() -> list[Attack]:
    def flood(stage: Stage) -> str:
        with Insider(stage.federation, "flooder") as flooder:
            for _ in range(2000):
                try:
                    flooder.stub.Describe(raw.ASK, timeout=raw.SECONDS)
                except grpc.RpcError as error:
                    return raw.status(error)
        return "OK, 2,000 times"

    return [
        refused("UNAVAILABLE", "flooder makes more than 600 calls a minute", "2,000 calls as fast as they go",
                flood, limit=40.0),
    ]  # fmt: skip

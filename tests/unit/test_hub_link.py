"""The hub over real mutual TLS; only Flower's SuperLink behind it is a stand-in."""

from __future__ import annotations

import json
import shutil
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType
from typing import Any, Self

import grpc
import httpx
import numpy as np
import pytest
from fedsparse_client.gateway.link import Link
from fedsparse_server import calls as calls_module
from fedsparse_server import service as service_module
from fedsparse_server import sessions as sessions_module
from fedsparse_server import superlink as superlink_module
from fedsparse_server.bell import follow, ring
from fedsparse_server.calls import HEADER_BYTES
from fedsparse_server.hub import listen
from fedsparse_server.peers import CALLS_A_MINUTE, Door
from fedsparse_server.quiet import QuietClients
from fedsparse_server.receipts import ReceiptBook
from fedsparse_server.service import Hub
from fedsparse_server.sessions import MAX_STREAMS, Sessions
from fedsparse_server.superlink import PulledTask, Shelf, SuperLinkNode
from flwr.app.message import make_message
from flwr.app.metadata import Metadata
from flwr.proto.fleet_pb2 import PullMessagesResponse
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse
from flwr.proto.run_pb2 import GetRunResponse, Run

from fedsparse import config
from fedsparse.audit import (
    CLOCK_UNKNOWN,
    STALE_SIZE,
    Checkpoint,
    EntryDraft,
    EntryKind,
    Ledger,
    Recorded,
    check_cosignature,
    describe_delta,
    make_opening,
    merkle,
    verify_ledger,
)
from fedsparse.audit.notes import sign_checkpoint
from fedsparse.delta import AdapterSpace, Operation, Reason, RoundUpdate, encode_update
from fedsparse.envelope import disassemble, wrap
from fedsparse.errors import LedgerError, LinkError
from fedsparse.events import EventLog
from fedsparse.security import (
    Credentials,
    Identity,
    LiveCredentials,
    Revocations,
    Role,
    channel_credentials,
    issue,
    revoke,
    verify,
)
from fedsparse.security import chains as chains_module
from fedsparse.v1 import link_pb2, link_pb2_grpc
from tests.unit.federation_samples import (
    SPACE,
    Fixed,
    Pki,
    PlantLog,
    change,
    eventually,
    federation,
    grpc_call,
    nobody_revoked,
    pulled_task,
    settings,
    tls_socket,
    update,
)

GRACE = 2.0
HASH = b"h" * 32
TASK = "a" * 64
ATTEND = link_pb2.AttendRequest(protocol=3, space=SPACE.fingerprint)


class FakeSuperLink:
    """What the hub's nodes see of Flower: tasks that wait, by order of node; answers that came."""

    def __init__(self) -> None:
        self.nodes: list[FakeNode] = []
        self.answers: list[tuple[int, str, bytes]] = []
        self.failures: list[Exception] = []  # raised, one each, by the next replies
        self.down = False
        self.pause = threading.Event()  # replies wait for it
        self.pause.set()

    def present(self) -> list[FakeNode]:
        return [node for node in self.nodes if node.open]


class FakeNode:
    """As SuperLinkNode, without a SuperLink."""

    def __init__(self, superlink: FakeSuperLink) -> None:
        self.shelf = Shelf()
        self._superlink = superlink
        self.waiting: Queue[PulledTask | Exception] = Queue()
        self.open = False
        self.node_id = 0

    def __enter__(self) -> Self:
        if self._superlink.down:
            raise httpx.ConnectError("connection refused")
        self._superlink.nodes.append(self)
        self.node_id = len(self._superlink.nodes)
        self.open = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open = False

    def pull(self) -> PulledTask | None:
        try:
            task = self.waiting.get_nowait()
        except Empty:
            return None
        if isinstance(task, Exception):
            raise task
        return task

    def reply(self, task: PulledTask, payload: bytes) -> None:
        self._superlink.pause.wait(30)
        if self._superlink.failures:
            raise self._superlink.failures.pop()
        if not self.open:
            raise RuntimeError("Cannot send a request, as the client has been closed.")
        self._superlink.answers.append((self.node_id, task.task_id, payload))


class PlantStub(link_pb2_grpc.LinkStub):
    """A plant's connection.

    Attributes:
        log: the ledger that it shows.
        credentials: what it dials with.
    """

    log: PlantLog
    credentials: Credentials


@dataclass
class Bench:
    """A hub that serves, and plants that dial it."""

    folder: Path
    pki: Pki
    superlink: FakeSuperLink
    port: int
    receipts: ReceiptBook
    door: Door
    sessions: Sessions
    hub: Hub
    logs: dict[str, PlantLog] = field(default_factory=dict)
    channels: list[grpc.Channel] = field(default_factory=list)
    streams: list[Any] = field(default_factory=list)  # a stream that nobody holds is cancelled

    def stub(self, plant: str) -> PlantStub:
        """Return a connection of its own."""
        credentials = self.pki.credentials(Role.PLANT, plant)
        options = [("grpc.use_local_subchannel_pool", 1)]
        channel = grpc.secure_channel(f"127.0.0.1:{self.port}", channel_credentials(credentials), options)
        self.channels.append(channel)
        stub = PlantStub(channel)
        stub.log, stub.credentials = self.logs.setdefault(plant, PlantLog(plant)), credentials
        return stub

    def attend(self, stub: PlantStub) -> tuple[Any, FakeNode]:
        """Return a stream of tasks, once the hub holds a new node for it."""
        before = len(self.superlink.nodes)
        stream = stub.Attend(ATTEND)
        self.streams.append(stream)
        eventually(lambda: len(self.superlink.nodes) > before, "a node")
        return stream, self.superlink.nodes[-1]

    def with_task(self, plant: str = "kiso", task_id: str = TASK) -> PlantStub:
        """Return the connection of a plant that has been given a task."""
        stub = self.stub(plant)
        stream, node = self.attend(stub)
        node.waiting.put(pulled_task(task_id))
        assert next(stream).task_id == task_id
        return stub

    def events(self) -> list[tuple[str, str]]:
        lines = (self.folder / "events.jsonl").read_text().splitlines()
        return [(event["event"], event["plant"]) for event in map(json.loads, lines)]

    def roster(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "roster.json").read_text())
        return found


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def bench(pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    superlink = FakeSuperLink()
    issue(pki.authority, Identity(Role.HUB, "hub"), tmp_path / "identity", ("127.0.0.1",))
    loaded = config.load(settings(tmp_path), config.FederationConfig)
    credentials = LiveCredentials(loaded.hub.identity, Role.HUB, print)
    receipts = ReceiptBook(tmp_path / "receipts", lambda: credentials.current)
    events = EventLog(tmp_path / "events.jsonl")
    (tmp_path / "crl.pem").write_bytes(pki.nobody_revoked)
    revoked = Revocations(tmp_path / "crl.pem", lambda: credentials.current.roots)
    door = Door(loaded.hub.plants, lambda: credentials.current.roots, revoked)
    sessions = Sessions(lambda: FakeNode(superlink), events, tmp_path / "roster.json", grace=GRACE)  # type: ignore[arg-type,return-value]
    monkeypatch.setattr(service_module, "_POLL_SECONDS", 0.1)
    hub = Hub(loaded, federation(), door, sessions, receipts, events, QuietClients())
    server, port = listen(hub, loaded, credentials, "mark")
    bench = Bench(tmp_path, pki, superlink, port, receipts, door, sessions, hub)
    yield bench
    superlink.pause.set()
    for channel in bench.channels:
        channel.close()
    server.stop(0).wait()
    sessions.close()
    eventually(lambda: not superlink.present(), "every node's end")


def push(stub: PlantStub, payload: bytes, task_id: str = TASK, hash: bytes = HASH) -> link_pb2.Receipt:
    receipt = stub.Push(stub.log.update(payload, task_id, hash, stub.credentials.key), timeout=30)
    stub.log.witnessed = max(stub.log.witnessed, receipt.body.checkpoint_size)
    return receipt


def refused(stub: PlantStub, payload: bytes, **more: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        push(stub, payload, **more)
    return caught.value.code(), caught.value.details() or ""


# Describe and Attend


def test_every_plant_is_told_the_same_of_what_is_trained(bench: Bench) -> None:
    told = [bench.stub(p).Describe(link_pb2.DescribeRequest(protocol=3), timeout=10) for p in ("kiso", "ise")]
    assert told == [federation(), federation()]


@pytest.mark.parametrize("protocol", [0, 2])
def test_another_protocol_is_refused_naming_both_on_both_calls(bench: Bench, protocol: int) -> None:
    stub = bench.stub("kiso")
    said = f"the plant speaks link protocol {protocol}, this hub 3: update the older side"
    with pytest.raises(grpc.RpcError, match=said):
        stub.Describe(link_pb2.DescribeRequest(protocol=protocol), timeout=10)
    with pytest.raises(grpc.RpcError, match=said):
        next(stub.Attend(link_pb2.AttendRequest(protocol=protocol, space=SPACE.fingerprint), timeout=10))


def test_tls_1_2_gets_no_call_even_where_the_process_would_shake_hands(
    bench: Bench, pki: Pki, tmp_path: Path
) -> None:
    kiso = pki.credentials(Role.PLANT, "kiso")
    with tls_socket(bench.port, kiso, tmp_path, ssl.TLSVersion.TLSv1_2) as channel:
        reply = grpc_call(channel, "/fedsparse.v1.Link/Describe", b"")
    assert b"TLSv1.2 is spoken, TLSv1.3 is needed" in reply


def test_a_plant_with_another_adapter_space_is_refused_naming_both_fingerprints(bench: Bench) -> None:
    other = AdapterSpace(bytes(32), SPACE.tensors).fingerprint
    with pytest.raises(grpc.RpcError) as caught:
        next(bench.stub("kiso").Attend(link_pb2.AttendRequest(protocol=3, space=other), timeout=10))
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert other.hex()[:16] in caught.value.details()
    assert SPACE.fingerprint.hex()[:16] in caught.value.details()
    assert bench.superlink.nodes == []


def test_a_task_reaches_the_plant_as_flower_addressed_it(bench: Bench) -> None:
    stream, node = bench.attend(bench.stub("kiso"))
    pulled = pulled_task()
    node.waiting.put(pulled)
    assert next(stream) == link_pb2.Task(
        task_id=TASK, run_id=7, bundle_sha256=pulled.bundle_sha256, round_task=pulled.payload
    )


def test_presence_is_told_by_events_and_the_roster_and_ends_with_the_connection(bench: Bench) -> None:
    stream, _ = bench.attend(bench.stub("kiso"))
    eventually(lambda: bench.events() == [("plant_joined", "kiso")], "the event")
    assert bench.roster() == {"nodes": {"1": "kiso"}, "present": ["kiso"]}
    stream.cancel()
    eventually(lambda: bench.events()[1:] == [("plant_lost", "kiso")], "the event")
    assert bench.roster() == {"nodes": {"1": "kiso"}, "present": []}
    eventually(lambda: not bench.superlink.present(), "the node's end")


def test_a_second_connection_of_a_plant_replaces_the_first_which_is_no_loss(bench: Bench) -> None:
    first, _ = bench.attend(bench.stub("kiso"))
    second, new = bench.attend(bench.stub("kiso"))
    assert list(first) == []  # it ends by itself
    eventually(lambda: bench.superlink.present() == [new], "the older node's end")
    assert bench.events() == [("plant_joined", "kiso"), ("plant_joined", "kiso")]
    assert bench.roster()["present"] == ["kiso"]
    new.waiting.put(pulled_task())
    assert next(second).task_id == TASK


def test_a_superlink_that_is_down_makes_the_plant_dial_again_later(bench: Bench) -> None:
    bench.superlink.down = True
    with pytest.raises(grpc.RpcError) as caught:
        next(bench.stub("kiso").Attend(ATTEND, timeout=10))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_superlink_that_fails_for_a_moment_costs_no_plant_its_presence(bench: Bench) -> None:
    stream, node = bench.attend(bench.stub("kiso"))
    for failure in (httpx.ReadTimeout("slow"), httpx.ConnectError("connection refused"), httpx.ReadError("cut")):
        node.waiting.put(failure)
    node.waiting.put(pulled_task())
    assert next(stream).task_id == TASK
    assert bench.superlink.nodes == [node]
    assert bench.events() == [("plant_joined", "kiso")]


def test_a_superlink_that_fails_for_too_long_makes_the_plant_dial_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(superlink_module, "PATIENCE_SECONDS", 0.4)
    stream, node = bench.attend(bench.stub("kiso"))
    for _ in range(20):
        node.waiting.put(httpx.ReadTimeout("slow"))
    start = time.monotonic()
    with pytest.raises(grpc.RpcError, match="the SuperLink has not answered") as caught:
        next(stream)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert time.monotonic() - start >= 0.4
    assert node.waiting.qsize() > 10  # it is asked less and less often
    eventually(lambda: bench.roster()["present"] == [], "the plant's end")


@pytest.mark.parametrize("status", [401, 404])
def test_a_node_that_the_superlink_refuses_makes_the_plant_dial_again_at_once(bench: Bench, status: int) -> None:
    request = httpx.Request("POST", "http://127.0.0.1/v1/fleet/pull-messages")
    failure = httpx.HTTPStatusError("refused", request=request, response=httpx.Response(status, request=request))
    _leaves_at_once(bench, failure)


def test_a_node_that_the_superlink_has_forgotten_makes_the_plant_dial_again_at_once(bench: Bench) -> None:
    _leaves_at_once(bench, LinkError("the SuperLink no longer knows this node"))


def _leaves_at_once(bench: Bench, failure: Exception) -> None:
    stream, node = bench.attend(bench.stub("kiso"))
    node.waiting.put(failure)
    with pytest.raises(grpc.RpcError) as caught:
        next(stream)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    eventually(lambda: bench.roster()["present"] == [], "the plant's end")


class FakeFleet:
    """What a node sees of the SuperLink when tasks are uploaded object by object."""

    def __init__(self) -> None:
        self.messages: list[Any] = []  # (header, tree) of tasks that no node has asked for
        self.there: dict[str, bytes] = {}
        self.expected: set[str] = set()
        self.calls: list[str] = []

    def issue(self, payload: bytes) -> tuple[str, dict[str, bytes]]:
        """Announce a task of which nothing is uploaded; return its id and its objects."""
        metadata = Metadata(7, "", 1, 5, "", "1", time.time(), 3600.0, "train")
        header, tree, objects = disassemble(make_message(metadata=metadata, content=wrap(payload)))
        self.messages.append((header, tree))
        self.expected.update(objects)
        return tree.object_id, objects

    def PullMessages(self, request: object) -> PullMessagesResponse:  # noqa: N802 - Flower's naming
        self.calls.append("PullMessages")
        header, tree = self.messages.pop(0) if self.messages else (None, None)
        return PullMessagesResponse(
            messages_list=[header] * bool(header), message_object_trees=[tree] * bool(tree)
        )

    def PullObject(self, request: PullObjectRequest) -> PullObjectResponse:  # noqa: N802 - Flower's naming
        self.calls.append("PullObject")
        name = request.object_id
        content = self.there.get(name, b"")
        return PullObjectResponse(
            object_found=name in self.expected, object_available=bool(content), object_content=content
        )

    def ConfirmMessageReceived(self, request: object) -> None:  # noqa: N802 - Flower's naming
        self.calls.append("ConfirmMessageReceived")

    def GetRun(self, request: object) -> GetRunResponse:  # noqa: N802 - Flower's naming
        self.calls.append("GetRun")
        return GetRunResponse(run=Run(run_id=7, fab_hash="bundle"))


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> FakeFleet:
    fleet = FakeFleet()
    monkeypatch.setattr(superlink_module.FleetHttpClient, "from_server_address", lambda *_, **__: fleet)
    return fleet


def test_a_task_is_kept_while_the_strategy_still_uploads_it(fleet: FakeFleet) -> None:
    payload = np.random.default_rng(0).bytes(10_000_000)
    task_id, objects = fleet.issue(payload)
    node = SuperLinkNode("127.0.0.1:1", Shelf())
    for name in objects:
        assert node.pull() is None
        fleet.there[name] = objects[name]
    task = node.pull()
    assert task is not None
    assert (task.task_id, task.payload, task.bundle_sha256) == (task_id, payload, "bundle")
    assert fleet.calls.count("PullMessages") == 1
    assert "ConfirmMessageReceived" not in fleet.calls
    assert node.pull() is None
    assert fleet.calls.count("ConfirmMessageReceived") == 1


@pytest.mark.parametrize("gone", ["object", "time"])
def test_a_task_that_can_no_longer_come_makes_room_for_the_next(
    fleet: FakeFleet, gone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.issue(b"first")
    node = SuperLinkNode("127.0.0.1:1", Shelf())
    assert node.pull() is None
    if gone == "object":
        fleet.expected.clear()
    else:
        now = time.time() + 30 * 24 * 3600
        monkeypatch.setattr(time, "time", lambda: now)
    assert node.pull() is None
    monkeypatch.undo()
    monkeypatch.setattr(superlink_module.FleetHttpClient, "from_server_address", lambda *_, **__: fleet)
    fleet.there.update(fleet.issue(b"second")[1])
    task = node.pull()
    assert task is not None
    assert task.payload == b"second"


def test_what_one_node_has_pulled_the_others_need_not(fleet: FakeFleet) -> None:
    shelf = Shelf()
    nodes = [SuperLinkNode("127.0.0.1:1", shelf) for _ in range(3)]
    for number, node in enumerate(nodes):
        fleet.there.update(fleet.issue(b"the same for all")[1])
        assert (task := node.pull()) is not None
        assert task.payload == b"the same for all"
        assert fleet.calls.count("PullObject") == 3 + number  # of its own each has the message alone
        assert fleet.calls.count("GetRun") == 1


def test_a_task_is_not_confirmed_before_all_of_it_was_uploaded_once_more(fleet: FakeFleet) -> None:
    """The SuperLink forgets the objects of a confirmed task; one that it is sent after that ends the round."""
    shelf = Shelf()
    first, second = (SuperLinkNode("127.0.0.1:1", shelf) for _ in range(2))
    fleet.there.update(fleet.issue(b"again")[1])
    assert first.pull() is not None
    assert first.pull() is None  # confirmed
    _, objects = fleet.issue(b"again")
    fleet.there.clear()
    fleet.there.update(list(objects.items())[-1:])  # two uploads at a time: the last object may be first
    assert second.pull() is None
    fleet.there.update(objects)
    assert second.pull() is not None


def test_a_shelf_holds_no_more_than_it_may() -> None:
    shelf = Shelf(10)
    for name in "abc":
        shelf.put(name, bytes(4))
    shelf.put("c", bytes(4))
    assert [name for name in "abc" if shelf.get(name)] == ["b", "c"]


def test_a_roster_that_cannot_be_written_leaves_no_half_present_plant(bench: Bench) -> None:
    (bench.folder / "roster.tmp").mkdir()
    stub = bench.stub("kiso")
    with pytest.raises(grpc.RpcError) as caught:
        next(stub.Attend(ATTEND, timeout=10))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    (bench.folder / "roster.tmp").rmdir()
    stream, node = bench.attend(stub)
    node.waiting.put(pulled_task())
    assert next(stream).task_id == TASK


def test_a_plant_that_opens_streams_without_end_holds_few_and_keeps_no_other_plant_out(bench: Bench) -> None:
    """Each stream holds a thread of the hub's and a node at the SuperLink."""
    greedy = [bench.stub("kiso") for _ in range(10)]
    streams = [stub.Attend(ATTEND) for stub in greedy for _ in range(20)]
    eventually(lambda: len(bench.superlink.nodes) > 0, "a node")
    assert len(bench.superlink.present()) <= MAX_STREAMS
    honest, _ = bench.attend(bench.stub("ise"))
    eventually(lambda: bench.roster()["present"] == ["ise", "kiso"], "both plants")
    # A greedy stream may have its node already and not be in the roster yet.
    ours = next(n for n in bench.superlink.present() if bench.roster()["nodes"].get(str(n.node_id)) == "ise")
    ours.waiting.put(pulled_task())
    assert next(honest).task_id == TASK
    for stream in streams:
        stream.cancel()
    eventually(lambda: len(bench.superlink.present()) == 1, "the greedy streams' end")
    bench.attend(bench.stub("kiso"))  # once they have gone, the plant gets in again


def test_the_roster_does_not_grow_with_every_connection_of_a_plant(bench: Bench, monkeypatch: Any) -> None:
    monkeypatch.setattr(sessions_module, "_REMEMBERED_NODES", 3)
    bench.attend(bench.stub("ise"))
    stub = bench.stub("kiso")
    for _ in range(8):
        stream, _ = bench.attend(stub)
        eventually(lambda: bench.roster()["present"] == ["ise", "kiso"], "kiso's presence")
        stream.cancel()
        eventually(lambda: bench.roster()["present"] == ["ise"], "kiso's end")
    assert list(bench.roster()["nodes"]) == ["1", "6", "7", "8", "9"]


# Dialling again


def resuming(token: bytes = b"t" * 16, held: tuple[str, ...] = ()) -> link_pb2.AttendRequest:
    return link_pb2.AttendRequest(protocol=3, space=SPACE.fingerprint, session=token, held=held)


def begun(bench: Bench, token: bytes = b"t" * 16) -> tuple[Any, FakeNode]:
    """Return a plant's stream with an open task, and its node."""
    stream = bench.stub("kiso").Attend(resuming(token))
    bench.streams.append(stream)
    eventually(lambda: bench.superlink.nodes, "a node")
    node = bench.superlink.nodes[-1]
    node.waiting.put(pulled_task())
    assert next(stream).task_id == TASK
    return stream, node


def test_a_task_outlives_a_connection_that_drops_and_its_update_is_taken(bench: Bench) -> None:
    stream, node = begun(bench)
    stream.cancel()
    again = bench.stub("kiso")
    second = again.Attend(resuming(held=(TASK,)))
    second.initial_metadata()  # waits for the hub's verdict
    push(again, update())
    assert bench.superlink.answers == [(node.node_id, TASK, update())]
    assert bench.superlink.nodes == [node]
    assert bench.events() == [("plant_joined", "kiso")]
    node.waiting.put(pulled_task("b" * 64))
    assert next(second).task_id == "b" * 64  # and nothing of the first task, which the plant holds


def test_a_task_that_got_lost_with_the_connection_is_sent_again(bench: Bench) -> None:
    begun(bench)[0].cancel()
    second = bench.stub("kiso").Attend(resuming())
    assert next(second).task_id == TASK


def test_a_task_that_a_replaced_stream_takes_is_sent_by_its_successor(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older stream may be asking Flower for tasks at the moment when the plant dials again."""
    asked, answer = threading.Event(), threading.Event()
    pull = FakeNode.pull

    def slow(node: FakeNode) -> PulledTask | None:
        if not asked.is_set():
            asked.set()
            answer.wait(20)
        return pull(node)

    monkeypatch.setattr(FakeNode, "pull", slow)
    older = bench.stub("kiso").Attend(resuming())
    older.initial_metadata()
    assert asked.wait(20)
    older.cancel()
    newer = bench.stub("kiso").Attend(resuming())
    newer.initial_metadata()  # it is the one that speaks for the plant now
    bench.superlink.nodes[0].waiting.put(pulled_task())
    answer.set()
    assert next(newer).task_id == TASK


def test_a_gateway_that_started_anew_takes_nothing_up(bench: Bench) -> None:
    stream, node = begun(bench)
    stream.cancel()
    _, new = bench.attend(bench.stub("kiso"))
    eventually(lambda: bench.superlink.present() == [new], "the older node's end")
    assert not node.open
    assert refused(bench.stub("kiso"), update())[0] is grpc.StatusCode.NOT_FOUND


def test_a_plant_that_does_not_dial_again_has_left_after_the_grace(bench: Bench) -> None:
    stream, node = begun(bench)
    stream.cancel()
    eventually(lambda: bench.events()[1:] == [("plant_lost", "kiso")], "the event")
    assert bench.roster()["present"] == []
    assert not node.open
    assert next(iter(bench.superlink.present()), None) is None


def test_another_plant_cannot_take_a_session_up_whose_token_it_knows(bench: Bench) -> None:
    begun(bench)
    stub = bench.stub("ise")
    stream = stub.Attend(resuming())
    eventually(lambda: len(bench.superlink.nodes) == 2, "a node of its own")
    assert refused(stub, update())[0] is grpc.StatusCode.NOT_FOUND
    stream.cancel()


@pytest.mark.parametrize(
    "request_", [resuming(b"t"), resuming(b"t" * 17), resuming(held=("x",) * 17)], ids=["short", "long", "many"]
)
def test_a_malformed_session_is_refused(bench: Bench, request_: link_pb2.AttendRequest) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        next(bench.stub("kiso").Attend(request_, timeout=10))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_bell_brings_a_task_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "_POLL_SECONDS", 3600.0)
    stream, node = bench.attend(bench.stub("kiso"))
    stream.initial_metadata()
    node.waiting.put(pulled_task())
    stop = threading.Event()
    follower = threading.Thread(target=follow, args=(bench.folder, bench.sessions.wake, stop))
    follower.start()
    arrived = threading.Thread(target=lambda: next(stream))
    arrived.start()
    for _ in range(200):  # the stream may not be waiting yet at the first
        ring(bench.folder)
        arrived.join(0.1)
        if not arrived.is_alive():
            break
    stop.set()
    follower.join()
    assert not arrived.is_alive()


# Who may stay


def test_a_plant_that_is_revoked_while_it_is_present_is_turned_out_and_stays_out(bench: Bench) -> None:
    stub = bench.with_task()
    honest, other = bench.attend(bench.stub("ise"))
    revoke(bench.pki.authority, ["kiso"])
    (bench.folder / "crl.pem").write_bytes((bench.pki.folder / "ca" / "crl.pem").read_bytes())
    bench.hub.turn_out()
    eventually(lambda: "kiso" not in bench.roster()["present"], "kiso's end")
    for call in (
        lambda: push(stub, update()),
        lambda: stub.Describe(link_pb2.DescribeRequest(protocol=3), timeout=10),
        lambda: next(stub.Attend(ATTEND, timeout=10)),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert "of CN=kiso is revoked" in caught.value.details()
    assert bench.superlink.answers == []
    other.waiting.put(pulled_task())
    assert next(honest).task_id == TASK


def test_a_plant_that_calls_without_end_is_slowed_down_and_others_are_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = link_pb2.DescribeRequest(protocol=3)
    greedy = bench.stub("kiso")
    with pytest.raises(grpc.RpcError) as caught:
        [greedy.Describe(question, timeout=30) for _ in range(2 * CALLS_A_MINUTE)]
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert f"kiso makes more than {CALLS_A_MINUTE} calls a minute" in caught.value.details()
    assert bench.stub("ise").Describe(question, timeout=10) == federation()


def test_a_plant_whose_certificate_ends_or_whose_ca_is_taken_out_is_turned_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = Pki(tmp_path_factory.mktemp("other"))
    for plant, change_ in (
        ("kiso", lambda: monkeypatch.setattr(bench.door, "_roots", lambda: (other.authority.root,))),
        ("ise", lambda: monkeypatch.setattr(chains_module, "datetime", Tomorrow)),
    ):
        stream, node = bench.attend(bench.stub(plant))
        stream.initial_metadata()
        eventually(lambda plant=plant: plant in bench.roster()["present"], "the presence")  # type: ignore[misc]
        bench.hub.turn_out()
        assert node.open
        change_()
        bench.hub.turn_out()
        eventually(lambda plant=plant: plant not in bench.roster()["present"], "the end")  # type: ignore[misc]
        monkeypatch.undo()


class Tomorrow(datetime):
    """A clock that is a year ahead."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
        return datetime.now(tz) + timedelta(days=365)


def test_a_plant_that_reads_nothing_is_turned_out_all_the_same_once_it_is_revoked(bench: Bench) -> None:
    """Its stream is held up by its own full buffers, and looks at nothing meanwhile."""
    stream, node = bench.attend(bench.stub("kiso"))
    stream.initial_metadata()
    eventually(lambda: bench.roster()["present"] == ["kiso"], "kiso's presence")
    big = replace(pulled_task(), payload=bytes(8 << 20))
    for _ in range(8):
        node.waiting.put(big)
    eventually(lambda: node.waiting.qsize() < 8, "the first task")
    revoke(bench.pki.authority, ["kiso"])
    (bench.folder / "crl.pem").write_bytes((bench.pki.folder / "ca" / "crl.pem").read_bytes())
    bench.hub.turn_out()
    eventually(lambda: bench.roster()["present"] == [], "kiso's end")
    assert not node.open


@pytest.mark.parametrize("plant", ["kiso", "stranger"])
def test_calls_whose_request_never_comes_keep_nobody_else_out(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, plant: str
) -> None:
    monkeypatch.setattr(calls_module, "_REQUEST_SECONDS", 2.0)
    halves = []
    for _ in range(8):
        credentials = channel_credentials(bench.pki.credentials(Role.PLANT, plant))
        channel = grpc.secure_channel(
            f"127.0.0.1:{bench.port}", credentials, [("grpc.use_local_subchannel_pool", 1)]
        )
        bench.channels.append(channel)
        push_ = channel.stream_unary("/fedsparse.v1.Link/Push")
        halves += [push_.future(iter(threading.Event().wait, True)) for _ in range(8)]  # type: ignore[arg-type]
    question = link_pb2.DescribeRequest(protocol=3)
    assert bench.stub("ise").Describe(question, timeout=10) == federation()
    codes = {one.exception(timeout=20).code() for one in halves}
    expected = {grpc.StatusCode.PERMISSION_DENIED} if plant == "stranger" else {
        grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED}  # fmt: skip
    assert codes == expected


@pytest.mark.parametrize("method", ["/fedsparse.v1.Link/Erase", "/flwr.proto.Fleet/PullMessages", "/x"])
def test_what_the_hub_does_not_serve_is_refused_by_name(
    bench: Bench, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    credentials = channel_credentials(bench.pki.credentials(Role.PLANT, "kiso"))
    with grpc.secure_channel(f"127.0.0.1:{bench.port}", credentials) as channel, caplog.at_level("WARNING"):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary(method)(b"anything", timeout=10)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert f"kiso calls {method!r}, which this hub does not serve" in caplog.text


def test_a_call_without_a_request_is_no_empty_request_and_is_logged_by_name(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """So does a request look to the hub that gRPC has refused for its size a moment before."""
    stub = bench.stub("kiso")
    push_ = bench.channels[-1].stream_unary("/fedsparse.v1.Link/Push")
    with pytest.raises(grpc.RpcError) as caught:
        push_(iter(()), timeout=10)  # type: ignore[arg-type]
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "no request came"
    assert "no whole request of kiso came" in caplog.text
    assert stub.Describe(link_pb2.DescribeRequest(protocol=3), timeout=10) == federation()


def test_a_malformed_request_is_refused_with_the_name_of_who_sent_it(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    credentials = channel_credentials(bench.pki.credentials(Role.PLANT, "kiso"))
    with grpc.secure_channel(f"127.0.0.1:{bench.port}", credentials) as channel, caplog.at_level("WARNING"):
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/fedsparse.v1.Link/Push")(b"\xff\xff\xff", timeout=10)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "kiso sent 3 bytes that are no Update" in caplog.text
    assert "Traceback" not in caplog.text


def test_headers_that_are_too_long_are_refused_with_the_name_of_who_sent_them(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    stub = bench.stub("kiso")
    with caplog.at_level("WARNING"), pytest.raises(grpc.RpcError) as caught:
        stub.Describe(link_pb2.DescribeRequest(protocol=3), metadata=[("x-large", "a" * 100_000)], timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with caplog.at_level("WARNING"), pytest.raises(grpc.RpcError):
        stub.Describe(link_pb2.DescribeRequest(protocol=3), metadata=[("x-large", "a" * HEADER_BYTES)], timeout=10)
    assert stub.Describe(link_pb2.DescribeRequest(protocol=3), timeout=10) == federation()


def test_a_message_above_the_links_limit_is_logged_with_the_name_of_who_sent_it(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    stub = bench.with_task()

    def logged() -> bool:
        """Try once more: a call that gRPC ends before the hub has looked at it names nobody."""
        assert refused(stub, bytes(2 << 20))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
        return "no whole request of kiso came" in caplog.text

    with caplog.at_level("WARNING"):
        eventually(logged, "the log line")


def test_of_lost_tasks_the_newest_is_sent_again_and_expired_ones_are_forgotten(bench: Bench) -> None:
    stream, node = begun(bench)
    for letter, created in (("b", 1.0), ("c", time.time())):
        node.waiting.put(pulled_task(letter * 64, created))
        assert next(stream).task_id == letter * 64
    stream.cancel()
    again = bench.stub("kiso").Attend(resuming())
    assert next(again).task_id == "c" * 64
    session = bench.sessions.of("kiso")
    assert session is not None
    assert set(session.outstanding) == {TASK, "c" * 64}


def test_a_full_disk_leaves_no_node_that_nobody_holds(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(EventLog, "emit", full)
    with pytest.raises(grpc.RpcError) as caught:
        next(bench.stub("kiso").Attend(ATTEND, timeout=10))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    eventually(lambda: not bench.superlink.present(), "the node's end")
    assert bench.sessions.of("kiso") is None


# Push


def test_an_update_is_handed_to_flower_and_its_receipt_verifies(bench: Bench) -> None:
    payload = update()
    receipt = push(bench.with_task(), payload)
    assert bench.superlink.answers == [(1, TASK, payload)]
    body = receipt.body
    assert (body.plant, body.task_id, body.sequence, body.ledger_hash) == ("kiso", TASK, 1, HASH)
    assert body.payload_sha256 == sha256(payload).digest()
    signed = body.SerializeToString(deterministic=True)
    ca = bench.pki.ca.read_bytes()
    signer = verify(receipt.hub_certificate, ca, Role.HUB, signed, receipt.signature)
    assert signer == Identity(Role.HUB, "hub")


def test_a_reason_instead_of_a_delta_gets_a_receipt_too(bench: Bench) -> None:
    payload = encode_update(RoundUpdate.refusal(1, 0, Reason.REFUSED_BY_GATE))
    assert push(bench.with_task(), payload).body.sequence == 1
    assert bench.superlink.answers == [(1, TASK, payload)]


def test_a_push_without_an_open_task_is_refused(bench: Bench) -> None:
    code, told = refused(bench.stub("kiso"), update())
    assert (code, told) == (grpc.StatusCode.NOT_FOUND, f"kiso has no open task {TASK[:12]!r}")
    assert refused(bench.with_task(), update(), task_id="b" * 64)[0] is grpc.StatusCode.NOT_FOUND
    assert bench.superlink.answers == []


def test_a_plant_cannot_answer_anothers_task(bench: Bench) -> None:
    bench.with_task("kiso")
    ise = bench.with_task("ise", "b" * 64)
    code, told = refused(ise, update())
    assert (code, told) == (grpc.StatusCode.NOT_FOUND, f"ise has no open task {TASK[:12]!r}")
    assert bench.superlink.answers == []


def test_a_plant_does_not_see_anothers_receipt(bench: Bench) -> None:
    push(bench.with_task("kiso"), update())
    ise = bench.with_task("ise", "b" * 64)
    assert refused(ise, update())[0] is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (update(round=2), "is for round 2 from version 0, this is round 1 from version 0"),
        (update(version=3), "is for round 1 from version 3"),
        (update(change(operation=Operation.SET)), "must be an ADD delta"),
        (update(samples=0), "claims 0 samples"),
        (b"", "format 0"),
        (b"\xff" * 40, "no RoundUpdate"),
        (update()[:-1], "no RoundUpdate"),
        (update() + b"\x40\x01", "not in canonical form"),
    ],
)
def test_a_wrong_or_malformed_update_is_refused_and_the_task_stays_open(
    bench: Bench, payload: bytes, why: str
) -> None:
    stub = bench.with_task()
    code, told = refused(stub, payload)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert why in told
    assert bench.superlink.answers == []
    assert push(stub, update()).body.sequence == 1


def test_each_receipt_witnesses_the_plants_ledger(bench: Bench) -> None:
    stub = bench.with_task()
    receipt = push(stub, update())
    body = receipt.body
    checkpoint = Checkpoint(stub.log.origin, body.checkpoint_size, body.checkpoint_root)
    assert (body.origin, body.checkpoint_size) == (stub.log.origin, 1)
    assert check_cosignature(receipt.cosignature, checkpoint, body.witness_key)[0] == "fedsparse/hub"


def test_a_plant_that_missed_a_receipt_is_told_from_where_to_prove(bench: Bench) -> None:
    stub = bench.with_task()
    push(stub, update())
    stub.log.witnessed = 0  # the receipt did not arrive
    bench.superlink.nodes[-1].waiting.put(pulled_task("b" * 64))
    with pytest.raises(grpc.RpcError) as caught:
        eventually(lambda: _taken(stub), "the second task")
    assert caught.value.code() is grpc.StatusCode.ABORTED
    assert dict(caught.value.trailing_metadata())[STALE_SIZE] == "1"
    stub.log.witnessed = 1
    assert push(stub, update(), "b" * 64, b"i" * 32).body.checkpoint_size == 2


def _taken(stub: PlantStub) -> bool:
    """Push for the second task, once the plant has been given it."""
    try:
        stub.Push(stub.log.update(update(), "b" * 64, b"i" * 32, stub.credentials.key), timeout=30)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return False
        raise
    return True


def test_a_plant_that_rewrites_its_history_gets_no_receipt_and_the_operator_is_told(bench: Bench) -> None:
    stub = bench.with_task()
    push(stub, update())
    stub.log.leaves[0] = b"x" * 32
    stub.log.leaves.append(b"y" * 32)
    bench.superlink.nodes[-1].waiting.put(pulled_task("b" * 64))
    with pytest.raises(grpc.RpcError, match="its history was rewritten") as caught:
        eventually(lambda: _taken(stub), "the second task")
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert len(bench.superlink.answers) == 1
    assert ("ledger_contradicted", "kiso") in bench.events()


def test_another_ledger_of_a_plant_is_taken_and_the_operator_is_told(bench: Bench) -> None:
    stub = bench.with_task()
    push(stub, update())
    stub.log = PlantLog("kiso")
    bench.superlink.nodes[-1].waiting.put(pulled_task("b" * 64))
    eventually(lambda: _taken(stub), "the second task")
    assert ("ledger_replaced", "kiso") in bench.events()


def test_a_ledger_key_that_the_plant_did_not_sign_for_is_refused(bench: Bench) -> None:
    stub = bench.with_task()
    stub.credentials = bench.pki.credentials(Role.PLANT, "ise")
    code, told = refused(stub, update())
    assert (code, told) == (grpc.StatusCode.INVALID_ARGUMENT, "kiso did not sign for the key of its ledger")
    assert bench.superlink.answers == []


def test_a_made_up_tree_too_large_for_a_receipt_is_refused_before_flower_has_the_update(bench: Bench) -> None:
    stub = bench.with_task()
    sent = stub.log.update(update(), TASK, HASH, stub.credentials.key)
    root = HASH
    for _ in range(64):
        sent.checkpoint.inclusion.append(bytes(32))
        root = merkle.node_hash(root, bytes(32))
    sent.checkpoint.note = sign_checkpoint(Checkpoint(stub.log.origin, 1 << 64, root), stub.log.key)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Push(sent, timeout=30)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert bench.superlink.answers == []


@dataclass
class Plant:
    """A plant with a ledger of its own and the gateway's end of the link."""

    bench: Bench
    ledger: Ledger
    link: Link
    next_task: Callable[[str], None]

    def record(self, task_id: str, samples: int = 100) -> Recorded:
        """Record an answer to a task that the plant has been given just before."""
        self.next_task(task_id)
        payload = update(samples=samples)
        facts = describe_delta(change(), SPACE)
        draft = EntryDraft(EntryKind.UPDATE, "hub:1", b"", task_id, 1, 0, samples, tensors=facts)
        return self.ledger.append(draft, payload)

    def deliver(self, recorded: Recorded) -> link_pb2.Receipt:
        """Push it, and file its receipt."""
        receipt = self.link.push(recorded, self.ledger)
        self.ledger.file_receipt(recorded.sequence, receipt.SerializeToString(deterministic=True))
        return receipt


@contextmanager
def plant_at_work(bench: Bench, folder: Path) -> Iterator[Plant]:
    credentials = bench.pki.credentials(Role.PLANT, "kiso")
    stream, node = bench.attend(bench.stub("kiso"))

    def next_task(task_id: str) -> None:
        node.waiting.put(pulled_task(task_id))
        assert next(stream).task_id == task_id

    with (
        Ledger(folder, bytes(32), "kiso") as ledger,
        Link(f"127.0.0.1:{bench.port}", Fixed(credentials), 1 << 20, nobody_revoked()) as link,
    ):
        ledger.set_space(SPACE)
        opening = make_opening(ledger.origin, ledger.key, credentials, "0", "00" * 32, CLOCK_UNKNOWN)
        ledger.append_note(EntryKind.OPENED, opening)
        yield Plant(bench, ledger, link, next_task)


def test_a_lost_receipt_heals_and_the_ledger_verifies_against_the_hubs_record(
    bench: Bench, tmp_path: Path
) -> None:
    with plant_at_work(bench, tmp_path / "ledger") as plant:
        lost = plant.record("1" * 64, 1)
        before = plant.link.push(lost, plant.ledger)  # the gateway is killed before it can file this
        assert (before.body.checkpoint_size, plant.ledger.witnessed) == (2, 0)
        assert plant.deliver(plant.record("2" * 64, 2)).body.checkpoint_size == 3
        assert plant.deliver(lost) == before  # as a gateway does that was started anew
        assert plant.deliver(plant.record("3" * 64, 3)).body.checkpoint_size == 4
    authority = bench.pki.ca.read_bytes()
    verdict = verify_ledger(tmp_path / "ledger", authority, tmp_path / "receipts" / "kiso.jsonl")
    assert (verdict.problems, verdict.missing_receipts, verdict.unfiled) == ((), (), ())
    assert (verdict.updates, verdict.receipts, verdict.witnessed) == (3, 3, 4)
    assert bench.events() == [("plant_joined", "kiso")]
    assert [task for _, task, _ in bench.superlink.answers] == ["1" * 64, "2" * 64, "3" * 64]


def test_an_older_copy_of_a_ledger_gets_no_receipt_however_it_goes_on(bench: Bench, tmp_path: Path) -> None:
    with plant_at_work(bench, tmp_path / "ledger") as plant:
        plant.deliver(plant.record("1" * 64))
    shutil.copytree(tmp_path / "ledger", tmp_path / "copy")
    with plant_at_work(bench, tmp_path / "ledger") as plant:
        for task_id in ("2" * 64, "3" * 64, "4" * 64):
            plant.deliver(plant.record(task_id))
    with plant_at_work(bench, tmp_path / "copy") as plant:
        recorded = plant.record("5" * 64, 5)
        with pytest.raises(LedgerError, match="has seen this ledger with 6 entries, it has 4 now"):
            plant.link.push(recorded, plant.ledger)
        for _ in range(3):  # until it is as long as it was
            plant.ledger.append(EntryDraft(EntryKind.ATTEND, "hub:1", b""), b"")
        with pytest.raises(LinkError, match=r"failed precondition: .*its history was rewritten"):
            plant.link.push(recorded, plant.ledger)
    assert ("ledger_contradicted", "kiso") in bench.events()
    assert len(bench.superlink.answers) == 4
    authority = bench.pki.ca.read_bytes()
    kept = tmp_path / "receipts" / "kiso.jsonl"
    assert verify_ledger(tmp_path / "ledger", authority, kept).problems == ()
    found = verify_ledger(tmp_path / "copy", authority, kept).problems
    assert found[0].startswith("entry 4: the hub witnessed another history: from 3 to 4")


def test_a_ledger_that_was_begun_anew_gets_receipts_and_the_operator_is_told_once(
    bench: Bench, tmp_path: Path
) -> None:
    with plant_at_work(bench, tmp_path / "ledger") as plant:
        plant.deliver(plant.record("1" * 64))
    with plant_at_work(bench, tmp_path / "another") as plant:
        for task_id in ("2" * 64, "3" * 64):
            plant.deliver(plant.record(task_id))
    assert [event for event, _ in bench.events() if event.startswith("ledger")] == ["ledger_replaced"]
    authority = bench.pki.ca.read_bytes()
    verdict = verify_ledger(tmp_path / "another", authority)
    assert (verdict.problems, verdict.unfiled) == ((), (1,))  # its receipts begin with the second
    (problem,) = verify_ledger(tmp_path / "another", authority, tmp_path / "receipts" / "kiso.jsonl").problems
    assert problem.startswith("the hub's receipt 1 is for one of the first 2 entries of a ledger, which this one")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_ledger_hash_of_another_length_is_refused(bench: Bench, length: int) -> None:
    code, told = refused(bench.with_task(), update(), hash=bytes(length))
    assert (code, told) == (grpc.StatusCode.INVALID_ARGUMENT, "ledger_hash must have 32 bytes")
    assert bench.superlink.answers == []


@pytest.mark.parametrize(
    ("size", "code"),
    [(4097, grpc.StatusCode.INVALID_ARGUMENT), (2 << 20, grpc.StatusCode.RESOURCE_EXHAUSTED)],
)
def test_an_oversized_update_is_refused(bench: Bench, size: int, code: grpc.StatusCode) -> None:
    stub = bench.with_task()
    assert refused(stub, bytes(size))[0] is code
    assert push(stub, update()).body.sequence == 1


def test_a_retry_gets_the_very_same_receipt_and_counts_once(bench: Bench) -> None:
    stub = bench.with_task()
    first = push(stub, update())
    assert push(stub, update()) == first
    assert len(bench.superlink.answers) == 1


def test_a_retry_on_a_new_connection_gets_the_same_receipt(bench: Bench) -> None:
    first = push(bench.with_task(), update())
    again = bench.stub("kiso")
    bench.attend(again)
    assert push(again, update()) == first


def test_a_second_answer_with_other_bytes_is_refused(bench: Bench) -> None:
    stub = bench.with_task()
    push(stub, update())
    for payload, hashed in ((update(samples=101), HASH), (update(), bytes(32))):
        code, told = refused(stub, payload, hash=hashed)
        assert code is grpc.StatusCode.ALREADY_EXISTS
        assert "with other bytes" in told
    assert len(bench.superlink.answers) == 1


def test_of_many_pushes_at_once_one_counts_and_one_receipt_is_issued(bench: Bench) -> None:
    stub, start = bench.with_task(), threading.Barrier(6)

    def race(_: int) -> bytes | grpc.StatusCode:
        start.wait()
        try:
            return push(stub, update()).SerializeToString(deterministic=True)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code

    bench.superlink.pause.clear()
    with ThreadPoolExecutor(6) as pool:
        racing = [pool.submit(race, n) for n in range(6)]
        eventually(lambda: sum(future.done() for future in racing) == 5, "five refusals")
        bench.superlink.pause.set()
    ends = [future.result() for future in racing]
    assert ends.count(grpc.StatusCode.UNAVAILABLE) == 5  # the plant tries again, and gets the same receipt
    assert push(stub, update()).SerializeToString(deterministic=True) in ends
    assert len(bench.superlink.answers) == 1
    assert len((bench.folder / "receipts" / "kiso.jsonl").read_text().splitlines()) == 1


def test_while_the_superlink_is_away_there_is_no_receipt_and_the_retry_gets_one(bench: Bench) -> None:
    stub = bench.with_task()
    bench.superlink.failures.append(httpx.ConnectError("connection refused"))
    assert refused(stub, update())[0] is grpc.StatusCode.UNAVAILABLE
    assert bench.receipts.find("kiso", TASK) is None
    assert push(stub, update()).body.sequence == 1
    assert len(bench.superlink.answers) == 1


def test_an_update_that_flower_has_but_no_receipt_could_be_kept_for_is_not_handed_over_twice(
    bench: Bench,
) -> None:
    stub = bench.with_task()
    path = bench.folder / "receipts" / "kiso.jsonl"
    path.symlink_to(bench.folder / "gone" / "kiso.jsonl")  # as if the disk had gone
    assert refused(stub, update())[0] is grpc.StatusCode.UNAVAILABLE
    path.unlink()
    assert refused(stub, update(samples=101))[0] is grpc.StatusCode.ALREADY_EXISTS
    assert push(stub, update()).body.sequence == 1
    assert len(bench.superlink.answers) == 1


def test_a_task_of_a_replaced_connection_is_no_longer_open(bench: Bench) -> None:
    """Its Flower node has left, so nobody would hear the answer."""
    stub = bench.with_task()
    bench.attend(bench.stub("kiso"))
    assert refused(stub, update())[0] is grpc.StatusCode.NOT_FOUND
    assert bench.superlink.answers == []


def test_a_push_whose_connection_is_replaced_meanwhile_gets_no_receipt(bench: Bench) -> None:
    stub = bench.with_task()
    bench.superlink.pause.clear()
    with ThreadPoolExecutor(1) as pool:
        pushing = pool.submit(refused, stub, update())
        bench.attend(bench.stub("kiso"))
        eventually(lambda: len(bench.superlink.present()) == 1, "the older node's end")
        bench.superlink.pause.set()
        code, _ = pushing.result()
    assert code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND}
    assert bench.superlink.answers == []
    assert bench.receipts.find("kiso", TASK) is None


def test_receipts_that_cannot_be_read_are_no_reason_to_start_counting_anew(bench: Bench) -> None:
    stub = bench.with_task()
    (bench.folder / "receipts" / "kiso.jsonl").write_text("spoilt\n")
    code, told = refused(stub, update())
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "unreadable" in told
    assert bench.superlink.answers == []


# Serving


def test_an_address_that_is_taken_is_an_error_with_a_remedy(bench: Bench, pki: Pki, tmp_path: Path) -> None:
    folder = tmp_path / "second"
    folder.mkdir()
    loaded = config.load(settings(folder, listen=f"127.0.0.1:{bench.port}"), config.FederationConfig)
    credentials = Fixed(pki.credentials(Role.HUB, "hub", "127.0.0.1"))
    second = Hub(
        loaded,
        federation(),
        bench.door,
        bench.sessions,
        bench.receipts,
        EventLog(tmp_path / "events.jsonl"),
        QuietClients(),
    )
    with pytest.raises(LinkError, match=rf"cannot listen on 127\.0\.0\.1:{bench.port}.*Free the port"):
        listen(second, loaded, credentials, "mark")

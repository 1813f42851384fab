"""Large messages, down and up: through hub and gateway, and as bare Flower's SuperNode moves them."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path

import grpc
import numpy as np
from fedsparse_client.gateway.link import PROTOCOL, SESSION_BYTES, Link
from fedsparse_client.gateway.transfer import upload
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_utils import (
    inflate_object_from_contents,
    pull_objects,
    push_object_contents_from_iterable,
)
from flwr.supernode.fleet_http_connection import http_request_response

from benchmarks.linking.messages import SPACE, refusal, task, update
from benchmarks.linking.operator import Operator
from benchmarks.linking.plant import Plant
from benchmarks.linking.waiting import eventually
from fedsparse.aggregation import admit
from fedsparse.audit import describe_delta
from fedsparse.delta import SparseDelta, decode, decode_update
from fedsparse.envelope import disassemble, object_ids, wrap
from fedsparse.errors import FedsparseError
from fedsparse.v1 import link_pb2

_SECONDS = 90.0
_ROUND_SECONDS = 15.0  # of a task that is answered with nothing but an upload
PAIR_STAGE = "hub to the gateway's desk"


@dataclass(frozen=True)
class Moved:
    """One large message on its way.

    Attributes:
        way: "down" or "up".
        by: "fedsparse" or "bare Flower".
        size: in bytes.
        seconds: from end to end; infinite where it did not arrive.
        trouble: why it did not.
        stages: seconds of each part of it.
    """

    way: str
    by: str
    size: int
    seconds: float
    stages: dict[str, float] = field(default_factory=dict)
    trouble: str = ""

    @property
    def rate(self) -> float:
        """MB/s."""
        return self.size / 1e6 / self.seconds

    def row(self) -> dict[str, object]:
        """Return what the table shows."""
        return {
            "way": self.way,
            "by": self.by,
            "megabytes": round(self.size / 1e6, 1),
            "seconds": None if self.trouble else round(self.seconds, 3),
            "mb_per_second": round(self.rate, 1),
        }


class _Node:
    """Flower's own SuperNode client, with nothing behind it."""

    def __init__(self, address: str) -> None:
        self._connection = http_request_response(address, insecure=True)

    def __enter__(self) -> _Node:
        calls = self._connection.__enter__()
        self.node, self._receive, self._send, _, _, self._pull, self._push, self._confirm = calls
        return self

    def __exit__(self, *error: object) -> None:
        self._connection.__exit__(None, None, None)

    def receive(self, given_up: threading.Event) -> tuple[Message, ObjectTree]:
        """Wait for a message's header, unless its sender gives up."""
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end and not given_up.is_set():
            if (found := self._receive()) is not None:
                return found
            time.sleep(0.01)
        raise TimeoutError("no message came")

    def fetch(self, message: Message, tree: ObjectTree) -> tuple[Message, float]:
        """Pull a message's objects and put it together; return when all of them were there."""
        run, name = message.metadata.run_id, message.metadata.message_id
        contents = pull_objects(object_ids(tree), lambda one: self._pull(run, one))
        self._confirm(run, name)
        there = time.monotonic()
        whole = inflate_object_from_contents(name, contents)
        assert isinstance(whole, Message)
        whole.metadata.__dict__["_message_id"] = name
        return whole, there

    def answer(self, message: Message, content: RecordDict) -> tuple[float, float]:
        """Send an answer; return when it began to and when the last object was taken."""
        header, tree, objects = disassemble(Message(content, reply_to=message))
        del header
        reply = inflate_object_from_contents(tree.object_id, dict(objects))
        assert isinstance(reply, Message)
        reply.metadata.__dict__["_message_id"] = tree.object_id
        start = time.monotonic()
        wanted, session = self._send(reply, tree, 0.0)
        run = message.metadata.run_id
        push_object_contents_from_iterable(
            ((name, objects[name]) for name in objects if name in wanted),
            lambda name, body: self._push(run, session, name, body),
        )
        return start, time.monotonic()


class LargeMessages:
    """Moves them.

    Args:
        operator: SuperLink, hub and driver.
        plant: one whose SuperNode is this process.
    """

    def __init__(self, operator: Operator, plant: Plant) -> None:
        self._operator = operator
        self._plant = plant

    def down(self, size: int) -> list[Moved]:
        """Move a task of ``size`` bytes, each way of moving it."""
        payload = task(size)
        return [self._try("down", self._down_ours, payload), self._down_bare(payload)]

    def up(self, tensors: int) -> list[Moved]:
        """Move an update of so many whole tensors, each way of moving it."""
        payload = update(tensors)
        return [self._try("up", self._up_ours, payload), self._up_bare(payload)]

    def _try(self, way: str, move: Callable[[bytes], Moved], payload: bytes) -> Moved:
        """Move it through hub and gateway; say so where it is lost on the way."""
        try:
            return move(payload)
        except (FedsparseError, TimeoutError) as error:
            return Moved(way, "fedsparse", len(payload), float("inf"), trouble=str(error))

    @property
    def _node(self) -> int:
        """Flower's id of the plant now: one that was cut off and came again has another."""
        return self._operator.node(self._plant.name)

    @contextmanager
    def _sending(self, node: int, content: RecordDict) -> Iterator[threading.Event]:
        """Have the driver send to a node, and wait for its answer, while the block acts as the node."""
        errors: list[BaseException] = []
        given_up = threading.Event()

        def drive() -> None:
            try:
                self._operator.round({node: content}, _SECONDS)
            except BaseException as error:  # told below, in the thread that waits
                errors.append(error)
                given_up.set()

        thread = threading.Thread(target=drive, daemon=True)
        thread.start()
        try:
            yield given_up
        except TimeoutError as error:
            raise errors[0] if errors else error from None
        thread.join(_SECONDS)
        if errors:
            raise errors[0]

    def _down_ours(self, payload: bytes) -> Moved:
        hub = self._operator.folder / "hub.log"
        before = hub.stat().st_size
        with _Node(self._plant.gateway) as node, self._sending(self._node, wrap(payload)) as given_up:
            header, tree = node.receive(given_up)
            desk = time.monotonic()
            message, there = node.fetch(header, tree)
            node.answer(message, wrap(refusal(1)))
        sent = self._operator.last.sent
        pulled = _logged(hub, before, r"task \w+ for")
        stages = {
            "SuperLink to hub": pulled - sent,
            PAIR_STAGE: desk - pulled,
            "desk to SuperNode": there - desk,
        }
        return Moved("down", "fedsparse", len(payload), there - sent, stages)

    def _down_bare(self, payload: bytes) -> Moved:
        with _Node(self._operator.superlink) as node, self._sending(node.node, _arrays(payload)) as given_up:
            eventually(lambda: self._operator.last.sent, "the task at the SuperLink", _SECONDS, 0.005)
            message, there = node.fetch(*node.receive(given_up))
            node.answer(message, wrap(refusal(1)))
        return Moved("down", "bare Flower", len(payload), there - self._operator.last.sent)

    def _up_ours(self, payload: bytes) -> Moved:
        receipts = self._operator.state / "receipts" / f"{self._plant.name}.jsonl"
        before, log = _size(receipts), _size(self._plant.log)
        with _Node(self._plant.gateway) as node, self._sending(self._node, wrap(task())) as given_up:
            message, _ = node.fetch(*node.receive(given_up))
            start, taken = node.answer(message, wrap(payload))
            eventually(lambda: _size(receipts) > before, "the hub's receipt", _SECONDS, 0.005)
            end = time.monotonic()
        judged = _logged(self._plant.log, log, r"may leave")
        stages = {
            "SuperNode to the gateway's desk": taken - start,
            "gate: strict decoding and policy": judged - taken,
            "ledger, TLS, the hub's checks, SuperLink": end - judged,
        }
        return Moved("up", "fedsparse", len(payload), end - start, stages)

    def _up_bare(self, payload: bytes) -> Moved:
        with _Node(self._operator.superlink) as node, self._sending(node.node, wrap(task())) as given_up:
            message, _ = node.fetch(*node.receive(given_up))
            start, end = node.answer(message, _arrays(payload))
        return Moved("up", "bare Flower", len(payload), end - start)


def carry(operator: Operator, link: Link, name: str, size: int) -> Moved:
    """Upload bytes and push nothing, so that the hub decodes none of them: what the link alone takes up.

    Args:
        name: of the plant whose link it is.
    """
    payload = np.random.default_rng(size).bytes(size)
    request = link_pb2.AttendRequest(protocol=PROTOCOL, space=SPACE.fingerprint, session=bytes(SESSION_BYTES))
    stream = link._stub.Attend(request)
    stream.initial_metadata()
    content = {operator.node(name): wrap(task())}
    asking = threading.Thread(target=operator.try_round, args=(content, _ROUND_SECONDS))
    asking.start()
    try:
        task_id = next(iter(stream)).task_id
        start = time.monotonic()
        upload(link._stub, task_id, payload)
        return Moved("up", "the link alone", size, time.monotonic() - start)
    except grpc.RpcError as error:
        return Moved("up", "the link alone", size, float("inf"), {}, str(error))
    finally:
        asking.join()
        stream.cancel()


def strict(payload: bytes) -> list[tuple[str, float]]:
    """Return the seconds that gate and hub spend on an update's values, each measured alone in this process."""
    parts: list[tuple[str, Callable[[], object]]] = [
        ("gate: decoded strictly", lambda: _decoded(payload)),
        ("gate: described for the ledger", partial(describe_delta, _decoded(payload), SPACE)),
        ("hub: admitted", partial(admit, payload, SPACE, round=1, version=0, max_bytes=1 << 30, max_density=1.0)),
    ]
    found = []
    for name, part in parts:
        start = time.monotonic()
        part()
        found.append((name, time.monotonic() - start))
    return found


def _decoded(payload: bytes) -> SparseDelta:
    return decode(decode_update(payload, max_bytes=1 << 30).delta, SPACE, max_bytes=1 << 30)


def _arrays(payload: bytes) -> RecordDict:
    """Return the bytes in the form that Flower cuts into chunks."""
    return RecordDict({"arrays": ArrayRecord([np.frombuffer(payload, np.uint8)])})


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _logged(path: Path, before: int, pattern: str) -> float:
    """Return when a log got its first line with ``pattern`` after its first bytes, by the monotonic clock."""
    with path.open(encoding="utf-8", errors="replace") as file:
        file.seek(before)
        line = next(line for line in file if re.search(pattern, line))
    told = datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").timestamp()
    return told - time.time() + time.monotonic()

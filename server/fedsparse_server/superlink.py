"""One Flower node at the SuperLink on loopback, held by the hub in the name of one plant."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypeVar

import httpx
from flwr.app import Message
from flwr.app.metadata import Metadata
from flwr.common.serde import message_from_proto, run_from_proto
from flwr.proto.fleet_pb2 import (
    ActivateNodeRequest,
    DeactivateNodeRequest,
    PullMessagesRequest,
    PushMessagesRequest,
    RegisterNodeFleetRequest,
    UnregisterNodeFleetRequest,
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
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedsparse.envelope import assemble, disassemble, object_ids, unwrap, wrap
from fedsparse.errors import DeltaError, FedsparseError, LinkError

_HEARTBEAT_INTERVAL = 60.0  # the SuperLink waits for two of these before it holds a node for lost
_BEAT_SECONDS = 30.0  # each beat costs the SuperLink several milliseconds, and there are hundreds of plants
_SHELF_BYTES = 64 << 20
_TURNS = 8
_TURN_SECONDS = 1.0
_FEW = 4  # objects: a small message has no more
_AT_ONCE = 4
_FIRST_PAUSE_SECONDS = 0.1
_LAST_PAUSE_SECONDS = 2.0
PATIENCE_SECONDS = 60.0
"""For which a SuperLink that does not answer is asked again before a plant is sent away."""

_log = logging.getLogger("hub")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class PulledTask:
    """A task as Flower addressed it to this node.

    Attributes:
        message: the Flower message to reply to.
        bundle_sha256: hash of the app bundle of the run it belongs to.
        payload: the serialised RoundTask.
    """

    message: Message
    bundle_sha256: str
    payload: bytes

    @property
    def task_id(self) -> str:
        """Flower's id of the message, 64 hex digits."""
        return str(self.message.metadata.message_id)


class _LostError(FedsparseError):
    """A task can no longer come, though the node is well."""


@dataclass
class _Arriving:
    """A task whose header was pulled, and of which not all objects may be there.

    Attributes:
        names: of all its objects.
        objects: those that are here, by name.
    """

    metadata: Metadata
    names: list[str]
    objects: dict[str, bytes] = field(default_factory=dict)

    @property
    def missing(self) -> list[str]:
        """Names of objects that were not pulled yet."""
        return [name for name in self.names if name not in self.objects]


class Shelf:
    """What one node has learnt that others need as well: hundreds of plants are sent the same objects in a round.

    An object's name is the hash of its bytes, so the bytes are the same for all; a node asks only for objects that
    the SuperLink names to it. An object that is here lies at the SuperLink too: a task of which all is here has
    been uploaded whole, and may be confirmed without cutting off the strategy's upload.

    Attributes:
        bundles: hash of the app bundle by run.
        turns: held by the nodes that ask for tasks or hand in answers just now. A bell wakes all nodes at once; if
            all of them asked at once, the SuperLink would hear neither the strategy nor a heartbeat for seconds.
    """

    def __init__(self, most_bytes: int = _SHELF_BYTES) -> None:
        self.bundles: dict[int, str] = {}
        self.turns = threading.BoundedSemaphore(_TURNS)
        self._most = most_bytes
        self._bytes = 0
        self._objects: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, name: str) -> bytes | None:
        """Return an object if it is here."""
        with self._lock:
            return self._objects.get(name)

    def put(self, name: str, content: bytes) -> None:
        """Keep an object; the oldest make room for it."""
        with self._lock:
            if name in self._objects:
                return
            self._objects[name] = content
            self._bytes += len(content)
            while self._bytes > self._most:
                self._bytes -= len(self._objects.popitem(last=False)[1])

    def drop(self, names: Iterable[str]) -> None:
        """Forget objects that the SuperLink may forget from now on."""
        with self._lock:
            for name in names:
                self._bytes -= len(self._objects.pop(name, b""))


class SuperLinkNode:
    """Registers on entry, leaves on exit, so that Flower itself knows which plants are present.

    Every method may raise ``httpx.HTTPError`` when the SuperLink is out of reach.

    Args:
        address: "host:port" of the SuperLink on loopback.
        shelf: shared with all other nodes there.
    """

    def __init__(self, address: str, shelf: Shelf) -> None:
        private_key, public_key = generate_key_pairs()
        self._public_key = public_key_to_bytes(public_key)
        self._client = FleetHttpClient.from_server_address(
            address,
            insecure=True,  # loopback on the operator's own machine; the wire between sites is the link's mTLS
            root_certificates=None,
            interceptors=[
                RuntimeVersionHttpInterceptor(component_name="SuperNode"),
                NodeAuthHttpInterceptor(private_key, public_key),
            ],
        )
        self._node = Node()
        self.shelf = shelf
        self._arriving: _Arriving | None = None
        self._received: _Arriving | None = None
        self._stop_heartbeat = threading.Event()
        self._forgotten = threading.Event()

    @property
    def node_id(self) -> int:
        """Flower's id of this node."""
        return int(self._node.node_id)

    def __enter__(self) -> Self:
        self._client.RegisterNode(RegisterNodeFleetRequest(public_key=self._public_key))
        reply = self._client.ActivateNode(
            ActivateNodeRequest(public_key=self._public_key, heartbeat_interval=_HEARTBEAT_INTERVAL)
        )
        self._node = Node(node_id=reply.node_id)
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_heartbeat.set()
        try:
            self._confirm()
            self._client.DeactivateNode(DeactivateNodeRequest(node_id=self.node_id))
            self._client.UnregisterNode(UnregisterNodeFleetRequest(node_id=self.node_id))
        except httpx.HTTPError:
            pass  # the SuperLink is gone too; its state of this node lapses with the heartbeat
        finally:
            self._client.close()

    def _beat(self) -> None:
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=_HEARTBEAT_INTERVAL)
        pause = (1 + self.node_id % 100) / 100 * _BEAT_SECONDS  # plants that came together do not beat together
        while not self._stop_heartbeat.wait(pause):
            pause = _BEAT_SECONDS
            try:
                if not self._client.SendNodeHeartbeat(request).success:
                    self._forgotten.set()
            except (httpx.HTTPError, RuntimeError, ValueError):
                pause = _BEAT_SECONDS / 4  # missed; the next tries again soon

    def pull(self) -> PulledTask | None:
        """Return the next task for this node, or None while there is none that is whole.

        Raises:
            LinkError: the SuperLink no longer knows this node.
        """
        if self._forgotten.is_set():
            raise LinkError("the SuperLink no longer knows this node")
        self._confirm()
        if self._arriving is None:
            self._arriving = self._next()
        if self._arriving is None:
            return None
        try:
            return self._finish(self._arriving)
        except _LostError as lost:
            _log.error("the task %s is lost: %s", self._arriving.metadata.message_id[:12], lost)
            self._arriving = None
            return None

    def _next(self) -> _Arriving | None:
        """Ask for the header of a task; the SuperLink gives it once, so it is kept until the task is whole."""
        reply = self._client.PullMessages(PullMessagesRequest(node=self._node))
        if not reply.messages_list:
            return None
        metadata = message_from_proto(reply.messages_list[0]).metadata
        return _Arriving(metadata, object_ids(reply.message_object_trees[0]))

    def _finish(self, arriving: _Arriving) -> PulledTask | None:
        """Take what the strategy has uploaded by now; return the task once that is all."""
        metadata = arriving.metadata
        if metadata.created_at and metadata.created_at + metadata.ttl < time.time():
            raise _LostError("its time is up and the strategy has not uploaded all of it")
        try:
            if not self._take(arriving):
                return None
            bundle = self._bundle(metadata.run_id)
        except httpx.HTTPStatusError as error:
            if error.response.is_client_error:
                raise _LostError("its run has ended") from None
            raise
        try:
            message = assemble(metadata.message_id, arriving.objects)
            task = PulledTask(message, bundle, unwrap(message))
        except DeltaError as error:
            raise _LostError(str(error)) from None
        self._arriving, self._received = None, arriving
        return task

    def _confirm(self) -> None:
        """Let the SuperLink forget the last task; not at once, for others still want what they share with it."""
        if (received := self._received) is None:
            return
        self.shelf.drop(received.names)  # first: what the SuperLink has forgotten the strategy may upload anew
        confirmation = ConfirmMessageReceivedRequest(
            node=self._node, run_id=received.metadata.run_id, message_object_id=received.metadata.message_id
        )
        try:
            self._client.ConfirmMessageReceived(confirmation)
        except httpx.HTTPStatusError as error:
            if not error.response.is_client_error:
                raise
        self._received = None

    def _take(self, arriving: _Arriving) -> bool:
        """Pull the objects that are there; return whether none is missing any more."""
        missing, absent = arriving.missing, threading.Event()

        def pull(name: str) -> bytes | None:
            if absent.is_set():  # the others will hardly be there: the SuperLink has better to do
                return None
            if (content := self._object(arriving.metadata.run_id, name)) is None:
                absent.set()
            return content

        for name, content in zip(missing, _at_once(pull, missing), strict=True):
            if content is not None:
                arriving.objects[name] = content
        return not arriving.missing

    def _object(self, run_id: int, name: str) -> bytes | None:
        """Return one object of a task; None while it is not uploaded yet."""
        if (kept := self.shelf.get(name)) is not None:
            return kept
        reply = self._client.PullObject(PullObjectRequest(node=self._node, run_id=run_id, object_id=name))
        if not reply.object_found:
            raise _LostError(f"the SuperLink does not hold its object {name[:12]}")
        if not reply.object_available:
            return None
        content: bytes = reply.object_content
        self.shelf.put(name, content)
        return content

    def _bundle(self, run_id: int) -> str:
        if (known := self.shelf.bundles.get(run_id)) is None:
            reply = self._client.GetRun(GetRunRequest(node=self._node, run_id=run_id))
            known = self.shelf.bundles[run_id] = run_from_proto(reply.run).fab_hash
        return known

    def reply(self, task: PulledTask, payload: bytes) -> None:
        """Answer ``task`` with ``payload``, the serialised RoundUpdate."""
        header, tree, objects = disassemble(Message(wrap(payload), reply_to=task.message))
        with self.shelf.turns:
            self._push(task.message.metadata.run_id, header, tree, objects)

    def _push(self, run_id: int, header: MessageProto, tree: ObjectTree, objects: Mapping[str, bytes]) -> None:
        pushed = self._client.PushMessages(
            PushMessagesRequest(
                node=self._node,
                messages_list=[header],
                message_object_trees=[tree],
                clientapp_runtime_list=[0.0],
            )
        )

        def push(name: str) -> None:
            self._client.PushObject(
                PushObjectRequest(
                    node=self._node,
                    run_id=run_id,
                    object_id=name,
                    object_content=objects[name],
                    session_id=pushed.session_id,
                )
            )

        for _ in _at_once(push, pushed.objects_to_push):
            pass


def _at_once(step: Callable[[str], _Result], names: Sequence[str]) -> Iterator[_Result]:
    """Yield what ``step`` gives for each name, in order; of many, some at once: both ends then have work."""
    if len(names) <= _FEW:
        yield from map(step, names)
        return
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(step, names)


class Looks:
    """Looks for tasks of one node, time and again, and says how long to wait until the next look.

    A SuperLink that does not answer for a moment is no reason to send the plant away: were every plant to come
    again with a new node, that would be the load which keeps it from answering.

    Args:
        node: registered.
        idle_seconds: to wait where nothing is on its way.
    """

    def __init__(self, node: SuperLinkNode, idle_seconds: float) -> None:
        self._node = node
        self._idle = idle_seconds
        self._pause = 0.0
        self._failing_since: float | None = None

    def look(self) -> tuple[PulledTask | None, float]:
        """Return a task, or None, and the seconds to wait.

        Raises:
            LinkError: the SuperLink no longer knows the node, or has not answered for ``PATIENCE_SECONDS``.
            httpx.HTTPStatusError: it refuses the node.
        """
        if not self._node.shelf.turns.acquire(timeout=_TURN_SECONDS):
            return None, 0.0
        try:
            task = self._node.pull()
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: the node has left meanwhile
            if isinstance(error, httpx.HTTPStatusError) and error.response.is_client_error:
                raise
            return None, self._failed(error)
        finally:
            self._node.shelf.turns.release()
        if self._failing_since is not None:
            _log.info("the SuperLink answers again")
        self._failing_since, self._pause = None, 0.0
        return task, self._idle

    def _failed(self, error: Exception) -> float:
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now
            _log.warning("the SuperLink gives no tasks (%r); asking again for %.0f s", error, PATIENCE_SECONDS)
        elif now - self._failing_since >= PATIENCE_SECONDS:
            raise LinkError(f"the SuperLink has not answered for {PATIENCE_SECONDS:.0f} s: {error!r}") from error
        self._pause = min(max(2 * self._pause, _FIRST_PAUSE_SECONDS), _LAST_PAUSE_SECONDS)
        return self._pause

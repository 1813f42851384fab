"""One Flower node at the SuperLink on loopback, held by the hub in the name of one plant."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import httpx
from flwr.app import Message
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
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
from flwr.proto.message_pb2 import ConfirmMessageReceivedRequest, PullObjectRequest, PushObjectRequest
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.interceptors.http.runtime_version import RuntimeVersionHttpInterceptor
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from fedsparse.envelope import assemble, disassemble, object_ids, unwrap, wrap
from fedsparse.errors import LinkError

_PULL_ATTEMPTS = 50


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


class SuperLinkNode:
    """Registers on entry, leaves on exit, so that Flower itself knows which plants are present.

    Every method may raise ``httpx.HTTPError`` when the SuperLink is out of reach.

    Args:
        address: "host:port" of the SuperLink on loopback.
    """

    def __init__(self, address: str) -> None:
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
        self._bundles: dict[int, str] = {}
        self._stop_heartbeat = threading.Event()

    @property
    def node_id(self) -> int:
        """Flower's id of this node."""
        return int(self._node.node_id)

    def __enter__(self) -> Self:
        self._client.RegisterNode(RegisterNodeFleetRequest(public_key=self._public_key))
        reply = self._client.ActivateNode(
            ActivateNodeRequest(public_key=self._public_key, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        )
        self._node = Node(node_id=reply.node_id)
        threading.Thread(target=self._beat, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_heartbeat.set()
        try:
            self._client.DeactivateNode(DeactivateNodeRequest(node_id=self.node_id))
            self._client.UnregisterNode(UnregisterNodeFleetRequest(node_id=self.node_id))
        except httpx.HTTPError:
            pass  # the SuperLink is gone too; its state of this node lapses with the heartbeat
        finally:
            self._client.close()

    def _beat(self) -> None:
        request = SendNodeHeartbeatRequest(node=self._node, heartbeat_interval=HEARTBEAT_DEFAULT_INTERVAL)
        while not self._stop_heartbeat.wait(HEARTBEAT_DEFAULT_INTERVAL / 3):
            try:
                self._client.SendNodeHeartbeat(request)
            except (httpx.HTTPError, RuntimeError):
                continue  # the next beat tries again; two missed ones are tolerated

    def pull(self) -> PulledTask | None:
        """Return the next task for this node, or None."""
        reply = self._client.PullMessages(PullMessagesRequest(node=self._node))
        if not reply.messages_list:
            return None
        metadata = message_from_proto(reply.messages_list[0]).metadata
        objects = {
            name: self._pull_object(metadata.run_id, name) for name in object_ids(reply.message_object_trees[0])
        }
        self._client.ConfirmMessageReceived(
            ConfirmMessageReceivedRequest(
                node=self._node, run_id=metadata.run_id, message_object_id=metadata.message_id
            )
        )
        message = assemble(metadata.message_id, objects)
        return PulledTask(message, self._bundle(metadata.run_id), unwrap(message))

    def _pull_object(self, run_id: int, name: str) -> bytes:
        """Wait until the strategy has uploaded the object ``name``, and return it."""
        for _ in range(_PULL_ATTEMPTS):
            reply = self._client.PullObject(PullObjectRequest(node=self._node, run_id=run_id, object_id=name))
            if not reply.object_found:
                break
            if reply.object_available:
                return bytes(reply.object_content)
            time.sleep(0.1)
        raise LinkError(f"the SuperLink does not hold the object {name[:12]} of a task")

    def _bundle(self, run_id: int) -> str:
        if run_id not in self._bundles:
            reply = self._client.GetRun(GetRunRequest(node=self._node, run_id=run_id))
            self._bundles[run_id] = run_from_proto(reply.run).fab_hash
        return self._bundles[run_id]

    def reply(self, task: PulledTask, payload: bytes) -> None:
        """Answer ``task`` with ``payload``, the serialised RoundUpdate."""
        header, tree, objects = disassemble(Message(wrap(payload), reply_to=task.message))
        pushed = self._client.PushMessages(
            PushMessagesRequest(
                node=self._node,
                messages_list=[header],
                message_object_trees=[tree],
                clientapp_runtime_list=[0.0],
            )
        )
        for name in pushed.objects_to_push:
            self._client.PushObject(
                PushObjectRequest(
                    node=self._node,
                    run_id=task.message.metadata.run_id,
                    object_id=name,
                    object_content=objects[name],
                    session_id=pushed.session_id,
                )
            )

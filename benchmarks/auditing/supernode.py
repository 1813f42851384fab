"""In a SuperNode's place: pulls tasks from a gateway on loopback and answers each at once, whoever dies."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import httpx
from flwr.app import Message
from flwr.common.serde import message_from_proto
from flwr.proto.fleet_pb2 import PullMessagesRequest, PullMessagesResponse, PushMessagesRequest
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse, PushObjectRequest

from fedsparse.envelope import assemble, disassemble, object_ids, unwrap, wrap
from fedsparse.errors import DeltaError
from fedsparse.processes import PLANT_LOOPBACK

_PULL_SECONDS = 20.0  # the gateway holds a pull for 15
_RETRY_SECONDS = 0.02


class SuperNode:
    """One thread that never gives up.

    Args:
        port: of the gateway.
        answer: returns the payload that answers a task's.
    """

    def __init__(self, port: int, answer: Callable[[bytes], bytes]) -> None:
        place = f"http://{PLANT_LOOPBACK}:{port}/v1/fleet/"
        self._client = httpx.Client(base_url=place, timeout=_PULL_SECONDS, trust_env=False)
        self._answer = answer
        self._stop = threading.Event()
        threading.Thread(target=self._work, daemon=True).start()

    def stop(self) -> None:
        """End it after the call under way."""
        self._stop.set()

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                self._once()
            except (httpx.HTTPError, DeltaError):  # the gateway is gone, or another one has taken its place
                time.sleep(_RETRY_SECONDS)

    def _once(self) -> None:
        pulled = PullMessagesResponse.FromString(
            self._post("pull-messages", PullMessagesRequest().SerializeToString())
        )
        if not pulled.messages_list:
            return
        tree = pulled.message_object_trees[0]
        task = assemble(tree.object_id, {name: self._object(name) for name in object_ids(tree)})
        task.metadata.__dict__.update(message_from_proto(pulled.messages_list[0]).metadata.__dict__)
        self._push(task, self._answer(unwrap(task)))

    def _object(self, name: str) -> bytes:
        reply = self._post("pull-object", PullObjectRequest(object_id=name).SerializeToString())
        return bytes(PullObjectResponse.FromString(reply).object_content)

    def _push(self, task: Message, payload: bytes) -> None:
        header, tree, objects = disassemble(Message(wrap(payload), reply_to=task))
        begun = PushMessagesRequest(messages_list=[header], message_object_trees=[tree])
        self._post("push-messages", begun.SerializeToString())
        for name in object_ids(tree):
            stored = PushObjectRequest(object_id=name, object_content=objects[name])
            self._post("push-object", stored.SerializeToString())

    def _post(self, route: str, content: bytes) -> bytes:
        reply = self._client.post(route, content=content)
        reply.raise_for_status()
        return reply.content

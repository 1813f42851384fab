"""Flower's grid with quick polling: a round ends when its last answer is in, not up to three seconds later."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from flwr.app import Message, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid
from flwr.supercore.run import Run

_POLL_SECONDS = 0.1


class PromptGrid(Grid):
    """Delegates to Flower's grid, polls ten times a second, and tells of each answer as it arrives.

    Args:
        grid: the grid that Flower gave the ServerApp.
        on_sent: called once messages lie at the SuperLink.
        on_reply: called once for every answer, in order of arrival.
        wants_late: tells whether what has been answered is too little without late answers to earlier messages.
        on_unsent: called with each node whose message Flower has not taken: no answer will come.
    """

    def __init__(
        self,
        grid: Grid,
        on_sent: Callable[[], None],
        on_reply: Callable[[Message], None],
        wants_late: Callable[[], bool] = lambda: False,
        on_unsent: Callable[[int], None] = lambda node: None,
    ) -> None:
        self._grid = grid
        self._on_sent = on_sent
        self._on_reply = on_reply
        self._wants_late = wants_late
        self._on_unsent = on_unsent
        self._waiting: dict[str, int] = {}  # messages that are not answered yet, and the nodes that they went to

    def set_run(self, run: Run) -> None:
        """See Flower's Grid."""
        self._grid.set_run(run)

    @property
    def run(self) -> Run:
        """The Flower run this grid belongs to."""
        return self._grid.run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """See Flower's Grid (deprecated there)."""
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the Flower nodes that are online, sorted."""
        return sorted(self._grid.get_node_ids())

    def get_nodes(self) -> Iterable[NodeInfo]:
        """See Flower's Grid."""
        return self._grid.get_nodes()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See Flower's Grid."""
        sent = self._grid.push_messages(messages)
        self._on_sent()
        return sent

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See Flower's Grid."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Send ``messages`` and tell of answers until theirs are all in or ``timeout`` seconds have passed.

        Late answers to earlier messages are told of as well, until their node is sent another message; for them
        alone it is waited only while they are wanted.

        Returns:
            Nothing: a round's answers are not kept once they have been told of.
        """
        fresh = self._send(list(messages))
        end = time.monotonic() + (timeout if timeout is not None else float("inf"))
        while self._goes_on(fresh) and (start := time.monotonic()) < end:
            for reply in self.pull_messages(list(self._waiting)):
                fresh.discard(reply.metadata.reply_to_message_id)
                self._tell(reply)
            if self._goes_on(fresh):
                # Hundreds of answers that are waited for make the SuperLink look long: let it do other work.
                time.sleep(max(_POLL_SECONDS, min(time.monotonic() - start, 1.0)))
        return ()

    def _goes_on(self, fresh: set[str]) -> bool:
        return bool(fresh) or (bool(self._waiting) and self._wants_late())

    def _send(self, messages: list[Message]) -> set[str]:
        """Send messages, wait no longer for what their nodes were sent before, and return their ids."""
        nodes = [message.metadata.dst_node_id for message in messages]
        self._waiting = {name: node for name, node in self._waiting.items() if node not in nodes}
        named = self.push_messages(messages)  # none of what was too large for Flower
        sent = {name: node for name, node in zip(named, nodes, strict=False) if name}
        self._waiting |= sent
        for node in set(nodes) - set(sent.values()):
            self._on_unsent(node)
        return set(sent)

    def _tell(self, reply: Message) -> None:
        node = self._waiting.pop(reply.metadata.reply_to_message_id, None)
        if reply.has_error() and node is not None:  # Flower sends some errors in the SuperLink's name
            reply.metadata.__dict__["_src_node_id"] = node
        self._on_reply(reply)

"""Looking at every field of a SuperNode's calls, and counting the calls: deny by default, on loopback too.

Nothing of these calls leaves the site. They are looked at all the same: a count of calls that may say anything
would tell an auditor nothing.
"""

from __future__ import annotations

import math
import re
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.node_pb2 import Node
from google.protobuf.message import DecodeError, Message

from fedsparse.audit.control import Code, ControlCount
from fedsparse_client.gateway.desk import NODE_ID

SESSION_ID = "gateway"
"""What the gateway names an upload by; the SuperNode says it again with every object."""
_OBJECT_ID = re.compile(r"[0-9a-f]{64}")
_DEEPEST = 8  # a message, its records, their pieces: three
_Look = Callable[[Any], bool]  # of a field's value, whose type the message knows


class RefusedCallError(Exception):
    """A call that is not answered.

    Attributes:
        code: all that is kept of why.
    """

    def __init__(self, code: Code, why: str) -> None:
        super().__init__(why)
        self.code = code


class Tally:
    """Counts calls, from any thread."""

    def __init__(self) -> None:
        self._since = secrets.token_hex(16)
        self._guard = threading.Lock()
        self._accepted: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._bytes = 0

    def accept(self, call: str, size: int) -> None:
        """Count a call that was answered, with so many bytes of a body."""
        with self._guard:
            self._accepted[call] += 1
            self._bytes += size

    def refuse(self, code: Code) -> None:
        """Count a call that was refused."""
        with self._guard:
            self._refused[code.value] += 1

    def count(self) -> ControlCount | None:
        """Return what has been counted so far; None where nothing was called yet."""
        with self._guard:
            if not self._accepted and not self._refused:
                return None
            return ControlCount(self._since, dict(self._accepted), dict(self._refused), self._bytes)


def read_call(body: bytes, kind: type[Message], run: int | None) -> Message:
    """Return a call's message, every field of which is absent or has a value that it may have.

    Args:
        run: number of the run whose task the SuperNode works on; None where it has none, and any number passes.

    Raises:
        RefusedCallError: says which field it is.
    """
    try:
        request = kind.FromString(body)
    except DecodeError:
        raise RefusedCallError(Code.MALFORMED, f"{len(body)} bytes that are no {kind.__name__}") from None
    request.DiscardUnknownFields()
    if request.ByteSize() != len(body):  # unknown fields, longer varints, fields twice: room for anything
        raise RefusedCallError(Code.MALFORMED, f"a {kind.__name__} in another form, or with unknown fields")
    for field, value in request.ListFields():
        look = _is_run(run) if field.name == "run_id" else _FIELDS.get(field.name)
        if look is None or not look(value):
            raise RefusedCallError(Code.VALUE, f"{kind.__name__}.{field.name} has a value that it may not have")
    return request


def _is_run(run: int | None) -> _Look:
    return lambda value: run is None or value == run


def _is_node(value: Node) -> bool:
    return value.node_id in (0, NODE_ID)


def _is_public_key(value: bytes) -> bool:
    """Tell whether this is an EC key as Flower writes it, and no byte more."""
    try:
        key = load_pem_public_key(value)
    except (ValueError, UnsupportedAlgorithm):
        return False
    pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return isinstance(key, EllipticCurvePublicKey) and pem == value


def _is_object_id(value: str) -> bool:
    return _OBJECT_ID.fullmatch(value) is not None


def _is_one_time(values: Sequence[float]) -> bool:
    """Tell whether this is one number of seconds."""
    return len(values) == 1 and math.isfinite(values[0]) and values[0] >= 0


def _are_headers(messages: Sequence[MessageProto]) -> bool:
    """Tell whether messages come without content: that travels in objects."""
    return not any(message.content.ByteSize() for message in messages)


def _are_trees(trees: Sequence[ObjectTree], deepest: int = _DEEPEST) -> bool:
    """Tell whether trees hold names of objects alone."""
    return not trees or (
        deepest > 0
        and all(_is_object_id(tree.object_id) and _are_trees(tree.children, deepest - 1) for tree in trees)
    )


_FIELDS: Mapping[str, _Look] = {
    "node": _is_node,
    "node_id": lambda value: value == NODE_ID,
    "public_key": _is_public_key,
    "heartbeat_interval": lambda value: value == HEARTBEAT_DEFAULT_INTERVAL,
    "object_id": _is_object_id,
    "message_object_id": _is_object_id,
    "hash_str": _is_object_id,
    "session_id": lambda value: value == SESSION_ID,
    "clientapp_runtime_list": _is_one_time,
    "messages_list": _are_headers,  # how many, and what they answer, is looked at by whoever takes them
    "message_object_trees": _are_trees,
    "object_content": lambda _: True,  # the gate decodes what all of them give together
}
"""What a field may hold, by its name in any call; a field that is not here may not be there, as
PullMessagesRequest.message_ids."""

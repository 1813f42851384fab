"""One payload in one Flower message, and its way through Flower's content-addressed objects."""

from __future__ import annotations

from collections.abc import Mapping

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_id,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fedsparse.errors import DeltaError

_RECORD = "fedsparse"
_KEY = "payload"


def wrap(payload: bytes) -> RecordDict:
    """Return the content of a Flower message that carries ``payload`` and nothing else."""
    return RecordDict({_RECORD: ConfigRecord({_KEY: payload})})


def unwrap(message: Message) -> bytes:
    """Return the payload of ``message``.

    Raises:
        DeltaError: the message is an error, or holds anything besides the one payload.
    """
    if not message.has_content():
        raise DeltaError("the Flower message is an error reply, not a payload")
    content = message.content
    record = content.get(_RECORD)
    if list(content) != [_RECORD] or not isinstance(record, ConfigRecord) or list(record) != [_KEY]:
        raise DeltaError(
            f"the Flower message holds the records {sorted(content)[:5]}, "
            f"but may hold only {_RECORD!r} with {_KEY!r}"
        )
    payload = record[_KEY]
    if not isinstance(payload, bytes):
        raise DeltaError(f"the payload is {type(payload).__name__}, but must be bytes")
    return payload


def disassemble(message: Message) -> tuple[MessageProto, ObjectTree, dict[str, bytes]]:
    """Return ``message`` as Flower moves it: its header, the tree of its objects, and the objects by id."""
    with no_object_id_recompute():
        message.metadata.__dict__["_message_id"] = message.object_id
        tree = get_object_tree(message)
        objects = {name: item.deflate() for name, item in get_all_nested_objects(message).items()}
        header = message_to_proto(remove_content_from_message(message))
    return header, tree, objects


def object_ids(tree: ObjectTree) -> list[str]:
    """Return the id of every object in ``tree``, its root last."""
    return list(dict.fromkeys(node.object_id for node in iterate_object_tree(tree)))


def assemble(message_id: str, objects: Mapping[str, bytes]) -> Message:
    """Put a message together from all its objects; the inverse of :func:`disassemble`.

    Raises:
        DeltaError: an object is missing, has other bytes than its id says, or is not a message.
    """
    for name, content in objects.items():
        if get_object_id(content) != name:
            raise DeltaError(f"the Flower object {name[:12]} has other bytes than its id says")
    try:
        message = inflate_object_from_contents(message_id, dict(objects))
    except Exception as error:  # Flower raises many types on hostile objects
        raise DeltaError(f"the Flower message {message_id[:12]} cannot be put together") from error
    if not isinstance(message, Message):
        raise DeltaError(f"the Flower object {message_id[:12]} is not a message")
    message.metadata.__dict__["_message_id"] = message_id
    return message

"""One payload in one Flower message, and its way through Flower's content-addressed objects.

A large payload travels in pieces, each an object of its own: a buffer of hundreds of megabytes is new memory every
time, which costs several times what the copying of its bytes does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.proto.message_pb2 import Message as MessageProto
from flwr.proto.message_pb2 import ObjectTree
from flwr.proto.recorddict_pb2 import ConfigRecordValue
from flwr.supercore.constant import HEAD_BODY_DIVIDER, HEAD_VALUE_DIVIDER
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    _get_computed_object_ids,
    get_object_id,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fedsparse.delta.wire import field_head
from fedsparse.errors import DeltaError

_RECORD = "fedsparse"
_KEY = "payload"
_BYTES_FIELD = ConfigRecordValue.DESCRIPTOR.fields_by_name["bytes"].number
PIECE_BYTES = 4 << 20


def wrap(payload: bytes) -> RecordDict:
    """Return the content of a Flower message that carries ``payload`` and nothing else."""
    starts = range(0, max(1, len(payload)), PIECE_BYTES)
    pieces = (payload[start : start + PIECE_BYTES] for start in starts)
    return RecordDict({_name(number): ConfigRecord({_KEY: piece}) for number, piece in enumerate(pieces)})


def _name(number: int) -> str:
    """Return the name of the record with a payload's piece of this number."""
    return f"{_RECORD}.{number}" if number else _RECORD


def unwrap(message: Message) -> bytes:
    """Return the payload of ``message``.

    Raises:
        DeltaError: the message is an error, or is not what :func:`wrap` writes.
    """
    if not message.has_content():
        raise DeltaError("the Flower message is an error reply, not a payload")
    content = message.content
    if not content or list(content) != [_name(number) for number in range(len(content))]:
        raise _other_records(content)
    pieces = [_piece(record, content) for record in content.values()]
    sizes = [len(piece) for piece in pieces]
    if sizes != _sizes(sum(sizes)):
        raise DeltaError(f"the payload is cut into {sizes[:5]} bytes, but into {PIECE_BYTES} each it must be")
    return b"".join(pieces)


def _sizes(total: int) -> list[int]:
    """Return how large the pieces of a payload are."""
    return [min(PIECE_BYTES, total - start) for start in range(0, max(1, total), PIECE_BYTES)]


def _piece(record: object, content: RecordDict) -> bytes:
    if not isinstance(record, ConfigRecord) or list(record) != [_KEY]:
        raise _other_records(content)
    piece = record[_KEY]
    if not isinstance(piece, bytes):
        raise DeltaError(f"the payload is {type(piece).__name__}, but must be bytes")
    return piece


def _other_records(content: RecordDict) -> DeltaError:
    found = f"the Flower message holds the records {sorted(content)[:5]}"
    return DeltaError(f"{found}, but may hold only {_RECORD!r} with {_KEY!r}")


def disassemble(message: Message) -> tuple[MessageProto, ObjectTree, dict[str, bytes]]:
    """Return ``message`` as Flower moves it: its header, the tree of its objects, and the objects by id."""
    with no_object_id_recompute():
        objects = {_identify(item, content := _deflate(item)): content for item in _nested(message)}
        message.metadata.__dict__["_message_id"] = message.object_id
        tree = get_object_tree(message)
        header = message_to_proto(remove_content_from_message(message))
    return header, tree, objects


def _nested(item: InflatableObject) -> Iterator[InflatableObject]:
    """Yield all objects within one, each after those it names; asking Flower for them would deflate each."""
    if isinstance(item, Message):
        children = [item.content] if item.has_content() else []
    else:
        children = [*(item.values() if isinstance(item, RecordDict) else (item.children or {}).values())]
    for child in children:
        yield from _nested(child)
    yield item


def _deflate(item: InflatableObject) -> bytes:
    """Do what Flower does; of a piece in one copy, where Flower makes five."""
    piece = item.get(_KEY) if isinstance(item, ConfigRecord) and len(item) == 1 else None
    if not isinstance(piece, bytes):
        return item.deflate()
    value = field_head(_BYTES_FIELD, len(piece))
    entry = field_head(1, len(_KEY)) + _KEY.encode() + field_head(2, len(value) + len(piece)) + value
    body = field_head(1, len(entry) + len(piece)) + entry
    head = HEAD_VALUE_DIVIDER.join([ConfigRecord.__qualname__, "", str(len(body) + len(piece))])
    return b"".join([head.encode(), HEAD_BODY_DIVIDER, body, piece])


def _identify(item: InflatableObject, content: bytes) -> str:
    """Note the id of an object, which Flower would deflate it once more to find, and return it."""
    name = get_object_id(content)
    item.__dict__["_object_id"] = name
    _get_computed_object_ids().add(name)
    return name


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

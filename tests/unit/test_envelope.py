from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.error import Error
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from fedsparse.envelope import PIECE_BYTES, assemble, disassemble, object_ids, unwrap, wrap
from fedsparse.errors import DeltaError
from tests.unit.federation_samples import pulled_task


def message(content: RecordDict) -> Message:
    return Message(content, reply_to=pulled_task().message)


PAYLOADS = [
    b"",
    b"x",
    b"y" * 127,
    b"y" * 128,
    bytes(range(256)) * 4096,
    b"z" * PIECE_BYTES,
    b"z" * (PIECE_BYTES + 1),
]


@pytest.mark.parametrize("payload", [*PAYLOADS, bytes(range(256)) * 40_000])
def test_a_payload_survives_its_way_through_objects_byte_for_byte(payload: bytes) -> None:
    header, tree, objects = disassemble(message(wrap(payload)))
    assert sorted(object_ids(tree)) == sorted(objects)
    assert header.metadata.message_id == tree.object_id
    assert unwrap(assemble(tree.object_id, objects)) == payload


@pytest.mark.parametrize("payload", PAYLOADS)
def test_the_objects_are_those_that_flower_makes(payload: bytes) -> None:
    sent = message(wrap(payload))
    assert disassemble(sent)[2] == {name: item.deflate() for name, item in get_all_nested_objects(sent).items()}


def test_a_large_payload_travels_in_pieces() -> None:
    _, _, objects = disassemble(message(wrap(np.random.default_rng(0).bytes(10_000_000))))
    assert len(objects) == 5  # three pieces, the record that names them, the message
    assert max(map(len, objects.values())) < PIECE_BYTES + 200


@pytest.mark.parametrize("sizes", [(1, 1), (PIECE_BYTES, 0), (PIECE_BYTES + 1,), (PIECE_BYTES - 1, 1), (0, 1)])
def test_there_is_one_way_to_cut_a_payload(sizes: tuple[int, ...]) -> None:
    names = ("fedsparse", "fedsparse.1")
    cut = {name: ConfigRecord({"payload": bytes(size)}) for name, size in zip(names, sizes, strict=False)}
    with pytest.raises(DeltaError, match="is cut into"):
        unwrap(message(RecordDict(cut)))


def test_an_error_is_no_payload() -> None:
    error = Message(Error(code=1, reason="secret"), reply_to=pulled_task().message)
    with pytest.raises(DeltaError, match="an error reply") as caught:
        unwrap(error)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        RecordDict(),
        RecordDict({"other": ConfigRecord({"payload": b"x"})}),
        RecordDict({"fedsparse": ConfigRecord({"other": b"x"})}),
        RecordDict({"fedsparse": ConfigRecord({"payload": b"x", "other": b"x"})}),
        RecordDict({"fedsparse": ConfigRecord({"payload": b"x"}), "other": ConfigRecord()}),
        RecordDict({"fedsparse.1": ConfigRecord({"payload": b"x"}), "fedsparse": ConfigRecord({"payload": b"x"})}),
        RecordDict({"fedsparse": ConfigRecord({"payload": bytes(PIECE_BYTES)}), "fedsparse.2": ConfigRecord()}),
    ],
)
def test_a_message_with_less_or_more_than_one_payload_is_refused(content: RecordDict) -> None:
    with pytest.raises(DeltaError, match="may hold only 'fedsparse' with 'payload'"):
        unwrap(message(content))


@pytest.mark.parametrize("value", ["text", 1, 0.5, [b"x"]])
def test_a_payload_that_is_not_bytes_is_refused(value: object) -> None:
    content = RecordDict({"fedsparse": ConfigRecord({"payload": value})})  # type: ignore[dict-item]
    with pytest.raises(DeltaError, match="must be bytes"):
        unwrap(message(content))


def test_a_missing_object_is_told() -> None:
    _, tree, objects = disassemble(message(wrap(b"x")))
    for name in list(objects):
        with pytest.raises(DeltaError, match="cannot be put together"):
            assemble(tree.object_id, {n: c for n, c in objects.items() if n != name})


def test_an_object_with_other_bytes_than_its_id_says_is_told() -> None:
    _, tree, objects = disassemble(message(wrap(b"honest")))
    forged = {name: content.replace(b"honest", b"forged") for name, content in objects.items()}
    with pytest.raises(DeltaError, match="other bytes than its id says"):
        assemble(tree.object_id, forged)


def test_an_object_that_is_no_message_is_told() -> None:
    _, _, objects = disassemble(message(wrap(b"x")))
    record = next(name for name, content in objects.items() if content.startswith(b"ConfigRecord"))
    with pytest.raises(DeltaError, match="is not a message"):
        assemble(record, objects)

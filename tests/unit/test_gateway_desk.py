from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty

import pytest
from fedsparse_client.gateway.desk import Answer, Delivery, Desk
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.error import Error
from flwr.common.serde import message_from_proto
from flwr.proto.message_pb2 import ObjectTree

from fedsparse.delta import Reason
from fedsparse.envelope import assemble, disassemble, unwrap, wrap
from fedsparse.errors import DeltaError
from tests.unit.federation_samples import eventually, link_task, round_task

LIMIT = 100_000


def received(delivery: Delivery) -> Message:
    """Return the task's message as the SuperNode puts it together."""
    message = assemble(delivery.tree.object_id, delivery.objects)
    message.metadata.__dict__.update(message_from_proto(delivery.header).metadata.__dict__)
    return message


def opened(desk: Desk, task_id: str = "a" * 64) -> Delivery:
    desk.offer(link_task(task_id))
    delivery = desk.next(1)
    assert delivery is not None
    return delivery


def reply(desk: Desk, answer: Message, skip: int = 0) -> list[bool]:
    header, tree, objects = disassemble(answer)
    names = desk.expect(header, tree)
    assert sorted(names) == sorted(objects)
    return [desk.receive(name, objects[name]) for name in names[skip:]]


def only_answer(desk: Desk) -> Answer:
    answer = desk.answers.get_nowait()
    with pytest.raises(Empty):
        desk.answers.get_nowait()
    return answer


def test_a_task_reaches_the_supernode_byte_for_byte() -> None:
    delivery = opened(Desk(LIMIT))
    message = received(delivery)
    assert unwrap(message) == round_task()
    assert message.metadata.run_id == 7
    assert message.metadata.message_type == "train"


@pytest.mark.parametrize("run_id", [0, 1, 1 << 63, (1 << 64) - 1])
def test_any_run_number_of_the_hubs_can_be_delivered(run_id: int) -> None:
    desk, task = Desk(LIMIT), link_task()
    task.run_id = run_id
    desk.offer(task)
    delivery = desk.next(1)
    assert delivery is not None
    assert received(delivery).metadata.run_id == run_id


@pytest.mark.parametrize("payload", [b"", b"x", bytes(range(256)) * 100])
def test_an_answer_in_objects_becomes_exactly_its_payload(payload: bytes) -> None:
    desk = Desk(LIMIT)
    delivery = opened(desk)
    assert all(reply(desk, Message(wrap(payload), reply_to=received(delivery))))
    assert only_answer(desk) == Answer(delivery.task, payload=payload)


def test_tasks_are_handed_out_one_at_a_time_and_in_order() -> None:
    desk = Desk(LIMIT)
    first = opened(desk, "a" * 64)
    desk.offer(link_task("b" * 64))
    assert desk.next(0.01) is None
    reply(desk, Message(wrap(b"done"), reply_to=received(first)))
    second = desk.next(1)
    assert second is not None
    assert second.task.task_id == "b" * 64


def test_without_a_task_the_wait_ends_empty() -> None:
    assert Desk(LIMIT).next(0.01) is None


def test_a_waiting_supernode_gets_a_task_the_moment_it_comes() -> None:
    desk = Desk(LIMIT)
    with ThreadPoolExecutor(1) as pool:
        pulling = pool.submit(desk.next, 30)
        desk.offer(link_task())
        assert pulling.result(20) is not None


def test_a_supernode_that_was_replaced_while_it_waited_gets_no_task() -> None:
    """Its process is gone, and a task in its hands would keep the desk occupied for ever."""
    desk, waiting = Desk(LIMIT), threading.Event()
    with ThreadPoolExecutor(1) as pool:

        def pull() -> Delivery | None:
            waiting.set()
            return desk.next(30)

        zombie = pool.submit(pull)
        assert waiting.wait(10)
        eventually(lambda: desk._changed._waiters, "the zombie's wait")  # type: ignore[attr-defined]
        desk.restart()
        assert zombie.result(20) is None
    assert opened(desk) is not None


def test_objects_are_handed_out_only_while_their_task_is_open() -> None:
    desk = Desk(LIMIT)
    delivery = opened(desk)
    name = delivery.tree.object_id
    assert desk.object(name) == delivery.objects[name]
    assert desk.object("0" * 64) is None
    reply(desk, Message(wrap(b"done"), reply_to=received(delivery)))
    assert desk.object(name) is None


def test_an_answer_to_no_open_task_is_refused() -> None:
    desk = Desk(LIMIT)
    delivery = opened(desk)
    late = Message(wrap(b"again"), reply_to=received(delivery))
    reply(desk, Message(wrap(b"done"), reply_to=received(delivery)))
    with pytest.raises(DeltaError, match="not open"):
        reply(desk, late)


def test_an_answer_to_another_task_than_the_open_one_is_refused() -> None:
    desk, other = Desk(LIMIT), Desk(LIMIT)
    opened(desk)
    with pytest.raises(DeltaError, match="not open"):
        reply(desk, Message(wrap(b"done"), reply_to=received(opened(other, "b" * 64))))
    assert desk.answers.empty()


def test_an_object_nobody_asked_for_is_refused_and_completes_nothing() -> None:
    desk = Desk(LIMIT)
    delivery = opened(desk)
    assert desk.receive("0" * 64, b"") is False
    header, tree, _ = disassemble(Message(wrap(b"done"), reply_to=received(delivery)))
    desk.expect(header, tree)
    assert desk.receive("0" * 64, b"") is False
    assert desk.answers.empty()


def test_an_object_sent_twice_is_taken_once_and_the_retry_is_no_failure() -> None:
    """A SuperNode that is told of a failure gives up the whole answer."""
    desk = Desk(LIMIT)
    delivery = opened(desk)
    header, tree, objects = disassemble(Message(wrap(b"done"), reply_to=received(delivery)))
    first, *others = desk.expect(header, tree)
    assert [desk.receive(first, objects[first]), desk.receive(first, b"other bytes")] == [True, True]
    assert all(desk.receive(name, objects[name]) for name in others)
    assert only_answer(desk).payload == b"done"


def test_an_incomplete_answer_is_no_answer() -> None:
    desk = Desk(LIMIT)
    reply(desk, Message(wrap(b"done"), reply_to=received(opened(desk))), skip=1)
    assert desk.answers.empty()


def test_an_oversized_answer_is_refused_and_the_next_task_follows() -> None:
    desk = Desk(LIMIT)
    delivery = opened(desk)
    assert reply(desk, Message(wrap(bytes(LIMIT)), reply_to=received(delivery)))[-1] is False
    assert only_answer(desk) == Answer(delivery.task, reason=Reason.REFUSED_BY_GATE)
    assert opened(desk, "b" * 64) is not None


def test_many_small_objects_are_no_way_around_the_limit() -> None:
    desk = Desk(LIMIT)
    delivery = opened(desk)
    parts = RecordDict({str(i): ConfigRecord({"x": bytes(1000) + str(i).encode()}) for i in range(200)})
    assert reply(desk, Message(parts, reply_to=received(delivery)))[-1] is False
    assert only_answer(desk).reason is Reason.REFUSED_BY_GATE


def no_record(_: Message) -> RecordDict:
    return RecordDict()


def other_record(_: Message) -> RecordDict:
    return RecordDict({"fedsparse": ConfigRecord({"payload": b"x", "note": "secret"})})


def second_record(_: Message) -> RecordDict:
    return RecordDict({"fedsparse": ConfigRecord({"payload": b"x"}), "more": ConfigRecord({"x": b"secret"})})


def text(_: Message) -> RecordDict:
    return RecordDict({"fedsparse": ConfigRecord({"payload": "secret"})})


@pytest.mark.parametrize("content", [no_record, other_record, second_record, text])
def test_an_answer_with_anything_but_the_payload_becomes_a_reason(
    content: Callable[[Message], RecordDict],
) -> None:
    desk = Desk(LIMIT)
    delivery = opened(desk)
    task = received(delivery)
    reply(desk, Message(content(task), reply_to=task))
    assert only_answer(desk) == Answer(delivery.task, reason=Reason.APP_FAILED)


def test_a_flower_error_becomes_a_reason_and_its_text_goes_nowhere() -> None:
    desk = Desk(LIMIT)
    delivery = opened(desk)
    reply(desk, Message(Error(code=2, reason="secret: row 7 is defective"), reply_to=received(delivery)))
    answer = only_answer(desk)
    assert answer == Answer(delivery.task, reason=Reason.APP_FAILED)
    assert "secret" not in repr(answer)


def test_objects_whose_bytes_are_not_what_their_ids_say_become_a_reason() -> None:
    desk = Desk(LIMIT)
    delivery = opened(desk)
    header, tree, objects = disassemble(Message(wrap(b"honest"), reply_to=received(delivery)))
    for name in desk.expect(header, tree):
        desk.receive(name, objects[name].replace(b"honest", b"forged"))
    assert only_answer(desk) == Answer(delivery.task, reason=Reason.APP_FAILED)


def test_an_answer_of_hostile_objects_becomes_a_reason() -> None:
    desk = Desk(LIMIT)
    delivery = opened(desk)
    header, _, _ = disassemble(Message(wrap(b""), reply_to=received(delivery)))
    desk.expect(header, ObjectTree(object_id="f" * 64))
    assert desk.receive("f" * 64, b"\x00garbage") is True
    assert only_answer(desk) == Answer(delivery.task, reason=Reason.APP_FAILED)


def test_a_new_supernode_fails_what_the_old_one_was_doing() -> None:
    desk = Desk(LIMIT)
    delivery = opened(desk)
    desk.restart()
    assert only_answer(desk) == Answer(delivery.task, reason=Reason.APP_FAILED)
    assert opened(desk, "b" * 64) is not None


def test_a_new_supernode_with_nothing_open_answers_nothing() -> None:
    desk = Desk(LIMIT)
    desk.restart()
    assert desk.answers.empty()


def test_when_the_hub_has_gone_waiting_tasks_are_forgotten_and_the_open_one_goes_on() -> None:
    desk = Desk(LIMIT)
    delivery = opened(desk)
    desk.offer(link_task("b" * 64))
    desk.clear()
    reply(desk, Message(wrap(b"done"), reply_to=received(delivery)))
    assert only_answer(desk).payload == b"done"
    assert desk.next(0.01) is None

"""Large payloads on the link: parts that arrive, connections that drop half way, and parts that lie."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from fedsparse_client.gateway import transfer
from fedsparse_client.gateway.transfer import Incoming
from fedsparse_server import calls as calls_module

from fedsparse.audit import EntryDraft, EntryKind
from fedsparse.errors import LinkError
from fedsparse.parts import OFFSET, PART_BYTES, Assembly, parts
from fedsparse.security import revoke
from fedsparse.v1 import link_pb2
from tests.unit.federation_samples import eventually, pulled_task
from tests.unit.test_hub_link import HASH, TASK, Bench, PlantStub, begun, plant_at_work, resuming
from tests.unit.test_hub_link import bench as bench
from tests.unit.test_hub_link import pki as pki

LARGE = np.random.default_rng(0).bytes(3 * PART_BYTES + 5)
LIMIT = 8 << 20


@pytest.fixture
def taken(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Raise the hub's limit, and return the payloads that it goes on to check: these are no deltas."""
    settings = bench.hub._settings
    hub = settings.hub.model_copy(update={"max_update_bytes": LIMIT})
    larger = settings.model_copy(update={"hub": hub})
    monkeypatch.setattr(bench.hub, "_settings", larger)
    payloads: list[bytes] = []
    monkeypatch.setattr(bench.hub, "_check", lambda payload, digest, task: payloads.append(payload))
    return payloads


def head(payload: bytes = LARGE, **changes: Any) -> link_pb2.UploadPart:
    said = {"task_id": TASK, "sha256": sha256(payload).digest(), "size": len(payload), **changes}
    return link_pb2.UploadPart(head=link_pb2.UploadHead(**said))


def data(payload: bytes = LARGE, offset: int = 0) -> list[link_pb2.UploadPart]:
    return [link_pb2.UploadPart(data=bytes(part)) for part in parts(payload, offset)]


def push(stub: PlantStub, payload: bytes = LARGE) -> link_pb2.Receipt:
    """Push what was uploaded before."""
    sent = stub.log.update(b"", TASK, HASH, stub.credentials.key)
    sent.uploaded_sha256 = sha256(payload).digest()
    return stub.Push(sent, timeout=30)


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details() or ""


# Updates


def test_an_update_that_comes_in_parts_is_answered_as_one_that_comes_whole(
    bench: Bench, taken: list[bytes]
) -> None:
    stub = bench.with_task()
    transfer.upload(stub, TASK, LARGE)
    receipt = push(stub)
    assert receipt.body.payload_sha256 == sha256(LARGE).digest()
    assert taken == [LARGE]
    assert [(task, payload) for _, task, payload in bench.superlink.answers] == [(TASK, LARGE)]
    session = bench.sessions.of("kiso")
    assert session is not None
    assert session.upload is None  # its memory is free


def test_an_upload_goes_on_where_the_connection_dropped(bench: Bench, taken: list[bytes]) -> None:
    stub = bench.with_task()
    session = bench.sessions.of("kiso")
    assert session is not None

    def half() -> Iterator[link_pb2.UploadPart]:
        yield head()
        yield from data()[:2]
        eventually(lambda: session.upload is not None and len(session.upload.parts) == 2 * PART_BYTES, "parts")

    call = stub.Upload.future(half(), timeout=30)
    eventually(lambda: session.upload is not None and len(session.upload.parts) == 2 * PART_BYTES, "two parts")
    call.cancel()
    sent: list[int] = []
    again = bench.stub("kiso")

    def rest() -> Iterator[link_pb2.UploadPart]:
        yield head()
        for part in data(LARGE, 2 * PART_BYTES):
            sent.append(len(part.data))
            yield part

    def resumed() -> bool:
        try:
            one = again.Upload.future(rest(), timeout=30)
            assert dict(one.initial_metadata()).get(OFFSET, str(2 * PART_BYTES)) == str(2 * PART_BYTES)
            return bool(one.result().size == len(LARGE))
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            sent.clear()  # the hub has not missed the first call yet
            return False

    eventually(resumed, "the rest")
    assert sent == [PART_BYTES, 5]
    push(stub)
    assert taken == [LARGE]


def test_the_gateways_link_uploads_what_is_large_and_delivers_it_once(
    bench: Bench, taken: list[bytes], tmp_path: Path
) -> None:
    with plant_at_work(bench, tmp_path / "ledger") as plant:
        plant.next_task(TASK)
        draft = EntryDraft(EntryKind.REASON, "hub:1", b"", task_id=TASK, round=1, version=0)
        recorded = plant.ledger.append(draft, LARGE)
        first = plant.link.push(recorded, plant.ledger)
        assert plant.link.push(recorded, plant.ledger) == first  # the receipt got lost: no byte is sent again
    assert taken == [LARGE]
    assert len(bench.superlink.answers) == 1


@pytest.mark.parametrize(
    ("messages", "code", "said"),
    [
        ([], grpc.StatusCode.INVALID_ARGUMENT, "begins without a head"),
        (data()[:1], grpc.StatusCode.INVALID_ARGUMENT, "begins without a head"),
        ([head(sha256=b"short")], grpc.StatusCode.INVALID_ARGUMENT, "begins without a head"),
        ([head(size=PART_BYTES)], grpc.StatusCode.INVALID_ARGUMENT, f"or with one of {PART_BYTES} bytes"),
        ([head(size=LIMIT + 1)], grpc.StatusCode.RESOURCE_EXHAUSTED, f"{LIMIT + 1} bytes, the limit is {LIMIT}"),
        ([head(size=2**63)], grpc.StatusCode.RESOURCE_EXHAUSTED, "the limit is"),
        ([head(task_id="b" * 64)], grpc.StatusCode.NOT_FOUND, "kiso has no open task"),
        ([head()], grpc.StatusCode.INVALID_ARGUMENT, f"ends after 0 of {len(LARGE)} bytes"),
        ([head(), head()], grpc.StatusCode.INVALID_ARGUMENT, "has a second head"),
        ([head(), *data()[:2]], grpc.StatusCode.INVALID_ARGUMENT, f"ends after {2 * PART_BYTES} of"),
        ([head(), link_pb2.UploadPart(data=b"x")], grpc.StatusCode.INVALID_ARGUMENT, "a part of 1 bytes after 0"),
        ([head(), link_pb2.UploadPart()], grpc.StatusCode.INVALID_ARGUMENT, "a part of 0 bytes after 0"),
        ([head(), *data(LARGE[:-1] + b"!")], grpc.StatusCode.INVALID_ARGUMENT, "is not what its head says"),
    ],
)
def test_an_upload_that_is_not_what_it_says_is_refused_and_nothing_is_answered(
    bench: Bench, taken: list[bytes], messages: list[link_pb2.UploadPart], code: grpc.StatusCode, said: str
) -> None:
    stub = bench.with_task()
    found, told = refusal(lambda: stub.Upload(iter(messages), timeout=30))
    assert found is code
    assert said in told
    found, told = refusal(lambda: push(stub))
    assert (found, taken) == (grpc.StatusCode.UNAVAILABLE, [])
    assert "that it has not uploaded" in told


def test_a_refused_upload_tells_the_hubs_own_reason_every_time(bench: Bench, taken: list[bytes]) -> None:
    """The refusal and the end of waiting for an offset come in either order."""
    stub = bench.with_task()
    for _ in range(50):
        found, told = refusal(lambda: transfer.upload(stub, "b" * 64, LARGE))
        assert (found, "has no open task" in told) == (grpc.StatusCode.NOT_FOUND, True)


def test_an_upload_waits_where_the_receipts_cannot_be_read(bench: Bench, taken: list[bytes]) -> None:
    stub = bench.with_task()
    (bench.folder / "receipts").mkdir(exist_ok=True)
    (bench.folder / "receipts" / "kiso.jsonl").write_text("no receipt\n{}\n")
    found, told = refusal(lambda: transfer.upload(stub, TASK, LARGE))
    assert (found, "cannot take the update now" in told) == (grpc.StatusCode.UNAVAILABLE, True)


def test_bytes_that_were_refused_take_no_more_memory(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = bench.hub._settings
    hub = settings.hub.model_copy(update={"max_update_bytes": LIMIT})
    monkeypatch.setattr(bench.hub, "_settings", settings.model_copy(update={"hub": hub}))
    stub = bench.with_task()
    transfer.upload(stub, TASK, LARGE)
    assert refusal(lambda: push(stub))[0] is grpc.StatusCode.INVALID_ARGUMENT
    session = bench.sessions.of("kiso")
    assert session is not None
    assert session.upload is None


@pytest.mark.parametrize("end", ["revoked", "replaced"])
def test_an_upload_under_way_ends_with_its_session(
    bench: Bench, taken: list[bytes], end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub = bench.with_task()
    session = bench.sessions.of("kiso")
    assert session is not None
    ended = threading.Event()

    def slow() -> Iterator[link_pb2.UploadPart]:
        yield head()
        yield data()[0]
        ended.wait(30)
        yield from data()[1:]

    call = stub.Upload.future(slow(), timeout=30)
    eventually(lambda: session.upload is not None and len(session.upload.parts) > 0, "the first part")
    if end == "revoked":
        revoke(bench.pki.authority, ["kiso"])
        (bench.folder / "crl.pem").write_bytes((bench.pki.folder / "ca" / "crl.pem").read_bytes())
        bench.hub.turn_out()
    else:
        bench.attend(bench.stub("kiso"))
        eventually(lambda: session.ended, "the end of the session")
    ended.set()
    expected = {grpc.StatusCode.CANCELLED} if end == "revoked" else {grpc.StatusCode.NOT_FOUND}
    assert call.exception(timeout=20).code() in expected


def test_bytes_that_were_uploaded_for_one_task_answer_no_other(bench: Bench, taken: list[bytes]) -> None:
    stub = bench.with_task()
    transfer.upload(stub, TASK, LARGE)
    found, _ = refusal(lambda: push(stub, b"other"))
    assert (found, taken) == (grpc.StatusCode.UNAVAILABLE, [])


def test_a_push_does_not_bring_bytes_in_both_ways(bench: Bench, taken: list[bytes]) -> None:
    stub = bench.with_task()
    transfer.upload(stub, TASK, LARGE)
    sent = stub.log.update(b"x", TASK, HASH, stub.credentials.key)
    sent.uploaded_sha256 = sha256(LARGE).digest()
    assert refusal(lambda: stub.Push(sent, timeout=30))[0] is grpc.StatusCode.UNAVAILABLE
    assert taken == []


def test_a_plant_that_stops_in_the_middle_of_an_upload_is_not_waited_for(
    bench: Bench, taken: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls_module, "_REQUEST_SECONDS", 0.5)
    stub = bench.with_task()

    def stuck() -> Iterator[link_pb2.UploadPart]:
        yield head()
        yield data()[0]
        eventually(lambda: call.done(), "the hub's patience")

    call = stub.Upload.future(stuck(), timeout=30)
    assert call.exception(timeout=20).code() is grpc.StatusCode.CANCELLED
    monkeypatch.undo()


def test_a_line_that_stalls_costs_time_and_no_update(
    bench: Bench, taken: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's patience ends each of the first calls; each brings one part more."""
    monkeypatch.setattr(calls_module, "_REQUEST_SECONDS", 0.5)
    tries: list[int] = []

    def stalling(payload: bytes, offset: int = 0) -> Iterator[memoryview]:
        tries.append(offset)
        for number, part in enumerate(parts(payload, offset)):
            if number and len(tries) < 3:
                time.sleep(1.5)
            yield part

    monkeypatch.setattr(transfer, "parts", stalling)
    with plant_at_work(bench, tmp_path / "ledger") as plant:
        plant.next_task(TASK)
        draft = EntryDraft(EntryKind.REASON, "hub:1", b"", task_id=TASK, round=1, version=0)
        plant.link.push(plant.ledger.append(draft, LARGE), plant.ledger)
    assert (tries[0], len(tries)) == (0, 3)
    assert tries == sorted(tries)
    assert taken == [LARGE]


# Tasks


def test_a_large_task_comes_in_parts_and_goes_on_where_the_connection_dropped(bench: Bench) -> None:
    stream, node = begun(bench)
    task = replace(pulled_task("b" * 64), payload=LARGE)
    node.waiting.put(task)
    incoming = Incoming(LIMIT)
    incoming.begin()
    for _ in range(3):  # a head and two parts
        assert incoming.take(next(stream)) is None
    stream.cancel()
    partial, partial_bytes = incoming.begin()
    assert (partial, partial_bytes) == ("b" * 64, 2 * PART_BYTES)
    request = resuming(held=(TASK,))
    request.partial, request.partial_bytes = partial, partial_bytes
    messages = bench.stub("kiso").Attend(request)
    came = [next(messages) for _ in range(3)]
    assert (came[0].size, came[0].offset) == (len(LARGE), 2 * PART_BYTES)
    whole = [incoming.take(one) for one in came][-1]
    assert whole is not None
    assert (whole.task_id, whole.round_task) == ("b" * 64, LARGE)
    assert (whole.run_id, whole.bundle_sha256) == (7, task.bundle_sha256)


@pytest.mark.parametrize("partial_bytes", [1, PART_BYTES + 1, len(LARGE), 2**63])
def test_a_plant_that_claims_an_odd_part_of_a_task_is_sent_all_of_it(bench: Bench, partial_bytes: int) -> None:
    stream, node = begun(bench)
    node.waiting.put(replace(pulled_task("b" * 64), payload=LARGE))
    next(stream)
    stream.cancel()
    request = resuming(held=(TASK,))
    request.partial, request.partial_bytes = "b" * 64, partial_bytes
    assert next(bench.stub("kiso").Attend(request)).offset == 0


def messages_of(payload: bytes, offset: int = 0, **changes: Any) -> list[link_pb2.Task]:
    said = {"task_id": TASK, "size": len(payload), "offset": offset, **changes}
    return [link_pb2.Task(**said), *(link_pb2.Task(round_task=bytes(part)) for part in parts(payload, offset))]


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        (messages_of(LARGE)[1:2], "a part of no task"),
        (messages_of(LARGE, size=LIMIT + 1)[:1], f"a task of {LIMIT + 1} bytes"),
        (messages_of(LARGE, size=PART_BYTES)[:1], f"it may have {PART_BYTES + 1}"),
        (messages_of(LARGE, round_task=b"x")[:1], "a task of"),
        (messages_of(LARGE, PART_BYTES)[:1], f"at its byte {PART_BYTES}, 0 are here"),
        ([messages_of(LARGE)[0], link_pb2.Task(round_task=b"x")], "a part of 1 bytes after 0"),
        ([messages_of(LARGE)[0], link_pb2.Task()], "a part of 0 bytes after 0"),
    ],
)
def test_parts_that_do_not_follow_are_refused_and_nothing_is_kept(
    messages: list[link_pb2.Task], said: str
) -> None:
    incoming = Incoming(LIMIT)
    incoming.begin()
    *good, bad = messages
    for message in good:
        assert incoming.take(message) is None
    with pytest.raises(LinkError, match=said):
        incoming.take(bad)
    assert incoming.begin() == ("", 0)


def test_parts_of_an_earlier_stream_do_not_run_on_without_a_head() -> None:
    incoming = Incoming(LIMIT)
    incoming.begin()
    first, second, *rest = messages_of(LARGE)
    assert (incoming.take(first), incoming.take(second)) == (None, None)
    assert incoming.begin() == (TASK, PART_BYTES)
    with pytest.raises(LinkError, match="a part of no task"):
        incoming.take(rest[0])


def test_another_task_takes_the_place_of_one_that_is_here_in_part() -> None:
    incoming = Incoming(LIMIT)
    incoming.begin()
    for message in messages_of(LARGE)[:2]:
        incoming.take(message)
    small = link_pb2.Task(task_id="c" * 64, round_task=b"small")
    assert incoming.take(small) == small
    assert incoming.begin() == ("", 0)


def test_an_assembly_takes_memory_only_as_parts_arrive() -> None:
    here = Assembly(1 << 60)
    assert (len(here), here.complete) == (0, False)
    here.add(bytes(PART_BYTES))
    assert len(here) == PART_BYTES

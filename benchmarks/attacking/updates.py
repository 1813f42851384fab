"""Attacks by a plant that has a task, with updates that it may not send."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable

import grpc
import numpy as np
import psutil

from benchmarks.attacking import messages, raw
from benchmarks.attacking.attack import Attack
from benchmarks.attacking.insider import GROUP, Stage, refused
from benchmarks.attacking.messages import MAX_UPDATE_BYTES, OTHER_SPACE, delta, update, written
from fedsparse.delta import Operation, SparseDelta, TensorDelta, ValueCoding, encode, wire
from fedsparse.parts import MESSAGE_BYTES, PART_BYTES
from fedsparse.v1 import link_pb2

_PUSH = raw.SERVICE + "Push"
_BOMB_BYTES = 64 << 20
_MOST_GROWTH = 48 << 20  # bytes of the hub's memory


def attacks() -> list[Attack]:
    """Return them in the order in which they are run."""
    return [*_updates(), *_encodings(), *_sizes(), *_uploads()]


def _wrong(said: str, does: str, payload: Callable[[], bytes], hash: bytes = messages.HASH) -> Attack:
    return refused(
        "INVALID_ARGUMENT", said, does, lambda stage: stage.insider.push(stage.task, payload(), hash=hash)
    )


def _updates() -> list[Attack]:
    def of_other_space() -> bytes:
        chosen = TensorDelta(0, np.array([1, 5]), np.array([-1, 1], np.float32))
        change = SparseDelta(OTHER_SPACE.fingerprint, Operation.ADD, (chosen,))
        return update(encode(change, OTHER_SPACE, ValueCoding.FP32))

    return [
        _wrong("is for round 1 from version 0, this is round 2", "an update of an old round",
               lambda: update(round=1)),
        _wrong("from version 3, this is round 2 from version 0", "an update from another version",
               lambda: update(version=3)),
        _wrong("belongs to the adapter space", "a delta of another adapter space", of_other_space),
        _wrong("must be an ADD delta", "a delta that sets instead of adding",
               lambda: update(delta(operation=Operation.SET))),
        _wrong("claims 0 samples", "an update of no samples", lambda: update(samples=0)),
        _wrong("samples; 1 to", "an update of 2^60 samples", lambda: update(samples=1 << 60)),
        _wrong("NaN or infinite", "a value that is NaN", lambda: written([(0, (1, 3))], (float("nan"), 1.0))),
        _wrong("NaN or infinite", "a value that is infinite", lambda: written([(0, (1, 3))], (float("inf"), 1.0))),
        _wrong("the limit is 1.04858e\\+06", "a value of 2^21", lambda: update(delta(scale=2.0**21))),
        _wrong("the limit is 5.00%", "ten coordinates where six are allowed (density)",
               lambda: update(delta(*range(0, 90, 9)))),
        _wrong("tensor 0 after tensor 0", "a tensor that is there twice (duplicate coordinates)",
               lambda: written([(0, (1,)), (0, (1,))], (1.0, 1.0))),
        _wrong("tensor 0 after tensor 1", "tensors out of order",
               lambda: written([(1, (1,)), (0, (1,))], (1.0, 1.0))),
        _wrong("is not below 100", "a coordinate beyond the tensor's end",
               lambda: written([(0, (1, 200))], (1.0, 1.0))),
        _wrong("tensor 7 after", "a tensor that does not exist", lambda: written([(7, (1, 2))], (1.0, 1.0))),
        _wrong("ledger_hash must have 32 bytes", "a ledger hash of 31 bytes", update, hash=b"x" * 31),
        _wrong("ledger_hash must have 32 bytes", "a ledger hash of 33 bytes", update, hash=b"x" * 33),
    ]  # fmt: skip


def _encodings() -> list[Attack]:
    canonical = "not in canonical form"
    return [
        _wrong("does not belong", "an unknown field in a delta (hidden data)",
               lambda: written([(0, (1, 3))], (-1.0, 1.0), wire.field(9, b"hidden"))),
        _wrong(canonical, "an unknown field in an update (hidden data)",
               lambda: update() + wire.field(15, b"hidden")),
        _wrong(f"no RoundUpdate|{canonical}", "three bytes after an update", lambda: update() + b"\x00\x00\x00"),
        _wrong(canonical, "a varint longer than it need be",
               lambda: update().replace(bytes([0x10, 2]), bytes([0x10, 0x82, 0]), 1)),
        _wrong("no RoundUpdate", "an update cut short", lambda: update()[:-1]),
        _wrong("no RoundUpdate|format", "random bytes for an update", lambda: bytes(range(255, 155, -1))),
        _wrong("format 0", "nothing for an update", lambda: b""),
        _wrong("not in the shortest form", "coordinates in a form that is not the shortest",
               lambda: written([(0, (1, 3, 2, 9))], (1.0, 2.0, 3.0, 4.0), rice_more=2)),
    ]  # fmt: skip


def _grown(stage: Stage, run: Callable[[], str]) -> str:
    """Return what ``run`` returns, and by how much the hub's memory grew at most."""
    process = psutil.Process(stage.federation.hub.pid)
    before, most, stop = process.memory_info().rss, [0], threading.Event()

    def watch() -> None:
        while not stop.wait(0.01):
            most[0] = max(most[0], process.memory_info().rss - before)

    thread = threading.Thread(target=watch)
    thread.start()
    told = run()
    stop.set()
    thread.join()
    grown = f"the hub's memory grew by {max(most) >> 20} MiB"
    return told if most[0] <= _MOST_GROWTH else f"{grown}; {told}"


def _sizes() -> list[Attack]:
    over = "the limit is 4096"
    many = f"refused ipv4:.*sent more than {MESSAGE_BYTES} bytes"

    def far_above(stage: Stage) -> str:
        return _grown(stage, lambda: stage.insider.push(stage.task, bytes(_BOMB_BYTES)))

    def compressed(stage: Stage) -> str:
        stub = stage.insider.dial(compression=grpc.Compression.Gzip)
        return _grown(stage, lambda: raw.push(stub, stage.insider.update(stage.task, bytes(_BOMB_BYTES))))

    def bomb(stage: Stage) -> str:
        """Send 7 kB that inflate to 7 MB: less than the limit before, a thousand times more after."""
        packed = gzip.compress(bytes(7 << 20), 9)
        more = raw.literal("grpc-encoding", b"gzip")
        with raw.greeted(stage.federation.port, stage.federation.credentials("mallory")) as connection:
            frames = raw.opened(1, _PUSH, packed, more, compressed=True)
            raw.sent(connection, frames)
            return _grown(stage, lambda: raw.heard(connection, 5.0, until=b"grpc-status"))

    return [
        _wrong(over, "an update one byte above the limit", lambda: bytes(MAX_UPDATE_BYTES + 1)),
        refused("RESOURCE_EXHAUSTED", "larger than max", "an update of 64 MiB", far_above, many, limit=30.0),
        refused("RESOURCE_EXHAUSTED", "larger than max", "a compressed message that inflates to 64 MiB",
                compressed, many, limit=30.0),
        Attack(GROUP, "7 kB of gzip by hand that inflate to 7 MiB", "RESOURCE_EXHAUSTED or INVALID_ARGUMENT",
               "grpc-status (8|3|13)", many, bomb),
    ]  # fmt: skip


def _uploads() -> list[Attack]:
    head = link_pb2.UploadHead(sha256=messages.HASH, size=PART_BYTES + 1)

    def upload(**changes: object) -> Callable[[Stage], str]:
        def run(stage: Stage) -> str:
            said = link_pb2.UploadHead(task_id=stage.task, sha256=head.sha256, size=head.size)
            said.MergeFrom(link_pb2.UploadHead(**changes))  # type: ignore[arg-type]
            parts = [link_pb2.UploadPart(head=said), link_pb2.UploadPart(data=bytes(PART_BYTES))]
            return _uploaded(stage, parts)

        return run

    def headless(stage: Stage) -> str:
        return _uploaded(stage, [link_pb2.UploadPart(data=bytes(PART_BYTES))])

    def elsewhere(stage: Stage) -> str:
        """Answer a task with bytes that were never uploaded for it."""
        claim = stage.insider.update(stage.task, b"")
        claim.uploaded_sha256 = messages.HASH
        return stage.insider.send(claim)

    over = f"the limit is {MAX_UPDATE_BYTES}"
    return [
        refused("RESOURCE_EXHAUSTED", over, "an upload that announces 1 MiB and a byte", upload()),
        refused("RESOURCE_EXHAUSTED", over, "an upload that announces 2^63 bytes", upload(size=1 << 63)),
        refused("INVALID_ARGUMENT", "begins without a head", "an upload without a head", headless),
        refused("INVALID_ARGUMENT", "begins without a head", "an upload under a hash of 5 bytes",
                upload(sha256=b"short")),
        refused("UNAVAILABLE", "has not uploaded", "an answer by the hash of bytes that nobody uploaded",
                elsewhere),
    ]  # fmt: skip


def _uploaded(stage: Stage, parts: list[link_pb2.UploadPart]) -> str:
    try:
        taken = stage.insider.stub.Upload(iter(parts), timeout=raw.SECONDS)
    except grpc.RpcError as error:
        return raw.status(error)
    return f"OK: {taken.size} bytes taken"

"""A hostile ClientApp or trainer tries to get data out: whether it is stopped, and what is bounded only.

The real desk takes in what the app pushes by Flower's own calls, the real gate judges, the real ledger records.
What may leave is exactly what the gate returns: nothing else can be sent.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fedsparse_client.gateway.desk import Answer
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.app.error import Error
from flwr.proto.fleet_pb2 import RegisterNodeFleetRequest
from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest

from benchmarks.auditing.part import Part
from benchmarks.auditing.site import SPACE, Outcome, Site, change, replying, update
from benchmarks.report import Claim
from fedsparse.config import EgressSettings
from fedsparse.delta import (
    AdapterSpace,
    Operation,
    Reason,
    RoundUpdate,
    SparseDelta,
    TensorDelta,
    ValueCoding,
    encode,
    encode_update,
)
from fedsparse.envelope import disassemble, wrap

SEED, LEAST = 20261126, 30
_REASON_BITS = 8 * 8 + 1  # of a message that holds a reason code: its length is fixed within a byte or two
IMAGE = np.random.default_rng(SEED).integers(0, 256, 64 * 64, dtype=np.uint8).tobytes()  # what must not leave
_ALONE = "the honest update in it alone leaves"
TEXT = "line 7, cell 0412, operator Sato: crack 3.2 mm"


@dataclass(frozen=True)
class Attempt:
    """One way to get data out.

    Attributes:
        does: in words.
        run: tries it on a site.
        bounded: what bounds it, where it cannot be stopped; empty where it must be.
    """

    does: str
    run: Callable[[Site], Outcome]
    bounded: str = ""


def run(folder: Path) -> Part:
    """Try everything under the default policy."""
    site = Site(folder / "site")
    rows = [_try(site, attempt) for attempt in [*_by_flower(), *_by_message(), *_by_update()]]
    rows.append(_many(site))
    site.close()
    rows += list(_held_tighter(folder))
    stopped = [row for row in rows if row["must be"] == "stopped"]
    failed = [row for row in stopped if not row["as it must be"]]
    bounded = [row for row in rows if row["must be"] != "stopped"]
    over = [row for row in bounded if not row["as it must be"]]
    unrecorded = sum(not row["recorded"] for row in rows)
    claims = [
        Claim("exfiltration attempts", len(rows), f"≥ {LEAST}", "", len(rows) >= LEAST),
        Claim("of them stopped", len(stopped) - len(failed), f"all {len(stopped)}", "", not failed),
        Claim(
            "of them bounded, within the bound stated",
            len(bounded) - len(over),
            f"all {len(bounded)}",
            "",
            not over,
        ),
        Claim("left without a record", unrecorded, "0", "", unrecorded == 0),
    ]
    notes = ["Stopped: what leaves is a reason code, one of ten, and the ledger has what was refused."]
    return Part("exfiltration", {"seed": SEED, "image bytes": len(IMAGE)}, rows, claims, notes)


def _try(site: Site, attempt: Attempt) -> dict[str, object]:
    outcome = attempt.run(site)
    smuggled = IMAGE in outcome.left or TEXT.encode() in outcome.left
    stopped = not outcome.whole and not smuggled
    bits = 8 * len(outcome.left) + 1 if outcome.left else 0
    return {
        "attempt": attempt.does,
        "must be": f"bounded: {attempt.bounded}" if attempt.bounded else "stopped",
        "what stopped it": outcome.rule or ("" if outcome.whole else "the desk: no lone payload"),
        "bits that left at most": bits,
        "recorded": outcome.recorded,
        "as it must be": outcome.whole if attempt.bounded else stopped and bits <= _REASON_BITS,
    }


def _by_flower() -> Iterator[Attempt]:
    """Yield what a ClientApp can do with Flower's messages: all of it ends at the desk."""

    def content(make: Callable[[], RecordDict]) -> Callable[[Site], Outcome]:
        return lambda site: site.reply(lambda task: Message(make(), reply_to=task))

    def beside(**records: object) -> Callable[[], RecordDict]:
        def make() -> RecordDict:
            honest = wrap(update(1, change(16, SEED)))
            return RecordDict({**honest, **records})  # type: ignore[dict-item]

        return make

    picture = np.frombuffer(IMAGE, np.uint8).reshape(64, 64)
    yield Attempt("an array beside the update", content(beside(more=ArrayRecord([picture]))))
    yield Attempt("a configuration record with text beside it", content(beside(note=ConfigRecord({"text": TEXT}))))
    yield Attempt("a metric record beside it", content(beside(more=MetricRecord({"pixel": 0.5}))))
    yield Attempt("an array alone", content(lambda: RecordDict({"fedsparse": ArrayRecord([picture])})))
    yield Attempt(
        "a second value in the update's own record",
        content(lambda: RecordDict({"fedsparse": ConfigRecord({"payload": b"x", "more": IMAGE})})),
    )
    yield Attempt(
        "text where bytes belong", content(lambda: RecordDict({"fedsparse": ConfigRecord({"payload": TEXT})}))
    )
    yield Attempt(
        "an error reply with a text for its reason",
        lambda site: site.reply(lambda task: Message(Error(0, reason=TEXT), reply_to=task)),
    )
    yield Attempt("a group id that is text", _with_metadata("group_id", TEXT), _ALONE)
    yield Attempt("a message type that is text", _with_metadata("message_type", "train." + "x" * 40), _ALONE)
    yield Attempt("an object that nobody asked for", _uninvited)
    yield Attempt("an answer to a task that is not open", _unasked)
    register = RegisterNodeFleetRequest(public_key=IMAGE)
    yield Attempt("node properties: a public key that is an image", _call("register-node", register))
    heartbeat = SendNodeHeartbeatRequest(heartbeat_interval=0.0412)
    yield Attempt("a heartbeat whose interval says something", _call("send-node-heartbeat", heartbeat))
    yield Attempt("a log sent by a call of its own", _log)


def _with_metadata(name: str, value: str) -> Callable[[Site], Outcome]:
    def attempt(site: Site) -> Outcome:
        def make(task: Message) -> Message:
            message = Message(wrap(update(site.round, change(16, SEED))), reply_to=task)
            message.metadata.__dict__[f"_{name}"] = value
            return message

        return site.reply(make)

    return attempt


def _uninvited(site: Site) -> Outcome:
    from flwr.proto.message_pb2 import PushObjectRequest

    site.desk.offer(site.next_round())
    task = site.node.pull()
    header, tree, objects = disassemble(Message(wrap(b"honest"), reply_to=task))
    site.desk.expect(header, tree)
    body = PushObjectRequest(object_id="0" * 64, object_content=IMAGE).SerializeToString()
    status = site.node.status("push-object", body)
    for name, data in objects.items():
        site.desk.receive(name, data)
    outcome = site.judge(site.desk.answers.get(timeout=1))
    return Outcome(
        outcome.left, outcome.whole, f"the desk does not store it ({status}); {outcome.rule}", outcome.recorded
    )


def _unasked(site: Site) -> Outcome:
    site.desk.offer(site.next_round())
    task = site.node.pull()
    site.desk.restart()
    site.judge(site.desk.answers.get(timeout=1))
    header, tree, _ = disassemble(Message(wrap(IMAGE), reply_to=task))
    try:
        site.desk.expect(header, tree)
    except Exception as error:
        return Outcome(b"", False, str(error), True)
    return Outcome(IMAGE, True, "", False)


def _call(name: str, request: object) -> Callable[[Site], Outcome]:
    def attempt(site: Site) -> Outcome:
        before = site.ledger.size
        status = site.node.status(name, request.SerializeToString())  # type: ignore[attr-defined]
        return Outcome(b"", False, f"ends at the gateway ({status}); nothing is sent", site.ledger.size == before)

    return attempt


def _log(site: Site) -> Outcome:
    statuses = {site.node.status(name, TEXT.encode()) for name in ("push-logs", "upload", "create-run")}
    return Outcome(b"", statuses != {404}, f"no such call ({statuses})", True)


def _by_message() -> Iterator[Attempt]:
    """Yield what can be done with the payload's own fields."""

    def sent(make: Callable[[int], bytes]) -> Callable[[Site], Outcome]:
        return lambda site: site.reply(replying(make(site.round + 1)))

    def told(**metrics: float) -> Callable[[Site], Outcome]:
        return sent(lambda number: update(number, change(16, SEED), metrics=metrics))

    honest = change(16, SEED)
    yield Attempt("an image for an update", sent(lambda number: IMAGE))
    yield Attempt("a compressed image for an update", sent(lambda number: gzip.compress(IMAGE)))
    yield Attempt("an image behind an update", sent(lambda number: update(number, honest) + IMAGE))
    yield Attempt("an image in an unknown field",
                  sent(lambda number: update(number, honest) + b"\x7a" + b"\x80\x20" + IMAGE))  # fmt: skip
    yield Attempt("base64 in a metric's name", told(**{base64.b64encode(IMAGE[:40]).decode(): 0.5}))
    yield Attempt("text in a metric's name", told(**{TEXT: 0.5}))
    yield Attempt("pixels in the low bits of an allowed metric", told(train_loss=0.5 + 2.0**-40))
    yield Attempt("a metric beyond its range", told(train_loss=1e9))
    yield Attempt("sixty-four metrics", told(**{f"m{n}": n / 255 for n in range(64)}))
    yield Attempt("data in the round's number", sent(lambda number: update(number + 0x0412, honest)))
    yield Attempt("data in the version", sent(lambda number: encode_update(
        RoundUpdate(number, 412, 120, encode(honest, SPACE, ValueCoding.FP32), Reason.NONE, {}))))  # fmt: skip
    yield Attempt("a reason code that there is none of", sent(lambda number: b"\x08\x02\x10\x01\x30\x63"))
    yield Attempt("numbers in longer varints", sent(
        lambda number: update(number, honest).replace(b"\x08\x02", b"\x08\x82\x00", 1)))  # fmt: skip
    yield Attempt("a number of samples that says something", sent(
        lambda number: update(number, honest, samples=(1 << 39) + 412)), "40 bits; samples_step")  # fmt: skip
    yield Attempt("a metric's allowed digits", told(train_loss=0.4127), "14 bits each; digits, decimals")
    reason = Reason.DATA_UNAVAILABLE
    which = sent(lambda number: encode_update(RoundUpdate.refusal(number, 0, reason)))
    yield Attempt("which reason code is given", which, "4 bits")


def _by_update() -> Iterator[Attempt]:
    """Yield what can be done with a delta."""

    def delta(
        make: Callable[[], SparseDelta | bytes], coding: ValueCoding = ValueCoding.FP32
    ) -> Callable[[Site], Outcome]:
        return lambda site: site.reply(replying(update(site.round + 1, make(), coding)))

    def of(count: int, values: Callable[[int], np.ndarray], operation: Operation = Operation.ADD) -> SparseDelta:
        tensor = TensorDelta(0, np.arange(count, dtype=np.int64), values(count).astype(np.float32))
        return SparseDelta(SPACE.fingerprint, operation, (tensor,))

    def pixels(count: int) -> np.ndarray:
        return (np.frombuffer(IMAGE[:count], np.uint8).astype(np.float32) + 1) / 256

    def low_bits(count: int) -> np.ndarray:
        words = np.frombuffer(IMAGE[: 2 * count], np.uint16).astype(np.uint32) | np.uint32(0x3C000000)
        return words.view(np.float32)

    other = AdapterSpace(IMAGE[:32], SPACE.tensors)
    size = "8n + 1 bits for n bytes; codings, density, bytes"
    elsewhere = SparseDelta(other.fingerprint, Operation.ADD, change(16, SEED).tensors)
    foreign = encode(elsewhere, other, ValueCoding.FP32)
    yield Attempt("an adapter space whose fingerprint is data", delta(lambda: foreign))
    yield Attempt("values that replace instead of adding", delta(lambda: of(100, pixels, Operation.SET)))
    yield Attempt("a dense delta", delta(lambda: of(40_000, lambda n: np.full(n, 0.5))))
    yield Attempt("bytes behind a delta", delta(lambda: encode(change(16, SEED), SPACE, ValueCoding.FP32) + IMAGE))
    yield Attempt("an update larger than the policy allows", lambda site: site.reply(replying(bytes(9 << 20))))
    yield Attempt("pixels for values", delta(lambda: of(4000, pixels)), size)
    yield Attempt("data in the low bits of values", delta(lambda: of(2000, low_bits)), size)
    yield Attempt("data in which coordinates are named", delta(lambda: change(4000, SEED)), size)
    yield Attempt("data in the update's size", delta(lambda: change(412 * 2, SEED)), size)


def _many(site: Site) -> dict[str, object]:
    """Send a hundred updates in one round."""
    left = bits = 0
    site.next_round()
    recorded = True
    for number in range(100):
        outcome = site.judge(Answer(site.task(), update(site.round, change(16, number))))
        left += bool(outcome.left)
        bits += 8 * len(outcome.left) + 1 if outcome.left else 0
        recorded &= outcome.recorded
    most = site.settings.per_round.messages
    return {
        "attempt": "a hundred small updates in one round",
        "must be": f"bounded: per_round.messages = {most}",
        "what stopped it": "round-messages",
        "bits that left at most": bits,
        "recorded": recorded,
        "as it must be": left <= most,
    }


def _held_tighter(folder: Path) -> Iterator[dict[str, object]]:
    """Yield what a policy stops that the default one only bounds."""

    def tighter(name: str, does: str, make: Callable[[Site], bytes], **limits: object) -> dict[str, object]:
        site = Site(folder / name, EgressSettings.model_validate(limits))
        outcome = site.reply(replying(make(site)))
        site.close()
        told = " ".join(f"{key} = {value}" for key, value in limits.items())
        return _try_outcome(f"{does}, under {told}", outcome)

    honest = change(400, SEED)
    yield tighter("codings", "pixels for values", lambda site: update(1, honest), codings=["ternary"])
    odd = update(1, honest, samples=412)
    yield tighter("samples", "a number of samples that says something", lambda site: odd, samples_step=100)
    yield tighter("norm", "values as large as pixels", lambda site: update(1, _loud()), clip_norm=1.0)
    yield tighter("range", "one value that says something", lambda site: update(1, _loud()), max_abs_value=0.1)
    yield tighter("tensors", "data in a tensor that is not on the list", lambda site: update(1, honest),
                  tensors=["head.*"])  # fmt: skip
    yield tighter("night", "an update at night", lambda site: update(1, honest), windows=[])
    yield tighter("kinds", "any reason code", lambda site: encode_update(
        RoundUpdate.refusal(1, 0, Reason.TRAINING_FAILED)), messages=["update"])  # fmt: skip


def _loud() -> SparseDelta:
    tensor = TensorDelta(0, np.arange(400, dtype=np.int64), np.full(400, 0.5, np.float32))
    return SparseDelta(SPACE.fingerprint, Operation.ADD, (tensor,))


def _try_outcome(does: str, outcome: Outcome) -> dict[str, object]:
    bits = 8 * len(outcome.left) + 1 if outcome.left else 0
    return {
        "attempt": does,
        "must be": "stopped",
        "what stopped it": outcome.rule,
        "bits that left at most": bits,
        "recorded": outcome.recorded,
        "as it must be": not outcome.whole and bits <= _REASON_BITS,
    }

"""What a trainer that wants to can still write into one allowed update, with an encoder that does it.

Each channel has a sender that knows a secret of random bits, the real gate between, and a receiver that sees what
left. What the receiver gets back right is the channel's capacity as measured.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from benchmarks.auditing.part import Part
from benchmarks.auditing.site import SAMPLES, SPACE, Site, change, update
from benchmarks.report import Claim
from fedsparse.config import EgressSettings
from fedsparse.delta import (
    Operation,
    Reason,
    RoundUpdate,
    SparseDelta,
    TensorDelta,
    ValueCoding,
    decode,
    decode_update,
    encode_update,
)

SEED = 20261126
_MOST = 1 << 24
_FP32_BITS = 27  # sign, 23 bits of mantissa, 3 of the exponent: as many as round-trip whatever they are


def run(folder: Path) -> Part:
    """Measure every channel of an update under the default policy, and of one that is held tighter."""
    site = Site(folder / "usual")
    count = int(SPACE.size * site.settings.max_density) // 2 * 2
    slack, tried = _slack(site, change(16, SEED))
    rows = [
        {"channel": f"padding, order, unknown fields, other spellings ({tried:,} tried)", "policy": "default",
         "bits got through": slack, "bits in the message": ""},
        _row("values, written as fp32", "default", _values(site, count)),
        _row("which coordinates: four bits beside each value", "default", _support(site, count)),
        _row("three metrics", "default", _metrics(site)),
        _row("number of samples", "default", _samples(site)),
        _row("a reason code instead", "default", _reasons(site)),
    ]  # fmt: skip
    site.close()
    tight = EgressSettings(codings=("ternary",), samples_step=100, max_density=0.01, metrics={})
    strict = Site(folder / "tight", tight)
    few = int(SPACE.size * tight.max_density) // 2 * 2
    rows.append(
        _row(
            "signs of ternary values", "tight: ternary, 1 %, no metrics, hundreds of samples", _signs(strict, few)
        )
    )
    refused = strict.answer(update(strict.round + 1, change(400, SEED), samples=200)).rule
    strict.close()
    most = max(rows[1:6], key=lambda row: float(str(row["bits got through"])))
    within = all(float(str(row["bits got through"])) <= float(str(row["bits in the message"])) for row in rows[1:])
    in_values, in_signs = (float(str(row["bits got through"])) for row in (most, rows[6]))
    claims = [
        Claim("covert bits in padding, order, unknown fields, other spellings", slack, "0", "bits", slack == 0),
        Claim("covert bits in the values of one update, default policy", in_values, "stated", "bits", True),
        Claim("covert bits in one update, ternary at 1 %", in_signs, "stated", "bits", True),
        Claim("channels that carry more than the information budget counts", float(not within), "0", "", within),
        Claim(
            "fp32 refused where the policy wants ternary", float(refused == "coding"), "1", "", refused == "coding"
        ),
    ]
    notes = [
        "The value channel is what the federation is for: whoever may send values may choose them. The policy's "
        "density, coding and bytes bound it, and the information budget counts all of it.",
        "Timing is not in the table: a sender that may choose the millisecond within a round of ten minutes says "
        "up to 19 bits by it. The gate neither delays nor batches.",
    ]
    return Part("covert", {"seed": SEED, "values": count, "values, tight": few}, rows, claims, notes)


def _row(channel: str, policy: str, found: tuple[int, int]) -> dict[str, object]:
    return {
        "channel": channel,
        "policy": policy,
        "bits got through": int(found[0]),
        "bits in the message": int(found[1]),
    }


def _budget(message: bytes) -> int:
    return 8 * len(message) + 1


def _through(site: Site, payload: bytes) -> RoundUpdate:
    """Send an update through the gate; return what the other side decodes."""
    outcome = site.answer(payload)
    if not outcome.whole:
        raise RuntimeError(f"the honest part of a covert update was refused: {outcome.rule}")
    return decode_update(outcome.left, max_bytes=_MOST)


def _delta(update_: RoundUpdate) -> SparseDelta:
    return decode(update_.delta, SPACE, max_bytes=_MOST)


def _bits(count: int) -> np.ndarray:
    return np.random.default_rng(SEED).integers(0, 2, count, dtype=np.uint32)


def _values(site: Site, count: int) -> tuple[int, int]:
    """Write bits straight into the bits of floats."""
    secret = _bits(count * _FP32_BITS).reshape(count, _FP32_BITS)
    words = (secret << np.arange(_FP32_BITS, dtype=np.uint32)).sum(axis=1, dtype=np.uint32)
    floats = ((words >> 26 << 31) | (118 + (words >> 23 & 7)) << 23 | words & 0x7FFFFF).view(np.float32)
    honest = change(count, SEED)
    halves = np.split(floats, 2)
    tensors = tuple(
        TensorDelta(one.tensor, one.indices, half) for one, half in zip(honest.tensors, halves, strict=True)
    )
    payload = update(site.round + 1, SparseDelta(SPACE.fingerprint, Operation.ADD, tensors))
    got = np.concatenate([tensor.values for tensor in _delta(_through(site, payload)).tensors]).view(np.uint32)
    read = (got >> 31 << 26) | ((got >> 23 & 0xFF) - 118) << 23 | got & 0x7FFFFF
    back = read[:, None] >> np.arange(_FP32_BITS, dtype=np.uint32) & 1
    return int((back == secret).all(axis=1).sum()) * _FP32_BITS, _budget(payload)


def _support(site: Site, count: int) -> tuple[int, int]:
    """Choose one of every sixteen coordinates."""
    per_tensor = min(count // 2, 50_000 // 16)
    secret = _bits(2 * per_tensor * 4).reshape(2 * per_tensor, 4)
    chosen = (secret << np.arange(4, dtype=np.uint32)).sum(axis=1).astype(np.int64).reshape(2, per_tensor)
    places = np.arange(per_tensor, dtype=np.int64) * 16
    values = np.full(per_tensor, 0.01, np.float32)
    tensors = tuple(TensorDelta(position, places + chosen[position], values) for position in range(2))
    payload = update(site.round + 1, SparseDelta(SPACE.fingerprint, Operation.ADD, tensors))
    got = np.concatenate([tensor.indices % 16 for tensor in _delta(_through(site, payload)).tensors])
    back = got[:, None] >> np.arange(4) & 1
    return int((back == secret).all(axis=1).sum()) * 4, _budget(payload)


def _signs(site: Site, count: int) -> tuple[int, int]:
    """Write a bit into each sign, and 14 into each block's scale."""
    secret = _bits(count)
    honest = change(count, SEED, ValueCoding.TERNARY)
    halves = np.split(np.where(secret == 1, 1.0, -1.0).astype(np.float32) * np.float32(0.0078125), 2)
    tensors = tuple(
        TensorDelta(one.tensor, one.indices, half) for one, half in zip(honest.tensors, halves, strict=True)
    )
    delta = SparseDelta(SPACE.fingerprint, Operation.ADD, tensors)
    payload = update(site.round + 1, delta, ValueCoding.TERNARY, samples=SAMPLES // 100 * 100)
    got = np.concatenate([tensor.values > 0 for tensor in _delta(_through(site, payload)).tensors])
    return int((got == (secret == 1)).sum()), _budget(payload)


def _metrics(site: Site) -> tuple[int, int]:
    """Write thirteen bits into the four digits that each metric may have."""
    secret = np.random.default_rng(SEED).integers(0, 1 << 13, 3)
    names = ("holdout_balanced_accuracy", "train_loss", "train_seconds")
    limits = site.settings.metrics
    metrics = {name: limits[name].rounded(value / 10_000) for name, value in zip(names, secret, strict=True)}
    payload = update(site.round + 1, change(400, SEED), metrics=metrics)
    got = _through(site, payload).metrics
    right = sum(round(got[name] * 10_000) == value for name, value in zip(names, secret, strict=True))
    return 13 * right, _budget(payload)


def _samples(site: Site) -> tuple[int, int]:
    """Write forty bits into the number of samples."""
    secret = (1 << 39) + int(np.random.default_rng(SEED).integers(0, 1 << 39))
    payload = update(site.round + 1, change(400, SEED), samples=secret)
    return (39 if _through(site, payload).samples == secret else 0), _budget(payload)


def _reasons(site: Site) -> tuple[int, int]:
    """Say something by which reason there is for no update."""
    usable = []
    for reason in list(Reason)[1:]:
        payload = encode_update(RoundUpdate.refusal(site.round + 1, 0, reason))
        if site.answer(payload).whole:
            usable.append(payload)
    return int(math.log2(len(usable))), _budget(usable[0])


def _slack(site: Site, delta: SparseDelta) -> tuple[int, int]:
    """Count the bits of other byte strings that pass the gate and say the same as an honest one."""
    passed = tried = 0
    for spell in _spellings(len(_honest(1, delta))):
        honest = _honest(site.round + 1, delta)
        if (other := spell(honest)) == honest:
            continue
        tried += 1
        outcome = site.answer(other)
        passed += outcome.whole and _says(outcome.left) == _says(honest)
    return math.ceil(math.log2(1 + passed)), tried


def _honest(number: int, delta: SparseDelta) -> bytes:
    return update(number, delta, metrics={"train_loss": 0.5, "train_seconds": 2.0})


def _says(data: bytes) -> tuple[object, ...]:
    """Return what a message says, however it is written."""
    said = decode_update(data, max_bytes=_MOST)
    return said.round, said.samples, tuple(said.metrics.items()), _delta(said)


def _spellings(length: int) -> Iterator[Callable[[bytes], bytes]]:
    """Yield ways to write a message otherwise: every bit, bytes put in anywhere, fields added, moved, repeated."""
    draw = random.Random(SEED)  # noqa: S311
    for bit in range(8 * (length + 1)):
        yield lambda data, bit=bit: _flip(data, bit)  # type: ignore[misc]
    for at in range(length + 2):
        for more in (b"\0", draw.randbytes(1), draw.randbytes(3)):
            yield lambda data, at=at, more=more: data[:at] + more + data[at:]  # type: ignore[misc]
    for field in (8, 15, 2000):
        tag = (field << 3).to_bytes(1, "big") if field < 16 else b"\x80\x7d"
        yield lambda data, tag=tag: data + tag + b"\x01"  # type: ignore[misc]
        yield lambda data, tag=tag: data + bytes([tag[0] | 2, *tag[1:]]) + b"\x04data"  # type: ignore[misc]
    yield lambda data: data + data
    yield lambda data: data[2:] + data[:2]
    for size in range(1, 65):
        yield lambda data, size=size: data + bytes(size)  # type: ignore[misc]


def _flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    if bit // 8 < len(changed):
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)

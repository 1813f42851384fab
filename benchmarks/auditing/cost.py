"""What the gate costs: an update of a megabyte judged and recorded, and a long ledger verified, on one core.

A machine that others use as well is slower for seconds at a time. So there are several turns, seconds apart; both
the quietest and the median of all are claimed.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fedsparse_client.gateway.desk import Answer
from fedsparse_client.gateway.gate import Gate

from benchmarks.auditing.part import Part
from benchmarks.auditing.verify_speed import measure
from benchmarks.report import Claim
from fedsparse.audit import EgressPolicy, Ledger
from fedsparse.config import EgressSettings
from fedsparse.delta import (
    AdapterSpace,
    Operation,
    Reason,
    RoundTask,
    RoundUpdate,
    SparseDelta,
    TensorDelta,
    TensorSpec,
    TrainingSettings,
    ValueCoding,
    decode,
    decode_update,
    encode,
    encode_task,
    encode_update,
    quantise,
)
from fedsparse.v1 import link_pb2

SEED, TURNS, REPEATS, ENTRIES = 7, 10, 15, 100_000
_TRAINING = TrainingSettings(
    density=1.0, epochs=1, batch_size=8, learning_rate=1e-3, head_learning_rate=1e-3, seed=SEED
)
_SIDE, _MOST_BYTES = 4096, 1 << 24
_PAUSE_SECONDS = 2.0
_VALUES = {  # so many that an update has about a megabyte
    ValueCoding.FP32: 230_000,
    ValueCoding.BF16: 380_000,
    ValueCoding.INT8: 560_000,
    ValueCoding.INT4: 850_000,
    ValueCoding.TERNARY: 1_500_000,
}


def run(folder: Path) -> Part:
    """Measure the gate for each value coding, and verification."""
    with _one_core():
        rows, claims = _gate(folder)
        speed = measure(ENTRIES)
    rows += [dict(row) for row in speed.rows]
    settings = {"seed": SEED, "turns": TURNS, "repeats": REPEATS, "entries": ENTRIES, "cores": 1}
    return Part("cost", settings, rows, [*claims, *speed.claims])


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep this process on one core, whatever its threads; syncing still takes place beside it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _gate(folder: Path) -> tuple[list[dict[str, Any]], list[Claim]]:
    space = AdapterSpace(bytes(range(32)), tuple(TensorSpec(name, (_SIDE, _SIDE)) for name in ("a", "b")))
    updates = {coding: _updates(space, coding, count) for coding, count in _VALUES.items()}
    turns: dict[ValueCoding, list[tuple[float, float]]] = {coding: [] for coding in updates}
    for turn in range(TURNS):
        for coding, (payloads, task) in updates.items():
            with Ledger(folder / f"{coding.name.lower()}-{turn}", bytes(32), "kiso") as ledger:
                ledger.set_space(space)
                gate = Gate(EgressPolicy(_policy()), ledger, "hub.example:9443")
                decisions = (gate.decide(Answer(task, one), space) for one in payloads)
                whole = _median(partial(next, decisions))
            turns[coding].append((whole, _median(partial(_inspect, payloads[0], space))))
        time.sleep(_PAUSE_SECONDS)
    rows, claims = [], []
    for coding, (payloads, _) in updates.items():
        size = len(payloads[0])
        quietest, inspected = min(turns[coding])
        usual = statistics.median(whole for whole, _ in turns[coding])
        rows.append(
            {
                "values as": coding.name.lower(),
                "bytes": size,
                "values": _VALUES[coding],
                "decoded strictly, ms": inspected * 1e3,
                "judged and recorded, ms": quietest * 1e3,
                "the same, median of all turns, ms": usual * 1e3,
                "MB/s": size / quietest / 1e6,
            }
        )
        for when, whole in (("in the quietest turn", quietest), ("median of all turns", usual)):
            claims.append(_time_claim(coding, whole, size, when))
            claims.append(_rate_claim(coding, size / whole / 1e6, when))
    return rows, claims


def _policy() -> EgressSettings:
    return EgressSettings(max_update_bytes=1 << 24, max_density=1.0)


def _updates(space: AdapterSpace, coding: ValueCoding, count: int) -> tuple[list[bytes], link_pb2.Task]:
    """Return updates that differ in their number of samples, as no two real ones are the same, and their task."""
    draw = np.random.default_rng(SEED)
    tensors = []
    for position in range(2):
        indices = np.sort(draw.choice(_SIDE * _SIDE, count // 2, replace=False)).astype(np.int64)
        values = draw.standard_normal(count // 2).astype(np.float32) * 0.01
        tensors.append(TensorDelta(position, indices, values))
    delta = quantise(SparseDelta(space.fingerprint, Operation.ADD, tuple(tensors)), coding, SEED)
    data = encode(delta, space, coding)
    payloads = [
        encode_update(RoundUpdate(1, 0, 100 + number, data, Reason.NONE, {})) for number in range(REPEATS + 1)
    ]
    task = RoundTask(1, space.fingerprint, 0, 0, (), b"", b"", b"", _TRAINING)
    return payloads, link_pb2.Task(task_id="1" * 64, round_task=encode_task(task))


def _inspect(payload: bytes, space: AdapterSpace) -> None:
    update = decode_update(payload, max_bytes=_MOST_BYTES)
    decode(update.delta, space, max_bytes=_MOST_BYTES)


def _median(step: Callable[[], object]) -> float:
    step()  # the first one fills caches
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def _time_claim(coding: ValueCoding, seconds: float, size: int, when: str) -> Claim:
    per_megabyte = seconds * 1e3 / (size / 1e6)
    name = f"gate, per megabyte in {coding.name.lower()}: decoded, judged, recorded, {when}"
    return Claim(name, per_megabyte, "≤ 10", "ms", per_megabyte <= 10)


def _rate_claim(coding: ValueCoding, rate: float, when: str) -> Claim:
    return Claim(f"gate, inspected in {coding.name.lower()}, {when}", rate, "≥ 100", "MB/s", rate >= 100)

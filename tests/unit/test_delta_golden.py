"""Bytes written by hand from the .proto files; whatever changes them changes what releases say to each other."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedsparse.delta import (
    Operation,
    Reason,
    RoundTask,
    RoundUpdate,
    TrainingSettings,
    ValueCoding,
    decode,
    decode_task,
    decode_update,
    encode,
    encode_task,
    encode_update,
)
from fedsparse.registry import AdapterVersion, Contribution
from tests.unit.samples import LIMIT, NOTHING, SPACE, delta, state

FOLDER = Path(__file__).parents[1] / "golden"
DELTAS = {
    "delta_empty": (NOTHING, ValueCoding.FP32),
    "delta_gaps_fp32": (
        delta({0: {1: 0.5, 7: -2.0}, 2: {0: 2.0**-149, 1999: 3.4028234663852886e38}}),
        ValueCoding.FP32,
    ),
    "delta_bitmap_bf16": (delta({0: {0: 1.0, 1: -1.0, 16: 0.5, 19: 0.0}}), ValueCoding.BF16),
    "delta_all_fp32": (state({1: {index: index + 1.0 for index in range(6)}}), ValueCoding.FP32),
}
UPDATES = {
    "update": RoundUpdate(3, 300, 40, b"delta", Reason.NONE, {"loss": -1.5, "accuracy": 0.75}),
    "update_refusal": RoundUpdate.refusal(3, 2, Reason.REFUSED_BY_GATE),
}
TASK = RoundTask(
    round=3,
    space=SPACE.fingerprint,
    version=2,
    held_version=1,
    delta=b"delta",
    manifest=b"manifest",
    manifest_signature=b"signature",
    hub_certificate=b"certificate",
    training=TrainingSettings(0.01, 1, 32, 0.001, 0.002, 7),
)
MANIFEST = AdapterVersion(
    number=2,
    parents=(1,),
    base_fingerprint=SPACE.base_fingerprint.hex(),
    space_fingerprint="b" * 64,
    state_sha256="c" * 64,
    round=3,
    rule="shrunk",
    contributions=(Contribution("a" * 64, samples=40, nnz=3),),
    metrics={"accuracy": 0.75},
    created_unix_ms=1_795_000_000_000,
)


def golden(name: str) -> bytes:
    lines = (FOLDER / f"{name}.hex").read_text().splitlines()
    return bytes.fromhex("".join(line.split("#")[0] for line in lines))


@pytest.mark.parametrize("name", DELTAS)
def test_a_delta_has_exactly_its_golden_bytes(name: str) -> None:
    value, coding = DELTAS[name]
    assert encode(value, SPACE, coding).hex() == golden(name).hex()
    assert decode(golden(name), SPACE, max_bytes=LIMIT) == value


@pytest.mark.parametrize("name", UPDATES)
def test_an_update_has_exactly_its_golden_bytes(name: str) -> None:
    assert encode_update(UPDATES[name]).hex() == golden(name).hex()
    assert decode_update(golden(name), max_bytes=LIMIT) == UPDATES[name]


def test_a_task_has_exactly_its_golden_bytes() -> None:
    assert encode_task(TASK).hex() == golden("task").hex()
    assert decode_task(golden("task"), max_bytes=LIMIT) == TASK


def test_the_space_has_exactly_its_golden_fingerprint() -> None:
    assert SPACE.fingerprint.hex() == golden("space_fingerprint").hex()


def test_a_manifest_has_exactly_its_golden_bytes() -> None:
    data = (FOLDER / "manifest.json").read_bytes()
    assert MANIFEST.to_bytes() == data
    assert AdapterVersion.from_bytes(data) == MANIFEST


def test_every_golden_file_is_tested() -> None:
    tested = {*DELTAS, *UPDATES, "task", "space_fingerprint"}
    assert {path.stem for path in FOLDER.glob("*.hex")} == tested
    assert {DELTAS[name][0].operation for name in DELTAS} == set(Operation)

"""Bytes derived from docs/format.md and the .proto files; whatever changes them changes what releases say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fedsparse.delta import (
    AdapterSpace,
    Mask,
    Operation,
    Reason,
    RoundTask,
    RoundUpdate,
    SharedSupport,
    SparseDelta,
    TensorSpec,
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
from fedsparse.v1 import delta_pb2
from tests.unit.samples import LIMIT, NOTHING, SPACE, Parts, delta, state

FOLDER = Path(__file__).parents[1] / "golden"
FORMS = AdapterSpace(
    bytes(32), (TensorSpec("tiles", (8, 8)), TensorSpec("rates", (8, 64)), TensorSpec("coded", (32, 64)))
)
"""Shapes for what the tensors of ``SPACE`` are too small for."""


@dataclass(frozen=True)
class Golden:
    """A delta that a golden file spells out.

    Attributes:
        value: the delta.
        coding: of its values.
        known: whether both sides know its support.
    """

    value: SparseDelta
    coding: ValueCoding
    known: bool = False

    @property
    def space(self) -> AdapterSpace:
        return SPACE if self.value.space == SPACE.fingerprint else FORMS

    @property
    def support(self) -> SharedSupport | None:
        if not self.known:
            return None
        indices = [np.empty(0, np.int64)] * len(self.space.tensors)
        for tensor in self.value.tensors:
            indices[tensor.tensor] = tensor.indices
        return SharedSupport(self.space, indices)


def forms(parts: Parts) -> SparseDelta:
    return delta(parts, space=FORMS.fingerprint)


PLACES = {0: {1: 0.5, 7: -2.0}, 2: {1999: 1.0}}
TILE = [row * 8 + column for row in range(4, 8) for column in range(4)]
UNEVEN = [3, *range(5 * 64, 6 * 64, 2)]
DELTAS = {
    "delta_empty": Golden(NOTHING, ValueCoding.FP32),
    "delta_all_fp32": Golden(state({1: {index: index + 1.0 for index in range(6)}}), ValueCoding.FP32),
    "delta_bitmap_bf16": Golden(delta({0: {0: 1.0, 1: -1.0, 16: 0.5, 19: 0.0}}), ValueCoding.BF16),
    "delta_gaps_fp32": Golden(
        delta({0: {1: 0.5, 7: -2.0}, 2: {0: 2.0**-149, 1999: 3.4028234663852886e38}}), ValueCoding.FP32
    ),
    "delta_rows_int8": Golden(
        delta({0: dict(zip(range(5, 15), [-63.5, *(step / 2 for step in range(9))], strict=True))}),
        ValueCoding.INT8,
    ),
    "delta_tiles_int4": Golden(
        forms({0: dict(zip(TILE, [*(step / 4 for step in range(-7, 8)), 0.0], strict=True))}),
        ValueCoding.INT4,
    ),
    "delta_row_rates_ternary": Golden(
        forms({1: {index: 0.5 * (place % 3 - 1) for place, index in enumerate(UNEVEN)}}), ValueCoding.TERNARY
    ),
    "delta_coded_ternary": Golden(
        forms({2: {index: 0.0 if index % 10 else 0.5 for index in range(2048)}}), ValueCoding.TERNARY
    ),
    "delta_known_bf16": Golden(delta(PLACES), ValueCoding.BF16, known=True),
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
    deltas=(b"delta", b"another"),
    manifest=b"manifest",
    manifest_signature=b"signature",
    hub_certificate=b"certificate",
    training=TrainingSettings(0.01, 1, 32, 0.001, 0.002, 7, mask=Mask.CONSENSUS, revote=10),
    support=b"support",
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
    given = DELTAS[name]
    assert encode(given.value, given.space, given.coding, given.support).hex() == golden(name).hex()
    assert decode(golden(name), given.space, max_bytes=LIMIT, shared=given.support) == given.value


def test_the_golden_deltas_have_every_coding_and_operation() -> None:
    messages = [delta_pb2.SparseDelta.FromString(golden(name)) for name in DELTAS]
    segments = [segment for message in messages for segment in message.segments]
    assert {message.operation for message in messages} == set(map(int, Operation))
    assert {message.value_coding for message in messages} == set(map(int, ValueCoding))
    assert {tensor.coding for segment in segments for tensor in segment.tensors} == {1, 2, 3, 4, 5, 6}
    assert {bool(message.support) for message in messages} == {False, True}


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

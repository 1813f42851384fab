from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fedsparse.delta import (
    Allocation,
    Mask,
    Reason,
    RoundTask,
    RoundUpdate,
    Structure,
    TrainingSettings,
    ValueCoding,
    decode_task,
    decode_update,
    encode_task,
    encode_update,
)
from fedsparse.errors import DeltaError
from fedsparse.v1 import round_pb2
from tests.unit.samples import LIMIT, SPACE

TRAINING = TrainingSettings(0.01, 1, 32, 1e-3, 1e-3, 0)
UPDATE = RoundUpdate(3, 2, 40, b"delta", Reason.NONE, {"loss": 0.5, "accuracy": 0.75})
TASK = RoundTask(
    3, SPACE.fingerprint, 2, 1, (b"delta", b"another"), b"manifest", b"signature", b"certificate", TRAINING
)


def read_update(data: bytes) -> RoundUpdate:
    return decode_update(data, max_bytes=LIMIT)


def sent(**changes: Any) -> bytes:
    """Return an update's bytes as a stranger may write them."""
    fields = {"format": 2, "round": 3, "version": 2, "samples": 40, "delta": b"delta"}
    return round_pb2.RoundUpdate(**(fields | changes)).SerializeToString(deterministic=True)


def metric(name: str, value: float) -> round_pb2.Metric:
    return round_pb2.Metric(name=name, value=value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"delta": b""}, "either a delta or a reason"),
        ({"reason": Reason.TRAINING_FAILED}, "either a delta or a reason"),
        ({"delta": b"", "reason": Reason.TRAINING_FAILED, "metrics": {}}, "without metrics and samples"),
        ({"delta": b"", "reason": Reason.TRAINING_FAILED, "samples": 0}, "without metrics and samples"),
        ({"round": 0}, "round 0 must be"),
        ({"round": 1 << 32}, "round 4294967296 must be"),
        ({"version": -1}, "versions and samples"),
        ({"version": 1 << 64}, "versions and samples"),
        ({"samples": -1}, "versions and samples"),
        ({"samples": 1 << 64}, "versions and samples"),
        ({"metrics": {f"m{number}": 0.0 for number in range(65)}}, "65 metrics, the limit is 64"),
        ({"metrics": {"": 0.0}}, "no valid name or value"),
        ({"metrics": {"x" * 65: 0.0}}, "no valid name or value"),
        ({"metrics": {"two\nlines": 0.0}}, "no valid name or value"),
        ({"metrics": {"\ud800": 0.0}}, "no valid name or value"),
        ({"metrics": {"loss": float("nan")}}, "metric 'loss' = nan"),
        ({"metrics": {"loss": float("inf")}}, "metric 'loss' = inf"),
    ],
)
def test_an_impossible_update_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DeltaError, match=said):
        replace(UPDATE, **changes)


def test_an_update_at_its_limits_is_accepted() -> None:
    limits = {f"{number:064}": 0.0 for number in range(64)}
    update = RoundUpdate((1 << 32) - 1, (1 << 64) - 1, (1 << 64) - 1, b"x", Reason.NONE, limits)
    assert read_update(encode_update(update)) == update


def test_metrics_are_sorted_and_cannot_be_changed() -> None:
    assert list(UPDATE.metrics) == ["accuracy", "loss"]
    with pytest.raises(TypeError):
        UPDATE.metrics["loss"] = 0.0  # type: ignore[index]


def test_an_update_keeps_its_metrics_when_the_mapping_it_was_made_from_changes() -> None:
    given = {"loss": 0.5}
    update = replace(UPDATE, metrics=given)
    given["loss"] = 9.0
    assert update.metrics == {"loss": 0.5}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": 3}, "RoundUpdate has format 3, this release reads format 2. Install the same release"),
        ({"reason": 99}, "reason 99 is unknown"),
        ({"metrics": [metric("b", 1), metric("a", 1)]}, "not in canonical form"),
        ({"metrics": [metric("a", 1), metric("a", 2)]}, "not in canonical form"),
        ({"metrics": [metric("", 1)]}, "no valid name or value"),
        ({"metrics": [metric("a", float("nan"))]}, "no valid name or value"),
        ({"round": 0}, "round 0"),
    ],
)
def test_an_update_that_the_encoder_never_writes_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DeltaError, match=said):
        read_update(sent(**changes))


@pytest.mark.parametrize(
    "data",
    [sent() + b"\x42\x01x", sent() + b"\x10\x03", b"\x08\x02" + sent(), sent()[2:] + sent()[:2]],
    ids=["unknown field", "round twice", "format twice", "fields out of order"],
)
def test_other_bytes_that_say_the_same_are_refused(data: bytes) -> None:
    assert read_update(sent()).round == 3
    with pytest.raises(DeltaError, match="not in canonical form"):
        read_update(data)


@pytest.mark.parametrize("data", [b"", b"\xff", encode_update(UPDATE)[:-1], encode_task(TASK)])
def test_bytes_that_are_no_update_are_refused(data: bytes) -> None:
    with pytest.raises(DeltaError):
        read_update(data)


def test_a_metric_name_that_is_no_utf_8_is_refused() -> None:
    with pytest.raises(DeltaError, match="no RoundUpdate"):
        read_update(sent(metrics=[metric("loss", 1)]).replace(b"loss", b"lo\xffs"))


def test_a_message_longer_than_allowed_is_refused() -> None:
    for read in (decode_update, decode_task):
        with pytest.raises(DeltaError, match="has 11 bytes, the limit is 10"):
            read(bytes(11), max_bytes=10)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"round": 0}, "round 0 must be"),
        ({"version": -1, "held_version": -2, "manifest": b""}, "versions and samples"),
        ({"held_version": 1 << 64}, "versions and samples"),
        ({"space": bytes(31)}, "32 bytes, not 31"),
        ({"deltas": ()}, "a delta is needed"),
        ({"deltas": (b"delta", b"")}, "a delta is needed"),
        ({"held_version": 2}, "a delta is needed"),
        ({"manifest": b""}, "has a manifest"),
        ({"support": b"x"}, "only a consensus comes with a support"),
        ({"version": 0}, "has a manifest"),
    ],
)
def test_an_impossible_task_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(DeltaError, match=said):
        replace(TASK, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"density": 0.0},
        {"density": 1.1},
        {"density": float("nan")},
        {"upload_density": 0.0},
        {"upload_density": 1.1},
        {"learning_rate": 0.0},
        {"learning_rate": 2.0},
        {"head_learning_rate": -1.0},
        {"epochs": 0},
        {"epochs": 1001},
        {"batch_size": 0},
        {"batch_size": 4097},
        {"revote": 0},
        {"revote": 100_001},
        {"seed": -1},
        {"seed": 1 << 63},
    ],
)
def test_impossible_training_settings_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(DeltaError, match="must be"):
        replace(TRAINING, **changes)


def test_a_task_of_a_newer_format_is_refused_naming_both() -> None:
    data = b"\x08\x03" + encode_task(TASK)[2:]
    with pytest.raises(DeltaError, match="RoundTask has format 3, this release reads format 2"):
        decode_task(data, max_bytes=LIMIT)


def test_a_task_without_training_settings_is_refused() -> None:
    message = round_pb2.RoundTask.FromString(encode_task(TASK))
    message.ClearField("training")
    with pytest.raises(DeltaError, match="value coding 0 is unknown"):
        decode_task(message.SerializeToString(deterministic=True), max_bytes=LIMIT)


@pytest.mark.parametrize("field", ["value_coding", "structure", "allocation", "mask"])
@pytest.mark.parametrize("number", [0, 9])
def test_a_task_with_an_unknown_choice_is_refused(field: str, number: int) -> None:
    message = round_pb2.RoundTask.FromString(encode_task(TASK))
    setattr(message.training, field, number)
    with pytest.raises(DeltaError, match=f"{field.replace('_', ' ')} {number} is unknown"):
        decode_task(message.SerializeToString(deterministic=True), max_bytes=LIMIT)


def test_settings_take_their_kinds_by_name() -> None:
    fields = {"density": 0.1, "epochs": 1, "batch_size": 8, "learning_rate": 1e-3, "head_learning_rate": 1e-3}
    settings = TrainingSettings.named(
        value_coding="int4", structure="row", allocation="early", mask="seeded", seed=3, revote=7, **fields
    )
    assert settings.value_coding is ValueCoding.INT4
    assert (settings.structure, settings.allocation) == (Structure.ROW, Allocation.EARLY)
    assert (settings.mask, settings.revote) == (Mask.SEEDED, 7)
    assert decode_task(encode_task(replace(TASK, training=settings)), max_bytes=LIMIT).training == settings


def test_a_task_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(DeltaError, match="not in canonical form"):
        decode_task(encode_task(TASK) + b"\x62\x01x", max_bytes=LIMIT)


def test_a_refusal_says_only_its_reason() -> None:
    refusal = RoundUpdate.refusal(3, 2, Reason.SPACE_MISMATCH)
    assert refusal == RoundUpdate(3, 2, 0, b"", Reason.SPACE_MISMATCH, {})


def test_the_reasons_are_those_of_the_protocol() -> None:
    assert {f"REASON_{reason.name}": int(reason) for reason in Reason} == dict(round_pb2.Reason.items())

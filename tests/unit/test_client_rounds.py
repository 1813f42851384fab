"""A plant's part in a round, with the real trainer, real signatures and real files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from fedsparse_client.rounds import RoundRunner
from fedsparse_client.versions import HeldVersion

from fedsparse.config import EgressSettings, MetricLimits
from fedsparse.delta import (
    Operation,
    Reason,
    RoundTask,
    RoundUpdate,
    SparseDelta,
    TensorDelta,
    ValueCoding,
    decode,
    encode,
    encode_update,
    header_of,
)
from fedsparse.errors import RegistryError
from fedsparse.registry import Contribution, Registry
from fedsparse.security import Role, verify
from fedsparse.training import LocalTrainer

from .samples import Hub
from .training_samples import SETTINGS, space, trainer

SPACE = space()
EGRESS = EgressSettings()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> LocalTrainer:
    return trainer(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def federation_hub(tmp_path_factory: pytest.TempPathFactory) -> Hub:
    return Hub.create(tmp_path_factory.mktemp("pki"))


def _state(value: float) -> SparseDelta:
    part = TensorDelta(0, np.array([3, 9], np.int64), np.array([value, -value], np.float32))
    return SparseDelta(SPACE.fingerprint, Operation.SET, (part,))


@pytest.fixture
def registry(tmp_path: Path, federation_hub: Hub) -> Registry:
    """Three versions, each another value at the same coordinates."""
    made = Registry(tmp_path / "registry", SPACE)
    for number in (1, 2, 3):
        _commit(made, federation_hub, number, 0.01 * number)
    return made


def _commit(registry: Registry, signer: Hub, round: int, value: float) -> None:
    registry.commit(
        _state(value),
        round=round,
        rule="shrunk",
        contributions=(Contribution("a" * 64, samples=40, nnz=2),),
        metrics={},
        sign=signer.sign,
        certificate=signer.certificate,
    )


@pytest.fixture
def plant(tmp_path: Path, local: LocalTrainer, federation_hub: Hub) -> Callable[[], RoundRunner]:
    """Start the plant's runner, again and again on the same folder, as after a restart."""

    def check(task: RoundTask, created: datetime) -> None:
        verify(
            task.hub_certificate,
            federation_hub.authority,
            Role.HUB,
            task.manifest,
            task.manifest_signature,
            created,
        )

    def start() -> RoundRunner:
        return RoundRunner(local, HeldVersion(tmp_path / "version", SPACE, check), tmp_path, EGRESS)

    return start


def task(registry: Registry | None = None, version: int = 0, held: int = 0, number: int = 1) -> RoundTask:
    if registry is None or version == 0:
        return RoundTask(number, SPACE.fingerprint, 0, 0, (), b"", b"", b"", SETTINGS)
    change = (encode(registry.delta(held, version), SPACE, ValueCoding.FP32),) if held != version else ()
    return RoundTask(
        number,
        SPACE.fingerprint,
        version,
        held,
        change,
        registry.manifest(version),
        registry.signature(version),
        registry.certificate(version),
        SETTINGS,
    )


def test_the_first_task_is_answered_with_a_quantised_delta_and_allow_listed_metrics(
    plant: Callable[[], RoundRunner],
) -> None:
    update = plant().answer(task())
    assert update.reason is Reason.NONE
    delta = decode(update.delta, SPACE, max_bytes=len(update.delta))
    assert 0 < delta.nnz <= SETTINGS.density * SPACE.size
    assert encode(delta, SPACE, ValueCoding.INT8) == update.delta
    assert set(update.metrics) == set(EGRESS.metrics)
    assert all(value.hex() == EGRESS.metrics[name].rounded(value).hex() for name, value in update.metrics.items())
    assert update.samples == 28


def test_the_task_says_how_values_are_written_and_how_many_are_sent(plant: Callable[[], RoundRunner]) -> None:
    few = replace(SETTINGS, value_coding=ValueCoding.TERNARY, upload_density=SETTINGS.density / 2)
    update = plant().answer(replace(task(), training=few))
    assert header_of(update.delta).coding is ValueCoding.TERNARY
    assert decode(update.delta, SPACE, max_bytes=len(update.delta)).nnz == int(few.upload_density * SPACE.size)


def test_a_version_is_taken_as_a_delta_against_the_one_held_also_after_a_restart(
    plant: Callable[[], RoundRunner], registry: Registry
) -> None:
    assert plant().answer(task(registry, version=1)).reason is Reason.NONE
    assert plant().answer(task(registry, version=3, held=1)).reason is Reason.NONE
    restarted = plant()
    assert restarted._held.number == 3
    assert restarted._held.state == _state(0.01 * 3)
    assert restarted.answer(task(registry, version=3, held=3)).reason is Reason.NONE


def test_a_delta_against_a_version_not_held_asks_for_the_whole(
    plant: Callable[[], RoundRunner], registry: Registry
) -> None:
    assert plant().answer(task(registry, version=3, held=2)).reason is Reason.VERSION_NOT_HELD
    assert plant().answer(task(registry, version=3)).reason is Reason.NONE


def test_the_way_back_to_an_older_version_is_refused(plant: Callable[[], RoundRunner], registry: Registry) -> None:
    runner = plant()
    assert runner.answer(task(registry, version=2)).reason is Reason.NONE
    assert runner.answer(task(registry, version=1)).reason is Reason.VERSION_UNVERIFIED
    assert runner.answer(task()).reason is Reason.VERSION_UNVERIFIED
    with pytest.raises(RegistryError, match="version 1 is offered, but version 2 was seen"):
        runner._held.accept(task(registry, version=1))


def test_a_version_signed_by_a_stranger_is_refused_and_the_held_one_stays(
    plant: Callable[[], RoundRunner], registry: Registry, tmp_path: Path
) -> None:
    runner = plant()
    runner.answer(task(registry, version=1))
    stranger = Hub.create(tmp_path / "stranger")
    forged = replace(
        task(registry, version=2, held=1),
        manifest_signature=stranger.sign(registry.manifest(2)),
        hub_certificate=stranger.certificate,
    )
    assert runner.answer(forged).reason is Reason.VERSION_UNVERIFIED
    assert runner._held.number == 1
    assert plant()._held.state == _state(0.01)


def test_a_delta_that_does_not_give_the_signed_state_is_refused(
    plant: Callable[[], RoundRunner], registry: Registry
) -> None:
    other = encode(_state(0.5), SPACE, ValueCoding.FP32)
    assert plant().answer(replace(task(registry, version=1), deltas=(other,))).reason is Reason.VERSION_UNVERIFIED


def test_a_version_number_signed_twice_is_refused(
    plant: Callable[[], RoundRunner], registry: Registry, federation_hub: Hub, tmp_path: Path
) -> None:
    runner = plant()
    runner.answer(task(registry, version=1))
    fork = Registry(tmp_path / "fork", SPACE)
    _commit(fork, federation_hub, 1, 0.7)
    assert runner.answer(task(fork, version=1)).reason is Reason.VERSION_UNVERIFIED


def test_a_damaged_held_version_is_asked_for_again(
    plant: Callable[[], RoundRunner], registry: Registry, tmp_path: Path
) -> None:
    plant().answer(task(registry, version=1))
    (state,) = (path for path in (tmp_path / "version").iterdir() if path.name != "manifest.json")
    state.write_bytes(state.read_bytes()[:-1])
    runner = plant()
    assert runner.answer(task()).reason is Reason.VERSION_UNVERIFIED  # no way back, although the state is lost
    assert runner.answer(task(registry, version=2, held=1)).reason is Reason.VERSION_NOT_HELD
    assert runner.answer(task(registry, version=2)).reason is Reason.NONE


def test_a_metric_that_the_site_keeps_to_itself_is_not_offered(
    local: LocalTrainer, tmp_path: Path, plant: Callable[[], RoundRunner]
) -> None:
    runner = RoundRunner(local, plant()._held, tmp_path, EgressSettings(metrics={"train_loss": MetricLimits()}))
    assert set(runner.answer(task()).metrics) == {"train_loss"}


def test_what_a_site_wants_told_coarsely_is_rounded_before_it_is_offered(
    local: LocalTrainer, tmp_path: Path, plant: Callable[[], RoundRunner]
) -> None:
    coarse = EgressSettings(samples_step=10, metrics={"train_loss": MetricLimits(digits=1, decimals=1)})
    update = RoundRunner(local, plant()._held, tmp_path, coarse).answer(task())
    assert update.samples == 20  # of 28
    assert update.metrics["train_loss"] == round(update.metrics["train_loss"], 1)


def test_a_task_of_another_space_is_answered_with_a_code(plant: Callable[[], RoundRunner]) -> None:
    assert plant().answer(replace(task(), space=bytes(32))).reason is Reason.SPACE_MISMATCH


def test_an_exception_leaves_as_a_code_and_its_text_stays_in_the_log(
    plant: Callable[[], RoundRunner], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    runner = plant()
    (tmp_path / "residual").mkdir()  # the residual cannot be read: a real exception, its text has the path
    update = runner.answer(task())
    assert update.reason is Reason.TRAINING_FAILED
    assert (update.delta, dict(update.metrics), update.samples) == (b"", {}, 0)
    assert str(tmp_path) in caplog.text


def _residual_of(update: RoundUpdate, folder: Path) -> bytes:
    """Return what ``update`` leaves behind, as it lies in its file until a version settles it."""
    head = update.version.to_bytes(8, "big") + sha256(encode_update(update)).digest()
    written = (folder / "residual.unsettled").read_bytes()
    assert written.startswith(head)
    return written.removeprefix(head)


def _settled(folder: Path) -> bytes:
    return (folder / "residual").read_bytes()[8:]


def _merge(registry: Registry, signer: Hub, *updates: RoundUpdate) -> int:
    """Commit the next version with these updates among those merged; return its number."""
    digests = ["f" * 64, *(sha256(encode_update(update)).hexdigest() for update in updates)]
    registry.commit(
        _state(0.01 * (registry.head() + 1)),
        round=registry.head() + 1,
        rule="shrunk",
        contributions=tuple(Contribution(digest, samples=40, nnz=2) for digest in sorted(digests)),
        metrics={},
        sign=signer.sign,
        certificate=signer.certificate,
    )
    return registry.head()


@pytest.fixture
def empty(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "empty", SPACE)


def test_what_a_merged_update_left_behind_is_added_to_the_next_also_after_a_restart(
    plant: Callable[[], RoundRunner], empty: Registry, federation_hub: Hub, tmp_path: Path
) -> None:
    update = plant().answer(task())
    left = _residual_of(update, tmp_path)
    assert decode(left, SPACE, max_bytes=len(left)).nnz > 0
    version = _merge(empty, federation_hub, update)
    second = plant().answer(task(empty, version=version, number=2))
    assert _settled(tmp_path) == left
    assert _residual_of(second, tmp_path) != left


@pytest.mark.parametrize("again", ["the round came to nothing", "the version was made without it"])
def test_what_an_update_left_that_was_not_merged_is_taken_back(
    plant: Callable[[], RoundRunner], empty: Registry, federation_hub: Hub, tmp_path: Path, again: str
) -> None:
    first = plant().answer(task())
    version = _merge(empty, federation_hub, first)
    lost = plant().answer(task(empty, version=version, number=2))
    before = _settled(tmp_path)
    assert _residual_of(lost, tmp_path) != before
    if again == "the round came to nothing":
        repeated = plant().answer(task(empty, version=version, held=version, number=2))
        assert repeated.delta == lost.delta
    else:
        version = _merge(empty, federation_hub)
        plant().answer(task(empty, version=version, number=3))
    assert _settled(tmp_path) == before


def test_an_update_counts_as_merged_where_the_versions_between_were_missed(
    plant: Callable[[], RoundRunner], empty: Registry, federation_hub: Hub, tmp_path: Path
) -> None:
    left = _residual_of(plant().answer(task()), tmp_path)
    for _ in range(2):
        version = _merge(empty, federation_hub)
    plant().answer(task(empty, version=version, number=3))
    assert _settled(tmp_path) == left


def test_what_a_version_told_is_not_forgotten_where_its_round_fails(
    plant: Callable[[], RoundRunner],
    empty: Registry,
    federation_hub: Hub,
    tmp_path: Path,
    local: LocalTrainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version = _merge(empty, federation_hub, plant().answer(task()))
    plant().answer(task(empty, version=version, number=2))  # of which the next version knows nothing
    before = _settled(tmp_path)
    version = _merge(empty, federation_hub)
    with monkeypatch.context() as failing:
        failing.setattr(local, "train", lambda *arguments: 1 / 0)
        assert plant().answer(task(empty, version=version, number=3)).reason is Reason.TRAINING_FAILED
    version = _merge(empty, federation_hub)
    assert plant().answer(task(empty, version=version, number=4)).reason is Reason.NONE
    assert _settled(tmp_path) == before


@pytest.mark.parametrize("kept", [b"half", b"half a file, and then some bytes more than a head has", None])
def test_a_damaged_record_of_the_last_update_leaves_the_settled_residual_alone(
    plant: Callable[[], RoundRunner], empty: Registry, federation_hub: Hub, tmp_path: Path, kept: bytes | None
) -> None:
    version = _merge(empty, federation_hub, plant().answer(task()))
    second = plant().answer(task(empty, version=version, number=2))
    before = _settled(tmp_path)
    record = tmp_path / "residual.unsettled"
    record.write_bytes(record.read_bytes()[:-3] if kept is None else kept)
    version = _merge(empty, federation_hub, second)
    assert plant().answer(task(empty, version=version, number=3)).reason is Reason.NONE
    assert _settled(tmp_path) == before


def test_a_federation_that_begins_anew_gets_nothing_of_the_old_one(
    plant: Callable[[], RoundRunner], empty: Registry, federation_hub: Hub, tmp_path: Path
) -> None:
    version = _merge(empty, federation_hub, plant().answer(task()))
    plant().answer(task(empty, version=version, number=2))
    shutil.rmtree(tmp_path / "version")  # as the message says that refuses the way back
    again = plant().answer(task())
    left = _residual_of(again, tmp_path)
    shutil.rmtree(tmp_path / "version")
    (tmp_path / "residual").unlink()
    (tmp_path / "residual.unsettled").unlink()
    assert _residual_of(plant().answer(task()), tmp_path) == left


def test_a_damaged_residual_starts_anew(
    plant: Callable[[], RoundRunner], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "residual").write_bytes(bytes(8) + b"half a fi")
    assert plant().answer(task()).reason is Reason.NONE
    assert "starts anew" in caplog.text

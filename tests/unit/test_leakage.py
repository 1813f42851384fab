"""What an update tells of the samples behind it: the arithmetic, the attacks, the command, and the refusal."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from math import erf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fedsparse_client.leakage import RECORD, LeakageGuard, build_guard
from fedsparse_client.rounds import RoundRunner
from fedsparse_client.trainer import open_site
from fedsparse_client.versions import HeldVersion
from pydantic import ValidationError
from torch import nn
from typer.testing import CliRunner, Result

from fedsparse import config
from fedsparse.adapters import Adapter, BaseModel, ImageReader, build_adapter
from fedsparse.audit import EntryDraft, EntryKind, Ledger
from fedsparse.cli.main import app
from fedsparse.config import EgressSettings, ProbeSettings
from fedsparse.delta import (
    Operation,
    Reason,
    RoundTask,
    RoundUpdate,
    SparseDelta,
    TensorDelta,
    TrainingSettings,
    encode_update,
)
from fedsparse.errors import DataError, DeltaError, FedsparseError
from fedsparse.leakage import Pictures, Rate, UpdateView, measure, others_needed, reconstruct, score
from fedsparse.leakage.intervals import area, difference, share
from fedsparse.leakage.membership import Scores, _best_threshold
from fedsparse.leakage.reconstruction import surplus
from fedsparse.leakage.similarity import similarity
from fedsparse.training import Classification, LocalTrainer, Machine, train
from fedsparse.v1 import link_pb2

from . import model_samples
from .data_samples import write_images
from .model_samples import one_thread as one_thread  # for every test here
from .test_client_trainer import IDENTITY, IMAGES, federation
from .training_samples import Points, perceptron, points, untouched

# the arithmetic


def test_shares_and_their_difference_have_the_intervals_of_the_literature() -> None:
    assert share(0, 10).high == pytest.approx(0.2775, abs=1e-4)
    assert share(10, 10).low == pytest.approx(0.7225, abs=1e-4)
    apart = difference(share(56, 70), share(48, 80))  # Newcombe 1998, table II, contrast (a)
    assert (apart.low, apart.high) == (pytest.approx(0.0524, abs=1e-4), pytest.approx(0.3339, abs=1e-4))


def test_an_area_of_one_is_not_taken_for_certain_and_mirrors_that_of_zero() -> None:
    whole, none = area(1.0, 30, 20), area(0.0, 20, 30)
    assert whole.high == pytest.approx(1)
    assert 0.8 < whole.low < 0.97
    assert none.high == pytest.approx(1 - whole.low)


def _drawn(shift: float, members: int, others: int, seed: int) -> tuple[Scores, Scores]:
    draw = np.random.default_rng(seed)
    return draw.normal(shift, 1, members), draw.normal(0, 1, others)


@pytest.mark.parametrize(("members", "others"), [(100, 100), (300, 60)])
@pytest.mark.parametrize(("shift", "covered"), [(0.0, 0.94), (0.5, 0.9), (1.5, 0.86)])
def test_intervals_hold_the_true_advantage_and_area_about_as_often_as_they_say(
    members: int, others: int, shift: float, covered: float
) -> None:
    best, below = erf(shift / 2 / 2**0.5), (1 + erf(shift / 2)) / 2  # of two normal distributions
    found = [measure(*_drawn(shift, members, others, seed), seed) for seed in range(100)]
    assert np.mean([one.advantage.low <= best <= one.advantage.high for one in found]) >= covered
    assert np.mean([one.auc.low <= below <= one.auc.high for one in found]) >= 0.88


def test_the_cross_fitted_advantage_is_not_optimistic_as_the_best_threshold_is() -> None:
    fitted, optimistic = [], []
    for seed in range(100):
        members, others = _drawn(0, 100, 100, seed)
        fitted.append(measure(members, others, seed).advantage.value)
        threshold = _best_threshold(members, others)
        optimistic.append(np.mean(members > threshold) - np.mean(others > threshold))
    assert abs(np.mean(fitted)) < 0.02
    assert np.mean(optimistic) > 0.06


def test_members_are_found_at_few_false_alarms_only_where_enough_are_held_out_to_tell() -> None:
    assert (others_needed(0.01), others_needed(0.001)) == (99, 999)
    members = np.r_[np.full(30, 10.0), np.zeros(70)]
    assert measure(members, np.linspace(0, 1, 98)).found == {0.01: None, 0.001: None}
    found = measure(members, np.linspace(0, 1, 99)).found
    assert found[0.01] == share(30, 100)
    assert found[0.001] is None


def test_the_false_alarms_of_new_samples_are_not_more_than_said() -> None:
    draw = np.random.default_rng(3)
    alarms = [measure(draw.normal(size=200), draw.normal(size=120)).found[0.01] for _ in range(100)]
    assert np.mean([one.value for one in alarms if one]) == pytest.approx(1 / 121, abs=0.003)


@pytest.mark.parametrize(
    ("members", "others", "told"),
    [
        (np.zeros(19), np.zeros(50), "19 samples trained on"),
        (np.full(30, np.nan), np.zeros(30), "NaN or infinite"),
    ],
)
def test_too_few_samples_or_no_numbers_are_refused(members: Scores, others: Scores, told: str) -> None:
    with pytest.raises(DataError, match=told):
        measure(members, others)


# membership of a trained model


def _update(adapter: Adapter, inputs: Points, labels: Any, passes: int) -> SparseDelta:
    task = Classification(inputs, labels, 3, config.ObjectiveSettings(), config.AugmentationSettings(), Machine())
    head, rates = {"name": "head", "epochs": 1, "density": 0}, {"learning_rate": 0.02, "head_learning_rate": 0.02}
    stages = [
        config.StageSettings(**head, **rates),
        config.StageSettings(name="all", epochs=passes, density=0.9, **rates),
    ]
    return train(adapter, task, untouched(adapter), stages, seed=(1,), batch_size=16).delta


def test_an_overfitted_model_gives_its_members_away_and_nobody_else() -> None:
    inputs, _ = points(180)
    labels = np.random.default_rng(5).integers(0, 3, 180)  # nothing to learn but by heart
    adapter = perceptron()
    update = _update(adapter, inputs.take(np.arange(60)), labels[:60], 300)
    scores = score(adapter, untouched(adapter), update, inputs, labels)
    for name, one in scores.items():
        found = measure(one[:60], one[60:]).advantage
        assert found.low > (0.5 if name != "alignment" else 0.1), name
        strangers = measure(one[60:120], one[120:]).advantage
        assert strangers.low <= 0 <= strangers.high, name


def test_a_model_trained_on_others_tells_nothing() -> None:
    inputs, labels = points(240)
    adapter = perceptron()
    update = _update(adapter, inputs.take(np.arange(80)), labels[:80], 3)
    scores = score(adapter, untouched(adapter), update, inputs, labels)
    for one in scores.values():
        found = measure(one[80:160], one[160:]).advantage
        assert found.low <= 0 <= found.high
        assert abs(found.value) < 0.2


def test_an_update_that_changes_nothing_cannot_be_looked_at() -> None:
    adapter = perceptron()
    nothing = SparseDelta.empty(adapter.space.fingerprint, Operation.ADD)
    with pytest.raises(DeltaError, match="changes nothing"):
        UpdateView(adapter, untouched(adapter), nothing)


# reconstruction


def test_the_pull_on_an_input_is_the_second_derivative_without_taking_one() -> None:
    adapter = perceptron()
    inputs, labels = points(4)
    view = UpdateView(adapter, untouched(adapter), _update(adapter, inputs, labels, 2))
    batch, targets = inputs.batch(np.arange(4))[0], torch.from_numpy(labels)
    towards = torch.randn(len(view.direction), generator=torch.Generator().manual_seed(1))
    given = batch.clone().requires_grad_()
    weights = {
        name: weight.detach().requires_grad_() for name, weight in zip(view._names, view._weights, strict=True)
    }
    gradients = torch.autograd.grad(
        view._loss(weights, (given,), targets), list(weights.values()), create_graph=True
    )
    at = [one.reshape(-1)[where] for one, where in zip(gradients, view._where, strict=True)]
    exact = torch.autograd.grad(torch.cat(at) @ towards, given)[0]
    torch.testing.assert_close(
        view.pull(batch, targets, towards), exact, rtol=0.02, atol=0.02 * float(exact.std())
    )


class Linear(nn.Module):
    """Images of 8 × 8 to two logits: its gradient is the image itself."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(192, 2)
        nn.init.normal_(self.head.weight, std=0.01, generator=torch.Generator().manual_seed(2))
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1))


def _pictures(count: int, seed: int) -> Pictures:
    draw = torch.Generator().manual_seed(seed)
    pixels = nn.functional.interpolate(torch.rand(count, 3, 4, 4, generator=draw), size=8, mode="bilinear")
    return Pictures(pixels.clamp(0, 1), np.arange(count) % 2)


def _linear() -> tuple[BaseModel, Adapter]:
    base = BaseModel("linear", bytes(32), nn.Identity(), Linear(), 0, ImageReader(8))
    return base, build_adapter(base, config.AdapterSettings(include=("head.*",)))


def test_images_are_found_in_gradients_that_are_images() -> None:
    base, adapter = _linear()
    members, others = _pictures(40, 1), _pictures(30, 2)
    weight = adapter.space.tensors[0]
    shown = base.reader.normalise(members.pixels[:1]).reshape(-1)  # type: ignore[union-attr]
    step = torch.stack([shown, -shown]).reshape(-1).numpy() * 0.01  # one step down the first image's gradient
    part = TensorDelta(0, np.arange(weight.size), step.astype(np.float32))
    view = UpdateView(adapter, untouched(adapter), SparseDelta(adapter.space.fingerprint, Operation.ADD, (part,)))
    found = reconstruct(base, view, members, others, attempts=8, steps=150, seed=0)
    assert found.is_telling
    assert found.control.value > 0.8
    assert found.control_looks > 0.3
    assert found.control_chance == pytest.approx(1 / 16)
    assert found.evidence is not None
    assert found.evidence.members == found.evidence.others == 30
    assert -1 <= found.advantage.low <= found.advantage.value <= found.advantage.high <= 1


def test_one_image_that_is_near_to_everything_is_no_advantage() -> None:
    is_member, classes = np.arange(40) < 20, np.zeros(40, np.int64)
    draw = np.random.default_rng(0)
    same = surplus(np.zeros(16, np.int64), is_member, classes, draw)
    assert (same.value, same.low) == (1, 0)
    assert surplus(np.arange(16), is_member, classes, draw).low > 0.3
    assert surplus(np.arange(12, 28), is_member, classes, draw).value == 0


def test_similarity_is_one_for_the_same_image_and_none_for_noise() -> None:
    images = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    found = similarity(images, images)
    assert np.diag(found) == pytest.approx(1)
    assert np.abs(found - np.diag(np.diag(found))).max() < 0.2


# at a plant


@dataclass(frozen=True)
class Plant:
    """A small site whose federation is known, and one update of its own."""

    settings: Path
    state: Path
    base: BaseModel
    trainer: LocalTrainer
    update: RoundUpdate

    def runner(self, probe: ProbeSettings, folder: Path) -> RoundRunner:
        held = HeldVersion(folder / "version", self.trainer.space, lambda *_: None)
        return RoundRunner(self.trainer, held, folder, SILENT, build_guard(probe, self.trainer, folder))


SILENT = EgressSettings(metrics={})
TRAINING = TrainingSettings(0.2, epochs=1, batch_size=16, learning_rate=1e-3, head_learning_rate=1e-2, seed=3)


def _task(plant: LocalTrainer, number: int = 1) -> RoundTask:
    return RoundTask(number, plant.space.fingerprint, 0, 0, (), b"", b"", b"", TRAINING)


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Plant:
    folder = tmp_path_factory.mktemp("plant")
    write_images(folder / "images", per_class=80)
    path = folder / "site.toml"
    identity = "\n".join(f'{key} = "{value}"' for key, value in IDENTITY.items())
    path.write_text(
        f'[site]\nname = "kiso"\nhub = "127.0.0.1:1"\n[site.identity]\n{identity}\n[data]\npath = "images"\n'
    )
    state = folder / "state"
    state.mkdir()
    told = federation(IMAGES, {"kind": "delta", "cut": 15, "image_size": 32}, {"model": "efficientnet-lite0"})
    (state / "federation.pb").write_bytes(told.SerializeToString())
    site = open_site(
        config.load(path, config.SiteConfig), link_pb2.Federation.FromString(told.SerializeToString())
    )
    base, trainer = site.base, site.trainer
    held = HeldVersion(folder / "first", trainer.space, lambda *_: None)
    update = RoundRunner(trainer, held, folder / "first", SILENT).answer(_task(trainer))
    assert update.reason is Reason.NONE
    return Plant(path, state, base, trainer, update)


Run = Callable[..., Result]


@pytest.fixture
def run(plant: Plant) -> Run:
    def start(*arguments: object) -> Result:
        command = ["client", "probe", "--config", plant.settings, *arguments]
        return CliRunner().invoke(app, [str(one) for one in command], env={"COLUMNS": "200"})

    return start


def _file(folder: Path, update: RoundUpdate) -> Path:
    path = folder / "update"
    path.write_bytes(encode_update(update))
    return path


def test_the_command_tells_of_an_update_in_a_file_and_holds_it_against_a_limit(
    run: Run, plant: Plant, tmp_path: Path
) -> None:
    path, output = _file(tmp_path, plant.update), tmp_path / "probe.json"
    done = run("--update", path, "--attempts", 2, "--steps", 2, "--output", output, "--limit", 1)
    assert done.exit_code == 0, done.output
    assert "within the limit" in done.output
    told = json.loads(output.read_text())
    assert (told["version"], told["within_limit"]) == (0, True)
    assert set(told["membership"]) == {"loss", "drop", "alignment"}
    drop = told["membership"]["drop"]
    assert (drop["members"], drop["others"]) == (136, 24)
    assert drop["advantage"]["low"] <= drop["advantage"]["value"] <= drop["advantage"]["high"]
    assert drop["found"]["0.01"] == {"cannot_tell": "24 samples held out, 99 are needed"}
    assert told["reconstruction"]["attempts"] == 2
    above = run("--update", path, "--attempts", 0, "--output", output, "--limit", 0.01)
    assert above.exit_code == 1
    assert "ABOVE the limit" in above.output
    assert "reconstruction not attempted: not asked for" in above.output


def test_the_command_takes_the_last_update_of_the_ledger_or_a_given_entry(
    run: Run, plant: Plant, tmp_path: Path
) -> None:
    assert isinstance(run().exception, FedsparseError)  # there is no ledger yet
    with Ledger(plant.state / "ledger", sha256(b"authority").digest(), "kiso") as ledger:
        for kind in (EntryKind.DESCRIBE, EntryKind.UPDATE, EntryKind.REFUSED):
            payload = b"" if kind is EntryKind.DESCRIBE else encode_update(plant.update)
            ledger.append(EntryDraft(kind=kind, peer="hub:1", policy_sha256=bytes(32)), payload)
    output = tmp_path / "probe.json"
    for arguments, where in (((), "entry 2"), (("--entry", 3), "entry 3")):
        done = run(*arguments, "--attempts", 0, "--output", output)
        assert done.exit_code == 0, done.output
        assert json.loads(output.read_text())["update"] == where
    assert "has not an update as entry 1" in str(run("--entry", 1).exception)
    assert "name two updates" in str(run("--entry", 1, "--update", output).exception)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": 3}, "starts from version 3, but this plant holds version 0"),
        ({"samples": 90}, "trained on 90 samples, of the present data that would be 136"),
    ],
)
def test_where_the_start_or_the_data_of_then_is_gone_nothing_can_be_told(
    run: Run, plant: Plant, tmp_path: Path, change: dict[str, int], told: str
) -> None:
    path, output = _file(tmp_path, replace(plant.update, **change)), tmp_path / "probe.json"
    done = run("--update", path, "--output", output)
    assert done.exit_code == 0, done.output
    assert told in json.loads(output.read_text())["cannot_tell"]
    assert run("--update", path, "--output", output, "--limit", 0.9).exit_code == 1  # not known to be within


def test_an_update_above_the_sites_limit_is_not_handed_over_and_leaves_no_residual(
    plant: Plant, tmp_path: Path
) -> None:
    runner = plant.runner(ProbeSettings(enabled=True, max_membership_advantage=0.01), tmp_path)
    answer = runner.answer(_task(plant.trainer))
    assert (answer.reason, answer.delta, dict(answer.metrics)) == (Reason.REFUSED_BY_GATE, b"", {})
    assert not (tmp_path / "residual.unsettled").exists()
    (line,) = (tmp_path / RECORD).read_text().splitlines()
    assert json.loads(line)["highest_advantage"] > 0.01


def test_an_update_within_the_limit_is_the_same_as_without_a_probe(plant: Plant, tmp_path: Path) -> None:
    probe = ProbeSettings(enabled=True, every_rounds=2, max_membership_advantage=1)
    runner = plant.runner(probe, tmp_path)
    assert runner.answer(_task(plant.trainer)) == plant.update
    assert not (tmp_path / RECORD).exists()  # the second round's turn
    assert runner.answer(_task(plant.trainer, 2)).reason is Reason.NONE
    assert json.loads((tmp_path / RECORD).read_text())["round"] == 2


def test_a_plant_with_too_few_samples_to_tell_refuses_only_where_there_is_a_limit(
    plant: Plant, tmp_path: Path
) -> None:
    few = np.r_[0:20, 100:120]
    trainer = LocalTrainer(
        plant.trainer.adapter, plant.trainer.samples.subset(few), plant.trainer.inputs.take(few)
    )
    state = SparseDelta.empty(trainer.space.fingerprint, Operation.SET)
    LeakageGuard(ProbeSettings(enabled=True), trainer, tmp_path).check(1, state, plant.update.delta)
    assert "tell nothing about membership" in json.loads((tmp_path / RECORD).read_text())["cannot_tell"]
    limited = ProbeSettings(enabled=True, max_membership_advantage=0.9)
    with pytest.raises(FedsparseError, match="cannot be told"):
        LeakageGuard(limited, trainer, tmp_path).check(1, state, plant.update.delta)


def test_a_limit_without_a_probe_is_a_mistake(plant: Plant, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="only where enabled = true"):
        ProbeSettings(max_membership_advantage=0.1)
    assert build_guard(ProbeSettings(), plant.trainer, tmp_path) is None


def test_texts_are_measured_too() -> None:
    base = model_samples.base("bert", model_samples.settings("lora"))
    adapter = build_adapter(base, model_samples.settings("lora"))
    ids, mask = model_samples.batch("bert")

    class Twice:
        variants = 1

        def batch(self, samples: Any, variants: Any = 0) -> tuple[torch.Tensor, ...]:
            return ids[samples % 2], mask[samples % 2]

        def take(self, positions: Any) -> Twice:
            return self

    state = model_samples.random_state(adapter.space)
    update = SparseDelta(state.space, Operation.ADD, state.tensors)
    scores = score(adapter, untouched(adapter), update, Twice(), np.array([0, 1, 0, 1]))
    assert all(one[:2] == pytest.approx(one[2:]) for one in scores.values())
    assert isinstance(measure(np.zeros(20), np.zeros(20)).advantage, Rate)

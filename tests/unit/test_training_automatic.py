"""The automatic density: what it costs, what it picks, and how it explains itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsparse.adapters import Adapter
from fedsparse.config import AugmentationSettings, AutomaticSettings, ObjectiveSettings, TrainSettings
from fedsparse.delta import Operation, SparseDelta, TensorDelta, ValueCoding, encode, quantise
from fedsparse.errors import ConfigError
from fedsparse.training import (
    Classification,
    ClassificationExam,
    Machine,
    Quality,
    Selection,
    load_samples,
    prepare,
)
from fedsparse.training.automatic import Candidate, Choice, candidate_densities, choose, choose_density, stages_for
from fedsparse.training.outcome import Epoch
from fedsparse.training.tasks import Task
from tests.unit import training_samples

TRAINING = TrainSettings(density="auto", batch_size=16)


class Counting:
    """A task that counts the samples it is asked for."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.samples, self.variants = task.samples, task.variants
        self.used = 0

    def start(self, network: nn.Module) -> None:
        self._task.start(network)

    def loss(
        self,
        network: nn.Module,
        samples: NDArray[np.int64],
        variants: NDArray[np.int64],
        draw: np.random.Generator,
    ) -> Tensor:
        self.used += len(samples)
        return self._task.loss(network, samples, variants, draw)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return training_samples.write_images(tmp_path_factory.mktemp("automatic") / "images")


KIND = "image-classification"


def bench(images: Path) -> tuple[Adapter, Counting, Selection]:
    """Return an adapter, what it is trained on, and an exam on every fourth image."""
    adapter, base = training_samples.adapter(), training_samples.base()
    samples = load_samples(images, training_samples.CLASSES)
    inputs = prepare(base, samples, images.parent / "cache", None)
    held = np.arange(len(samples)) % 4 == 0
    training, holdout = np.flatnonzero(~held), np.flatnonzero(held)
    machine = Machine()
    task = Classification(
        inputs.take(training), samples.labels[training], 2, ObjectiveSettings(), AugmentationSettings(), machine
    )
    exam = ClassificationExam(inputs.take(holdout), samples.labels[holdout], machine)
    return adapter, Counting(task), Selection(exam, "balanced_accuracy")


def test_where_a_small_density_suffices_a_smaller_one_is_chosen_at_three_times_the_cost_at_most(
    images: Path,
) -> None:
    adapter, task, selection = bench(images)
    automatic = AutomaticSettings(densities=(0.05, 0.02, 0.01, 0.005), tolerance=0.07)
    seen: list[Epoch] = []
    choice = choose_density(adapter, task, KIND, TRAINING, automatic, selection, watch=seen.append)
    assert [one.density for one in choice.candidates] == list(automatic.densities)
    figures = [one.figure for one in choice.candidates]
    assert choice.chosen.figure >= max(figures) - 0.07
    assert all(figure < max(figures) - 0.07 for figure in figures[choice.position + 1 :])
    assert choice.chosen.density < 0.05, figures
    plan, pruning = stages_for(adapter, KIND, TRAINING, automatic.densities)
    once = sum(stage.epochs for stage in plan)
    assert choice.cost == len(seen) / once <= 3
    scored = task.samples * (len(plan) - 1 + len(pruning))
    assert task.used <= 3 * once * task.samples + scored
    assert choice.epochs == tuple(seen)


def test_a_candidate_is_the_adapter_that_its_figures_are_of(images: Path) -> None:
    adapter, task, selection = bench(images)
    automatic = AutomaticSettings(densities=(0.02, 0.01))
    choice = choose_density(adapter, task, KIND, TRAINING, automatic, selection)
    for one in choice.candidates:
        assert one.state.nnz <= one.density * adapter.space.size
        bf16 = quantise(one.state, ValueCoding.BF16)
        assert one.bytes == len(encode(bf16, adapter.space, ValueCoding.BF16))
        quality = selection.exam.quality(adapter.load(one.state).network)
        assert isinstance(quality, Quality)
        assert quality.balanced_accuracy == one.figure
        assert quality.loss == pytest.approx(one.quality.loss, abs=1e-4)


def test_the_same_seed_chooses_the_same_values(images: Path) -> None:
    automatic = AutomaticSettings(densities=(0.01, 0.005))
    one, other = (
        choose_density(adapter, task, KIND, TRAINING, automatic, selection)
        for adapter, task, selection in (bench(images), bench(images))
    )
    assert [a.state for a in one.candidates] == [b.state for b in other.candidates]
    assert one.reason == other.reason


@pytest.mark.parametrize("count", [1, 2, 3, 6, 11, 16])
def test_pruning_never_takes_more_than_twice_the_epochs_of_one_training(images: Path, count: int) -> None:
    adapter = training_samples.adapter()
    densities = [0.5 - number / 100 for number in range(count)]
    plan, pruning = stages_for(adapter, KIND, TRAINING, densities)
    assert [stage.density for stage in pruning] == densities[1:]
    assert [stage.start_density for stage in pruning] == densities[:-1]
    assert all(stage.epochs >= 1 for stage in pruning)
    assert sum(stage.epochs for stage in pruning) <= 2 * sum(stage.epochs for stage in plan)


def test_candidates_that_cannot_hold_the_dense_tensors_are_passed_over() -> None:
    adapter = training_samples.adapter()
    whole = sum(adapter.space.tensors[position].size for position in adapter.dense)
    share = whole / adapter.space.size
    densities = (4 * share, 2 * share, share / 2)
    assert candidate_densities(adapter, AutomaticSettings(densities=densities)) == densities[:2]
    with pytest.raises(ConfigError, match="the dense tensors alone take"):
        candidate_densities(adapter, AutomaticSettings(densities=densities[2:]))


def test_a_byte_limit_below_any_candidate_is_told_before_training() -> None:
    with pytest.raises(ConfigError, match="max_bytes = 1024, but the values of the smallest candidate, 1 %, take"):
        candidate_densities(training_samples.adapter(), AutomaticSettings(densities=(0.01,), max_bytes=1024))


def candidates(figures: Sequence[float], sizes: Sequence[int] | None = None) -> tuple[Candidate, ...]:
    """Return candidates of 5, 2, 1, 0.5 % and so on."""
    state = SparseDelta(bytes(32), Operation.SET, (TensorDelta(0, [0], [1.0]),))  # type: ignore[arg-type]
    epoch = Epoch("prune", 1, 1.0, None, 1, 0.0)
    densities = (0.05, 0.02, 0.01, 0.005)[: len(figures)]
    return tuple(
        Candidate(density, state, size, epoch, figure)
        for density, size, figure in zip(densities, sizes or [100] * len(figures), figures, strict=True)
    )


@pytest.mark.parametrize(
    ("figures", "metric", "tolerance", "expected"),
    [
        ([0.84, 0.845, 0.842, 0.83], "balanced_accuracy", 0.005, (1, 2)),
        ([0.84, 0.845, 0.842, 0.83], "balanced_accuracy", 0.0, (1, 1)),
        ([0.84, 0.84, 0.84, 0.84], "auroc", 0.0, (3, 3)),
        ([0.9, 0.7, 0.8, 0.6], "accuracy", 0.1, (0, 2)),
        ([0.30, 0.25, 0.26, 0.40], "loss", 0.02, (1, 2)),
        ([0.5], "balanced_accuracy", 0.1, (0, 0)),
    ],
)
def test_the_smallest_density_within_the_tolerance_of_the_best_is_chosen(
    figures: Sequence[float], metric: str, tolerance: float, expected: tuple[int, int]
) -> None:
    assert choose(candidates(figures), metric, tolerance, None) == expected


def test_no_candidate_over_the_byte_limit_is_chosen_however_good() -> None:
    offered = candidates([0.9, 0.8, 0.7, 0.69], [400, 300, 200, 100])
    assert choose(offered, "accuracy", 0.02, 250) == (2, 3)
    assert choose(offered, "accuracy", 0.0, 300) == (1, 1)
    with pytest.raises(ConfigError, match=r"max_bytes = 99, but the smallest candidate, 0\.5 %, takes 100"):
        choose(offered, "accuracy", 0.02, 99)


def test_the_reason_names_the_choice_the_best_and_the_next_smaller() -> None:
    offered = candidates([0.84, 0.845, 0.842, 0.831], [400, 300, 200, 100])
    reason = Choice(offered, 2, 1, "balanced_accuracy", 0.005, None, (), 2.0).reason
    assert reason == (
        "1 % of the coordinates: balanced accuracy 0.842, within 0.005 of the best, 0.845 at 2 %; "
        "the next smaller, 0.5 %, has 0.831"
    )
    limited = Choice(offered, 3, 3, "balanced_accuracy", 0.005, 150, (), 2.0).reason
    assert limited == (
        "0.5 % of the coordinates: balanced accuracy 0.831, the best of those that take at most 150 bytes; "
        "there is no smaller candidate"
    )

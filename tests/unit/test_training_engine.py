from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from fedsparse import config
from fedsparse.adapters import Adapter, Attachment
from fedsparse.delta import Operation, SparseDelta, TensorDelta, ValueCoding, encode
from fedsparse.errors import ConfigError, DataError, DeltaError, SpaceMismatchError
from fedsparse.sparsity import Support
from fedsparse.sparsity.structure import Tiling
from fedsparse.training import Epoch, LanguageQuality, Outcome, Quality, Selection, train
from fedsparse.training.batches import SCORED_SAMPLES, Batches
from fedsparse.training.losses import distillation_loss
from fedsparse.training.machine import Machine
from fedsparse.training.stages import density_changes, require_feasible
from fedsparse.training.tasks import answers

from .training_samples import Perceptron, classification, examination, perceptron, points, untouched

SIZE, HEAD = 499, 51  # coordinates of the perceptron's space, and of its head
FIRST, SECOND = (16, 12), (16, 16)
TILINGS = {
    structure: tuple(Tiling.of(shape, structure, 5) for shape in (FIRST, SECOND)) for structure in ("row", "block")
}


def stage(name: str = "few", **settings: Any) -> config.StageSettings:
    told = {"epochs": 2, "density": 0.2, "learning_rate": 3e-2, "head_learning_rate": 3e-2, **settings}
    return config.StageSettings(name=name, **told)


class Watched:
    """Notes the supports at the end of every epoch."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self.supports: list[Support] = []

    def __call__(self, epoch: Epoch) -> None:
        assert sum(map(len, self._adapter.support)) == epoch.nnz
        self.supports.append(self._adapter.support)


def run(
    *stages: config.StageSettings, adapter: Adapter | None = None, task: Any = None, **options: Any
) -> tuple[Outcome, list[Support]]:
    adapter = adapter or perceptron()
    watch = Watched(adapter)
    told = {"seed": (1,), "batch_size": 8, "watch": watch, **options}
    return train(adapter, task or classification(), untouched(adapter), stages, **told), watch.supports


def coded(outcome: Outcome) -> bytes:
    return encode(outcome.delta, perceptron().space, ValueCoding.FP32)


def norm(delta: SparseDelta) -> float:
    return float(np.sqrt(sum(np.square(part.values).sum() for part in delta.tensors)))


def holds(larger: Support, smaller: Support) -> bool:
    return all(set(b) <= set(a) for a, b in zip(larger, smaller, strict=True))


def weights(adapter: Adapter) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in adapter.network.parameters()]


MIXED = (
    stage("head", density=0),
    stage("few", density=0.2, l1=0.05),
    stage("grow", density=0.4, start_density=0.25, regrow=0.3),
    stage("prune", density=0.3, start_density=0.4),
)


def test_the_same_arguments_give_the_same_bytes_and_another_seed_others() -> None:
    options = {"selection": Selection(examination(), "accuracy"), "proximal": 0.1}
    one, two = run(*MIXED, **options)[0], run(*MIXED, **options)[0]
    assert coded(one) == coded(two)
    assert [epoch.loss for epoch in one.epochs] == [epoch.loss for epoch in two.epochs]
    assert coded(run(*MIXED, seed=(2,), **options)[0]) != coded(one)
    assert coded(run(*MIXED, seed=(1, 2), **options)[0]) != coded(one)


def test_training_starts_from_the_state_and_leaves_base_and_state_behind() -> None:
    adapter = perceptron()
    head = TensorDelta(2, np.arange(48), np.linspace(-1, 1, 48).astype(np.float32))
    state = SparseDelta(adapter.space.fingerprint, Operation.SET, (head,))
    before = weights(adapter.load(state))
    trained = train(adapter, classification(), state, MIXED, seed=(1,), batch_size=8)
    assert all(torch.equal(a, b) for a, b in zip(weights(adapter), before, strict=True))
    assert not any(parameter.requires_grad for parameter in adapter.network.parameters())
    assert trained.delta.operation == Operation.ADD
    assert coded(run(*MIXED)[0]) != coded(trained)


def test_training_lowers_the_loss() -> None:
    outcome, _ = run(stage(epochs=8))
    assert outcome.epochs[0].loss > 0.8
    assert outcome.epochs[-1].loss < 0.5
    assert [epoch.number for epoch in outcome.epochs] == [*range(1, 9)]
    assert outcome.loss == pytest.approx(np.mean([epoch.loss for epoch in outcome.epochs]))
    assert outcome.best == 8


class Failing:
    """A task whose loss fails, or is not finite, after some batches."""

    variants = 1
    samples = 48

    def __init__(self, batches: int, what: str) -> None:
        self._task = classification()
        self._left = batches
        self._what = what

    def start(self, network: nn.Module) -> None:
        pass

    def loss(self, *arguments: Any) -> torch.Tensor:
        self._left -= 1
        loss = self._task.loss(*arguments)
        if self._left >= 0:
            return loss
        if self._what == "error":
            raise DataError("the image has gone")
        return loss * float(self._what)


@pytest.mark.parametrize(("batches", "what"), [(3, "error"), (9, "error"), (20, "error"), (9, "nan"), (9, "inf")])
def test_a_run_that_fails_leaves_the_adapter_as_new(batches: int, what: str) -> None:
    adapter = perceptron()
    before = weights(adapter)
    with pytest.raises((DataError, DeltaError), match="gone" if what == "error" else "diverged in epoch 1"):
        run(stage("one"), stage("two", density=0.3), adapter=adapter, task=Failing(batches, what))
    assert all(torch.equal(a, b) for a, b in zip(weights(adapter), before, strict=True))
    assert coded(run(*MIXED, adapter=adapter)[0]) == coded(run(*MIXED)[0])


def test_a_foreign_state_is_refused() -> None:
    foreign = SparseDelta.empty(bytes(32), Operation.SET)
    with pytest.raises(SpaceMismatchError):
        train(perceptron(), classification(), foreign, MIXED, seed=(1,), batch_size=8)


def test_every_stage_keeps_to_its_density_and_holds_the_earlier_coordinates() -> None:
    densities = (0.0, 0.15, 0.15, 0.4)
    outcome, supports = run(*(stage(f"s{i}", density=density) for i, density in enumerate(densities)))
    limits = [HEAD, 74, 74, 199]
    assert [epoch.nnz for epoch in outcome.epochs] == [nnz for nnz in limits for _ in range(2)]
    assert [len(supports[0][i]) for i in range(4)] == [0, 0, 48, 3]
    assert all(holds(b, a) for a, b in pairwise(supports))
    assert [end.epoch.stage for end in outcome.ends] == ["s0", "s1", "s2", "s3"]
    assert all(0 < end.delta.nnz <= limit for end, limit in zip(outcome.ends, limits, strict=True))
    assert outcome.delta == outcome.ends[-1].delta


def test_a_stage_of_density_0_trains_the_head_alone_with_its_own_rate() -> None:
    outcome, _ = run(stage(density=0, learning_rate=1.0, head_learning_rate=1e-3, regrow=0.5))
    assert [part.tensor for part in outcome.delta.tensors] == [2, 3]
    assert max(np.abs(part.values).max() for part in outcome.delta.tensors) < 0.02


@pytest.mark.parametrize(
    ("stages", "match"),
    [
        ((), "no stage"),
        ((stage("low", density=0.05),), "dense tensors alone have 51"),
        ((stage("low", start_density=0.05),), "dense tensors alone have 51"),
        (
            (stage("a"), stage("b", density=0.12, start_density=0.2, structure="row")),
            "'b' .* leaves 8 coordinates",
        ),
        ((stage("a", density=0.3), stage("b")), "'b' begins at density 0.2, but earlier ones train 0.3"),
        ((stage("a"), stage("head", density=0)), "'head' begins at density 0.0, but earlier"),
        ((stage("a"), stage("b", source="seeded")), "'b' draws its coordinates"),
        ((stage("a"), stage("b", structure="row", regrow=0.1)), "'b' exchanges whole rows"),
        (
            (stage("a", structure="block", block=2), stage("b", structure="block", block=4, regrow=0.1)),
            "'b' exchanges whole blocks",
        ),
    ],
)
def test_stages_that_cannot_follow_each_other_are_refused_before_any_is_trained(
    stages: Sequence[config.StageSettings], match: str
) -> None:
    with pytest.raises(ConfigError, match=match):
        run(*stages, task=Failing(0, "error"))


def test_a_stage_of_density_0_needs_dense_tensors() -> None:
    with pytest.raises(ConfigError, match="density 0 trains the dense tensors alone, but there are none"):
        run(stage(density=0), adapter=perceptron(dense=()))


def test_a_density_that_has_no_room_for_one_unit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"leaves 8 coordinates.*less than one unit of structure 'row'"):
        run(stage(density=0.12, structure="row"))
    with pytest.raises(ConfigError, match="leaves 0 coordinates"):
        run(stage(density=0.001), adapter=perceptron(dense=()))


def test_no_samples_are_an_error() -> None:
    task = Failing(9, "error")
    task.samples = 0
    with pytest.raises(DataError, match="no sample"):
        run(stage(), task=task)


@pytest.mark.parametrize("structure", ["row", "block"])
@pytest.mark.parametrize("start", [None, 0.25, 0.7], ids=["constant", "growing", "pruning"])
@pytest.mark.parametrize("allocation", ["global", "uniform"])
def test_rows_and_blocks_stay_whole(structure: str, start: float | None, allocation: str) -> None:
    settings: dict[str, Any] = {
        "structure": structure,
        "block": 5,
        "allocation": allocation,
        "start_density": start,
    }
    outcome, supports = run(stage(epochs=3, density=0.5, regrow=0.4, **settings))
    for support in supports:
        for tiling, indices in zip(TILINGS[structure], support, strict=False):
            assert tiling.size_of(np.unique(tiling.units_of(indices))) == len(indices)
    assert HEAD < outcome.epochs[-1].nnz <= 249
    assert start == 0.25 or not holds(supports[1], supports[0])  # some were exchanged or pruned


@pytest.mark.parametrize(("structure", "block"), [("block", 5), ("row", None), ("unstructured", None)])
def test_only_blocks_tell_the_adapter_their_side(
    structure: str, block: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = perceptron()
    told = []
    attach = adapter.attach

    def noted(support: Support, side: int | None = None) -> Attachment:
        told.append(side)
        return attach(support, side)

    monkeypatch.setattr(adapter, "attach", noted)
    run(stage("a", structure=structure, block=5, regrow=0.5), adapter=adapter)
    assert told == [block, block]


@pytest.mark.parametrize("start", [0.15, 0.6])
@pytest.mark.parametrize("epochs", [1, 2, 5])
@pytest.mark.parametrize("batch_size", [8, 48, 1000])
def test_a_density_schedule_ends_at_its_density_in_stages_of_any_length(
    start: float, epochs: int, batch_size: int
) -> None:
    outcome, supports = run(stage(epochs=epochs, density=0.3, start_density=start), batch_size=batch_size)
    assert outcome.epochs[-1].nnz == 149
    assert sum(map(len, supports[-1])) == 149
    counts = [epoch.nnz for epoch in outcome.epochs]
    assert counts == sorted(counts, reverse=start > 0.3)
    growing = [(a, b) if start < 0.3 else (b, a) for a, b in pairwise(supports)]
    assert all(holds(larger, smaller) for smaller, larger in growing)


def test_pruning_keeps_the_largest_values() -> None:
    outcome, supports = run(
        stage("a", density=0.6), stage("b", epochs=1, density=0.3, start_density=0.6), batch_size=48
    )
    before = {
        (part.tensor, index): abs(value)
        for part in outcome.ends[0].delta.tensors
        for index, value in zip(part.indices.tolist(), part.values.tolist(), strict=True)
        if part.tensor < 2
    }
    after = {(tensor, index) for tensor in range(2) for index in supports[-1][tensor].tolist()}
    kept = [size for place, size in before.items() if place in after]
    dropped = [size for place, size in before.items() if place not in after]
    assert len(kept) == 149 - HEAD
    assert min(kept) > max(dropped) - 0.021  # one step at the full rate lies between


def test_pruning_to_density_0_leaves_the_head() -> None:
    outcome, _ = run(stage("a"), stage("b", density=0, start_density=0.2))
    assert outcome.epochs[-1].nnz == HEAD
    assert [part.tensor for part in outcome.delta.tensors] == [2, 3]


def test_the_density_changes_ten_times_and_early_enough_to_train_at_the_last() -> None:
    changes = density_changes(stage(density=0.1, start_density=0.5), 100)
    assert [*changes] == [9, 18, 27, 36, 45, 54, 63, 72, 81, 90]
    assert changes[45] == pytest.approx(0.15)
    assert changes[90] == 0.1
    assert density_changes(stage(), 100) == {}
    for steps in range(1, 60):
        changes = density_changes(stage(density=0.1, start_density=0.5), steps)
        assert min(changes) >= 1
        assert max(changes) < steps or steps == 1
        assert changes[max(changes)] == 0.1


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_a_handful_of_samples_is_enough(samples: int) -> None:
    outcome, _ = run(stage(regrow=0.5), task=classification(samples), batch_size=2)
    assert outcome.delta.nnz > 0
    assert outcome.epochs[0].loss > outcome.epochs[-1].loss


def test_every_sample_is_in_one_batch_of_an_epoch_in_a_drawn_variant() -> None:
    batches = Batches(classification(21), 8, (3,))
    positions, variants = zip(*batches.epoch(), strict=True)
    assert batches.per_epoch == 3
    assert [len(part) for part in positions] == [8, 8, 5]
    assert sorted(np.concatenate(positions)) == [*range(21)]
    assert set(np.concatenate(variants)) == {0, 1}
    assert not np.array_equal(np.concatenate(positions), np.concatenate([part for part, _ in batches.epoch()]))


def test_an_l1_penalty_makes_zeros_that_are_not_in_the_delta() -> None:
    found = []
    for l1 in (0.0, 0.1, 0.3, 0.99):
        outcome, supports = run(stage(epochs=6, density=0.5, l1=l1))
        assert sum(map(len, supports[-1])) == 249
        found.append(sum(len(part.values) for part in outcome.delta.tensors if part.tensor < 2))
        assert all(np.all(part.values != 0) for part in outcome.delta.tensors)
    assert found[0] > found[1] > found[2] > found[3]
    assert found[0] == 249 - HEAD
    assert found[3] < 20


def test_regrowing_exchanges_coordinates_after_every_epoch_but_the_last_and_keeps_their_number() -> None:
    outcome, supports = run(stage(epochs=4, density=0.3, regrow=0.5))
    assert [epoch.nnz for epoch in outcome.epochs] == [149] * 4
    sizes = [tuple(map(len, support)) for support in supports]
    assert len(set(sizes)) == 1
    new = [
        sum(len(np.setdiff1d(b, a)) for a, b in zip(one, other, strict=True)) for one, other in pairwise(supports)
    ]
    held = sizes[0][:2]
    assert new == [sum(int(share * count) for count in held) for share in (0.5, 0.25 * (1 + 0.5**0.5), 0.25)]


def test_a_proximal_term_holds_the_values_near_the_state() -> None:
    norms = [norm(run(stage(epochs=4), proximal=strength)[0].delta) for strength in (0.0, 0.1, 1.0, 10.0)]
    assert norms == sorted(norms, reverse=True)
    assert norms[3] < 0.5 * norms[0]


def test_distillation_keeps_the_answers_near_those_of_the_start() -> None:
    adapter, (inputs, _) = perceptron(), points(48)
    start = answers(adapter.network, inputs, 48, Machine())
    found = []
    for weight in (0.0, 1.0, 10.0):
        task = classification(objective=config.ObjectiveSettings(distillation=weight))
        delta = run(stage(epochs=6), adapter=adapter, task=task)[0].delta
        adapter.load(SparseDelta(delta.space, Operation.SET, delta.tensors))
        found.append(float(distillation_loss(answers(adapter.network, inputs, 48, Machine()), start, 1.0)))
        adapter.load(untouched(adapter))
    assert found[0] > 2 * found[1] > 4 * found[2]


class Scripted:
    """An exam whose figures are given in advance."""

    def __init__(self, *qualities: Quality | LanguageQuality) -> None:
        self._left = list(qualities)

    def quality(self, network: nn.Module) -> Quality | LanguageQuality:
        return self._left.pop(0)


def quality(figure: float | None, loss: float = 1.0) -> Quality:
    return Quality(figure or 0.0, figure or 0.0, 60, 0.0, figure, None, figure or 0.0, loss)


def chosen(metric: str, *qualities: Quality | LanguageQuality, patience: int = 0, **settings: Any) -> Outcome:
    stages = [stage("only", epochs=len(qualities), **settings)]
    return run(*stages, selection=Selection(Scripted(*qualities), metric, patience))[0]


@pytest.mark.parametrize(
    ("metric", "qualities", "best"),
    [
        ("accuracy", [quality(0.5), quality(0.9), quality(0.7)], 2),
        ("calibration_error", [quality(0.5), quality(0.1), quality(0.7)], 2),
        ("loss", [quality(0.5, 3), quality(0.9, 2), quality(0.1, 1)], 3),
        ("accuracy", [quality(0.9, 3), quality(0.9, 1), quality(0.9, 2)], 2),
        ("accuracy", [quality(0.9, 1), quality(0.9, 1)], 1),
        ("auroc", [quality(None, 2), quality(None, 1), quality(None, 3)], 2),
        ("recall_at_false_alarm", [quality(0.9, 2), quality(0.1, 1)], 2),
        ("accuracy", [LanguageQuality(1.0, 0.2, 3), LanguageQuality(2.0, 0.4, 3)], 2),
        ("macro_f1", [LanguageQuality(1.0, 0.2, 3), LanguageQuality(2.0, 0.4, 3)], 1),
    ],
)
def test_the_best_epochs_values_are_returned(metric: str, qualities: list[Any], best: int) -> None:
    outcome = chosen(metric, *qualities)
    assert outcome.best == best
    assert [epoch.quality for epoch in outcome.epochs] == qualities
    alone = _after(best, len(qualities))
    assert outcome.delta == alone


def _after(epoch: int, epochs: int) -> SparseDelta:
    """Return the values after one epoch of the same run."""
    adapter = perceptron()
    found: list[SparseDelta] = []
    train(
        adapter,
        classification(),
        untouched(adapter),
        [stage("only", epochs=epochs)],
        seed=(1,),
        batch_size=8,
        watch=lambda _: found.append(adapter.trained()),
    )
    return found[epoch - 1]


def test_an_unknown_metric_is_refused() -> None:
    with pytest.raises(ConfigError, match="metric 'f1' is unknown"):
        Selection(examination(), "f1")


def test_patience_ends_a_stage_and_not_the_next_one() -> None:
    figures = [0.5, 0.6, 0.6, 0.6, 0.4, 0.5, 0.45, 0.45, 0.9]
    selection = Selection(Scripted(*(quality(figure) for figure in figures)), "accuracy", patience=2)
    outcome, _ = run(
        stage("one", epochs=9),
        stage("two", epochs=9, density=0.3),
        stage("three", epochs=1, density=0.4),
        selection=selection,
    )
    assert [epoch.stage for epoch in outcome.epochs] == ["one"] * 4 + ["two"] * 4 + ["three"]
    assert [end.epoch.number for end in outcome.ends] == [4, 8, 9]
    assert outcome.best == 9


def test_patience_is_counted_from_where_the_density_is_reached() -> None:
    falling = [quality(0.9 - 0.05 * i) for i in range(10)]
    outcome = chosen("accuracy", *falling, patience=1, density=0.2, start_density=0.6)
    assert [epoch.nnz for epoch in outcome.epochs][-2:] == [99, 99]
    assert len(outcome.epochs) == 10  # the ninth is the first at the density, the tenth is no better
    assert outcome.best == 9


def test_the_best_epoch_keeps_to_the_last_stages_density() -> None:
    figures = [0.9, 0.8, 0.5, 0.6, 0.55]
    selection = Selection(Scripted(*(quality(figure) for figure in figures)), "accuracy")
    outcome, _ = run(
        stage("a", density=0.6), stage("b", epochs=3, density=0.3, start_density=0.6), selection=selection
    )
    assert [epoch.nnz <= 149 for epoch in outcome.epochs] == [False, False, False, False, True]
    assert outcome.best == 5
    assert outcome.delta.nnz <= 149


def test_a_real_hold_out_chooses_the_epoch_with_the_best_figure() -> None:
    exam = examination()
    outcome, _ = run(stage(epochs=6, learning_rate=0.05), selection=Selection(exam, "loss"))
    losses = [epoch.quality.loss for epoch in outcome.epochs if epoch.quality is not None]
    assert outcome.best == 1 + int(np.argmin(losses))
    adapter = perceptron()
    state = SparseDelta(outcome.delta.space, Operation.SET, outcome.delta.tensors)
    assert exam.quality(adapter.load(state).network).loss == pytest.approx(min(losses), rel=1e-4)


class Counting:
    """Notes which samples are asked for."""

    variants = 1

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.asked: list[NDArray[np.int64]] = []

    def start(self, network: nn.Module) -> None:
        pass

    def loss(self, network: nn.Module, samples: NDArray[np.int64], *rest: Any) -> torch.Tensor:
        self.asked.append(samples)
        return network(torch.zeros(len(samples), 12)).sum()


def test_scoring_looks_at_a_limited_number_of_samples_drawn_once() -> None:
    task = Counting(1000)
    network = Perceptron().requires_grad_(True)
    losses = Batches(task, 100, (1,)).scoring(network)
    once = [loss().item() for loss in losses]
    again = [loss().item() for loss in losses]
    assert [len(part) for part in task.asked] == [100, 100, 56] * 2
    assert all(np.array_equal(a, b) for a, b in zip(task.asked[:3], task.asked[3:], strict=True))
    assert len(np.unique(np.concatenate(task.asked[:3]))) == SCORED_SAMPLES
    assert once == again


def test_scoring_losses_are_the_same_at_every_call_also_where_batches_are_mixed() -> None:
    task = classification(augmentation=config.AugmentationSettings(mixup=1.0))
    losses = Batches(task, 16, (1,)).scoring(Perceptron())
    once = [loss().item() for loss in losses]
    assert once == [loss().item() for loss in losses]
    assert len(set(once)) == 3


def test_stages_are_checked_against_the_space_alone() -> None:
    space = perceptron().space
    require_feasible(space, (2, 3), MIXED)
    drawn = stage("drawn", source="seeded")
    require_feasible(space, (2, 3), [stage("head", density=0), drawn, drawn, stage("scored", density=0.4)])
    require_feasible(space, (2, 3), [stage("a", structure="row"), stage("b", regrow=0.5)])


@pytest.mark.parametrize("allocation", ["global", "uniform", "early"])
def test_a_later_stage_reaches_its_density_also_where_a_tensor_is_full(allocation: str) -> None:
    few, final = (
        stage(name, density=density, allocation=allocation) for name, density in (("a", 0.4), ("b", 0.9))
    )
    outcome, supports = run(few, final)
    assert [epoch.nnz for epoch in outcome.epochs] == [199, 199, 449, 449]
    if allocation == "early":
        assert [[len(part) for part in support[:2]] for support in supports[::2]] == [[148, 0], [192, 206]]


@pytest.mark.parametrize("allocation", ["global", "uniform", "early"])
def test_pruning_reaches_its_density_also_where_little_of_a_tensor_is_held(allocation: str) -> None:
    first = "early" if allocation == "uniform" else "global"
    outcome, supports = run(
        stage("a", density=0.4, allocation=first),
        stage("b", density=0.3, start_density=0.4, allocation=allocation),
    )
    held = [len(part) for part in supports[0][:2]]
    assert sum(held) == 148
    assert outcome.epochs[-1].nnz == 149
    if allocation == "early":
        assert [len(part) for part in supports[-1][:2]] == [held[0], 98 - held[0]]

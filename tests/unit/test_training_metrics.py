from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss, roc_auc_score

from fedsparse.errors import ConfigError, DataError
from fedsparse.training.metrics import METRICS, Interval, Quality, intervals, measure
from fedsparse.training.resampling import Floats, Labels, draw_weights, weighted_figures

# Two classes: four samples to be found, five others; at 0.6 one of each is tied.
LABELS = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0])
FOUND = np.array([0.9, 0.8, 0.6, 0.3, 0.85, 0.6, 0.2, 0.1, 0.05])
TWO = np.stack([1 - FOUND, FOUND], 1)


def _set(samples: int, classes: int, seed: int = 0, decimals: int = 6) -> tuple[Labels, Floats]:
    """Draw labels, every class at least once, and probabilities that lean towards them; few decimals make ties."""
    draw = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), draw.integers(classes, size=samples - classes)])
    logits = draw.normal(size=(samples, classes)) + 1.5 * np.eye(classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    probabilities = probabilities.round(decimals) + 10.0 ** -(decimals + 1)  # none is 0
    probabilities /= probabilities.sum(1, keepdims=True)
    return labels, probabilities


def _defined(quality: Quality) -> dict[str, float]:
    return {name: getattr(quality, name) for name in METRICS if getattr(quality, name) is not None}


def test_the_figures_of_nine_samples_are_those_computed_by_hand() -> None:
    quality = measure(LABELS, TWO, false_alarm_rate=0.2)
    assert quality.samples == 9
    assert quality.accuracy == pytest.approx(6 / 9)
    assert quality.balanced_accuracy == pytest.approx((3 / 4 + 3 / 5) / 2)
    assert quality.macro_f1 == pytest.approx((6 / 9 + 6 / 9) / 2)
    assert quality.auroc == pytest.approx((5 + 4 + 3.5 + 3) / 20)
    assert quality.recall_at_false_alarm == 0.5  # 0.8 finds two of four for one alarm in five
    right = [0.9, 0.8, 0.6, 0.3, 0.15, 0.4, 0.8, 0.9, 0.95]
    assert quality.loss == pytest.approx(-np.log(right).mean())


@pytest.mark.parametrize(("rate", "recall"), [(0.0, 0.25), (0.19, 0.25), (0.2, 0.5), (0.39, 0.5), (0.4, 1.0)])
def test_recall_takes_the_best_threshold_within_the_rate_of_false_alarms(rate: float, recall: float) -> None:
    assert measure(LABELS, TWO, false_alarm_rate=rate).recall_at_false_alarm == recall


def test_recall_considers_thresholds_on_a_straight_stretch_of_the_curve() -> None:
    found = np.repeat([0.9, 0.7, 0.5, 0.3], 2)
    quality = measure(np.array([1, 0] * 4), np.stack([1 - found, found], 1), false_alarm_rate=0.6)
    assert quality.recall_at_false_alarm == 0.5


def test_an_alarm_on_everything_alike_finds_nothing_within_the_rate() -> None:
    assert measure(LABELS, np.full((9, 2), 0.5)).recall_at_false_alarm == 0.0


def test_either_of_two_classes_can_be_the_positive_one() -> None:
    found, others = measure(LABELS, TWO), measure(1 - LABELS, TWO[:, ::-1], positive=0)
    assert _defined(found) == pytest.approx(_defined(others))
    assert measure(LABELS, TWO, positive=0).auroc == pytest.approx(found.auroc)
    assert measure(LABELS, TWO, positive=0, false_alarm_rate=0.25).recall_at_false_alarm == 0.6


def test_calibration_error_weighs_the_gap_of_each_bin_by_its_samples() -> None:
    confident = np.array([0.95, 0.95, 0.95, 0.95, 0.65, 0.65])
    quality = measure(np.array([1, 1, 1, 0, 1, 1]), np.stack([1 - confident, confident], 1))
    assert quality.calibration_error == pytest.approx((4 * 0.2 + 2 * 0.35) / 6)


def test_certain_answers_have_no_calibration_error_when_right_and_a_bounded_loss_when_wrong() -> None:
    certain = np.eye(2)[[0, 1, 1]]
    right, wrong = measure(np.array([0, 1, 1]), certain), measure(np.array([1, 0, 0]), certain)
    assert (right.calibration_error, right.loss) == (0, 0)
    assert wrong.calibration_error == 1
    assert wrong.loss == pytest.approx(-np.log(1e-12))


@pytest.mark.parametrize(("samples", "classes"), [(61, 22), (200, 3)])
def test_figures_of_many_classes_agree_with_scikit_learn(samples: int, classes: int) -> None:
    labels, probabilities = _set(samples, classes)
    answers = probabilities.argmax(1)
    quality = measure(labels, probabilities)
    assert quality.balanced_accuracy == pytest.approx(balanced_accuracy_score(labels, answers))
    assert quality.macro_f1 == pytest.approx(f1_score(labels, answers, average="macro"))
    assert quality.auroc == pytest.approx(roc_auc_score(labels, probabilities, multi_class="ovr"))
    assert quality.loss == pytest.approx(log_loss(labels, probabilities))
    assert quality.recall_at_false_alarm is None


@pytest.mark.filterwarnings("error")
def test_classes_that_do_not_occur_are_left_out_of_the_means() -> None:
    labels = np.array([0, 0, 0, 0, 2, 2])
    probabilities = np.full((6, 4), 0.1)
    probabilities[np.arange(6), [0, 0, 0, 0, 2, 1]] = 0.7
    quality = measure(labels, probabilities)
    assert quality.balanced_accuracy == 0.75
    assert quality.macro_f1 == pytest.approx((1 + 2 / 3) / 2)
    assert quality.auroc == pytest.approx((1 + 3 / 4) / 2)
    assert quality.accuracy == pytest.approx(5 / 6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("classes", [2, 5])
def test_a_set_of_one_class_has_no_ranking_figures_and_all_others(classes: int) -> None:
    labels, probabilities = np.ones(3, np.int64), np.full((3, classes), 1 / classes)
    quality = measure(labels, probabilities)
    assert (quality.auroc, quality.recall_at_false_alarm) == (None, None)
    assert quality.balanced_accuracy == 0  # the first of equals is the answer
    assert quality.loss == pytest.approx(np.log(classes))
    assert set(intervals(labels, probabilities, resamples=5)) == set(_defined(quality))


def test_single_precision_probabilities_are_measured_as_double_ones() -> None:
    labels, probabilities = _set(300, 5)
    single = measure(labels, probabilities.astype(np.float32))
    assert _defined(single) == pytest.approx(_defined(measure(labels, probabilities)), abs=1e-6)


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [
        ([], np.empty((0, 2))),
        ([0, 1], np.full((3, 2), 0.5)),
        ([[0, 1]], np.full((1, 2), 0.5)),
        ([0, 1], np.array([0.5, 0.5])),
        ([0, 0], np.ones((2, 1))),
        ([0, 2], np.full((2, 2), 0.5)),
        ([-1, 1], np.full((2, 2), 0.5)),
        ([0, 1], np.array([[0.5, 0.5], [np.nan, 0.5]])),
        ([0, 1], np.array([[0.5, 0.5], [np.inf, 0.5]])),
        ([0, 1], np.array([[0.5, 0.5], [-0.5, 1.5]])),
        ([0, 1], np.array([[0.5, 0.5], [0.5, 0.502]])),
    ],
)
def test_what_cannot_be_measured_is_a_data_error(labels: list[int], probabilities: Floats) -> None:
    with pytest.raises(DataError):
        measure(np.array(labels, np.int64), probabilities)
    with pytest.raises(DataError):
        intervals(np.array(labels, np.int64), probabilities)


@pytest.mark.parametrize(
    "settings",
    [{"positive": 2}, {"positive": -1}, {"false_alarm_rate": -0.1}, {"false_alarm_rate": float("nan")}],
)
def test_a_setting_out_of_range_is_a_config_error(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        measure(LABELS, TWO, **settings)


@pytest.mark.parametrize("settings", [{"level": 1.0}, {"level": 0.0}, {"resamples": 0}])
def test_an_interval_needs_a_level_and_resamples(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="resamples"):
        intervals(LABELS, TWO, **settings)


def test_every_figure_but_the_size_can_choose_a_model() -> None:
    assert set(METRICS) == {field.name for field in fields(Quality)} - {"samples"}
    assert [name for name, larger in METRICS.items() if not larger] == ["calibration_error", "loss"]


@pytest.mark.parametrize(
    ("labels", "probabilities"),
    [
        (LABELS, TWO),
        (LABELS, np.full((9, 2), 0.5)),
        (LABELS, np.eye(2)[[0] * 9]),
        _set(80, 2),
        _set(80, 2, decimals=1),
        _set(61, 22),
        _set(60, 3, decimals=1),
    ],
)
def test_a_resampled_set_has_the_figures_of_its_samples_repeated(labels: Labels, probabilities: Floats) -> None:
    (weights,) = draw_weights(labels, 8, np.random.default_rng(3))
    figures = weighted_figures(labels, probabilities, weights, 1, 0.2)
    for row, drawn in enumerate(weights.astype(int)):
        again = measure(np.repeat(labels, drawn), np.repeat(probabilities, drawn, axis=0), false_alarm_rate=0.2)
        assert {name: values[row] for name, values in figures.items()} == pytest.approx(_defined(again))


def test_resampling_keeps_the_size_of_every_class_and_draws_what_was_asked_for() -> None:
    labels = np.repeat([0, 1, 4], [1, 1500, 3])
    drawn = list(draw_weights(labels, 1000, np.random.default_rng(0)))
    weights = np.concatenate(drawn)
    assert len(drawn) > 1
    assert weights.shape == (1000, 1504)
    assert all((weights[:, labels == label].sum(1) == size).all() for label, size in ((0, 1), (1, 1500), (4, 3)))
    assert weights.mean(0)[1:1501].std() < 0.05  # every sample is as likely as the others


def test_intervals_hold_the_figures_and_narrow_as_the_set_grows() -> None:
    widths = []
    for samples in (100, 1600):
        labels, probabilities = _set(samples, 2)
        quality, found = measure(labels, probabilities), intervals(labels, probabilities, resamples=400)
        assert set(found) == set(METRICS)
        assert all(found[name].low <= value <= found[name].high for name, value in _defined(quality).items())
        widths.append({name: interval.high - interval.low for name, interval in found.items()})
    few, many = widths
    for name in ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "loss"):
        assert 2.5 < few[name] / many[name] < 6  # a sixteenfold set, a quarter of the width


def test_the_width_is_that_of_the_normal_approximation() -> None:
    labels = np.repeat([0, 1], 500)
    found = np.where(np.arange(1000) % 5 == 0, 0.5 - 0.4 * (2 * labels - 1), 0.5 + 0.4 * (2 * labels - 1))
    interval = intervals(labels, np.stack([1 - found, found], 1))["accuracy"]  # four in five are right
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * np.sqrt(0.8 * 0.2 / 1000), rel=0.1)
    wider = intervals(labels, np.stack([1 - found, found], 1), level=0.99)["accuracy"]
    assert wider.low < interval.low < 0.8 < interval.high < wider.high


def test_most_intervals_hold_the_true_accuracy() -> None:
    draw, held = np.random.default_rng(1), 0
    for _ in range(60):
        labels = draw.integers(2, size=150)
        found = np.where(draw.random(150) < 0.75, labels, 1 - labels) * 0.8 + 0.1
        interval = intervals(labels, np.stack([1 - found, found], 1), resamples=200)["accuracy"]
        held += interval.low <= 0.75 <= interval.high
    assert 52 <= held <= 60


def test_the_seed_decides_the_intervals() -> None:
    first = intervals(LABELS, TWO, resamples=50, seed=1)
    assert first == intervals(LABELS, TWO, resamples=50, seed=1)
    assert first != intervals(LABELS, TWO, resamples=50, seed=2)


def test_a_class_with_one_sample_keeps_its_place_in_every_resampled_set() -> None:
    found = intervals(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]), resamples=20)
    assert found["balanced_accuracy"] == Interval(1.0, 1.0)
    assert found["auroc"] == Interval(1.0, 1.0)

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsparse.config import AugmentationSettings
from fedsparse.training.mixing import mix

COUNT = 8
TARGETS = torch.eye(COUNT)


def numbered(height: int = 20, width: int = 30, channels: int = 2) -> Tensor:
    """Return a batch whose sample i is i everywhere."""
    return torch.arange(float(COUNT)).view(COUNT, 1, 1, 1).repeat(1, channels, height, width)


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_without_strengths_the_very_arguments_come_back() -> None:
    inputs = numbered()
    random = draw()
    before = random.bit_generator.state
    mixed, targets = mix(inputs, TARGETS, AugmentationSettings(), random)
    assert mixed is inputs
    assert targets is TARGETS
    assert random.bit_generator.state == before


@pytest.mark.parametrize("settings", [AugmentationSettings(mixup=0.4), AugmentationSettings(cutmix=1)])
@pytest.mark.parametrize("shape", [(3, 32, 32), (80, 4, 6), (5, 1, 1)])
def test_pixels_and_activations_keep_their_shape_and_the_arguments_stay_as_they_were(
    settings: AugmentationSettings, shape: tuple[int, ...]
) -> None:
    inputs, targets = torch.rand(COUNT, *shape), TARGETS.clone()
    before = inputs.clone()
    for seed in range(8):
        mixed, labels = mix(inputs, targets, settings, draw(seed))
        assert mixed.shape == inputs.shape
        assert labels.shape == targets.shape
        assert (mixed.dtype, labels.dtype) == (torch.float32, torch.float32)
        torch.testing.assert_close(labels.sum(1), torch.ones(COUNT))
    assert torch.equal(inputs, before)
    assert torch.equal(targets, TARGETS)


def test_mixup_blends_samples_and_labels_with_one_weight() -> None:
    inputs = torch.rand(COUNT, 3, 5, 5)
    mixed, labels = mix(inputs, TARGETS, AugmentationSettings(mixup=1), draw())
    # one-hot targets name their sample, so the labels spell out the blend of the samples
    torch.testing.assert_close(mixed, torch.einsum("ij,jchw->ichw", labels, inputs))
    weights = {round(float(row[i]), 5) for i, row in enumerate(labels) if row[i] < 1}
    assert len(weights) == 1
    assert 0 < weights.pop() < 1


def test_mixup_weights_follow_the_beta_distribution() -> None:
    inputs = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    random = draw()
    mixed = [mix(inputs, torch.eye(2), AugmentationSettings(mixup=0.5), random)[0] for _ in range(2000)]
    swapped = np.array([float(values[0]) for values in mixed if float(values[0] + values[1]) == pytest.approx(1)])
    # half the permutations of two are the identity and leave 0 and 1; the others show 1 − λ
    shown = swapped[swapped > 0]
    assert len(shown) == pytest.approx(1000, abs=100)
    assert shown.mean() == pytest.approx(0.5, abs=0.04)
    assert shown.var() == pytest.approx(1 / 8, abs=0.015)  # of Beta(½, ½)


def test_cutmix_pastes_one_rectangle_and_weighs_labels_by_its_exact_area() -> None:
    inputs = numbered()
    areas = set()
    for seed in range(50):
        mixed, labels = mix(inputs, TARGETS, AugmentationSettings(cutmix=1), draw(seed))
        pasted = mixed != inputs
        for i in range(COUNT):
            sources = mixed[i][pasted[i]].unique()
            if len(sources) == 0:  # nothing was pasted, or the sample itself
                assert torch.equal(labels[i], TARGETS[i])
                continue
            share = int(pasted[i, 0].sum()) / 600
            torch.testing.assert_close(labels[i], TARGETS[i] * (1 - share) + TARGETS[int(sources)] * share)
            assert torch.equal(pasted[i, 0], pasted[i, 1])
            rows, columns = pasted[i, 0].any(1), pasted[i, 0].any(0)
            assert torch.equal(pasted[i, 0], rows[:, None] & columns[None, :])
            assert int(rows.diff().sum()) + int(columns.diff().sum()) <= 4
            areas.add(share)
    assert len(areas) > 30


def test_cutmix_of_a_whole_sample_takes_its_whole_label() -> None:
    inputs = numbered(1, 1)
    for seed in range(20):
        mixed, labels = mix(inputs, TARGETS, AugmentationSettings(cutmix=1), draw(seed))
        assert torch.equal(labels, torch.eye(COUNT)[mixed[:, 0, 0, 0].long()])


def test_soft_targets_are_mixed_as_they_are() -> None:
    targets = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    inputs = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    for seed in range(8):
        mixed, labels = mix(inputs, targets, AugmentationSettings(mixup=1), draw(seed))
        share = mixed[:, 0, 0, 0]
        torch.testing.assert_close(labels[:, 0], 0.9 + share * (0.2 - 0.9))


def test_both_ways_take_turns_with_equal_chance() -> None:
    inputs = numbered()
    random = draw()
    settings = AugmentationSettings(mixup=1, cutmix=1)
    # only a blend makes values that no sample had
    blends = sum(bool((mix(inputs, TARGETS, settings, random)[0] % 1 > 0.001).any()) for _ in range(400))
    assert blends == pytest.approx(200, abs=40)


@pytest.mark.parametrize("settings", [AugmentationSettings(mixup=1), AugmentationSettings(cutmix=1)])
def test_the_same_draw_gives_the_same_batch(settings: AugmentationSettings) -> None:
    inputs = torch.rand(COUNT, 3, 16, 16)
    first, again, other = (mix(inputs, TARGETS, settings, draw(seed)) for seed in (5, 5, 6))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])

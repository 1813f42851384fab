from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import Tensor

from fedsparse.config import AugmentationSettings
from fedsparse.training.augmentation import vary

STEPS = {
    "rotate": 10.0,
    "shift": 0.1,
    "zoom": 0.2,
    "brightness": 0.2,
    "contrast": 0.3,
    "illumination": 0.2,
    "noise": 0.05,
    "blur": 1.5,
}
EVERYTHING = AugmentationSettings.model_validate(STEPS)
EXTREME = AugmentationSettings(
    rotate=180, shift=0.5, zoom=0.9, brightness=1, contrast=1, illumination=1, noise=1, blur=32
)


def only(**strengths: float) -> AugmentationSettings:
    return AugmentationSettings.model_validate({"flips": (), **strengths})


def photographs(count: int = 4, side: int = 32) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def grey(level: float, count: int = 64, side: int = 32) -> Tensor:
    return torch.full((count, 3, side, side), level)


def centres(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the mass of each image lies, (n,) rightwards and (n,) downwards from the centre, in pixels."""
    side = images.shape[-1]
    mass = images.mean(1)
    place = torch.arange(side) - (side - 1) / 2
    total = mass.sum((1, 2))
    return (mass.sum(1) * place).sum(1) / total, (mass.sum(2) * place).sum(1) / total


def dot(right: int, count: int = 64, side: int = 65) -> Tensor:
    images = torch.zeros(count, 3, side, side)
    images[:, :, side // 2 - 1 : side // 2 + 2, side // 2 + right - 1 : side // 2 + right + 2] = 1
    return images


def test_variant_0_is_the_images_themselves() -> None:
    images = photographs()
    assert vary(images, 0, EXTREME, seed=3) is images


@pytest.mark.parametrize(
    ("flips", "axes"),
    [
        (("horizontal", "vertical"), [(), (3,), (2,), (2, 3)]),
        (("vertical", "horizontal"), [(), (3,), (2,), (2, 3)]),
        (("horizontal",), [(), (3,), (), (3,)]),
        (("vertical",), [(), (2,), (), (2,)]),
        ((), [(), (), (), ()]),
    ],
)
def test_variants_without_strengths_are_the_exact_flips_in_turn(
    flips: tuple[str, ...], axes: list[tuple[int, ...]]
) -> None:
    images = photographs()
    settings = AugmentationSettings.model_validate({"flips": flips})
    for variant, mirrored in enumerate([*axes, *axes]):
        assert torch.equal(vary(images, variant, settings, seed=0), images.flip(mirrored))


def test_a_random_variant_is_flipped_as_well() -> None:
    images = photographs()
    moved = (vary(images, 3, AugmentationSettings(noise=0.001), seed=0) - images.flip((2, 3))).abs()
    assert 0 < moved.max() < 0.01


def test_the_same_arguments_give_the_same_bits_whatever_the_global_random_state() -> None:
    images = photographs()
    torch.manual_seed(1)
    first = vary(images, 5, EVERYTHING, seed=7)
    torch.manual_seed(2)
    assert torch.equal(vary(images, 5, EVERYTHING, seed=7), first)


def test_the_global_random_state_is_left_as_it_was() -> None:
    torch.manual_seed(4)
    before = torch.get_rng_state()
    vary(photographs(), 5, EVERYTHING, seed=7)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("step", STEPS)
def test_seeds_variants_and_positions_have_draws_of_their_own(step: str) -> None:
    images = photographs(1).repeat(2, 1, 1, 1)
    settings = only(**{step: STEPS[step]})
    first = vary(images, 1, settings, seed=0)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(vary(images, 1, settings, seed=1), first)
    assert not torch.equal(vary(images, 2, settings, seed=0), first)
    assert not torch.equal(vary(images, 2, settings, seed=1), vary(images, 1, settings, seed=2))


@pytest.mark.parametrize("step", STEPS)
def test_each_strength_changes_the_images_and_0_does_not(step: str) -> None:
    images = photographs()
    before = images.clone()
    assert (vary(images, 1, only(**{step: STEPS[step]}), seed=0) - images).abs().mean() > 0.001
    assert torch.equal(vary(images, 1, only(**{step: 0.0}), seed=0), images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("settings", [EVERYTHING, EXTREME])
def test_every_strength_at_once_stays_within_0_and_1(settings: AugmentationSettings) -> None:
    images = photographs(16)
    varied = vary(images, 4, settings, seed=0)
    assert varied.shape == images.shape
    assert varied.dtype == torch.float32
    assert varied.isfinite().all()
    assert varied.min() >= 0
    assert varied.max() <= 1


def test_variants_can_be_computed_in_inference_mode() -> None:
    images = photographs()
    expected = vary(images, 5, EVERYTHING, seed=7)
    with torch.inference_mode():
        assert torch.equal(vary(images, 5, EVERYTHING, seed=7), expected)


def test_grey_images_stay_grey() -> None:
    images = photographs()[:, :1].repeat(1, 3, 1, 1)
    varied = vary(images, 5, EVERYTHING, seed=0)
    torch.testing.assert_close(varied, varied[:, :1].repeat(1, 3, 1, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("degrees", [10, 45])
def test_rotation_turns_either_way_and_no_further_than_the_setting(degrees: int) -> None:
    # further out than 15 pixels, the corners would show the dot's reflection as well
    right, down = centres(vary(dot(15), 1, only(rotate=degrees), seed=0))
    angles = torch.rad2deg(torch.atan2(down, right))
    torch.testing.assert_close(right.hypot(down), torch.full((64,), 15.0), rtol=0, atol=0.1)
    assert -degrees - 0.5 < angles.min() < -0.8 * degrees
    assert 0.8 * degrees < angles.max() < degrees + 0.5


def test_shift_moves_along_both_axes_and_no_further_than_the_setting() -> None:
    for moved in centres(vary(dot(0), 1, only(shift=0.2), seed=0)):
        assert -13.1 < moved.min() < -0.8 * 13
        assert 0.8 * 13 < moved.max() < 13.1


def test_zoom_scales_about_the_centre_within_the_setting() -> None:
    right, down = centres(vary(dot(20), 1, only(zoom=0.25), seed=0))
    assert 15 - 0.1 < right.min() < 16
    assert 24 < right.max() < 25 + 0.1
    assert down.abs().max() < 0.1


def test_geometry_brings_in_no_black_corners() -> None:
    varied = vary(grey(1.0), 1, only(rotate=180, shift=0.5, zoom=0.9), seed=0)
    torch.testing.assert_close(varied, grey(1.0), rtol=0, atol=1e-5)


def test_brightness_shifts_whole_images_either_way_within_the_setting() -> None:
    shifts = vary(grey(0.5), 1, only(brightness=0.2), seed=0) - 0.5
    assert (shifts.amax((1, 2, 3)) - shifts.amin((1, 2, 3))).max() < 1e-6
    assert -0.2 - 1e-6 < shifts.min() < -0.16
    assert 0.16 < shifts.max() < 0.2 + 1e-6


def test_contrast_scales_differences_from_the_mean_within_the_setting_and_keeps_the_mean() -> None:
    images = grey(0.4)
    images[..., 16:] = 0.6
    varied = vary(images, 1, only(contrast=0.5), seed=0)
    growth = (varied[:, 0, 0, -1] - varied[:, 0, 0, 0]) / 0.2
    torch.testing.assert_close(varied.mean((1, 2, 3)), torch.full((64,), 0.5))
    assert 0.5 - 1e-4 < growth.min() < 0.6
    assert 1.4 < growth.max() < 1.5 + 1e-4


def test_illumination_is_uneven_and_bounded_by_the_setting() -> None:
    light = vary(grey(0.5), 1, only(illumination=0.2), seed=0)[:, 0] - 0.5
    assert (light.amax((1, 2)) - light.amin((1, 2))).max() > 0.16
    assert -0.2 - 1e-6 < light.min() < -0.16
    assert 0.16 < light.max() < 0.2 + 1e-6
    assert light.diff(dim=2).abs().max() < 0.03  # no edge that a detector could take for a defect


def test_noise_has_the_standard_deviation_of_the_setting_and_no_bias() -> None:
    noise = vary(grey(0.5), 1, only(noise=0.05), seed=0)[:, 0] - 0.5
    assert noise.std().item() == pytest.approx(0.05, rel=0.02)
    assert noise.mean().item() == pytest.approx(0, abs=0.001)


def test_blur_widens_a_dot_by_at_most_the_setting_and_keeps_its_light() -> None:
    images = torch.zeros(64, 3, 65, 65)
    images[:, :, 32, 32] = 1
    varied = vary(images, 1, only(blur=3), seed=0)[:, 0]
    place = torch.arange(65) - 32.0
    widths = (varied.sum(1) * place**2).sum(1).sqrt()
    torch.testing.assert_close(varied.sum((1, 2)), torch.ones(64))
    assert widths.min() < 0.5
    assert 2.7 < widths.max() < 3.01


def test_a_blur_wider_than_the_image_is_still_an_image() -> None:
    varied = vary(grey(0.5, count=2, side=8), 1, only(blur=32), seed=0)
    torch.testing.assert_close(varied, grey(0.5, count=2, side=8))


def test_kornia_is_imported_only_for_a_step_that_needs_it() -> None:
    script = """
import sys, torch
from fedsparse.config import AugmentationSettings
from fedsparse.training.augmentation import vary
images = torch.rand(1, 3, 8, 8)
for variant in range(8):
    vary(images, variant, AugmentationSettings(mixup=0.2, cutmix=1.0), 0)
print("kornia" in sys.modules)
vary(images, 1, AugmentationSettings(rotate=5), 0)
print("kornia" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]

"""Varied copies of training images: mirrored, moved, lit unevenly, out of focus, noisy."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from fedsparse.config import AugmentationSettings

_LAMP_SPREAD = (0.3, 1.0)
"""Standard deviations of an uneven illumination, as shares of the image's side: from a spot to a slope."""

_Step = Callable[[Tensor], Tensor]


def vary(images: Tensor, variant: int, settings: AugmentationSettings, seed: int) -> Tensor:
    """Return one variant of each image, for training on more than what was photographed.

    Variant 0 is the images themselves. The others are mirrored by the combinations of ``settings.flips`` in turn
    (none, horizontal, vertical, both); each image then gets its own draw of every step whose strength is above 0,
    in the order in which light takes them: pose, illumination, exposure, focus, the sensor's noise. Without such a
    strength, a variant is its flip alone, and the combinations repeat.

    The result depends on the arguments alone, and the global random state is left as it was. The draws belong to
    positions in the batch: give each batch of one data set a seed of its own.

    Args:
        images: (n, 3, s, s), float32 within [0, 1]; not changed.
        variant: 0 or more.
        seed: 0 or more.

    Returns:
        (n, 3, s, s), float32 within [0, 1].
    """
    if variant == 0:
        return images
    combinations = _combinations(settings)
    axes = combinations[variant % len(combinations)]
    varied = images.flip(axes) if axes else images
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also reseed the accelerators, whose state is not kept here
        torch.default_generator.manual_seed(_mixed_seed(seed, variant))
        for step in _steps(settings):
            varied = step(varied).clamp(0, 1)
    return varied


def _combinations(settings: AugmentationSettings) -> list[tuple[int, ...]]:
    """Return which axes of (n, c, h, w) are mirrored together, the empty combination first."""
    horizontal: list[tuple[int, ...]] = [(), (3,)] if "horizontal" in settings.flips else [()]
    vertical: list[tuple[int, ...]] = [(), (2,)] if "vertical" in settings.flips else [()]
    return [down + across for down in vertical for across in horizontal]


def _mixed_seed(seed: int, variant: int) -> int:
    return int(np.random.SeedSequence((seed, variant)).generate_state(1, np.uint64)[0])


def _steps(settings: AugmentationSettings) -> Iterator[_Step]:
    pose = settings.rotate or settings.shift or settings.zoom
    if pose or settings.illumination or settings.contrast or settings.brightness or settings.blur:
        yield from _kornia_steps(settings)
    if settings.noise:
        yield _noise(settings.noise)


def _kornia_steps(settings: AugmentationSettings) -> Iterator[_Step]:
    from kornia import augmentation  # takes over a second: only where one of its steps is asked for

    if settings.rotate or settings.shift or settings.zoom:
        yield augmentation.RandomAffine(
            degrees=settings.rotate,
            translate=(settings.shift, settings.shift),
            scale=(1 - settings.zoom, 1 + settings.zoom),
            padding_mode="reflection",
            p=1.0,
        )
    if settings.illumination:
        yield augmentation.RandomGaussianIllumination(
            gain=(0.0, settings.illumination), center=(0.0, 1.0), sigma=_LAMP_SPREAD, p=1.0
        )
    if settings.contrast:
        # RandomContrast would scale the mean as well, which is what brightness is for
        yield augmentation.ColorJitter(contrast=(1 - settings.contrast, 1 + settings.contrast), p=1.0)
    if settings.brightness:
        yield augmentation.RandomBrightness((1 - settings.brightness, 1 + settings.brightness), p=1.0)
    if settings.blur:
        size = 2 * math.ceil(3 * settings.blur) + 1
        yield augmentation.RandomGaussianBlur((size, size), (0.0, settings.blur), border_type="replicate", p=1.0)


def _noise(deviation: float) -> _Step:
    def add(images: Tensor) -> Tensor:
        # one plane for all channels: a monochrome camera's images stay grey
        return images + deviation * torch.randn(len(images), 1, *images.shape[2:]).to(images)

    return add

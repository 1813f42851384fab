"""Mixed batches: samples blended with, or pasted into, one another, and their labels to match."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fedsparse.config import AugmentationSettings


def mix(
    inputs: Tensor, targets: Tensor, settings: AugmentationSettings, draw: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return a batch whose samples are each mixed with another of it, to train on what lies between classes.

    Mixup (https://arxiv.org/abs/1710.09412) blends whole samples, cutmix (https://arxiv.org/abs/1905.04899) pastes
    a rectangle; where both are on, each batch gets one of the two, with equal chance. One λ ~ Beta(α, α), one
    permutation and one rectangle are drawn per batch, as the papers' own code does. ``inputs`` may be pixels or
    hidden activations: blending the latter is manifold mixup (https://arxiv.org/abs/1806.05236).

    Args:
        inputs: (n, c, h, w), floating point; not changed.
        targets: (n, classes), one-hot or soft; not changed.

    Returns:
        Mixed inputs and targets of the same shapes; the arguments themselves where both strengths are 0.
    """
    ways = [(way, a) for way, a in ((_mixup, settings.mixup), (_cutmix, settings.cutmix)) if a > 0]
    if not ways:
        return inputs, targets
    way, alpha = ways[draw.integers(len(ways))]
    order = torch.from_numpy(draw.permutation(len(inputs))).to(inputs.device)
    return way(inputs, targets, order, draw.beta(alpha, alpha), draw)


def _mixup(
    inputs: Tensor, targets: Tensor, order: Tensor, kept: float, draw: np.random.Generator
) -> tuple[Tensor, Tensor]:
    return _blend(inputs, inputs[order], kept), _blend(targets, targets[order], kept)


def _cutmix(
    inputs: Tensor, targets: Tensor, order: Tensor, kept: float, draw: np.random.Generator
) -> tuple[Tensor, Tensor]:
    height, width = inputs.shape[-2:]
    side = math.sqrt(1 - kept)
    rows, columns = _span(height, side, draw), _span(width, side, draw)
    mixed = inputs.clone()
    mixed[:, :, rows, columns] = inputs[order, :, rows, columns]
    # the rectangle is rounded to pixels and cut off at the borders, so λ itself would weigh the labels wrongly
    pasted = (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
    return mixed, _blend(targets, targets[order], 1 - pasted)


def _blend(one: Tensor, other: Tensor, weight: float) -> Tensor:
    return weight * one + (1 - weight) * other


def _span(length: int, share: float, draw: np.random.Generator) -> slice:
    """Return a ``share`` of ``length`` around a random pixel, cut off at the borders."""
    extent = round(length * share)
    start = int(draw.integers(length)) - extent // 2
    return slice(max(start, 0), min(start + extent, length))

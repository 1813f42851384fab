"""How alike two images look, and how rough one is."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from numpy.typing import NDArray
from torch import Tensor

_WINDOW = 7
_FLAT, _DARK = 0.03**2, 0.01**2  # of Wang et al., for images in [0, 1]


def similarity(one: Tensor, other: Tensor) -> NDArray[np.float64]:
    """Return the structural similarity of each image to each other, (n, m), from -1 to 1.

    Of grey levels, over windows of 7 × 7 pixels (Wang et al. 2004, https://doi.org/10.1109/TIP.2003.819861): a
    blurred average of all images is not like any of them, as it would be by squared differences.

    Args:
        one: (n, 3, s, s) in [0, 1].
        other: (m, 3, s, s).
    """
    greys = [images.double().mean(1, keepdim=True) for images in (one, other)]
    means = [_mean(grey) for grey in greys]
    spreads = [_mean(grey.square()) - mean.square() for grey, mean in zip(greys, means, strict=True)]
    found = np.empty((len(one), len(other)))
    for i in range(len(one)):  # a row at a time: all at once takes n · m images of memory
        (a, b), (mean, means_) = (greys[0][[i]], greys[1]), (means[0][[i]], means[1])
        common = _mean(a * b) - mean * means_
        light = (2 * mean * means_ + _DARK) / (mean.square() + means_.square() + _DARK)
        structure = (2 * common + _FLAT) / (spreads[0][[i]] + spreads[1] + _FLAT)
        found[i] = (light * structure).mean((1, 2, 3)).numpy()
    return found


def roughness(images: Tensor) -> Tensor:
    """Return the mean difference of neighbouring pixels (total variation), ()."""
    across = (images[..., 1:] - images[..., :-1]).abs().mean()
    down = (images[..., 1:, :] - images[..., :-1, :]).abs().mean()
    return across + down


def _mean(images: Tensor) -> Tensor:
    return F.avg_pool2d(images, min(_WINDOW, images.shape[-1]), 1)

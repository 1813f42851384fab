"""Scores say how much a coordinate matters to the local data; the largest are trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from fedsparse.adapters import DeltaAdapter

Loss = Callable[[], Tensor]
"""Computes the loss of one batch of local data with the weights as they are, ()."""

Score = Callable[[DeltaAdapter, Iterable[Loss]], list[Tensor]]
"""From adapter and batches to one score per coordinate, per tensor (size_t,), larger is more important."""


def gradient_magnitude(adapter: DeltaAdapter, losses: Iterable[Loss]) -> list[Tensor]:
    """Sum |∂loss/∂weight| over batches, at the weights as they are.

    First-order sensitivity as in SNIP (https://arxiv.org/abs/1810.02340), without the factor |weight|: what
    counts is how fast a change lowers the loss, not how much the weight already carries.
    """
    scores = [torch.zeros(tensor.size) for tensor in adapter.space.tensors]
    adapter.require_gradients(True)
    try:
        for loss in losses:
            loss().backward()  # type: ignore[no-untyped-call] # torch's own annotation is missing
            for score, gradient in zip(scores, adapter.gradients(), strict=True):
                score += gradient.abs()
    finally:
        adapter.require_gradients(False)
    return scores

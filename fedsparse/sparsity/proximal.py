"""The proximal step of the L1 norm: what makes values exactly zero while they are trained."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor

from fedsparse.errors import ConfigError


@torch.no_grad()
def soft_threshold_(values: Tensor, threshold: float) -> Tensor:
    """Shrink ``values`` towards zero in place by ``threshold``; what is smaller becomes exactly zero.

    sign(v) · max(|v| − threshold, 0), the proximal operator of threshold · ‖v‖₁. After each gradient step with
    threshold = learning rate × λ it is ISTA (https://doi.org/10.1137/080716542): training minimises
    loss + λ‖v‖₁, while a subgradient of the penalty would leave values small but hardly ever zero.

    Returns:
        The same tensor.

    Raises:
        ConfigError: the threshold is negative.
    """
    if threshold < 0:
        raise ConfigError(f"the L1 threshold {threshold} is negative", "Use a penalty of at least 0")
    return values.copy_(F.softshrink(values, threshold))

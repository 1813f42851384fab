"""EfficientNet-Lite as two halves: a frozen prefix whose activations a site caches, and the suffix it adapts.

Tan and Le, "EfficientNet" (https://arxiv.org/abs/1905.11946); the Lite variants drop squeeze-and-excitation and
use ReLU6. Dropout and stochastic depth are left out: a support of one per cent of the weights hardly overfits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn

from fedsparse.adapters.bases.depthwise import is_small, small_depthwise

_NORM_EPSILON = 1e-3
BLOCKS = 16


@dataclass(frozen=True)
class BlockShape:
    """What an inverted residual block's weights do not tell: strides and whether the input is added."""

    stride: int
    residual: bool


def _lite0_blocks() -> tuple[BlockShape, ...]:
    stages = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))  # (blocks, stride of the first)
    return tuple(
        BlockShape(stride if i == 0 else 1, residual=i > 0) for blocks, stride in stages for i in range(blocks)
    )


LITE0_BLOCKS = _lite0_blocks()


class ConvNorm(nn.Module):
    """Convolution, frozen batch normalisation and, where ``activate``, ReLU6; (n, c, h, w) to (n, c', h', w').

    The normalisation scales the kernel instead of the activations: the same function of the same ``weight``,
    but without a pass over the activations forwards and backwards. Padding is TensorFlow's "SAME".

    Args:
        tensors: pretrained tensors.
        conv: name of the convolution in ``tensors``.
        norm: name of the batch normalisation in ``tensors``.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, tensors: Mapping[str, Tensor], conv: str, norm: str, *, stride: int = 1, activate: bool = True
    ) -> None:
        super().__init__()
        weight = tensors[f"{conv}.weight"].float().clone(memory_format=torch.contiguous_format)
        self.weight = nn.Parameter(weight, requires_grad=False)
        variance = tensors[f"{norm}.running_var"].float()
        scale = tensors[f"{norm}.weight"].float() / torch.sqrt(variance + _NORM_EPSILON)
        shift = tensors[f"{norm}.bias"].float() - tensors[f"{norm}.running_mean"].float() * scale
        self.register_buffer("scale", scale[:, None, None, None])
        self.register_buffer("shift", shift)
        self._stride = stride
        self._depthwise = self.weight.shape[1] == 1
        self._activate = activate

    def forward(self, x: Tensor) -> Tensor:
        """Return the layer's output."""
        weight = self.weight  # once: under a `lora` adapter each look computes it
        kernel = weight.shape[-1]
        width, height = (_same_padding(size, kernel, self._stride) for size in (x.shape[3], x.shape[2]))
        symmetric = width[0] == width[1] and height[0] == height[1]
        if self._depthwise and self._stride == 1 and is_small(x, kernel):
            x = small_depthwise(x, weight * self.scale, self.shift)
            return F.relu6(x) if self._activate else x
        if not symmetric:
            x = F.pad(x, (*width, *height))
        x = F.conv2d(
            x,
            weight * self.scale,
            self.shift,
            stride=self._stride,
            padding=(height[0], width[0]) if symmetric else 0,
            groups=weight.shape[0] if self._depthwise else 1,
        )
        return F.relu6(x) if self._activate else x


def _same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class Block(nn.Module):
    """Inverted residual block: expand, depthwise convolution, project; (n, c, h, w) to (n, c', h', w')."""

    def __init__(self, tensors: Mapping[str, Tensor], index: int, shape: BlockShape) -> None:
        super().__init__()
        name = f"_blocks.{index}"
        expands = f"{name}._expand_conv.weight" in tensors
        self.expand = ConvNorm(tensors, f"{name}._expand_conv", f"{name}._bn0") if expands else nn.Identity()
        self.depthwise = ConvNorm(tensors, f"{name}._depthwise_conv", f"{name}._bn1", stride=shape.stride)
        self.project = ConvNorm(tensors, f"{name}._project_conv", f"{name}._bn2", activate=False)
        self._residual = shape.residual

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self._residual else y


class Prefix(nn.Module):
    """Stem and the first ``cut`` blocks: images (n, 3, s, s), normalised, to activations (n, c, h, w)."""

    def __init__(self, tensors: Mapping[str, Tensor], cut: int) -> None:
        super().__init__()
        self.stem = ConvNorm(tensors, "_conv_stem", "_bn0", stride=2)
        self.blocks = _blocks(tensors, range(cut))

    def forward(self, x: Tensor) -> Tensor:
        """Return the activations that a site caches."""
        x = self.stem(x)
        for block in self.blocks.values():
            x = block(x)
        return x


class Suffix(nn.Module):
    """The remaining blocks, the top convolution and a new head: activations (n, c, h, w) to logits (n, classes).

    Blocks keep their number in the whole network, so that a weight has one name whatever the cut. The head
    starts at zero, hence the same on every site, and every class is equally likely before training.
    """

    def __init__(self, tensors: Mapping[str, Tensor], cut: int, classes: int) -> None:
        super().__init__()
        self.blocks = _blocks(tensors, range(cut, BLOCKS))
        self.top = ConvNorm(tensors, "_conv_head", "_bn1")
        self.head = nn.Linear(self.top.weight.shape[0], classes).requires_grad_(False)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        for block in self.blocks.values():
            x = block(x)
        logits: Tensor = self.head(self.top(x).mean((2, 3)))
        return logits


def _blocks(tensors: Mapping[str, Tensor], indices: range) -> nn.ModuleDict:
    return nn.ModuleDict({str(index): Block(tensors, index, LITE0_BLOCKS[index]) for index in indices})

"""How PEFT writes the two LoRA factors of one layer; ours are A (rank, in) and B (out, rank)."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from fedsparse.adapters.bases.lite0 import ConvNorm
from fedsparse.adapters.kinds.lora import matrix_shape
from fedsparse.adapters.layers import Layer, LayerType

A, B = "lora_A.weight", "lora_B.weight"
EMBEDDING_A, EMBEDDING_B = "lora_embedding_A", "lora_embedding_B"
SUFFIXES = (A, B, EMBEDDING_A, EMBEDDING_B)


def obstacle(module: nn.Module) -> str | None:
    """Return why PEFT's LoRA does not compute at this layer what ours does, or None where it does."""
    kind = type_before_parametrizations(module)
    if isinstance(module, ConvNorm) or (isinstance(module, nn.Linear) and kind is not nn.Linear):
        return f"PEFT does not know what a {kind.__name__} computes"
    if not isinstance(module, nn.Conv2d):
        return None
    if module.groups != 1:
        return f"it is a convolution of {module.groups} groups, which PEFT factors otherwise"
    if any(step != 1 for step in module.dilation) or module.padding_mode != "zeros":
        return "PEFT leaves out a convolution's dilation and padding mode"
    return None


def to_peft(module: nn.Module, a: Tensor, b: Tensor) -> dict[str, Tensor]:
    """Return PEFT's tensors of a layer's factors, by suffix."""
    if isinstance(module, nn.Embedding):  # its weight is the transpose of PEFT's product
        return {EMBEDDING_A: b.t(), EMBEDDING_B: a.t()}
    if isinstance(module, nn.Conv2d):
        return {A: a.reshape(len(a), module.in_channels, *module.kernel_size), B: b[:, :, None, None]}
    return {A: a, B: b}


def shapes(layer: Layer, rank: int) -> dict[str, tuple[int, ...]]:
    """Return the shapes that PEFT's tensors of a layer must have, by suffix."""
    rows, columns = matrix_shape(layer)
    if layer.type is LayerType.EMBEDDING:
        return {EMBEDDING_A: (rank, rows), EMBEDDING_B: (columns, rank)}
    if layer.type is LayerType.CONVOLUTION:
        return {A: (rank, *layer.weight.shape[1:]), B: (rows, rank, 1, 1)}
    return {A: (rank, columns), B: (rows, rank)}


def from_peft(tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return A and B from PEFT's tensors of one layer; the inverse of :func:`to_peft`."""
    if EMBEDDING_A in tensors:
        return tensors[EMBEDDING_B].t(), tensors[EMBEDDING_A].t()
    return tensors[A].flatten(1), tensors[B].flatten(1)

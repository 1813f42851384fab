"""A support while it is trained: its values are the only parameters, and the only thing that gets gradients."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from fedsparse.adapters.gradients import GradientKernel, choose_kernel
from fedsparse.adapters.layers import Layer, LayerType, find_layers, split_name
from fedsparse.adapters.sparse_linear import SparseLinear
from fedsparse.errors import ModelError


@dataclass(frozen=True)
class Part:
    """The trained coordinates of one tensor.

    Attributes:
        position: of the tensor in the space.
        weight: the network's own parameter.
        where: flat indices on the weight's device, (k,).
        values: the parameter they lie in.
        span: where in it.
    """

    position: int
    weight: nn.Parameter
    where: Tensor
    values: nn.Parameter
    span: slice

    @property
    def offsets(self) -> Tensor:
        """What is added to the weight, (k,), float32; a view."""
        return self.values.detach()[self.span]

    @property
    def gradient(self) -> Tensor:
        """Gradient of the values, (k,); a view."""
        assert self.values.grad is not None  # noqa: S101 - kept by the attachment
        return self.values.grad[self.span]


class Attachment:
    """Connects the values of a support with a network's backward passes until it is removed.

    All scattered values are one parameter and all those of dense tensors another, so that an optimiser steps twice
    and not once per tensor.

    Args:
        network: the model that holds the weights.
        names: of the space's tensors.
        support: per tensor its coordinates.
        dense: positions of the tensors in the second parameter.
        block: side of the tiles where the support consists of tiles.
    """

    def __init__(
        self,
        network: nn.Module,
        names: Sequence[str],
        support: Sequence[np.ndarray[tuple[int], np.dtype[np.int64]]],
        dense: Collection[int],
        block: int | None = None,
    ) -> None:
        self._names = names
        device = network.get_parameter(names[0]).device
        sizes = [len(indices) for indices in support]
        groups = [[i for i in range(len(names)) if (i in dense) == whole and sizes[i]] for whole in (False, True)]
        self.sparse, self.whole = (_zeros(sum(sizes[i] for i in group), device) for group in groups)
        parts = []
        for values, group in zip((self.sparse, self.whole), groups, strict=True):
            start = 0
            for i in group:
                where = torch.tensor(support[i], device=device)
                weight = network.get_parameter(names[i])
                parts.append(Part(i, weight, where, values, slice(start, start + sizes[i])))
                start += sizes[i]
        self.parts = tuple(sorted(parts, key=lambda part: part.position))
        layers = find_layers(network)
        self._kernels = [self._kernel(part, names[part.position], layers, block) for part in self.parts]
        self._removals: list[Callable[[], object]] = []
        self.connect()

    def _kernel(
        self, part: Part, name: str, layers: dict[str, Layer], block: int | None
    ) -> tuple[Layer, GradientKernel] | None:
        module, parameter = split_name(name)
        layer = layers.get(module)
        if layer is None or parameter != "weight" or part.values is self.whole or not layer.computes_plainly:
            return None
        kernel = choose_kernel(part.where, (part.weight.shape[0], part.weight.shape[1]), block)
        return None if kernel is None else (layer, kernel)

    def connect(self) -> None:
        """Let backward passes reach the values, until :meth:`remove`.

        A layer with a kernel never asks for its weight's dense gradient, but code that computes with the weight
        and does not call the layer does, and is heard too.

        Raises:
            ModelError: somebody else trains a weight; nothing is connected then.
        """
        try:
            for part, chosen in zip(self.parts, self._kernels, strict=True):
                self._removals.append(collect_gradient(self._names[part.position], part.weight, _gathering(part)))
                if chosen is not None:
                    layer, kernel = chosen
                    transposed = layer.type is LayerType.CONV1D
                    sink = _adding(part)
                    sparse = SparseLinear(layer.module, kernel, part.values, sink, transposed=transposed)
                    self._removals.append(sparse.remove)
        except ModelError:
            self.remove()
            raise

    @torch.no_grad()
    def clear_gradients(self) -> None:
        """Set the values' gradients to 0; they are never None."""
        for values in (self.sparse, self.whole):
            assert values.grad is not None  # noqa: S101 - set when created
            values.grad.zero_()

    def remove(self) -> None:
        """Let the network be as it was."""
        for removal in self._removals:
            removal()
        self._removals = []


def collect_gradient(name: str, weight: nn.Parameter, sink: Callable[[Tensor], None]) -> Callable[[], None]:
    """Hand the dense gradient of ``weight``, flat, to ``sink`` in every backward pass, and free it at once.

    Args:
        name: of the weight, for the error.

    Returns:
        A function that ends this.

    Raises:
        ModelError: somebody else trains the weight.
    """
    if weight.requires_grad:
        raise ModelError(f"{name} is being trained already", "Detach the other adapter first")

    def release(parameter: Tensor) -> None:
        assert parameter.grad is not None  # noqa: S101 - just accumulated
        gradient = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
        sink(gradient.reshape(-1))
        parameter.grad = None

    weight.requires_grad_(True)
    handle = weight.register_post_accumulate_grad_hook(release)  # type: ignore[no-untyped-call]

    def end() -> None:
        handle.remove()
        weight.requires_grad_(False)
        weight.grad = None

    return end


def _adding(part: Part) -> Callable[[Tensor], None]:
    def add(gradient: Tensor) -> None:
        part.gradient.add_(gradient)

    return add


def _gathering(part: Part) -> Callable[[Tensor], None]:
    whole = len(part.where) == part.weight.numel()

    def gather(gradient: Tensor) -> None:
        part.gradient.add_(gradient if whole else gradient[part.where])

    return gather


def _zeros(count: int, device: torch.device) -> nn.Parameter:
    values = nn.Parameter(torch.zeros(count, device=device))
    values.grad = torch.zeros_like(values)
    return values

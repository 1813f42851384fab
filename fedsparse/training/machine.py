"""Where and how exactly training computes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fedsparse.config import MachineSettings
from fedsparse.errors import ConfigError, ModelError


@dataclass(frozen=True)
class Machine:
    """A device and a precision.

    Attributes:
        device: of weights and batches.
        lower: the type that autocast computes in, or None for fp32 throughout.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    lower: torch.dtype | None = None

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context in which a forward pass runs."""
        if self.lower is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.lower)

    def run(self, network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        """Return the network's outputs for one batch, in fp32."""
        with self.autocast():
            outputs: Tensor = network(*(part.to(self.device) for part in batch))
        return outputs.float()


def set_up(settings: MachineSettings, network: nn.Module) -> Machine:
    """Move ``network`` to where it is to be trained; call it before an adapter is put on.

    Raises:
        ConfigError: there is no such device.
        ModelError: the network cannot recompute its activations.
    """
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise ConfigError('machine.device = "cuda", but PyTorch finds no GPU here', 'Use "auto" or "cpu"')
    network.to(device)
    if settings.checkpointing:
        _recompute(network)
    return Machine(torch.device(device), torch.bfloat16 if settings.precision == "bf16" else None)


def _recompute(network: nn.Module) -> None:
    """Let each block keep only its inputs; unlike transformers' own way without training mode and its dropout."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    blocks = [module for module in network.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not blocks:
        raise ModelError(
            "machine.checkpointing is not possible with this base model",
            "Leave it out, or use a Hugging Face model that supports it",
        )
    for block in blocks:
        block.forward = partial(_checkpointed, block.forward)


def _checkpointed(forward: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs, **options)
    return checkpoint(forward, *inputs, use_reentrant=False, **options)

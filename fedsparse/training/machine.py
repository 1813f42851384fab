"""Where and how exactly training computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

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
    backbone = getattr(network, "backbone", None)
    if backbone is None or not getattr(backbone, "supports_gradient_checkpointing", False):
        raise ModelError(
            "machine.checkpointing is not possible with this base model",
            "Leave it out, or use a Hugging Face model that supports it",
        )
    backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    backbone.train()  # transformers recomputes in training mode only; what else that mode does is switched off
    for module in backbone.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0

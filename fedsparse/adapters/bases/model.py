"""The value that every base model becomes, wherever it comes from."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedsparse.adapters.bases.readers import ImageReader, TextReader


@dataclass(frozen=True)
class BaseModel:
    """A frozen base model for one task, in memory once per process.

    Attributes:
        name: as in the settings.
        fingerprint: 32 bytes that name the pretrained tensors, see :func:`fingerprint`.
        prefix: frozen for good, so that a site caches what it yields; the identity where nothing is cut off.
        network: what an adapter changes; from the prefix's outputs, or from token ids and mask, to logits.
        cut: number of blocks in the prefix.
        reader: from a raw sample to tensors.
    """

    name: str
    fingerprint: bytes
    prefix: nn.Module
    network: nn.Module
    cut: int
    reader: ImageReader | TextReader

    @property
    def parameter_bytes(self) -> int:
        """Bytes of prefix and network in fp32, the head included."""
        return 4 * sum(weight.numel() for part in (self.prefix, self.network) for weight in part.parameters())


def fingerprint(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the SHA-256 over names, dtypes, shapes and little-endian bytes of ``tensors``, sorted by name.

    Every field is preceded by its length, so that no two models share a byte string.
    """
    digest = hashlib.sha256(b"fedsparse base model 1")
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        shape = struct.pack(f"<{tensor.ndim}q", *tensor.shape)
        content = tensor.reshape(-1).view(torch.uint8).numpy().data
        for field in (name.encode(), str(tensor.dtype).encode(), shape, content):
            digest.update(struct.pack("<q", len(field)))
            digest.update(field)
    return digest.digest()

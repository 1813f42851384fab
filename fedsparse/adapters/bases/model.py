"""The value that every base model becomes, wherever it comes from."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fedsparse.adapters.bases.readers import ImageReader, TextReader
from fedsparse.errors import ModelError


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


def try_out(base: BaseModel, classes: int) -> BaseModel:
    """Return ``base`` if its network answers the largest inputs that its reader yields with one logit per class.

    Raises:
        ModelError: it fails or answers something else.
    """
    if isinstance(base.reader, ImageReader):
        inputs: tuple[Tensor, ...] = (torch.zeros(1, 3, base.reader.size, base.reader.size),)
        what = f"an image of {base.reader.size} pixels"
    else:
        inputs = (torch.zeros(1, base.reader.max_tokens, dtype=torch.int64),) * 2
        what = f"a text of {base.reader.max_tokens} tokens"
    remedy = "Check adapter.image_size and adapter.max_tokens, and that the model is made for the task"
    try:
        with torch.inference_mode():
            logits = base.network(*inputs)
    except Exception as error:  # a foreign module raises what it likes
        raise ModelError(f"the base model {base.name} cannot compute {what}: {error}", remedy) from None
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (1, classes):
        raise ModelError(f"the base model {base.name} makes {shape} of {what}, not (1, {classes})", remedy)
    return base


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

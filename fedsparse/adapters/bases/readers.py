"""From a raw sample to the tensors that a base model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

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
    mean: tuple[float, float, float] = IMAGENET_MEAN
    deviation: tuple[float, float, float] = IMAGENET_DEVIATION

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

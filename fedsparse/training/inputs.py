"""What a network reads: cached activations of images, or token ids of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsparse.adapters import BaseModel, TextReader
from fedsparse.config import AugmentationSettings
from fedsparse.errors import DataError
from fedsparse.training.features import Progress, cached_features
from fedsparse.training.samples import Labelled, Samples, Texts


class Inputs(Protocol):
    """The inputs of n samples, each in one or more variants."""

    @property
    def variants(self) -> int:
        """How many variants of each sample there are."""

    def batch(self, samples: NDArray[np.int64], variants: NDArray[np.int64] | int = 0) -> tuple[Tensor, ...]:
        """Return the network's arguments for some samples in the given variants."""

    def take(self, positions: NDArray[np.int64]) -> Self:
        """Return the inputs of some samples, in memory."""


@dataclass(frozen=True)
class Tokens:
    """Texts as token ids.

    Attributes:
        ids: (n, t) int32.
        mask: (n, t), 1 where there is a token.
    """

    ids: NDArray[np.int32]
    mask: NDArray[np.int8]

    @property
    def variants(self) -> int:
        """One: texts are not augmented."""
        return 1

    def take(self, positions: NDArray[np.int64]) -> Tokens:
        """Return the tokens of some texts."""
        return Tokens(self.ids[positions], self.mask[positions])

    def batch(self, samples: NDArray[np.int64], variants: NDArray[np.int64] | int = 0) -> tuple[Tensor, Tensor]:
        """Return ids and mask of some texts, (len(samples), t') int64, as long as the longest of them."""
        mask = self.mask[samples]
        used = np.flatnonzero(mask.any(0))
        span = slice(used[0], used[-1] + 1) if len(used) else slice(1)
        ids, kept = (torch.from_numpy(a[:, span].astype(np.int64)) for a in (self.ids[samples], mask))
        return ids, kept


def tokenise(reader: TextReader, texts: Sequence[str]) -> Tokens:
    """Return the tokens of ``texts``, each from position 0 on, on whichever side the tokenizer pads."""
    ids, mask = (part.numpy() for part in reader.tokens(texts))
    order = np.argsort(mask == 0, axis=1, kind="stable")
    ids, mask = (np.take_along_axis(part, order, 1) for part in (ids, mask))
    return Tokens(ids.astype(np.int32), mask.astype(np.int8))


def prepare(
    base: BaseModel,
    samples: Labelled,
    folder: Path,
    augmentation: AugmentationSettings | None,
    progress: Progress | None = None,
) -> Inputs:
    """Return what the base model's network reads of ``samples``.

    Args:
        folder: where activations of images are cached.
        augmentation: of images; none: each as it is.

    Raises:
        DataError: the samples are not of the kind that the base model reads, or have changed meanwhile.
    """
    if isinstance(samples, Texts) and isinstance(base.reader, TextReader):
        return tokenise(base.reader, samples.texts)
    if isinstance(samples, Samples) and not isinstance(base.reader, TextReader):
        return cached_features(base, samples, folder, augmentation, progress)
    read, given = ("texts", "images") if isinstance(base.reader, TextReader) else ("images", "texts")
    raise DataError(
        f"the base model {base.name} reads {read}, but the samples are {given}",
        "Choose another base model, or other data",
    )


@dataclass(frozen=True)
class Part:
    """Some samples of a larger set, read from it as they are used.

    Attributes:
        whole: the larger set.
        positions: of the samples in it, (n,).
    """

    whole: Inputs
    positions: NDArray[np.int64]

    @property
    def variants(self) -> int:
        """How many variants of each sample there are."""
        return self.whole.variants

    def batch(self, samples: NDArray[np.int64], variants: NDArray[np.int64] | int = 0) -> tuple[Tensor, ...]:
        """Return the network's arguments for some samples in the given variants."""
        return self.whole.batch(self.positions[samples], variants)

    def take(self, positions: NDArray[np.int64]) -> Part:
        """Return some of the samples."""
        return Part(self.whole, self.positions[positions])


def in_batches(samples: int, size: int) -> list[NDArray[np.int64]]:
    """Return the positions of ``samples`` in order, ``size`` at a time."""
    return [np.arange(start, min(start + size, samples)) for start in range(0, samples, size)]

"""A site's labelled samples as values, in the order of their contents; no torch here."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedsparse.errors import DataError
from fedsparse.training.saved_dataset import SavedImage

Source = Path | SavedImage
"""Where an encoded image is read from: a file of its own, or a row of a dataset on disk."""

Positions = NDArray[np.int64] | Sequence[int]

_QUOTED_AT_MOST = 60

Content = TypeVar("Content")
Own = TypeVar("Own", bound="Labelled")


class Labelled(ABC):
    """Labelled samples in the order of their content digests, so that neither paths nor copies matter.

    Attributes:
        labels: (n,), positions in ``classes``.
        digests: SHA-256 of each sample's content, hex, strictly increasing.
        classes: label names.
        skipped: what the source lists but could not be used, each with the reason.
    """

    labels: NDArray[np.int64]
    digests: tuple[str, ...]
    classes: tuple[str, ...]
    skipped: tuple[str, ...]

    @abstractmethod
    def name(self, position: int) -> str:
        """Return what tells a person which sample it is."""

    @abstractmethod
    def subset(self: Own, positions: Positions) -> Own:
        """Return some of the samples.

        Args:
            positions: strictly increasing.

        Raises:
            DataError: they are not.
        """

    def __len__(self) -> int:
        return len(self.digests)

    def counts(self) -> NDArray[np.int64]:
        """Return how many samples each class has, (classes,)."""
        return np.bincount(self.labels, minlength=len(self.classes)).astype(np.int64)

    def split(self, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Split every class alike into training and hold-out, by content and ``seed`` alone.

        Args:
            share: of each class that is held out, in (0, 1): at least one sample, but none of a class with one.

        Returns:
            Positions of the training and of the held-out samples, each increasing.
        """
        held: list[int] = []
        for label in range(len(self.classes)):
            members = np.flatnonzero(self.labels == label).tolist()
            if len(members) > 1:
                drawn = sorted(members, key=lambda i: _lot(self.digests[i], seed))
                held += drawn[: max(1, round(share * len(members)))]
        holdout = np.sort(np.array(held, dtype=np.int64))
        return np.setdiff1d(np.arange(len(self)), holdout), holdout

    def _check(self, contents: int, what: str) -> None:
        if not contents == len(self.labels) == len(self.digests):
            raise DataError(f"{contents} {what} have {len(self.labels)} labels and {len(self.digests)} digests")
        if any(a >= b for a, b in zip(self.digests, self.digests[1:], strict=False)):
            raise DataError("the samples are not in the order of their digests, or one occurs twice")
        self.labels.flags.writeable = False


@dataclass(frozen=True)
class Samples(Labelled):
    """Labelled images; the digests are over the encoded bytes.

    Attributes:
        sources: where each image is read from, n.
        thumbnails: (n, 16, 16) grey levels, or None where the images were not decoded.
    """

    sources: tuple[Source, ...]
    labels: NDArray[np.int64]
    digests: tuple[str, ...]
    classes: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    thumbnails: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        self._check(len(self.sources), "images")

    @property
    def paths(self) -> tuple[Path, ...]:
        """One image file each; of an image inside a dataset, the dataset's folder."""
        return tuple(source if isinstance(source, Path) else source.dataset for source in self.sources)

    def name(self, position: int) -> str:
        """Return the image's path, or its dataset and row."""
        return str(self.sources[position])

    def read(self, position: int) -> bytes:
        """Return the encoded image.

        Raises:
            DataError: it has changed or gone since it was checked.
        """
        try:
            data = self.sources[position].read_bytes()
            if hashlib.sha256(data).hexdigest() == self.digests[position]:
                return data
        except OSError:
            pass
        raise DataError(f"{self.name(position)} has changed or gone since it was checked", "Start again")

    def subset(self, positions: Positions) -> Samples:
        """Return some of the images; ``positions`` strictly increasing."""
        chosen = np.asarray(positions, dtype=np.int64)
        return replace(
            self,
            sources=_pick(self.sources, chosen),
            labels=self.labels[chosen],
            digests=_pick(self.digests, chosen),
            thumbnails=None if self.thumbnails is None else self.thumbnails[chosen],
        )


@dataclass(frozen=True)
class Texts(Labelled):
    """Labelled texts; the digests are over their UTF-8 bytes."""

    texts: tuple[str, ...]
    labels: NDArray[np.int64]
    digests: tuple[str, ...]
    classes: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check(len(self.texts), "texts")

    def name(self, position: int) -> str:
        """Return the text's first characters, quoted."""
        return quoted(self.texts[position])

    def subset(self, positions: Positions) -> Texts:
        """Return some of the texts; ``positions`` strictly increasing."""
        chosen = np.asarray(positions, dtype=np.int64)
        texts, digests = _pick(self.texts, chosen), _pick(self.digests, chosen)
        return replace(self, texts=texts, labels=self.labels[chosen], digests=digests)


def quoted(text: str) -> str:
    """Quote at most 60 characters of a text, on one line."""
    return repr(text if len(text) <= _QUOTED_AT_MOST else text[: _QUOTED_AT_MOST - 1] + "…")


def _pick(values: tuple[Content, ...], positions: NDArray[np.int64]) -> tuple[Content, ...]:
    return tuple(values[i] for i in positions)


def _lot(digest: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{digest}".encode()).digest()

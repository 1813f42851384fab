"""What a person should know about a site's data before it is trained on; no torch here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from fedsparse.errors import DataError
from fedsparse.training.duplicates import alike_images, alike_texts
from fedsparse.training.images import thumbnail
from fedsparse.training.loading import MINIMUM_PER_CLASS
from fedsparse.training.samples import Labelled, Samples, Texts

_IMBALANCED = 10
_NAMED_AT_MOST = 5
_CLASSES_LISTED = 30


@dataclass(frozen=True)
class NearDuplicate:
    """A held-out sample that is nearly the same as one that is trained on.

    Attributes:
        training: position of the one in training.
        holdout: position of the held-out one.
        names: of both, in this order.
        labels_differ: the two are labelled differently.
    """

    training: int
    holdout: int
    names: tuple[str, str]
    labels_differ: bool

    def __str__(self) -> str:
        note = ", and is labelled differently" if self.labels_differ else ""
        return f"{self.names[1]} is nearly {self.names[0]}{note}"


@dataclass(frozen=True)
class DataReport:
    """What is in a site's data and what is odd about it; it stays at the site.

    Attributes:
        classes: label names.
        training: samples trained on, per class.
        holdout: samples held out, per class.
        skipped: samples that could not be used, each with the reason.
        near_duplicates: at most one for each held-out sample.
        minimum: samples that a class should have.
    """

    classes: tuple[str, ...]
    training: tuple[int, ...]
    holdout: tuple[int, ...]
    skipped: tuple[str, ...]
    near_duplicates: tuple[NearDuplicate, ...]
    minimum: int

    @property
    def samples(self) -> int:
        """How many there are in all."""
        return sum(self._totals)

    @property
    def imbalance(self) -> float:
        """How many times as large the largest class is as the smallest that has any samples."""
        present = [total for total in self._totals if total]
        return max(present) / min(present) if present else 1.0

    def lines(self) -> list[str]:
        """Return the report for people, a line each; what needs their attention starts with "warning"."""
        return [
            f"{self.samples:,} samples: {sum(self.training):,} to train on, {sum(self.holdout):,} held out",
            *self._class_lines(),
            *self._skipped_lines(),
            *self._warnings(),
        ]

    @property
    def _totals(self) -> list[int]:
        return [trained + held for trained, held in zip(self.training, self.holdout, strict=True)]

    def _class_lines(self) -> Iterator[str]:
        rows = zip(self.classes, self.training, self.holdout, strict=True)
        for name, trained, held in islice(rows, _CLASSES_LISTED):
            yield f"  {name}: {trained:,} + {held:,}"
        if len(self.classes) > _CLASSES_LISTED:
            yield f"  and {len(self.classes) - _CLASSES_LISTED:,} more classes"

    def _skipped_lines(self) -> Iterator[str]:
        if self.skipped:
            yield f"skipped {len(self.skipped):,} that cannot be used:"
            yield from _named(self.skipped)

    def _warnings(self) -> Iterator[str]:
        if self.imbalance > _IMBALANCED:
            yield f"warning: the largest class is {self.imbalance:.0f} times as large as the smallest"
        small = [
            f"{name} ({total})"
            for name, total in zip(self.classes, self._totals, strict=True)
            if total < self.minimum
        ]
        if small:
            yield f"warning: too few samples to learn from (fewer than {self.minimum}):"
            yield from _named(small)
        if self.near_duplicates:
            yield (
                f"warning: {len(self.near_duplicates):,} of {sum(self.holdout):,} held-out samples are nearly the "
                "same as one trained on; the quality measured on them is too good"
            )
            yield from _named([str(pair) for pair in self.near_duplicates])


def report(
    samples: Labelled, training: NDArray[np.int64], holdout: NDArray[np.int64], minimum: int = MINIMUM_PER_CLASS
) -> DataReport:
    """Look at a site's data as it was split.

    What counts as a near-duplicate, and what goes unnoticed, is told in :mod:`fedsparse.training.duplicates`.

    Args:
        training: positions of the samples trained on, increasing.
        holdout: positions of the held-out samples, increasing.
        minimum: samples that a class should have.

    Raises:
        DataError: an image has changed or gone since it was checked.
    """
    trained, held = samples.subset(training), samples.subset(holdout)
    pairs = ((int(training[i]), int(holdout[j])) for i, j in _alike(trained, held))
    return DataReport(
        samples.classes,
        tuple(trained.counts().tolist()),
        tuple(held.counts().tolist()),
        samples.skipped,
        tuple(_pair(samples, one, other) for one, other in pairs),
        minimum,
    )


def _alike(trained: Labelled, held: Labelled) -> Iterator[tuple[int, int]]:
    if isinstance(trained, Samples) and isinstance(held, Samples):
        return alike_images(_thumbnails(trained), _thumbnails(held))
    if isinstance(trained, Texts) and isinstance(held, Texts):
        return alike_texts(trained.texts, held.texts)
    raise DataError(f"near-duplicates cannot be looked for in {type(trained).__name__}")


def _thumbnails(samples: Samples) -> NDArray[np.float32]:
    if samples.thumbnails is not None:
        return samples.thumbnails
    return np.array([thumbnail(samples.read(i)) for i in range(len(samples))], dtype=np.float32)


def _pair(samples: Labelled, one: int, other: int) -> NearDuplicate:
    names = samples.name(one), samples.name(other)
    return NearDuplicate(one, other, names, bool(samples.labels[one] != samples.labels[other]))


def _named(names: tuple[str, ...] | list[str]) -> Iterator[str]:
    yield from (f"  {name}" for name in names[:_NAMED_AT_MOST])
    if len(names) > _NAMED_AT_MOST:
        yield f"  and {len(names) - _NAMED_AT_MOST:,} more"

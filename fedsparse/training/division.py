"""A site's samples as it trains by itself: which are trained on, and which tell what the result is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fedsparse.config import DataSettings, TrainConfig
from fedsparse.errors import DataError
from fedsparse.training.checks import DataReport, report
from fedsparse.training.loading import MINIMUM_PER_CLASS
from fedsparse.training.local import SPLIT_SEED
from fedsparse.training.opening import load_labelled
from fedsparse.training.samples import Labelled, Samples, Texts
from fedsparse.training.sources import columns_of

_TO_TEXTS = (
    'For texts write task.kind = "text-classification" and base.model = "minilm" into a settings file '
    "and name it with --config"
)
_TO_IMAGES = 'For images set task.kind = "image-classification" and a base model of images'

_Content = TypeVar("_Content")


@dataclass(frozen=True)
class Division:
    """Samples that are trained on, and others that are not.

    Attributes:
        training: what is trained on.
        holdout: what is not.
        report: what is odd about them.
        shared: held-out samples that the training data holds as well; they are not trained on.
    """

    training: Labelled
    holdout: Labelled
    report: DataReport
    shared: int = 0


def divide(settings: TrainConfig) -> Division:
    """Read the samples that ``settings`` name, and hold some out.

    Without [holdout] the split depends on the samples' content alone, not on the seed, and is the one that the
    same site has in a federation at the same share.

    Raises:
        DataError: the data is unusable, a class has no sample to train on, or nothing can be held out.
    """
    classes = settings.task.classes or None
    samples = _loaded(settings.data, settings, classes, minimum=1)
    if settings.task.kind != "causal-lm" and len(samples.classes) < 2:
        raise DataError(
            f"{settings.data.path} has the class {samples.classes[0]!r} alone", "Add samples of another class"
        )
    if settings.holdout is None:
        training, held = samples.split(settings.training.holdout, SPLIT_SEED)
        if not len(held):
            raise DataError(
                f"{settings.data.path} has one sample of each class, so none can be held out",
                "Add samples, or name others under [holdout]",
            )
        return _division(samples, training, held, 0)
    held_out = _loaded(settings.holdout, settings, samples.classes, minimum=0)
    whole, held = _joined(samples, held_out)
    training = np.setdiff1d(np.arange(len(whole)), held)
    _require_every_class(whole, training)
    return _division(whole, training, held, len(samples) + len(held_out) - len(whole))


def _loaded(data: DataSettings, settings: TrainConfig, classes: Sequence[str] | None, *, minimum: int) -> Labelled:
    """Read samples; where they are of the other kind than the task's, the error says so and nothing else."""
    try:
        return load_labelled(data, settings.task.kind, classes, minimum=minimum)
    except DataError as error:
        raise _of_the_other_kind(data, settings) or error from None


def _of_the_other_kind(data: DataSettings, settings: TrainConfig) -> DataError | None:
    """Return the error of texts where the task is one of images, or the reverse, as the columns tell."""
    images = settings.task.kind == "image-classification"
    asked, other = (data.image, data.text) if images else (data.text, data.image)
    columns = columns_of(data.path)
    if asked in columns or other not in columns:
        return None
    told = ("texts", "images", "image") if images else ("images", "texts", "text")
    return DataError(
        f"{data.path} has no column {asked} but a column {other}, so it seems to list {told[0]}; "
        f'task.kind = "{settings.task.kind}" is for {told[1]}',
        f"{_TO_TEXTS if images else _TO_IMAGES}. If they are {told[1]}, name their column in data.{told[2]}",
    )


def _division(whole: Labelled, training: NDArray[np.int64], held: NDArray[np.int64], shared: int) -> Division:
    minimum = MINIMUM_PER_CLASS if len(whole.classes) > 1 else 1
    found = report(whole, training, held, minimum)
    return Division(whole.subset(training), whole.subset(held), found, shared)


def _joined(samples: Labelled, held_out: Labelled) -> tuple[Labelled, NDArray[np.int64]]:
    """Return both sets as one in which each sample occurs once, and the positions of the held-out ones in it."""
    known = dict(zip(samples.digests, samples.labels.tolist(), strict=True))
    for position, digest in enumerate(held_out.digests):
        if known.get(digest, held_out.labels[position]) != held_out.labels[position]:
            raise DataError(
                f"{held_out.name(position)} is labelled {held_out.classes[held_out.labels[position]]!r} in the "
                f"hold-out, but {held_out.classes[known[digest]]!r} in the training data",
                "Decide which label is right",
            )
    own = np.flatnonzero(~np.isin(samples.digests, held_out.digests))
    kept = samples.subset(own)
    digests = np.array([*kept.digests, *held_out.digests])
    order = np.argsort(digests)
    whole = _concatenated(kept, held_out, order)
    return whole, np.flatnonzero(order >= len(kept))


def _concatenated(one: Labelled, other: Labelled, order: NDArray[np.int64]) -> Labelled:
    labels = np.concatenate([one.labels, other.labels])[order]
    digests = _ordered((*one.digests, *other.digests), order)
    skipped = (*one.skipped, *other.skipped)
    if isinstance(one, Texts) and isinstance(other, Texts):
        return Texts(_ordered((*one.texts, *other.texts), order), labels, digests, one.classes, skipped)
    assert isinstance(one, Samples)  # noqa: S101 - both are of the task's kind
    assert isinstance(other, Samples)  # noqa: S101
    small = None
    if one.thumbnails is not None and other.thumbnails is not None:
        small = np.concatenate([one.thumbnails, other.thumbnails])[order]
    return Samples(_ordered((*one.sources, *other.sources), order), labels, digests, one.classes, skipped, small)


def _require_every_class(whole: Labelled, training: NDArray[np.int64]) -> None:
    for name, count in zip(whole.classes, whole.subset(training).counts(), strict=True):
        if not count:
            raise DataError(
                f"all samples of the class {name!r} are in the hold-out as well, so none is left to train on",
                "Add others to the training data",
            )


def _ordered(values: tuple[_Content, ...], order: NDArray[np.int64]) -> tuple[_Content, ...]:
    return tuple(values[i] for i in order)

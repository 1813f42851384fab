"""Reading of a site's labelled samples, checked before anything is trained; no torch here."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsparse.config import require_source
from fedsparse.errors import DataError
from fedsparse.training.images import thumbnail
from fedsparse.training.samples import Samples, Source, Texts, quoted
from fedsparse.training.sources import UNLABELLED, Entry, Fault, Item, UnusableError, list_images, list_texts

MINIMUM_PER_CLASS = 4
"""A stratified hold-out needs one sample of a class, training a few."""

_NAMED_AT_MOST = 10


def load_samples(
    path: Path,
    classes: Sequence[str] | None = None,
    *,
    image: str = "path",
    label: str = "label",
    max_corrupt: int = 0,
    minimum: int = MINIMUM_PER_CLASS,
) -> Samples:
    """Read labelled images from a folder, a CSV or JSONL manifest, or a Hugging Face dataset on disk.

    Every image is decoded in full. The same bytes under the same label count once. Relative paths start at the
    manifest's or dataset's own folder; in a folder with one sub-folder per class, files without an image's suffix
    are passed over. Of a dataset with several splits, "train" is read.

    Args:
        classes: label names; without any, those that occur, sorted.
        image: column of the image or of its path.
        label: column of the label.
        max_corrupt: so many unreadable images are skipped and listed in ``skipped``.
        minimum: images that each class needs.

    Raises:
        DataError: the source is absent, a label is unknown, more than ``max_corrupt`` images are corrupt (up to
            ten are named), one has two labels, or a class has too few.
    """
    require_source(path, "the path of the images")
    if path.suffix.lower() == ".txt" and path.is_file():
        raise DataError(f"{path} is a plain text file and lists no images", "Name a folder, a CSV or a JSONL file")
    thumbnails: dict[str, NDArray[np.float32]] = {}

    def inspect(source: Source) -> str:
        try:
            data = source.read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a path that holds a NUL
            raise UnusableError(type(error).__name__) from error
        small = thumbnail(data)
        digest = hashlib.sha256(data).hexdigest()
        thumbnails[digest] = small
        return digest

    listed = list(list_images(path, image, label))
    _check_labels(path, listed, classes)
    found, faults = _inspected(listed, inspect, _two_labels_of_image)
    skipped = _skippable(faults, max_corrupt, "image", "decoded")
    names, labels = _labels(path, found, classes, minimum, "image")
    digests = tuple(sorted(found))
    sources = tuple(found[digest].item for digest in digests)
    return Samples(sources, labels, digests, names, skipped, np.stack([thumbnails[digest] for digest in digests]))


def load_texts(
    path: Path,
    classes: Sequence[str] | None = None,
    *,
    text: str = "text",
    label: str | None = "label",
    max_corrupt: int = 0,
    minimum: int = MINIMUM_PER_CLASS,
) -> Texts:
    """Read texts from a CSV or JSONL manifest, a Hugging Face dataset on disk or, without labels, a text file.

    The same text under the same label counts once. Of a dataset with several splits, "train" is read.

    Args:
        classes: label names; without any, those that occur, sorted. Ignored where ``label`` is None.
        text: column of the text.
        label: column of the label; None for a corpus whose texts are all of the one class "text".
        max_corrupt: so many empty or malformed texts are skipped and listed in ``skipped``.
        minimum: texts that each class needs.

    Raises:
        DataError: the source is absent, a label is unknown, more than ``max_corrupt`` texts are corrupt (up to
            ten are named), one has two labels, or a class has too few.
    """
    require_source(path, "the path of the texts")
    if label is None:
        classes = (UNLABELLED,)
    listed = list(list_texts(path, text, label))
    _check_labels(path, listed, classes)
    found, faults = _inspected(listed, _text_digest, _two_labels_of_text)
    skipped = _skippable(faults, max_corrupt, "text", "used")
    names, labels = _labels(path, found, classes, minimum, "text")
    digests = tuple(sorted(found))
    return Texts(tuple(found[digest].item for digest in digests), labels, digests, names, skipped)


def _text_digest(text: str) -> str:
    try:
        return hashlib.sha256(text.encode()).hexdigest()
    except UnicodeEncodeError as error:
        raise UnusableError("it holds half a surrogate pair") from error


def _inspected(
    listed: Iterable[Entry[Item] | Fault],
    inspect: Callable[[Item], str],
    conflict: Callable[[Entry[Item], Entry[Item]], DataError],
) -> tuple[dict[str, Entry[Item]], list[Fault]]:
    """Return the distinct samples by their digests, and what is wrong with the others."""
    found: dict[str, Entry[Item]] = {}
    faults: list[Fault] = []
    for entry in listed:
        if isinstance(entry, Fault):
            faults.append(entry)
            continue
        try:
            known = found.setdefault(inspect(entry.item), entry)
        except UnusableError as error:
            faults.append(Fault(entry.where, str(error)))
            continue
        if known.label != entry.label:
            raise conflict(known, entry)
    return found, faults


def _two_labels_of_image(known: Entry[Source], other: Entry[Source]) -> DataError:
    return DataError(
        f"{known.where} is labelled {known.label!r}, "
        f"but {other.where} holds the same image labelled {other.label!r}",
        "Decide which label is right and remove the other image",
    )


def _two_labels_of_text(known: Entry[str], other: Entry[str]) -> DataError:
    return DataError(
        f"{known.where} labels {quoted(known.item)} {known.label!r}, but {other.where} labels it {other.label!r}",
        "Decide which label is right and remove the other text",
    )


def _skippable(faults: Sequence[Fault], max_corrupt: int, kind: str, done: str) -> tuple[str, ...]:
    names = tuple(str(fault) for fault in faults)
    if len(names) <= max_corrupt:
        return names
    more = f"\n  and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    told = "\n  ".join(names[:_NAMED_AT_MOST])
    raise DataError(
        f"{_number(len(names), kind)} cannot be {done}, but data.max_corrupt is {max_corrupt}:\n  {told}{more}",
        "Repair or remove them, or raise data.max_corrupt to skip them",
    )


def _check_labels(path: Path, listed: Iterable[Entry[Item] | Fault], classes: Sequence[str] | None) -> None:
    unknown = sorted({entry.label for entry in listed if isinstance(entry, Entry)} - set(classes or ()))
    if classes and unknown:
        raise DataError(
            f"{path} has the label {unknown[0]!r}, but the classes are {', '.join(classes)}",
            "Rename or remove it",
        )


def _labels(
    path: Path, found: dict[str, Entry[Item]], classes: Sequence[str] | None, minimum: int, kind: str
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the classes, and each sample's position in them in the order of the digests."""
    counts = Counter(entry.label for entry in found.values())
    if not counts:
        raise DataError(f"{path} has no {kind}s", "Add some")
    names = tuple(classes or sorted(counts))
    for name in names:
        if counts[name] < minimum:
            if not counts[name]:
                raise DataError(f"{path} has no {kind} of the class {name!r}", "Add some, or leave this site out")
            raise DataError(
                f"{path} has {_number(counts[name], kind)} of the class {name!r}, "
                f"but at least {minimum} are needed",
                "Add more",
            )
    positions = {name: position for position, name in enumerate(names)}
    return names, np.array([positions[found[digest].label] for digest in sorted(found)], dtype=np.int64)


def _number(count: int, kind: str) -> str:
    return f"{count} {kind}" if count == 1 else f"{count} {kind}s"

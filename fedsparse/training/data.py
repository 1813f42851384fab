"""A site's labelled images, checked before anything is trained; no torch here."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsparse.config import require_source
from fedsparse.errors import DataError

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
_MINIMUM_PER_CLASS = 4  # a stratified hold-out needs one, training a few
_NAMED_AT_MOST = 10


@dataclass(frozen=True)
class Samples:
    """Labelled images in the order of their content digests, so that neither paths nor copies matter.

    Attributes:
        paths: one image file each, n.
        labels: (n,), positions in ``classes``.
        digests: SHA-256 of each file's bytes, hex, strictly increasing.
        classes: label names.
    """

    paths: tuple[Path, ...]
    labels: NDArray[np.int64]
    digests: tuple[str, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.paths) == len(self.labels) == len(self.digests):
            raise DataError(
                f"{len(self.paths)} images have {len(self.labels)} labels and {len(self.digests)} digests"
            )
        if any(a >= b for a, b in zip(self.digests, self.digests[1:], strict=False)):
            raise DataError("the samples are not in the order of their digests, or one occurs twice")
        self.labels.flags.writeable = False

    def __len__(self) -> int:
        return len(self.paths)

    def split(self, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Split every class alike into training and hold-out, by content and ``seed`` alone.

        Args:
            share: of each class that is held out, at least one sample, in (0, 1).

        Returns:
            Positions of the training and of the held-out samples, each increasing.
        """
        held: list[int] = []
        for label in range(len(self.classes)):
            members = np.flatnonzero(self.labels == label).tolist()
            drawn = sorted(members, key=lambda i: _lot(self.digests[i], seed))
            held += drawn[: max(1, round(share * len(members)))]
        holdout = np.sort(np.array(held, dtype=np.int64))
        return np.setdiff1d(np.arange(len(self)), holdout), holdout


def load_samples(path: Path, classes: Sequence[str]) -> Samples:
    """Read a folder with one sub-folder per class, or a CSV file with the columns ``path,label``.

    Every image is decoded in full. The same bytes under the same label count once. In a CSV file, relative
    paths start at the file's own folder; in a folder, files without an image's suffix are passed over.

    Raises:
        DataError: the source is absent, a label is unknown, an image is corrupt (up to ten are named) or has
            two labels, or a class has too few images.
    """
    require_source(path, "the path of the images")
    listed = list(_from_manifest(path) if path.is_file() else _from_folder(path))
    _check_labels(path, {label for _, label in listed}, classes)
    found: dict[str, tuple[Path, str]] = {}
    for digest, image, label in _decoded(listed):
        known, known_label = found.setdefault(digest, (image, label))
        if known_label != label:
            raise DataError(
                f"{known} is labelled {known_label!r}, but {image} holds the same image labelled {label!r}",
                "Decide which label is right and remove the other image",
            )
    _check_counts(path, [label for _, label in found.values()], classes)
    digests = tuple(sorted(found))
    labels = np.array([classes.index(found[digest][1]) for digest in digests], dtype=np.int64)
    return Samples(tuple(found[digest][0] for digest in digests), labels, digests, tuple(classes))


def _lot(digest: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{digest}".encode()).digest()


def _from_folder(folder: Path) -> Iterator[tuple[Path, str]]:
    for sub in sorted(folder.iterdir()):
        if sub.is_dir() and not sub.name.startswith("."):
            for image in sorted(sub.iterdir()):
                if image.suffix.lower() in _SUFFIXES and not image.name.startswith("."):
                    yield image, sub.name


def _from_manifest(path: Path) -> Iterator[tuple[Path, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = {"path", "label"} - set(rows.fieldnames or ())
            if missing:
                raise DataError(
                    f"{path} has no column {' and no column '.join(sorted(missing))}",
                    "Let its first line be: path,label",
                )
            for row in rows:
                if not row["path"] or not row["label"]:
                    raise DataError(f"{path}, line {rows.line_num}: path or label is empty")
                yield path.parent / row["path"], row["label"]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}", "Save it as UTF-8 text") from None


def _decoded(listed: Iterable[tuple[Path, str]]) -> Iterator[tuple[str, Path, str]]:
    """Yield digest, image and label of every image; after the last, refuse if any could not be decoded."""
    from PIL import Image

    broken: list[str] = []
    for path, label in listed:
        try:
            data = path.read_bytes()
            with Image.open(BytesIO(data)) as image:
                image.load()
                mode = image.mode
        except Exception as error:  # Pillow raises many types on damaged files
            broken.append(f"{path} ({type(error).__name__})")
        else:
            if mode == "F":
                broken.append(f"{path} (pixels are floating-point numbers of no known scale)")
                continue
            yield hashlib.sha256(data).hexdigest(), path, label
    if broken:
        more = f"\n  and {len(broken) - _NAMED_AT_MOST} more" if len(broken) > _NAMED_AT_MOST else ""
        names = "\n  ".join(broken[:_NAMED_AT_MOST])
        what = "1 image" if len(broken) == 1 else f"{len(broken)} images"
        raise DataError(f"{what} cannot be decoded:\n  {names}{more}", "Repair or remove them")


def _check_labels(path: Path, found: set[str], classes: Sequence[str]) -> None:
    unknown = sorted(found - set(classes))
    if unknown:
        raise DataError(
            f"{path} has the label {unknown[0]!r}, but the federation knows {', '.join(classes)}",
            "Rename or remove it",
        )


def _check_counts(path: Path, labels: Sequence[str], classes: Sequence[str]) -> None:
    for name in classes:
        if name not in labels:
            raise DataError(f"{path} has no image of the class {name!r}", "Add some, or leave this site out")
        if labels.count(name) < _MINIMUM_PER_CLASS:
            raise DataError(
                f"{path} has {labels.count(name)} images of the class {name!r}, "
                f"but at least {_MINIMUM_PER_CLASS} are needed",
                "Add more",
            )

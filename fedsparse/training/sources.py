"""What a source of samples lists: folders, CSV and JSONL manifests, text files, saved datasets; no torch here."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from fedsparse.errors import DataError
from fedsparse.training.samples import Source
from fedsparse.training.saved_dataset import SavedImage, chosen_split, is_saved_dataset, saved_columns, saved_rows

UNLABELLED = "text"
"""The one class of texts that have no labels."""

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})

Item = TypeVar("Item")


class UnusableError(Exception):
    """One sample cannot be used; says why."""


@dataclass(frozen=True)
class Entry(Generic[Item]):
    """A sample as its source lists it, not looked at yet."""

    where: str
    item: Item
    label: str


@dataclass(frozen=True)
class Fault:
    """A place in a source that holds no usable sample."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where} ({self.reason})"


@dataclass(frozen=True)
class _Row:
    where: str
    values: Mapping[str, object]
    fault: str = ""


def list_images(path: Path, image: str, label: str) -> Iterator[Entry[Source] | Fault]:
    """Yield every image that a folder, manifest or dataset on disk lists; relative paths start at its folder.

    Args:
        image: column of the image or its path.
        label: column of the label.

    Raises:
        DataError: the source as a whole cannot be read, or is a folder whose images are in no sub-folder.
    """
    if path.is_dir() and not is_saved_dataset(path):
        listed = list(_from_folder(path))
        if not listed:
            _require_sub_folders(path, image, label)
        yield from listed
        return
    root = chosen_split(path) if path.is_dir() else path.parent

    def located(value: object) -> Source:
        return value if isinstance(value, SavedImage) else root / _told(value, image)

    for row in _rows(path, (image, label)):
        found = _entry(row, image, located, label)
        yield Entry(str(found.item), found.item, found.label) if isinstance(found, Entry) else found


def list_texts(path: Path, text: str, label: str | None) -> Iterator[Entry[str] | Fault]:
    """Yield every text that a manifest, a dataset on disk or a text file (one text per line) lists.

    Blank lines of a text file or a JSONL manifest are no texts, and are passed over.

    Args:
        text: column of the text.
        label: column of the label; None where the texts have none.

    Raises:
        DataError: the source as a whole cannot be read, or can hold no labels.
    """
    if path.suffix.lower() == ".txt" and label is not None:
        raise DataError(f"{path} is a plain text file and has no labels", "Name a CSV or JSONL file with labels")
    for row in _rows(path, (text,) if label is None else (text, label)):
        yield _entry(row, text, lambda value: _told(value, text), label)


def named_images(path: Path, image: str) -> Iterator[Path]:
    """Yield the path of every image that a manifest or a dataset on disk names; relative ones start at its folder.

    Args:
        image: column of the image's path; without such a column, or with images inside a dataset, none is named.

    Raises:
        DataError: the source as a whole cannot be read.
    """
    if path.suffix.lower() == ".txt" and path.is_file():
        return
    root = chosen_split(path) if path.is_dir() else path.parent
    if path.is_dir() and image not in saved_columns(root):
        return
    for row in _rows(path, (image,) if path.is_dir() else ()):
        value = row.values.get(image)
        if isinstance(value, str) and value.strip() and not row.fault:
            yield root / value


def columns_of(path: Path) -> tuple[str, ...]:
    """Return the columns of a dataset on disk, or those of a manifest's first row; none where that tells none."""
    try:
        if path.is_file() and path.suffix.lower() in (".csv", ".jsonl"):
            row = next(_rows(path, ()), None)
            return () if row is None else tuple(row.values)
        return saved_columns(chosen_split(path)) if is_saved_dataset(path) else ()
    except (OSError, DataError):  # OSError: a path that is too long
        return ()


def _entry(row: _Row, column: str, convert: Callable[[object], Item], label: str | None) -> Entry[Item] | Fault:
    if row.fault:
        return Fault(row.where, row.fault)
    try:
        item = convert(row.values.get(column))
        return Entry(row.where, item, UNLABELLED if label is None else _label(row.values.get(label), label))
    except UnusableError as error:
        return Fault(row.where, str(error))


def _told(value: object, column: str) -> str:
    if isinstance(value, str) and value.strip():
        return value
    empty = value is None or isinstance(value, str)
    raise UnusableError(f"the column {column!r} {'is empty' if empty else 'holds no text'}")


def _label(value: object, column: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _told(value, column)


def _from_folder(folder: Path) -> Iterator[Entry[Source]]:
    for sub in sorted(folder.iterdir()):
        if sub.is_dir() and not sub.name.startswith("."):
            for image in filter(_is_image, sorted(sub.iterdir())):
                yield Entry(str(image), image, sub.name)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


def _require_sub_folders(folder: Path, image: str, label: str) -> None:
    """Check that a folder without images in its sub-folders has none of its own either."""
    if loose := sum(map(_is_image, folder.iterdir())):
        raise DataError(
            f"the images of {folder} ({loose:,}) lie directly in it, not in sub-folders that name their classes",
            f"Sort them into one sub-folder per class, as {folder}/CLASS/image.png, "
            f"or name a CSV file that lists them, with the columns {image},{label}",
        )


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[_Row]:
    if path.is_dir():
        if not is_saved_dataset(path):
            raise DataError(f"{path} holds no Hugging Face dataset", "Name a file, or a folder of save_to_disk")
        folder = chosen_split(path)
        for number, values in enumerate(saved_rows(folder, columns)):
            yield _Row(f"{folder}, row {number}", values)
        return
    read = {".csv": _csv_rows, ".jsonl": _jsonl_rows, ".txt": _text_rows}[path.suffix.lower()]
    try:
        yield from read(path, columns)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        kind = path.suffix[1:].upper()
        raise DataError(f"{path} cannot be read as {kind}: {error}", "Save it as UTF-8 text") from None


def _csv_rows(path: Path, columns: tuple[str, ...]) -> Iterator[_Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        missing = [column for column in columns if column not in (rows.fieldnames or ())]
        if missing:
            raise DataError(
                f"{path} has no column {' and no column '.join(missing)}",
                f"Let its first line be: {','.join(columns)}, or name its columns under [data]",
            )
        for row in rows:
            # An unquoted comma shifts what follows it into the wrong columns.
            surplus = any(row.pop(None, ()))  # where DictReader puts surplus cells
            yield _Row(f"{path}, line {rows.line_num}", dict(row), "more cells than columns" if surplus else "")


def _jsonl_rows(path: Path, columns: tuple[str, ...]) -> Iterator[_Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                values = json.loads(line)
            except (ValueError, RecursionError):
                values = None
            where = f"{path}, line {number}"
            yield _Row(where, values) if isinstance(values, dict) else _Row(where, {}, "no JSON object")


def _text_rows(path: Path, columns: tuple[str, ...]) -> Iterator[_Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield _Row(f"{path}, line {number}", {columns[0]: line.removesuffix("\n")})

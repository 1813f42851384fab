"""Hugging Face datasets that `save_to_disk` wrote, read row by row without decoding anything."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fedsparse.errors import DataError


@dataclass(frozen=True)
class SavedImage:
    """An image that lies inside a dataset on disk.

    Attributes:
        dataset: the folder of the dataset, or of one split of it.
        row: counted from 0.
    """

    dataset: Path
    column: str
    row: int

    def __str__(self) -> str:
        return f"{self.dataset}, row {self.row}"

    def read_bytes(self) -> bytes:
        """Return the encoded image.

        Raises:
            OSError: the dataset, the row or the image is gone.
        """
        try:
            stamp = (self.dataset / "state.json").stat().st_mtime_ns
            return bytes(_images(self.dataset, self.column, stamp)[self.row][self.column]["bytes"])
        except Exception as error:  # pyarrow, datasets and JSON raise many types on damaged files
            raise OSError(f"{self} cannot be read") from error


def is_saved_dataset(path: Path) -> bool:
    """Say whether ``path`` is a folder that `save_to_disk` wrote."""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def chosen_split(path: Path) -> Path:
    """Return the folder of the split to read: the only one, or "train".

    Raises:
        DataError: there are several and none is "train"; names them.
    """
    index = path / "dataset_dict.json"
    if not index.is_file():
        return path
    try:
        splits = [str(name) for name in json.loads(index.read_text(encoding="utf-8"))["splits"]]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise _unreadable(path, error) from None
    if "train" in splits:
        return path / "train"
    if len(splits) != 1:
        raise DataError(
            f"{path} has the splits {', '.join(splits)}, and none is called train",
            "Name the folder of one split",
        )
    return path / splits[0]


def saved_columns(folder: Path) -> tuple[str, ...]:
    """Return the names of a dataset's columns.

    Raises:
        DataError: `datasets` is not installed, or the folder cannot be read.
    """
    return tuple(_open(folder).features)


def saved_rows(folder: Path, columns: Sequence[str]) -> Iterator[Mapping[str, object]]:
    """Yield the given columns of every row: texts, names of class labels, and images as path or `SavedImage`.

    Raises:
        DataError: `datasets` is not installed, the folder cannot be read, or a column is absent.
    """
    dataset = _open(folder)
    for column in columns:
        if column not in dataset.features:
            raise DataError(
                f"{folder} has no column {column!r}, but {', '.join(dataset.features)}",
                "Name its columns under [data]: image or text, and label",
            )
    dataset = _undecoded(dataset.select_columns(list(columns)))
    try:
        for number, row in enumerate(dataset):
            yield {name: _plain(row[name], dataset.features[name], (folder, name, number)) for name in columns}
    except Exception as error:  # pyarrow raises many types on damaged files
        raise _unreadable(folder, error) from None


def _plain(value: Any, feature: Any, place: tuple[Path, str, int]) -> object:
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return None if value is None or value < 0 else feature.names[value]
    if isinstance(feature, datasets.Image) and value is not None:
        return value["path"] if value["bytes"] is None else SavedImage(*place)
    return value


def _undecoded(dataset: Any) -> Any:
    import datasets

    for name, feature in dataset.features.items():
        if isinstance(feature, datasets.Image):
            dataset = dataset.cast_column(name, datasets.Image(decode=False))
    return dataset


def _open(folder: Path) -> Any:
    try:
        import datasets
    except ImportError:
        raise DataError(
            f"{folder} is a Hugging Face dataset, but the package datasets is not installed",
            "Install it: pip install 'fedsparse[interchange]'",
        ) from None
    try:
        return datasets.load_from_disk(str(folder))
    except Exception as error:  # pyarrow, datasets and JSON raise many types on damaged files
        raise _unreadable(folder, error) from None


@lru_cache(maxsize=4)
def _images(folder: Path, column: str, stamp: int) -> Any:
    """Return one column of a dataset; ``stamp`` tells one written anew from the old one."""
    return _undecoded(_open(folder).select_columns([column]))


def _unreadable(folder: Path, error: Exception) -> DataError:
    return DataError(
        f"{folder} cannot be read as a Hugging Face dataset: {type(error).__name__}: {error}",
        "Write it anew with save_to_disk",
    )

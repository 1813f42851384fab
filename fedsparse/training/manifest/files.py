"""Which files a site's data consists of: those that training may read, and no others."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fedsparse.config import DataSettings, require_source
from fedsparse.errors import DataError
from fedsparse.training.manifest.value import shown
from fedsparse.training.saved_dataset import chosen_split, is_saved_dataset
from fedsparse.training.sources import Entry, list_images, named_images


@dataclass(frozen=True)
class SourceFile:
    """A file that is there.

    Attributes:
        name: as in :class:`DataFile`.
        path: where it is opened.
        size: bytes, when it was listed.
    """

    name: str
    path: Path
    size: int


@dataclass(frozen=True)
class Listing:
    """The files of a source.

    Attributes:
        files: ordered by the bytes of their names.
        absent: names that a table or dataset lists, but that are not there; training counts them as corrupt.
    """

    files: tuple[SourceFile, ...]
    absent: tuple[str, ...]


def list_files(settings: DataSettings) -> Listing:
    """List what training may read of ``settings.path``; no file of it is opened but those that list others.

    - A folder with one sub-folder per class: every image in them, as training looks for them.
    - A CSV or JSONL file: itself, and the files that its column ``settings.image`` names, if it has that column.
    - A Hugging Face dataset on disk: its index, the split that is read, and the files that its images name.
    - A text file: itself.

    Raises:
        DataError: the source is absent, lists no file, or cannot be read; a link leads out of its folder.
    """
    require_source(settings.path, "data.path")
    root = settings.path if settings.path.is_dir() else settings.path.parent
    try:
        own, named = _paths(settings)
        inside = _Inside(root)
        found: dict[bytes, SourceFile] = {}
        absent: dict[bytes, str] = {}
        for path, may_lack in [*((path, False) for path in own), *((path, True) for path in named)]:
            name = _name(path, root)
            key = os.fsencode(name)
            if key in found or key in absent:
                continue
            size = _size(path, name, may_lack=may_lack)
            if size is None:
                absent[key] = name
                continue
            inside.require(path, name)
            found[key] = SourceFile(key.decode("utf-8", "surrogateescape"), path, size)
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, from Path.resolve
        raise DataError(
            f"data.path = {settings.path} cannot be listed: {error}", "Let this user read all of it"
        ) from None
    if not found:
        raise DataError(f"data.path = {settings.path} has no file that training would read", "Add some")
    return Listing(tuple(found[key] for key in sorted(found)), tuple(absent[key] for key in sorted(absent)))


def _paths(settings: DataSettings) -> tuple[list[Path], Iterable[Path]]:
    """Return the files that have to be there, and those that a table or dataset names."""
    path = settings.path
    if path.is_file():
        return [path], named_images(path, settings.image)
    if is_saved_dataset(path):
        return list(_dataset_files(path)), named_images(path, settings.image)
    listed = list_images(path, settings.image, settings.label)
    return [entry.item for entry in listed if isinstance(entry, Entry) and isinstance(entry.item, Path)], ()


def _dataset_files(path: Path) -> Iterator[Path]:
    """Yield what `datasets.load_from_disk` reads; others' caches that lie beside it are not of the data."""
    folder = chosen_split(path)
    if folder != path:
        yield path / "dataset_dict.json"
    yield folder / "dataset_info.json"
    yield folder / "state.json"
    try:
        told = json.loads((folder / "state.json").read_text(encoding="utf-8"))["_data_files"]
        yield from [folder / one["filename"] for one in told]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise DataError(
            f"{folder / 'state.json'} does not tell which files the dataset has: {type(error).__name__}",
            "Write the dataset anew with save_to_disk",
        ) from None


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _size(path: Path, name: str, *, may_lack: bool) -> int | None:
    """Return a file's size; None where it may be absent and is."""
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name with a NUL
        if may_lack:
            return None
        raise DataError(f"{shown(name)} is gone, or a link that leads nowhere", "Restore or remove it") from None
    except OSError as error:
        raise DataError(f"{shown(name)} cannot be read: {error.strerror}", "Let this user read it") from None


class _Inside:
    """Checks that what seems to lie in the data's folder does lie there.

    A link that leads out would let somebody else's file in, without its name telling so. Who wants files from
    elsewhere lists them in a table, by their absolute paths.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._real_root = root.resolve(strict=True)
        self._folders: dict[Path, Path] = {}  # resolved once each: there may be a million files in one

    def require(self, path: Path, name: str) -> None:
        """Raise DataError where ``path`` is a link, or lies below one, that leaves the folder."""
        if not path.is_relative_to(self._root) or ".." in path.relative_to(self._root).parts:
            return  # its name says where it lies
        folder = self._folders.get(path.parent)
        if folder is None:
            folder = self._folders[path.parent] = path.parent.resolve(strict=True)
        real = path.resolve(strict=True) if path.is_symlink() else folder / path.name
        if not real.is_relative_to(self._real_root):
            raise DataError(
                f"{shown(name)} is, or lies below, a link to {shown(str(real))}, outside {self._real_root}",
                "Copy the file into the folder, or list the files in a CSV file by their absolute paths",
            )

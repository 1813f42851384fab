"""Reading every byte of a data set once, and noticing where one changes meanwhile."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedsparse.config import DataSettings
from fedsparse.errors import DataError
from fedsparse.training.manifest.files import SourceFile, list_files
from fedsparse.training.manifest.value import DataFile, DataManifest, shown

Progress = Callable[[int, int], None]
"""Told how many bytes are read, and of how many."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Stamp:
    """What shows without reading that a file was touched: it is another one, or has another size or time (ns)."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Return the stamp of a file's status."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@dataclass(frozen=True)
class Taken:
    """The manifest of a data set as it was read.

    Attributes:
        paths: where each file of the manifest was opened, by name.
        stamps: of each file, by name.
        absent: see :class:`Listing`.
    """

    manifest: DataManifest
    paths: Mapping[str, Path]
    stamps: Mapping[str, Stamp]
    absent: tuple[str, ...]


def take(settings: DataSettings, progress: Progress | None = None) -> Taken:
    """Read all files of a data set, in canonical order.

    Raises:
        DataError: see :func:`list_files`; or a file cannot be read, is none, or changes while it is read.
    """
    listing = list_files(settings)
    total, done = sum(file.size for file in listing.files), 0
    files, stamps = [], {}
    for source in listing.files:
        before = done

        def read(size: int, before: int = before) -> None:
            if progress is not None:
                progress(min(before + size, total), total)

        file, stamps[source.name] = hash_file(source, read)
        files.append(file)
        done += file.size
    paths = {source.name: source.path for source in listing.files}
    return Taken(DataManifest(tuple(files)), paths, stamps, listing.absent)


def hash_file(source: SourceFile, progress: Callable[[int], None]) -> tuple[DataFile, Stamp]:
    """Read one file; ``progress`` is told how many of its bytes are read.

    Raises:
        DataError: it cannot be read, is no regular file, or changes while it is read.
    """
    name = shown(source.name)
    try:
        with open(source.path, "rb", buffering=0, opener=_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{name} is no regular file", "Remove it from the data")
            digest, size = hashlib.sha256(), 0
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                size += len(chunk)
                progress(size)
            stamp = Stamp.of(os.fstat(file.fileno()))
            moved = Stamp.of(source.path.stat()) != stamp
    except OSError as error:
        raise DataError(
            f"{name} cannot be read: {error.strerror}", "Let this user read it, or remove it from the data"
        ) from None
    if moved or stamp != Stamp.of(status) or size != stamp.size:
        raise DataError(f"{name} changed while it was read", "Wait until nobody writes to the data, and try again")
    return DataFile(source.name, size, digest.hexdigest()), stamp


def _without_waiting(path: str, flags: int) -> int:
    """Open a file; a pipe would otherwise be waited for, possibly for ever."""
    return os.open(path, flags | os.O_NONBLOCK)

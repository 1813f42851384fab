"""A data manifest as a value: files in canonical order, the fingerprint over them, and how two of them differ."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from fedsparse.errors import DataError

_DOMAIN = b"fedsparse data manifest 1\x00"
_MOST_BYTES = (1 << 63) - 1  # of a file: off_t
_DIGITS = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class DataFile:
    """One file of a data set.

    Attributes:
        name: relative to the folder that the data lies in, with "/"; absolute where the source names it so and it
            lies elsewhere. Bytes that are no UTF-8 stand as lone surrogates (PEP 383).
        size: in bytes.
        sha256: of its content, 64 hex digits.
    """

    name: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        if not self.name or "\x00" in self.name:
            raise DataError(f"{self.name!r} names no file")
        if not 0 <= self.size <= _MOST_BYTES:
            raise DataError(f"{shown(self.name)} has {self.size} bytes, which no file has")
        if len(self.sha256) != 64 or not _DIGITS.issuperset(self.sha256):
            raise DataError(f"{shown(self.name)}: {self.sha256[:70]!r} is no SHA-256 of 64 lower-case hex digits")
        self.key  # noqa: B018 - a name that no file system can hold is refused here

    @property
    def key(self) -> bytes:
        """The name's own bytes, by which files are ordered."""
        try:
            return self.name.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:
            raise DataError(f"{self.name!r} names no file: it holds half a surrogate pair") from None


@dataclass(frozen=True)
class DataManifest:
    """Every file of a data set, ordered by the bytes of its name.

    Raises:
        DataError: the files are in another order, or a name stands there twice.
    """

    files: tuple[DataFile, ...]

    def __post_init__(self) -> None:
        for one, other in zip(self.files, self.files[1:], strict=False):
            if one.key >= other.key:
                raise DataError(f"{shown(other.name)} does not come after {shown(one.name)}")

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over all of it, 64 hex digits.

        Over the 25 bytes "fedsparse data manifest 1" and a NUL; then for each file, in order, the length of its
        name in bytes (8 bytes, big-endian), the name, its size (8 bytes, big-endian), its SHA-256 (32 bytes).
        """
        digest = hashlib.sha256(_DOMAIN)
        for file in self.files:
            digest.update(len(file.key).to_bytes(8, "big") + file.key + file.size.to_bytes(8, "big"))
            digest.update(bytes.fromhex(file.sha256))
        return digest.hexdigest()


@dataclass(frozen=True)
class Difference:
    """How the files of a data set differ from those that were expected, each group in canonical order.

    Attributes:
        added: files that were not expected.
        removed: files that are missing.
        changed: files with another content, as (expected, found).
    """

    added: tuple[DataFile, ...]
    removed: tuple[DataFile, ...]
    changed: tuple[tuple[DataFile, DataFile], ...]

    def __len__(self) -> int:
        return len(self.added) + len(self.removed) + len(self.changed)

    def lines(self) -> list[str]:
        """Return a line per file, in canonical order; "+" was added, "-" is missing, "~" was changed."""
        told = [(file.key, f"+ {_told(file)}") for file in self.added]
        told += [(file.key, f"- {_told(file)}") for file in self.removed]
        told += [(old.key, f"~ {shown(old.name)} ({_change(old, new)})") for old, new in self.changed]
        return [line for _, line in sorted(told)]

    def first(self) -> str:
        """Say what is the matter with the first file that differs, as part of a sentence."""
        return min(self._sentences())[1]

    def _sentences(self) -> Iterator[tuple[bytes, str]]:
        yield from ((file.key, f"{shown(file.name)} was added") for file in self.added)
        yield from ((file.key, f"{shown(file.name)} is missing") for file in self.removed)
        yield from ((old.key, f"{shown(old.name)} was changed ({_change(old, new)})") for old, new in self.changed)


def compare(expected: DataManifest, found: DataManifest) -> Difference:
    """Return how ``found`` differs from ``expected``."""
    before = {file.name: file for file in expected.files}
    after = {file.name: file for file in found.files}
    return Difference(
        tuple(file for file in found.files if file.name not in before),
        tuple(file for file in expected.files if file.name not in after),
        tuple(
            (file, after[file.name]) for file in expected.files if file.name in after and after[file.name] != file
        ),
    )


def shown(name: str) -> str:
    """Return a file's name for people, on one line; with quotes and escapes where it would mislead as it is."""
    return name if name.isprintable() and name == name.strip() else ascii(name)


def _told(file: DataFile) -> str:
    return f"{shown(file.name)} ({file.size:,} bytes)"


def _change(old: DataFile, new: DataFile) -> str:
    if old.size != new.size:
        return f"{new.size:,} bytes instead of {old.size:,}"
    return f"SHA-256 {new.sha256[:16]}… instead of {old.sha256[:16]}…"

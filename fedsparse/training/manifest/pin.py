"""Data that a site has pinned: verified before anything is trained, and looked at again before every round."""

from __future__ import annotations

import os

from fedsparse.config import DataSettings, SiteDataSettings
from fedsparse.errors import DataError
from fedsparse.training.manifest.files import SourceFile, list_files
from fedsparse.training.manifest.hashing import Progress, Stamp, Taken, hash_file, take
from fedsparse.training.manifest.stored import read_manifest
from fedsparse.training.manifest.value import DataManifest, compare, shown

_REMEDY = (
    "Restore the data, or, if the change is meant, look at it with `fedsparse client data check`, write the "
    "manifest anew with `fedsparse client data manifest`, and pin that one in site.toml"
)


class PinnedData:
    """Data whose content was verified once, and which is to stay as it is.

    Args:
        settings: where it lies.
        taken: what was verified.
    """

    def __init__(self, settings: DataSettings, taken: Taken) -> None:
        self._settings = settings
        self._files = {file.name: file for file in taken.manifest.files}
        self._paths = taken.paths
        self._stamps = dict(taken.stamps)

    def require_same_files(self) -> None:
        """Check after loading that what was loaded is what was verified: nothing was added, removed or changed.

        Raises:
            DataError: names the first file that was.
        """
        listed = {file.name for file in list_files(self._settings).files}
        if different := sorted(listed ^ self._files.keys(), key=os.fsencode):
            what = "was added" if different[0] in listed else "was removed"
            raise DataError(f"the data are pinned, and {shown(different[0])} {what} while they were read", _REMEDY)
        self.require_unchanged()

    def require_unchanged(self) -> None:
        """Check that no file was changed or removed since; only a file that somebody touched is read again.

        A file counts as touched where inode, size or time of modification or change is another. Files that were
        added are not looked for: nothing reads them before the next start, which refuses them.

        Raises:
            DataError: names the first that was.
        """
        for name, stamp in self._stamps.items():
            try:
                touched = Stamp.of(self._paths[name].stat()) != stamp
            except OSError as error:
                raise DataError(
                    f"the data are pinned, and {shown(name)} cannot be read any more: {error.strerror}", _REMEDY
                ) from None
            if touched:
                self._stamps[name] = self._same_content(name)

    def _same_content(self, name: str) -> Stamp:
        """Return the stamp of a file that was touched, for example by a backup, and still has its content."""
        expected = self._files[name]
        found, stamp = hash_file(SourceFile(name, self._paths[name], expected.size), lambda _: None)
        if found != expected:
            raise DataError(
                f"the data are pinned, and {shown(name)} was changed since it was verified: expected "
                f"{expected.size:,} bytes, SHA-256 {expected.sha256}, found {found.size:,}, {found.sha256}",
                _REMEDY,
            )
        return stamp


def verify_data(settings: SiteDataSettings, progress: Progress | None = None) -> PinnedData | None:
    """Read all of a site's data and compare it with what site.toml pins; None where it pins nothing.

    Raises:
        DataError: the data are others: names the first file that differs, where a manifest is given, and both
            fingerprints; or the manifest or a file cannot be used.
    """
    expected = _expected(settings)
    if expected is None and settings.fingerprint is None:
        return None
    taken = take(settings, progress)
    fingerprint = settings.fingerprint if expected is None else expected.fingerprint
    if taken.manifest.fingerprint != fingerprint:
        raise DataError(
            f"the data in {settings.path} are not those that are pinned: {_what(expected, taken.manifest)}; "
            f"expected the fingerprint {fingerprint}, found {taken.manifest.fingerprint}",
            _REMEDY,
        )
    return PinnedData(settings, taken)


def _expected(settings: SiteDataSettings) -> DataManifest | None:
    """Return the manifest that is named, if any is; it has to have the fingerprint that is pinned beside it."""
    if settings.manifest is None:
        return None
    manifest = read_manifest(settings.manifest)
    if settings.fingerprint not in (None, manifest.fingerprint):
        raise DataError(
            f"data.fingerprint = {settings.fingerprint}, but data.manifest = {settings.manifest} has "
            f"{manifest.fingerprint}",
            "Restore the manifest; or, if it was written anew on purpose, pin its fingerprint in site.toml",
        )
    return manifest


def _what(expected: DataManifest | None, found: DataManifest) -> str:
    if expected is None:
        return "which file differs tells data.manifest, which is not set"
    difference = compare(expected, found)
    more = len(difference) - 1
    return difference.first() + (f", and {more:,} more differ{'s' if more == 1 else ''}" if more else "")

"""Which Flower app bundles a site lets run: copies of those that somebody looked at, named by their hash."""

from __future__ import annotations

import difflib
import hashlib
import io
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

from fedsparse.errors import ProcessError
from fedsparse.files import write_atomic

_NAME = re.compile(r"[0-9a-f]{64}\.fab")


def approved_hashes(folder: Path) -> frozenset[str]:
    """Return the hashes of the bundles in ``folder``; none where there is no such folder.

    Raises:
        ProcessError: a file's content is another than when it was approved.
    """
    found = set()
    for path in sorted(folder.glob("*.fab")) if folder.is_dir() else ():
        try:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise ProcessError(f"cannot read the approved bundle {path}: {error.strerror}") from None
        if path.name != f"{digest}.fab":
            raise ProcessError(
                f"{path} is not what was approved: its hash is {digest}",
                "Remove it, and run `fedsparse client approve` again",
            )
        found.add(digest)
    return frozenset(found)


def require_approved(bundle: str, folder: Path | None) -> None:
    """Check that a bundle may run here.

    Args:
        bundle: its hash.
        folder: of the approved ones; None where the site approves whatever it has installed.

    Raises:
        ProcessError: it may not; says what to do.
    """
    if folder is not None and bundle not in approved_hashes(folder):
        raise ProcessError(
            f"the Flower app bundle {bundle} of this installation is not approved in {folder}",
            "Look at it and approve it with `fedsparse client approve`",
        )


def approve(bundle: bytes, folder: Path) -> Path:
    """Let a bundle run here from now on; return where its copy lies."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(bundle).hexdigest()}.fab"
    write_atomic(path, bundle)
    return path


def last_approved(folder: Path) -> bytes | None:
    """Return the bundle that was approved last, or None before the first."""
    found = [path for path in folder.glob("*.fab") if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    return max(found, key=lambda path: path.stat().st_mtime_ns).read_bytes() if found else None


def difference(before: bytes | None, bundle: bytes) -> list[str]:
    """Return what a bundle holds as lines of a unified diff against an earlier one, or against nothing."""
    old, new = ({} if before is None else _files(before)), _files(bundle)
    return [
        line
        for name in sorted(old.keys() | new.keys())
        for line in _file_difference(name, old.get(name), new.get(name))
    ]


def _file_difference(name: str, old: str | None, new: str | None) -> list[str]:
    """Return the lines of one file's diff; lines end at line feeds alone, as Python reads them."""
    before, after = ([] if text is None else text.split("\n") for text in (old, new))
    was = "/dev/null" if old is None else f"approved/{name}"
    becomes = "/dev/null" if new is None else f"installed/{name}"
    return list(difflib.unified_diff(before, after, was, becomes, lineterm=""))


def _files(bundle: bytes) -> Mapping[str, str]:
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        names = archive.namelist()
        if len(set(names)) != len(names):
            raise ProcessError("the app bundle holds a file twice, under one name", "Reinstall fedsparse")
        return {name: archive.read(name).decode("utf-8", "backslashreplace") for name in names}

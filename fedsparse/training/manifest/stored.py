"""A data manifest as a file: JSON, with a line for each file of the data, so that two of them can be compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedsparse.errors import DataError
from fedsparse.files import write_atomic
from fedsparse.training.manifest.value import DataFile, DataManifest

_FORMAT = "fedsparse data manifest 1"
_KEYS = frozenset({"format", "fingerprint", "files"})
_FILE_KEYS = frozenset({"path", "size", "sha256"})
_ANEW = "Restore it, or remove it and write it anew with `fedsparse client data manifest`"


def write_manifest(manifest: DataManifest, path: Path) -> None:
    """Write ``manifest`` to ``path``, whole or not at all.

    Raises:
        DataError: it cannot be written.
    """
    lines = ",\n".join(f"  {_line(file)}" for file in manifest.files)
    told = f'{{\n"format": "{_FORMAT}",\n"fingerprint": "{manifest.fingerprint}",\n"files": [\n{lines}\n]\n}}\n'
    try:
        write_atomic(path, told.encode("utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror}", "Name another with --output") from None


def read_manifest(path: Path) -> DataManifest:
    """Read what :func:`write_manifest` wrote; no file of the data is opened.

    Raises:
        DataError: it cannot be read, is no data manifest, or was altered: its files do not give its fingerprint.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"the data manifest {path} cannot be read: {error.strerror}", _ANEW) from None
    except (ValueError, RecursionError) as error:
        raise _no_manifest(path, f"{type(error).__name__}: {error}"[:200]) from None
    if not isinstance(raw, dict) or raw.get("format") != _FORMAT:
        raise _no_manifest(path, f'it does not say "format": "{_FORMAT}"')
    if raw.keys() != _KEYS or not isinstance(raw["files"], list):
        raise _no_manifest(path, f"its keys are not {', '.join(sorted(_KEYS))}")
    try:
        manifest = DataManifest(tuple(_file(number, one) for number, one in enumerate(raw["files"], 1)))
    except DataError as error:
        raise _no_manifest(path, str(error)) from None
    if manifest.fingerprint != raw["fingerprint"]:
        raise DataError(
            f"the data manifest {path} was altered: it says the fingerprint {str(raw['fingerprint'])[:64]}, "
            f"its files give {manifest.fingerprint}",
            _ANEW,
        )
    return manifest


def _line(file: DataFile) -> str:
    told = {"path": file.name, "size": file.size, "sha256": file.sha256}
    # Names that are no UTF-8 are written with escapes, all others as people write them.
    return json.dumps(told, ensure_ascii=any("\udc80" <= letter <= "\udcff" for letter in file.name))


def _file(number: int, raw: Any) -> DataFile:
    if not isinstance(raw, dict) or raw.keys() != _FILE_KEYS:
        raise DataError(f"entry {number} of files has not the keys {', '.join(sorted(_FILE_KEYS))}")
    name, size, sha256 = raw["path"], raw["size"], raw["sha256"]
    if not isinstance(name, str) or not isinstance(sha256, str) or type(size) is not int:
        raise DataError(f"entry {number} of files has a path, size or sha256 of another type")
    return DataFile(name, size, sha256)


def _no_manifest(path: Path, why: str) -> DataError:
    return DataError(f"{path} is no data manifest: {why.rstrip('.')}", _ANEW)

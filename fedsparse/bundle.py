"""The Flower app bundle: built from two shims, the same bytes wherever it is built."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from fedsparse.errors import ProcessError


def bundle_folder() -> Path:
    """Return the folder of the shims: inside an installed package, or in the source tree."""
    here = Path(__file__).resolve().parent
    for folder in (here / "_flower_app", here.parent / "deploy" / "flower-app"):
        if (folder / "pyproject.toml").is_file():
            return folder
    raise ProcessError("the Flower app's files are not installed", "Reinstall the fedsparse package")


@cache
def build_bundle() -> bytes:
    """Return the Flower app bundle (FAB), about 1.4 kB.

    A plant builds it from its own installation and never accepts one over the wire: it only compares hashes.
    """
    from flwr.cli.build import build_fab_from_disk  # half a second, and only needed here

    return build_fab_from_disk(bundle_folder())


def bundle_sha256() -> str:
    """Return the hash by which Flower knows the bundle, 64 hex digits."""
    return hashlib.sha256(build_bundle()).hexdigest()

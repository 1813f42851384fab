from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from flwr.cli.build import build_fab_from_disk

from fedsparse.bundle import build_bundle, bundle_folder, bundle_sha256


def test_the_bundle_is_small_and_its_hash_is_its_own() -> None:
    assert 500 < len(build_bundle()) < 2500
    assert bundle_sha256() == hashlib.sha256(build_bundle()).hexdigest()


def test_the_bundle_holds_the_shims_and_nothing_else() -> None:
    with zipfile.ZipFile(io.BytesIO(build_bundle())) as archive:
        names = {name for name in archive.namelist() if not name.startswith(".info/")}
        code = {name: archive.read(name).decode() for name in names if name.endswith(".py")}
    assert names == {
        "pyproject.toml",
        "fedsparse_app/__init__.py",
        "fedsparse_app/client.py",
        "fedsparse_app/server.py",
    }
    assert sum(len(text.splitlines()) for text in code.values()) < 20


def test_two_copies_of_the_folder_build_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        shutil.copytree(bundle_folder(), tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (tmp_path / "two").rglob("*"):
        path.touch()
    assert build_fab_from_disk(tmp_path / "one") == build_fab_from_disk(tmp_path / "two") == build_bundle()


def test_another_process_builds_the_same_bytes() -> None:
    code = "from fedsparse.bundle import bundle_sha256; print(bundle_sha256())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == bundle_sha256()

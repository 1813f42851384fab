"""Which app bundles may run at a site."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsparse.approval import approve, approved_hashes, difference, last_approved, require_approved
from fedsparse.bundle import build_bundle, bundle_sha256
from fedsparse.errors import ProcessError

Run = Callable[..., tuple[int, str, str]]


def bundle(**files: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name.replace("_py", ".py")), text)
    return content.getvalue()


def test_only_what_was_approved_may_run(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"is not approved in .*Look at it and approve it with"):
        require_approved(bundle_sha256(), tmp_path / "approved")
    approve(build_bundle(), tmp_path / "approved")
    require_approved(bundle_sha256(), tmp_path / "approved")
    with pytest.raises(ProcessError, match="is not approved"):
        require_approved("0" * 64, tmp_path / "approved")
    require_approved("0" * 64, None)  # a site that keeps no list


def test_a_copy_that_was_swapped_is_no_approval(tmp_path: Path) -> None:
    path = approve(build_bundle(), tmp_path)
    path.write_bytes(bundle(evil_py="import os"))
    with pytest.raises(ProcessError, match="is not what was approved"):
        approved_hashes(tmp_path)
    (tmp_path / f"{'0' * 64}.fab").write_bytes(build_bundle())
    path.unlink()
    with pytest.raises(ProcessError, match="is not what was approved"):
        require_approved(bundle_sha256(), tmp_path)


def test_the_difference_shows_what_comes_goes_and_changes(tmp_path: Path) -> None:
    before, after = bundle(a_py="one\n", gone_py="bye\n"), bundle(a_py="two\n", new_py="hello\n")
    shown = difference(before, after)
    for line in (
        "-one",
        "+two",
        "-bye",
        "+hello",
        "--- approved/gone.py",
        "+++ /dev/null",
        "+++ installed/new.py",
    ):
        assert line in shown
    assert difference(after, after) == []
    # Of these two Python runs the second alone.
    hidden, shown_ = (
        bundle(a_py="# x\x0cimport os"),
        bundle(a_py="# x\nimport os"),
    )
    assert "+import os" in difference(hidden, shown_)
    assert "+++ installed/b.py" in difference(hidden, bundle(a_py="# x\x0cimport os", b_py=""))
    assert "+two" in difference(None, after)


def test_the_last_approved_is_the_newest(tmp_path: Path) -> None:
    assert last_approved(tmp_path / "absent") is None
    for content in (bundle(a_py="one"), bundle(a_py="two")):
        approve(content, tmp_path)
        assert last_approved(tmp_path) == content

"""`fedsparse client data` as people type it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsparse import config
from fedsparse.cli.main import main
from fedsparse.training.manifest import read_manifest

from .data_samples import write_images

Run = Callable[..., tuple[int, str, str]]
SITE = """
[site]
name = "kiso"
hub = "127.0.0.1:1"

[site.identity]
certificate = "c.pem"
key = "c.key"
authority = "ca.pem"

[data]
path = "images"
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a plant's settings and images."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "images", per_class=2)
    (tmp_path / "site.toml").write_text(SITE)
    return tmp_path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return exit code, stdout and stderr of one command line below `fedsparse client data`."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedsparse", "client", "data", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        code = caught.value.code
        return (code if isinstance(code, int) else 0 if code is None else 1), printed.out, printed.err

    return call


def test_a_manifest_is_written_with_the_lines_that_pin_it(site: Path, run: Run) -> None:
    code, printed, _ = run("manifest")
    assert code == 0
    written = read_manifest(site / "data-manifest.json")
    assert "files        4, " in printed
    lines = [line.strip() for line in printed.splitlines()]
    pins = lines[lines.index("to pin these data, let site.toml say under [data]:") + 1 :]
    (site / "site.toml").write_text(SITE + "\n".join(pins) + "\n")
    settings = config.load(site / "site.toml", config.SiteConfig).data
    assert settings.manifest == site / "data-manifest.json"
    assert settings.fingerprint == written.fingerprint
    code, printed, _ = run("manifest")
    assert (code, "is up to date" in printed, "to pin" in printed) == (0, True, False)


def test_a_check_lists_what_changed_and_exits_with_1(site: Path, run: Run) -> None:
    run("manifest")
    fingerprint = read_manifest(site / "data-manifest.json").fingerprint
    code, _, complaint = run("check")
    assert (code, "pins no data" in complaint) == (1, True)
    assert run("check", "data-manifest.json")[0] == 0
    (site / "site.toml").write_text(SITE + f'fingerprint = "{fingerprint}"\n')
    assert run("check")[0] == 0
    (site / "images" / "dark" / "000.png").unlink()
    (site / "images" / "dark" / "new\n.png").write_bytes(b"new")
    (site / "images" / "light" / "001.png").write_bytes(b"changed")
    assert run("check")[0] == 1
    code, printed, _ = run("check", "data-manifest.json")
    assert code == 1
    assert [line[:14] for line in printed.splitlines()[:3]] == [
        "- dark/000.png",
        r"+ 'dark/new\n.",
        "~ light/001.pn",
    ]
    assert f"expected     {fingerprint} (data-manifest.json)" in printed
    assert "1 added, 1 missing, 1 changed" in printed


def test_another_manifest_is_replaced_only_when_somebody_says_so(
    site: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("manifest")
    before = (site / "data-manifest.json").read_bytes()
    (site / "images" / "light" / "001.png").write_bytes(b"changed")
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    code, printed, _ = run("manifest")
    assert (code, "~ light/001.png" in printed) == (1, True)
    assert (site / "data-manifest.json").read_bytes() == before
    assert run("manifest", "--yes")[0] == 0
    assert (site / "data-manifest.json").read_bytes() != before


def test_a_file_that_is_no_manifest_is_never_replaced(site: Path, run: Run) -> None:
    (site / "thesis.txt").write_text("mine")
    code, _, complaint = run("manifest", "--yes", "--output", "thesis.txt")
    assert (code, "thesis.txt is no data manifest" in complaint) == (1, True)
    assert (site / "thesis.txt").read_text() == "mine"


def test_a_place_that_cannot_be_written_to_is_named(site: Path, run: Run) -> None:
    code, _, complaint = run("manifest", "--output", "absent/manifest.json")
    assert (code, "absent/manifest.json cannot be written: No such file or directory" in complaint) == (1, True)


def test_files_that_a_table_lists_but_that_are_absent_are_told(site: Path, run: Run) -> None:
    (site / "data.csv").write_text("path,label\nimages/dark/000.png,dark\ngone.png,light\n")
    (site / "site.toml").write_text(SITE.replace('"images"', '"data.csv"'))
    code, printed, _ = run("manifest")
    assert code == 0
    assert "warning: listed, but not there: 1 file, for example gone.png" in printed
    assert [file.name for file in read_manifest(site / "data-manifest.json").files] == [
        "data.csv",
        "images/dark/000.png",
    ]

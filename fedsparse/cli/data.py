"""`fedsparse client data`: which files a plant trains on, written down, and what of them changed since."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bar

from fedsparse import config
from fedsparse.cli.figures import bytes_text, count_text, share_text
from fedsparse.cli.progress import say
from fedsparse.errors import ConfigError
from fedsparse.training.manifest import (
    DataManifest,
    Difference,
    Progress,
    Taken,
    compare,
    read_manifest,
    shown,
    take,
    write_manifest,
)

_DEFAULT_NAME = "data-manifest.json"
_SHOWN_AT_MOST = 20  # of the files that differ, before the question whether to go on
_LINE_SECONDS = 30.0  # between lines of progress where there is no terminal


def run_manifest(path: Path, output: Path | None, *, yes: bool, console: Console) -> None:
    """Write the manifest of a plant's data, and say what pins it.

    Raises:
        ConfigError: the settings are not right.
        DataError: the data or the file cannot be used; a file that is no manifest is not replaced.
    """
    settings = config.load(path, config.SiteConfig).data
    target = output or settings.manifest or path.resolve().parent / _DEFAULT_NAME
    before = read_manifest(target) if os.path.lexists(target) else None
    taken = _take(settings)
    found = taken.manifest
    if before == found:
        say(console, f"{target} is up to date")
    else:
        if before is not None:
            _ask(target, compare(before, found), yes=yes, console=console)
        write_manifest(found, target)
        say(console, f"written: {target}")
    _tell(taken, console)
    _tell_pins(settings, target, found, console)


def run_check(path: Path, manifest: Path | None, console: Console) -> bool:
    """Print how a plant's data differ from a manifest, or from what is pinned; return whether they do not.

    Raises:
        ConfigError: the settings are not right, or there is nothing to compare with.
        DataError: the data or the manifest cannot be used.
    """
    settings = config.load(path, config.SiteConfig).data
    source = manifest or settings.manifest
    pinned = None if manifest else settings.fingerprint  # a manifest that is named here need not be the pinned one
    if source is None and pinned is None:
        raise ConfigError(
            f"{path} pins no data, so there is nothing to compare with",
            "Write a manifest with `fedsparse client data manifest`, or name one here",
        )
    expected = None if source is None else read_manifest(source)
    taken = _take(settings)
    found = taken.manifest.fingerprint
    difference = Difference((), (), ()) if expected is None else compare(expected, taken.manifest)
    for line in difference.lines():
        say(console, line)
    _tell(taken, console)
    wanted = [(f"{path}, data.fingerprint", pinned)] if pinned else []
    wanted += [(str(source), expected.fingerprint)] if expected else []
    for name, fingerprint in wanted:
        say(console, f"expected     {fingerprint} ({name})" if fingerprint != found else f"as in        {name}")
    if len(difference):
        counts = f"{len(difference.added):,} added, {len(difference.removed):,} missing"
        say(console, f"{counts}, {len(difference.changed):,} changed")
    return all(fingerprint == found for _, fingerprint in wanted)


def _ask(target: Path, difference: Difference, *, yes: bool, console: Console) -> None:
    lines = difference.lines()
    for line in lines[:_SHOWN_AT_MOST]:
        say(console, line)
    if len(lines) > _SHOWN_AT_MOST:
        more = len(lines) - _SHOWN_AT_MOST
        say(console, f"and {more:,} more; all of them: fedsparse client data check {target}")
    if not yes and not typer.confirm(f"Replace {target}?"):
        raise typer.Exit(1)


def _tell(taken: Taken, console: Console) -> None:
    manifest = taken.manifest
    say(console, f"files        {len(manifest.files):,}, {bytes_text(manifest.size)}")
    say(console, f"fingerprint  {manifest.fingerprint}")
    if taken.absent:
        told = count_text(len(taken.absent), "file")
        say(console, f"warning: listed, but not there: {told}, for example {shown(taken.absent[0])}")


def _tell_pins(settings: config.SiteDataSettings, target: Path, found: DataManifest, console: Console) -> None:
    """Say what site.toml has to say for these data to be trained on, unless it does."""
    named = settings.manifest is not None and settings.manifest.resolve() == target.resolve()
    if named and settings.fingerprint in (None, found.fingerprint):
        return
    say(console, "to pin these data, let site.toml say under [data]:")
    say(console, f"  manifest = {json.dumps(str(target.resolve()), ensure_ascii=False)}")
    say(console, f'  fingerprint = "{found.fingerprint}"')


def _take(settings: config.SiteDataSettings) -> Taken:
    with _progress(Console(stderr=True)) as progress:
        return take(settings, progress)


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    """Yield what shows how far the reading is: a bar on a terminal, elsewhere a line now and then."""
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = TextColumn("reading"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def move(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield move


def _lines(console: Console) -> Progress:
    told = time.monotonic()

    def tell(done: int, total: int) -> None:
        nonlocal told
        if time.monotonic() - told > _LINE_SECONDS:
            told = time.monotonic()
            say(console, f"read {bytes_text(done)} of {bytes_text(total)} ({share_text(done, total)})")

    return tell

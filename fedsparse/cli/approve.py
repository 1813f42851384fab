"""`fedsparse client approve`: somebody at the site looks at the code that may run there, before it does."""

from __future__ import annotations

from pathlib import Path

import typer
from rich.console import Console

from fedsparse import config
from fedsparse.approval import approve, approved_hashes, difference, last_approved
from fedsparse.bundle import build_bundle, bundle_sha256
from fedsparse.cli.figures import printable
from fedsparse.errors import ConfigError


def run_approve(path: Path, *, yes: bool, console: Console) -> None:
    """Show the installed bundle beside the one approved last, ask, and approve it.

    Raises:
        ConfigError: site.toml names no folder for approved bundles.
    """
    folder = config.load(path, config.SiteConfig).site.approved
    if folder is None:
        raise ConfigError(
            f"{path} names no folder of approved bundles: whatever is installed here may run",
            'Add approved = "approved" under [site]',
        )
    bundle = build_bundle()
    if bundle_sha256() in approved_hashes(folder):
        console.print(f"{bundle_sha256()} is approved already", highlight=False, soft_wrap=True)
        return
    before = last_approved(folder)
    console.print("this bundle is new:" if before is None else "this is what changes:", highlight=False)
    for line in difference(before, bundle):
        console.print(f"  {printable(line)}", markup=False, highlight=False, soft_wrap=True)
    if not yes and not typer.confirm(f"Let the bundle {bundle_sha256()} run here?"):
        raise typer.Exit(1)
    console.print(f"approved: {approve(bundle, folder)}", highlight=False, soft_wrap=True)

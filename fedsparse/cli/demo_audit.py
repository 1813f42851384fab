"""The demo's last step: what an auditor does, on what an auditor has, in a process that knows nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from fedsparse.audit import read_folder, write_bundle
from fedsparse.cli.demo_site import Layout
from fedsparse.processes import script

FOLDER = "audit"
_SECONDS = 120


def audit_ledgers(layout: Layout, folder: Path) -> dict[str, Any]:
    """Export every plant's ledger, verify each, and write its report in both languages.

    Args:
        folder: of the demo; ``audit/`` in it gets the bundles, the CA certificate, the hub's records, the reports.

    Returns:
        How many entries there are, whether all verify, and what the verifier said where one does not.
    """
    home = folder / FOLDER
    home.mkdir()
    shutil.copy(layout.authority, home / "ca.pem")
    entries, problems = 0, []
    for name, site in layout.sites.items():
        evidence = read_folder(site.parent / "state" / "ledger")
        entries += len(evidence.rows)
        write_bundle(home / f"{name}.evidence.tar", evidence)
        trusted = ["--ca", "ca.pem"]
        kept = layout.federation.parent / "state" / "receipts" / f"{name}.jsonl"
        if kept.exists():  # the plant may never have answered
            shutil.copy(kept, home)
            trusted += ["--hub-receipts", kept.name]
        told = _audit(home, "verify", f"{name}.evidence.tar", *trusted)
        problems += [f"{name}: {line.strip()}" for line in told]
        for language in ("en", "ja"):
            out = f"{name}.{language}.html"
            _audit(home, "report", f"{name}.evidence.tar", *trusted, "--lang", language, "--out", out)
    return {"entries": entries, "verified": not problems, "problems": problems}


def _audit(home: Path, *words: str) -> list[str]:
    """Run one of the auditor's commands in ``home``; return what it said if it found something."""
    command = [script("fedsparse"), "audit", *words]
    environment = {"PATH": os.environ.get("PATH", ""), "COLUMNS": "200"}
    done = subprocess.run(
        command, cwd=home, env=environment, capture_output=True, text=True, check=False, timeout=_SECONDS
    )
    return (done.stdout + done.stderr).splitlines() or [f"status {done.returncode}"] if done.returncode else []

"""Attacks on what shows what left a site: evidence altered, faults at every system call, kills, smuggled data.

Every part works on real ledgers, real processes and real disks, on loopback or in network namespaces of its own.
The figures are written to results/attacks_audit.json and into docs/audit.md; a part that is run by itself takes
the place of its earlier figures there, and each part says when it was run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.auditing.page import write
from benchmarks.auditing.part import Part
from benchmarks.report import RESULTS, Claim, write_report

NAME = "attacks_audit"
PAGE = Path(__file__).parents[1] / "docs" / "audit.md"
PARTS = ("mutations", "faults", "kills", "covert", "exfiltration", "wire", "cost")


def main() -> None:
    """Run all parts, or some."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="a part to run; all without it")
    parser.add_argument("--work", type=Path, help="folder for what arises; a temporary one without it")
    options = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    kept = _kept() if options.only else {}
    with tempfile.TemporaryDirectory(prefix="fedsparse-audit-") as scratch:
        for name in options.only or PARTS:
            folder = (options.work or Path(scratch)) / name
            folder.mkdir(parents=True, exist_ok=True)
            console.print(f"[bold]{name}[/]")
            begun = time.monotonic()
            part: Part = importlib.import_module(f"benchmarks.auditing.{name}").run(folder)
            _show(part, console)
            seconds = time.monotonic() - begun
            console.print(f"{seconds:.0f} s")
            kept[name] = _settled(part, seconds)
            _write(kept)


def _settled(part: Part, seconds: float) -> dict[str, Any]:
    """Return a part as it is kept: its rows, its claims, and all that decides them."""
    settings = {
        **part.settings,
        "notes": list(part.notes),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds),
        "claims": len(part.claims),
    }
    rows = [{"part": part.name, **row} for row in part.rows]
    return {"settings": settings, "rows": rows, "claims": list(part.claims)}


def _kept() -> dict[str, dict[str, Any]]:
    """Return the parts of earlier runs."""
    path = RESULTS / f"{NAME}.json"
    if not path.exists():
        return {}
    report = json.loads(path.read_text(encoding="utf-8"))
    claims = [Claim(**claim) for claim in report["claims"]]
    found: dict[str, dict[str, Any]] = {}
    for name, settings in report["settings"].items():
        rows = [row for row in report["rows"] if row["part"] == name]
        found[name] = {"settings": settings, "rows": rows, "claims": claims[: settings["claims"]]}
        del claims[: settings["claims"]]
    return found


def _write(kept: Mapping[str, Mapping[str, Any]]) -> None:
    """Write what there is, in the order of the parts."""
    parts = [name for name in PARTS if name in kept]
    rows = [row for name in parts for row in kept[name]["rows"]]
    claims = [claim for name in parts for claim in kept[name]["claims"]]
    path = write_report(NAME, {name: kept[name]["settings"] for name in parts}, rows, claims)
    write(PAGE, json.loads(path.read_text(encoding="utf-8")))


def _show(part: Part, console: Console) -> None:
    if part.rows:
        table = Table(*part.rows[0], box=None)
        for row in part.rows:
            table.add_row(*(escape(str(cell)) for cell in row.values()))
        console.print(table)
    for note in part.notes:
        console.print(escape(note))


if __name__ == "__main__":
    main()

"""Attacks on what shows what left a site: evidence altered, faults at every system call, kills, smuggled data.

Every part works on real ledgers, real processes and real disks, on loopback or in network namespaces of its own.
The figures are written to results/attacks_audit.json and into docs/audit.md.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.auditing.page import write
from benchmarks.auditing.part import Part
from benchmarks.report import tell, write_report

PAGE = Path(__file__).parents[1] / "docs" / "audit.md"
PARTS = ("mutations", "faults", "kills", "covert", "exfiltration", "wire", "cost")


def main() -> None:
    """Run all parts, or some: those print their figures and leave what is committed alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="a part to run; all without it")
    parser.add_argument("--work", type=Path, help="folder for what arises; a temporary one without it")
    options = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    chosen = options.only or PARTS
    parts = []
    with tempfile.TemporaryDirectory(prefix="fedsparse-audit-") as scratch:
        for name in chosen:
            folder = (options.work or Path(scratch)) / name
            folder.mkdir(parents=True, exist_ok=True)
            console.print(f"[bold]{name}[/]")
            begun = time.monotonic()
            part: Part = importlib.import_module(f"benchmarks.auditing.{name}").run(folder)
            _show(part, console)
            console.print(f"{time.monotonic() - begun:.0f} s")
            parts.append(part)
    claims = [claim for part in parts for claim in part.claims]
    if options.only:
        tell(claims)
        return
    settings = {part.name: {**part.settings, "notes": list(part.notes)} for part in parts}
    rows = [{"part": part.name, **row} for part in parts for row in part.rows]
    path = write_report("attacks_audit", settings, rows, claims)
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

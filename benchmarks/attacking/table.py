"""The table of attacks as docs/security.md shows it, made from attacks.json alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

BEGIN = "<!-- attacks: begin, written by `make attacks` -->"
END = "<!-- attacks: end -->"


def table(report: Mapping[str, Any]) -> str:
    """Return the table, with a line about the whole before it."""
    rows: Sequence[Mapping[str, Any]] = report["rows"]
    holding = sum(bool(row["holds"]) for row in rows)
    lines = [
        f"{len(rows)} attacks, {holding} of them with every check as it must be, seen on {report['time'][:10]}.",
        "",
    ]
    lines += ["| # | attack | on | must be | right answer | log line | lives | honest plants served |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    group = ""
    for number, row in enumerate(rows, 1):
        if row["group"] != group:
            group = row["group"]
            lines.append(f"| | **{group}** | | | | | | |")
        said = [row["does"], row["side"], row["refused_how"]]
        verdicts = [_verdict(row[key]) for key in ("refused", "logged", "alive", "served")]
        lines.append(f"| {number} | " + " | ".join([*map(_escaped, said), *verdicts]) + " |")
    return "\n".join([*lines, "", *_notes(rows)])


def _verdict(value: bool | None) -> str:
    return {True: "yes", False: "**no**", None: "–"}[value]


def _escaped(text: str) -> str:
    return text.replace("|", "/").replace("<", "&lt;")


def _notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say why some have no log line: nothing is refused there."""
    reasons = sorted({row["why_no_log"] for row in rows if row["logged"] is None and row["why_no_log"]})
    return [f"A dash: no log line is due, because {'; or because '.join(reasons)}."] if reasons else []


def write(page: Path, report: Mapping[str, Any]) -> None:
    """Put the table between the two markers of ``page``."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{table(report)}\n\n{END}{after}", encoding="utf-8")


def shown(page: Path) -> str:
    """Return the table that stands in ``page``."""
    return page.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()

"""The figures as docs/audit.md shows them, made from attacks_audit.json alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

BEGIN = "<!-- figures: begin, written by `make attacks-audit` -->"
END = "<!-- figures: end -->"
_TITLES = {
    "mutations": "Evidence altered",
    "faults": "Faults while recording",
    "kills": "The gateway killed",
    "covert": "What one allowed message can still hide",
    "exfiltration": "Data smuggled through the gate",
    "wire": "Bytes on the cable",
    "cost": "What it costs",
}


def figures(report: Mapping[str, Any]) -> str:
    """Return the claims, and each part's table."""
    claims: Sequence[Mapping[str, Any]] = report["claims"]
    times = {name: settings["time"][:10] for name, settings in report["settings"].items()}
    seen = ", ".join(f"{_TITLES[name].lower()} {time}" for name, time in times.items())
    lines = [
        f"On {report['machine']['cpus']} cores; {seen}.",
        "",
        "| figure | measured | aim | holds |",
        "|---|---|---|---|",
    ]
    for one in claims:
        told = [one["name"], f"{one['value']:,.6g} {one['unit']}", one["aim"], "yes" if one["holds"] else "**no**"]
        lines.append("| " + " | ".join(map(_escaped, told)) + " |")
    for part, rows in groupby(report["rows"], key=lambda row: str(row["part"])):
        lines += ["", f"### {_TITLES[part]}", "", *_table(list(rows)), ""]
        lines += [f"- {_escaped(note)}" for note in report["settings"][part]["notes"]]
    return "\n".join(lines).strip()


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    heads = [name for name in rows[0] if name != "part"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return lines + ["| " + " | ".join(_escaped(_told(row.get(name))) for name in heads) + " |" for row in rows]


def _told(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.4g}"
    return f"{value:,}" if isinstance(value, int) else "" if value is None else str(value)


def _escaped(text: str) -> str:
    return text.replace("|", "/").replace("<", "&lt;").replace("\n", " ")


def write(page: Path, report: Mapping[str, Any]) -> None:
    """Put the figures between the two markers of ``page``."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n\n{figures(report)}\n\n{END}{after}", encoding="utf-8")


def shown(page: Path) -> str:
    """Return the figures that stand in ``page``."""
    return page.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()

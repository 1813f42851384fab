"""What every benchmark leaves behind: a table for people and ``benchmarks/results/NAME.json`` for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from fedsparse.kernels import COMPILED

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Claim:
    """One figure beside its aim.

    Attributes:
        name: what is claimed, as a sentence.
        value: as measured.
        aim: what it must reach, in words.
        unit: of ``value``.
        holds: computed from ``value``, never written by hand.
    """

    name: str
    value: float
    aim: str
    unit: str
    holds: bool


def write_report(
    name: str, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], claims: Sequence[Claim]
) -> Path:
    """Write ``NAME.json`` and print the claims.

    Args:
        settings: everything that decides the figures, seeds included.
        rows: what the table shows.
    """
    report = {
        "name": name,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "settings": dict(settings),
        "rows": [dict(row) for row in rows],
        "claims": [asdict(claim) for claim in claims],
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    tell(claims)
    Console(highlight=False, soft_wrap=True).print(f"written: {path}")
    return path


def tell(claims: Sequence[Claim]) -> None:
    """Print each figure beside its aim."""
    console = Console(highlight=False, soft_wrap=True)
    for claim in claims:
        verdict = "[green]holds[/]" if claim.holds else "[bold red]FALLS SHORT[/]"
        console.print(f"{verdict}  {claim.name}: {claim.value:.4g} {claim.unit} (aim: {claim.aim})")


def machine() -> dict[str, Any]:
    """Return what the figures were taken on."""
    packages = ("fedsparse", "flwr", "grpcio", "numpy", "torch")
    return {
        "cpus": os.cpu_count(),
        "processor": platform.machine(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "kernels": "compiled" if COMPILED else "NumPy",
    }

"""What remains of a run to read: ``summary.json`` for programs and ``summary.html`` for people."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, StrictUndefined

from fedsparse.cli import figures
from fedsparse.cli.figures import Summary
from fedsparse.cli.plots import draw_plots
from fedsparse.cli.svg import HEIGHT, WIDTH
from fedsparse.files import write_atomic


def write_summary(summary: Mapping[str, Any], folder: Path) -> None:
    """Write a run's figures into ``folder``, each file whole or not at all.

    Args:
        summary: as ``figures.Summary``; a figure that is not finite is written as null.
        folder: created if absent.
    """
    finite = cast(Summary, _finite(summary))
    text = json.dumps(finite, ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False) + "\n"
    page = render_summary(finite)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "summary.json", text.encode())
    write_atomic(folder / "summary.html", page.encode())


def render_summary(summary: Summary) -> str:
    """Return the page: one HTML file that requests nothing, runs nothing and prints well.

    Every name and text in ``summary`` is hostile: it is escaped, and isolated from the text around it.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "score": figures.score_text,
        "bytes": figures.bytes_text,
        "seconds": figures.seconds_text,
        "reason": figures.reason_text,
        "printable": figures.printable,
        "short": partial(figures.shortened, cells=24),
        "count": figures.count_text,
        "flat": _flat,
        "when": _when,
    }
    template = environment.from_string(files("fedsparse.cli").joinpath("summary.html.j2").read_text("utf-8"))
    return template.render(
        summary=summary,
        verdict=figures.verdict(summary),
        plots=draw_plots(summary),
        plants=_plants(summary),
        labels=list(dict.fromkeys(label for data in summary["plants"].values() for label in data["classes"])),
        compared=partial(_compared, summary),
        width=WIDTH,
        height=HEIGHT,
    )


def _plants(summary: Summary) -> list[str]:
    """Return every plant that is named anywhere, in the order in which the run came to know them."""
    answered = [plant["plant"] for one in summary["history"] for plant in one["plants"]]
    return list(dict.fromkeys([*summary["plants"], *summary["alone_history"], *answered]))


def _compared(summary: Summary, size: float | None) -> list[str]:
    """Say what share of the dense adapter and of the full model ``size`` bytes are; nothing if unknown."""
    whole = {"dense adapter": summary["dense_adapter_bytes"], "full model": summary["dense_model_bytes"]}
    return [
        f"{figures.share_text(size, total)} of the {name}, {figures.times_text(size, total)}"
        for name, total in whole.items()
        if size and total
    ]


def _flat(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of nested settings with their dotted names."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield f"{path}{name}", ", ".join(str(item) for item in value)
        else:
            yield f"{path}{name}", str(value)


def _when(seconds: float) -> str:
    """Write a time in seconds since 1970 as a date (ISO 8601)."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _finite(value: Any) -> Any:
    """Return the same tree with None for what JSON cannot say (RFC 8259 has no NaN and no infinity)."""
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

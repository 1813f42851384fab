"""What remains of `fedsparse train` to read: ``report.json`` for programs and ``report.html`` for people."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from fedsparse.cli import figures
from fedsparse.cli.svg import HEIGHT, WIDTH
from fedsparse.cli.train_plots import draw_plots
from fedsparse.cli.train_record import figure_label, japanese_label
from fedsparse.files import write_atomic
from fedsparse.training.metrics import METRICS


def write_report(report: Mapping[str, Any], folder: Path) -> None:
    """Write both files into ``folder``, each whole or not at all."""
    text = json.dumps(report, ensure_ascii=False, indent=1) + "\n"
    page = render_report(report)
    # A file's name may be any bytes; as an escape it is still JSON, and the page shows it replaced.
    write_atomic(folder / "report.json", text.encode(errors="backslashreplace"))
    write_atomic(folder / "report.html", page.encode(errors="replace"))


def render_report(report: Mapping[str, Any]) -> str:
    """Return the page: one HTML file that requests nothing and runs nothing; every name in it is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "score": figures.score_text,
        "bytes": figures.bytes_text,
        "seconds": figures.seconds_text,
        "printable": figures.printable,
        "count": figures.count_text,
        "label": figure_label,
        "japanese": japanese_label,
        "percent": percent_text,
        "flat": _flat,
    }
    template = environment.from_string(files("fedsparse.cli").joinpath("train_report.html.j2").read_text("utf-8"))
    return template.render(
        report=report,
        verdict=verdict(report),
        verdict_japanese=verdict_japanese(report),
        better=better_than_before(report),
        plots=draw_plots(report),
        share=figures.share_text,
        times=figures.times_text,
        width=WIDTH,
        height=HEIGHT,
    )


def percent_text(density: float) -> str:
    """Write a density for people."""
    return f"{100 * density:.3g} %"


def chosen_figure(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the figure that chose the best epoch, or the loss where that one is undefined."""
    by_name = {figure["name"]: figure for figure in report["figures"]}
    figure: Mapping[str, Any] = by_name.get(report["metric"], by_name["loss"])
    return figure


def better_than_before(report: Mapping[str, Any]) -> bool:
    """Return whether training has improved the figure that chose the best epoch."""
    figure = chosen_figure(report)
    before, after = figure["before"]["value"], figure["after"]["value"]
    return bool(after > before if METRICS[figure["name"]] else after < before)


def verdict(report: Mapping[str, Any]) -> str:
    """Say in one sentence what training yielded."""
    figure, adapter = chosen_figure(report), report["adapter"]
    samples = sum(one["holdout"] for one in report["data"]["classes"])
    after, text = figure["after"], figures.score_text
    ends = _ends(after)
    within = f" (95 % interval {ends[0]} to {ends[1]})" if ends else ""
    name = figure["label"]
    head = "" if better_than_before(report) else "No better than before: "
    name = name if head else name[0].upper() + name[1:]
    size = adapter["bytes_bf16"]
    return (
        f"{head}{name} {text(after['value'])}{within} on {samples:,} held-out samples, "
        f"{text(figure['before']['value'])} before training; the adapter takes {figures.bytes_text(size)}, "
        f"{figures.times_text(size, report['base']['bytes'])} than the model"
    )


def verdict_japanese(report: Mapping[str, Any]) -> str:
    """Say the same as :func:`verdict` in Japanese."""
    figure, size, text = chosen_figure(report), report["adapter"]["bytes_bf16"], figures.score_text
    samples = sum(one["holdout"] for one in report["data"]["classes"])
    ends = _ends(figure["after"])
    within = f"（95 % 区間 {ends[0]}～{ends[1]}）" if ends else ""
    head = "" if better_than_before(report) else "学習前より改善していません。"
    name = japanese_label(figure["name"]) or figure["label"]
    return (
        f"{head}検証データ {samples:,} 件での{name}は {text(figure['after']['value'])}{within}、"
        f"学習前は {text(figure['before']['value'])}。アダプターは {figures.bytes_text(size)}、"
        f"モデルの {figures.share_text(size, report['base']['bytes'])} です。"
    )


def _ends(figure: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return an interval's ends as they are shown; None where it has no width, for then it says nothing."""
    if figure["low"] is None:
        return None
    low, high = figures.score_text(figure["low"]), figures.score_text(figure["high"])
    return None if low == high else (low, high)


def _flat(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of nested settings with their dotted names; those left open are passed over."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}.")
        elif isinstance(value, list):
            if value and not isinstance(value[0], Mapping):
                yield f"{path}{name}", ", ".join(map(str, value))
        elif value is not None:
            yield f"{path}{name}", str(value)

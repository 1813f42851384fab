"""The tables, the plot and the claims of :mod:`benchmarks.federated`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.federated_plot import write_plot
from benchmarks.report import RESULTS, Claim, write_report

_OWN = 98.0  # percent of centralised training that is aimed at, where plants are moderately unlike
_AT = 0.5

Result = Mapping[str, Any]
Row = dict[str, Any]


def report(
    results: Sequence[Result],
    arms: Sequence[str],
    last: int,
    settings: Mapping[str, Any],
    variants: Collection[str] = (),
) -> None:
    """Print the tables, write results/federated.json and results/federated.svg.

    Args:
        results: one per arm, problem, plants, alpha and seed, with what was found.
        arms: their order; the first is the default.
        last: rounds whose accuracies are averaged.
        variants: arms that are told, and that nothing is claimed against.
    """
    rows = _rows(results, last)
    for problem in sorted({row["problem"] for row in rows}):
        _print(problem, [row for row in rows if row["problem"] == problem], arms)
    rivals = [arm for arm in arms if arm not in variants]
    write_plot([row for row in rows if row["arm"] in rivals], rivals, RESULTS / "federated.svg")
    compared = [one for one in results if one["arm"] in rivals]
    write_report("federated", settings, rows, _claims(compared, rivals, last))


def _score(result: Result, last: int) -> float:
    return statistics.mean(result["found"]["history"][-last:])


def _rows(results: Sequence[Result], last: int) -> list[Row]:
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for result in results:
        key = (result["problem"], result["plants"], result["alpha"], result["arm"])
        groups.setdefault(key, []).append(result)
    rows = []
    for (problem, plants, alpha, arm), members in groups.items():
        scores = [_score(member, last) for member in members]
        row: Row = {
            "problem": problem,
            "plants": plants,
            "alpha": alpha,
            "arm": arm,
            "balanced_accuracy": statistics.mean(scores),
            "standard_error": _error(scores),
            "scores": scores,
            "learning_rate": members[0]["found"]["training"]["learning_rate"],
            "failed": [member["found"]["failed"] for member in members if "failed" in member["found"]],
        }
        for key in ("bytes_up", "bytes_down"):
            sent = [member["found"].get(key) for member in members]
            row[key] = None if None in sent else statistics.mean(sent)
        rows.append(row)
    return rows


def _error(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None


def _within(gains: Mapping[int, Sequence[float]]) -> float:
    """Return the standard error of the mean of all, apart from differences between the groups; 0 of lone draws."""
    squares = sum((gain - statistics.mean(group)) ** 2 for group in gains.values() for gain in group)
    free = sum(len(group) - 1 for group in gains.values())
    return math.sqrt(squares / free / sum(map(len, gains.values()))) if free else 0.0


def _print(problem: str, rows: Sequence[Row], arms: Sequence[str]) -> None:
    columns = sorted({(row["plants"], row["alpha"]) for row in rows})
    by = {(row["arm"], row["plants"], row["alpha"]): row for row in rows}
    title = f"{problem}: balanced accuracy after the last rounds, and one plant's mean bytes a round"
    table = Table(
        "arm", *(f"{plants} plants, α {alpha:g}" for plants, alpha in columns), "up", "down", title=title
    )
    for arm in arms:
        here = [by[arm, *column] for column in columns]
        cells = [_cell(row) for row in here]
        table.add_row(arm, *cells, *(_bytes(here, key) for key in ("bytes_up", "bytes_down")))
    Console(highlight=False, width=150).print(table)


def _cell(row: Row) -> str:
    error = row["standard_error"]
    return f"{row['balanced_accuracy']:.3f}" + ("" if error is None else f" ± {error:.3f}")


def _bytes(rows: Sequence[Row], key: str) -> str:
    sent = [row[key] for row in rows if row[key] is not None]
    return f"{statistics.mean(sent):,.0f}" if sent else "-"


def _claims(results: Sequence[Result], arms: Sequence[str], last: int) -> list[Claim]:
    scores = {
        (one["problem"], one["alpha"], one["plants"], one["seed"], one["arm"]): _score(one, last)
        for one in results
    }
    default, *others = arms
    draws = sorted({key[:4] for key in scores})
    claims = []
    for problem, alpha in sorted({key[:2] for key in scores}):
        here = [draw for draw in draws if draw[:2] == (problem, alpha)]
        mine = [scores[*draw, default] for draw in here]
        for other in others:
            theirs = [scores[*draw, other] for draw in here]
            if other.startswith("centralised"):
                if alpha == _AT:
                    share = 100 * statistics.mean(mine) / statistics.mean(theirs)
                    name = f"{problem}, α {alpha:g}: balanced accuracy of the default over that of {other}"
                    claims.append(Claim(name, share, f"≥ {_OWN:g}", "%", share >= _OWN))
                continue
            gains: dict[int, list[float]] = {}
            for (_, _, plants, _), a, b in zip(here, mine, theirs, strict=True):
                gains.setdefault(plants, []).append(100 * (a - b))
            ahead, error = statistics.mean(gain for group in gains.values() for gain in group), _within(gains)
            claims.append(
                Claim(
                    f"{problem}, α {alpha:g}: balanced accuracy of the default less that of {other}",
                    ahead,
                    f"≥ 0, or within one standard error ({error:.1f})",
                    "points",
                    ahead >= -error,
                )
            )
    return claims

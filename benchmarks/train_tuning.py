"""Learning rates for `make bench-train`, equally many for every arm, and ways to choose the sparse coordinates.

All are measured on a quarter of the training samples and trained on the rest; the test samples stay unseen. The
benchmark takes the best rates of each arm from benchmarks/results/train_tuning.json. Finished runs are kept below
--work: interrupted tuning goes on where it stopped; after a change of the code, remove that folder.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.report import Claim, write_report
from benchmarks.simulation import ORDERS
from benchmarks.training.arms import COORDINATES, Recipe
from benchmarks.training.jobs import WORK, Job, problems, run_all
from benchmarks.training.plan import ARMS, EPOCHS, FEW, FEW_EPOCHS

RATES = {"full": (1e-4, 3e-4, 1e-3), "lora": (1e-3, 3e-3, 1e-2), "sparse": (1e-3, 3e-3, 1e-2), "probe": (1e-3,)}
HEAD_RATES = {"images": 1e-3, "texts": 3e-3}  # with all samples; the probe, which has no other, tries three
PROBE_RATES = {"images": (3e-3, 1e-2, 3e-2), "texts": (1e-2, 3e-2, 1e-1)}
FEW_HEAD_RATES = (1e-3, 1e-2)
FEW_PROBE_RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
FOLDS = {"images": 2, "texts": 3}
FEW_FOLDS = 3
COORDINATES_FOLDS = 3
COORDINATES_RATE = 3e-3  # while ways to choose coordinates are compared


def rates(problem: str, per_class: int, arm: str) -> Sequence[tuple[float, float]]:
    """Return the pairs that an arm tries, of its rate and its head's: three, or six where samples are few."""
    if arm == "probe":
        return [(RATES[arm][0], head) for head in (FEW_PROBE_RATES if per_class else PROBE_RATES[problem])]
    return list(itertools.product(RATES[arm], FEW_HEAD_RATES if per_class else (HEAD_RATES[problem],)))


def _jobs(orders: Path) -> list[Job]:
    found = problems(orders)
    jobs = []
    for problem, per_class in [*(("images", few) for few in FEW), *((problem, 0) for problem in found)]:
        epochs = FEW_EPOCHS[per_class] if per_class else EPOCHS[problem]
        for arm in ARMS:
            for rate, head_rate in rates(problem, per_class, arm):
                recipe = Recipe(arm, epochs, rate, head_rate)
                folds = FEW_FOLDS if per_class else FOLDS[problem]
                jobs += [Job(problem, per_class, seed, recipe, tuning=True) for seed in range(folds)]
    for problem in found:
        for coordinates in sorted(COORDINATES.keys() - {"default"}):
            pair = COORDINATES_RATE, HEAD_RATES[problem]
            recipe = Recipe("sparse", EPOCHS[problem], *pair, coordinates=coordinates)
            jobs += [Job(problem, 0, seed, recipe, tuning=True) for seed in range(COORDINATES_FOLDS)]
    return jobs


def _rows(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per problem, size, arm and pair of rates; the best of each arm is marked."""
    groups: dict[tuple[str, int, str, str, float, float], list[float]] = {}
    for result in results:
        recipe = result["recipe"]
        names = (result["problem"], result["per_class"], recipe["arm"], recipe["coordinates"])
        key = (*names, recipe["rate"], recipe["head_rate"])
        groups.setdefault(key, []).append(result["quality"]["balanced_accuracy"])
    rows = [
        {
            "problem": problem,
            "per_class": per_class,
            "arm": arm,
            "coordinates": coordinates,
            "rate": rate,
            "head_rate": head_rate,
            "balanced_accuracy": statistics.mean(found),
            "folds": len(found),
            "best": False,
        }
        for (problem, per_class, arm, coordinates, rate, head_rate), found in sorted(groups.items())
    ]
    defaults = [row for row in rows if row["coordinates"] == "default"]
    for _, group in itertools.groupby(defaults, key=lambda row: (row["problem"], row["per_class"], row["arm"])):
        max(group, key=lambda row: row["balanced_accuracy"])["best"] = True  # type: ignore[arg-type,return-value]
    return rows


def _at_the_edge(row: dict[str, Any]) -> bool:
    """Return whether a better rate may lie outside what was tried."""
    which = "head_rate" if row["arm"] == "probe" else "rate"
    tried = sorted({pair[which == "head_rate"] for pair in rates(row["problem"], row["per_class"], row["arm"])})
    return row[which] in (tried[0], tried[-1])


def main() -> None:
    """Run everything, print the table, and write results/train_tuning.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--texts", type=Path, default=ORDERS, help="folder of the maintenance work orders")
    options = parser.parse_args()
    orders = options.texts.resolve()
    rows = _rows(run_all(_jobs(orders), options.work.resolve(), orders, options.workers))
    table = Table("problem", "samples", "arm", "coordinates", "rate", "head's rate", "balanced accuracy", "taken")
    for row in rows:
        table.add_row(
            row["problem"],
            f"{row['per_class']} per class" if row["per_class"] else "all",
            row["arm"],
            row["coordinates"],
            f"{row['rate']:g}",
            f"{row['head_rate']:g}",
            f"{row['balanced_accuracy']:.3f}",
            "yes" if row["best"] else "",
        )
    Console(highlight=False, width=120).print(table)
    best = [row for row in rows if row["best"]]
    inside = statistics.mean(not _at_the_edge(row) for row in best)
    claims = [
        Claim(
            "best rates that lie within what was tried, not at its edge", 100 * inside, "≥ 50", "%", inside >= 0.5
        )
    ]
    settings = {"folds": FOLDS, "few_folds": FEW_FOLDS, "epochs": EPOCHS, "few_epochs": FEW_EPOCHS, "threads": 1}
    write_report("train_tuning", settings, rows, claims)


if __name__ == "__main__":
    main()

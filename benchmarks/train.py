"""Sparse adapters beside PEFT's LoRA, full fine-tuning and a linear probe: time, memory, accuracy, few samples.

All arms of one comparison see the same samples, for the same number of steps, with the same optimiser, schedule
and loss. Learning rates are the best of those that each arm tried on a part of the training samples, as many for
each (`make bench-train-tuning`). Finished runs are kept below --work: an interrupted benchmark goes on where it
stopped; after a change of the code, remove that folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.report import RESULTS, Claim, write_report
from benchmarks.simulation import ORDERS
from benchmarks.training.arms import Recipe
from benchmarks.training.jobs import WORK, Job, problems, run_all
from benchmarks.training.plan import ARMS, DENSITY, EPOCHS, FEW, FEW_EPOCHS
from benchmarks.training.plot import write_plot

DENSITIES = {"images": (0.002, 0.005, 0.02, 0.05), "texts": (0.002, 0.05)}  # besides 1 %
DENSITY_SEEDS = FEW_SEEDS = 3
TOKENS = (16, 64, 128)
HEADLINE_TOKENS = 64


def _recipes() -> dict[tuple[str, int], list[Recipe]]:
    """Return by problem and size the tuned recipe of every arm."""
    tuned = json.loads((RESULTS / "train_tuning.json").read_text())["rows"]
    recipes: dict[tuple[str, int], list[Recipe]] = {}
    for row in tuned:
        if row["best"]:
            problem, per_class = row["problem"], row["per_class"]
            epochs = FEW_EPOCHS[per_class] if per_class else EPOCHS[problem]
            recipe = Recipe(row["arm"], epochs, row["rate"], row["head_rate"], DENSITY)
            recipes.setdefault((problem, per_class), []).append(recipe)
    return recipes


def _jobs(seeds: Sequence[int], orders: Path) -> list[Job]:
    known = problems(orders)
    jobs = []
    for (problem, per_class), recipes in _recipes().items():
        if problem not in known:
            continue
        for recipe in recipes:
            jobs += [Job(problem, per_class, seed, recipe) for seed in seeds[: FEW_SEEDS if per_class else None]]
            if recipe.arm == "sparse" and not per_class:
                other = [replace(recipe, density=density) for density in DENSITIES[problem]]
                jobs += [Job(problem, 0, seed, one) for one in other for seed in seeds[:DENSITY_SEEDS]]
    return jobs


def _summary(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one row per problem, size and arm: means over seeds, and the standard error of the mean."""
    groups: dict[tuple[str, int, str, float], list[dict[str, Any]]] = {}
    for result in results:
        recipe = result["recipe"]
        key = (result["problem"], result["per_class"], recipe["arm"], recipe["density"])
        groups.setdefault(key, []).append(result)
    rows = []
    for (problem, per_class, arm, density), group in sorted(groups.items()):
        balanced = [one["quality"]["balanced_accuracy"] for one in group]
        rows.append(
            {
                "problem": problem,
                "per_class": per_class,
                "arm": arm,
                "density": density,
                "balanced_accuracy": statistics.mean(balanced),
                "standard_error": statistics.stdev(balanced) / len(balanced) ** 0.5 if len(balanced) > 1 else 0.0,
                "accuracy": statistics.mean(one["quality"]["accuracy"] for one in group),
                "auroc": _mean_known(one["quality"]["auroc"] for one in group),
                "trained": max(one["trained"] for one in group),
                "seconds": statistics.median(one["seconds"] for one in group),
                "seeds": len(group),
                "balanced_by_seed": [round(value, 4) for value in balanced],
            }
        )
    return rows


def _mean_known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def _accuracy_claims(rows: Sequence[dict[str, Any]]) -> list[Claim]:
    by = {(row["problem"], row["per_class"], row["arm"]): row for row in rows if row["density"] == DENSITY}
    claims = []
    for problem in sorted({row["problem"] for row in rows}):
        sparse, full, lora = (by[problem, 0, arm]["balanced_accuracy"] for arm in ("sparse", "full", "lora"))
        share = f"balanced accuracy on {problem} at 1 % density"
        claims.append(
            Claim(
                f"{share}, less full fine-tuning's",
                100 * (sparse - full),
                "≥ −0.5",
                "points",
                sparse - full >= -0.005,
            )
        )
        claims.append(Claim(f"{share}, less LoRA's", 100 * (sparse - lora), "≥ 0", "points", sparse >= lora))
    for per_class in FEW:
        sparse = by["images", per_class, "sparse"]
        others = [by["images", per_class, arm] for arm in ("full", "lora", "probe")]
        best = max(others, key=lambda row: row["balanced_accuracy"])
        gap = sparse["balanced_accuracy"] - best["balanced_accuracy"]
        tie = (sparse["standard_error"] ** 2 + best["standard_error"] ** 2) ** 0.5
        claims.append(
            Claim(
                f"balanced accuracy with {per_class} images per class, less the best other's ({best['arm']})",
                100 * gap,
                f"≥ 0, or tied within one standard error ({100 * tie:.1f})",
                "points",
                gap >= -tie,
            )
        )
    return claims


def _step_claims(steps: dict[str, Any]) -> list[Claim]:
    ratios = steps["ratio_to_lora"][str(HEADLINE_TOKENS)]
    memory = {arm: found["training"] for arm, found in steps["memory"].items()}
    scattered, rows = ratios["delta 1 %, scattered"], ratios["delta 1 %, rows"]
    space = memory["delta 1 %, scattered"] / memory["LoRA r=8 (PEFT)"]
    latency, swap = steps["serving"]["latency_ratio"], steps["serving"]["reload"] / steps["serving"]["swap"]
    return [
        Claim("step time of delta at 1 %, scattered, over LoRA's", scattered, "≤ 0.9", "×", scattered <= 0.9),
        Claim("step time of delta at 1 %, rows, over LoRA's", rows, "≤ 0.75", "×", rows <= 0.75),
        Claim("peak memory of delta's training over LoRA's", space, "≤ 1", "×", space <= 1),
        Claim(
            "latency of the merged model over the base's", latency, "1.00 ± 0.02", "×", abs(latency - 1) <= 0.02
        ),
        Claim("reloading the model over a hot swap of a 1 % delta", swap, "≥ 10", "×", swap >= 10),
    ]


def _measure_steps(repeats: int, work: Path) -> dict[str, Any]:
    """Measure in a process of its own, with nothing else of this benchmark running."""
    kept = work / "steps.json"
    command = [sys.executable, "-m", "benchmarks.training.measure", str(kept), str(repeats), *map(str, TOKENS)]
    subprocess.run(command, check=True)
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def _name(row: dict[str, Any]) -> str:
    return f"sparse delta, density {row['density']:.1%}" if row["arm"] == "sparse" else ARMS[row["arm"]]


def _print(rows: Sequence[dict[str, Any]], steps: dict[str, Any]) -> None:
    console = Console(highlight=False)
    table = Table("problem", "samples", "arm", "balanced accuracy", "accuracy", "trained parameters", "seconds")
    for row in rows:
        size = f"{row['per_class']} per class" if row["per_class"] else "all"
        balanced = f"{row['balanced_accuracy']:.3f} ± {row['standard_error']:.3f}"
        table.add_row(
            row["problem"],
            size,
            _name(row),
            balanced,
            f"{row['accuracy']:.3f}",
            f"{row['trained']:,}",
            f"{row['seconds']:.0f}",
        )
    console.print(table)
    sizes = (f"step, 32 × {tokens} tokens" for tokens in TOKENS)
    table = Table("arm", *sizes, f"over LoRA at {HEADLINE_TOKENS}", "training memory")
    for arm, found in steps["memory"].items():
        times = [f"{1000 * steps['seconds'][str(tokens)][arm]:.0f} ms" for tokens in TOKENS]
        ratio = steps["ratio_to_lora"][str(HEADLINE_TOKENS)][arm]
        table.add_row(arm, *times, f"{ratio:.2f} ×", f"{found['training']:.0f} MiB")
    console.print(table)


def main() -> None:
    """Run everything, print the tables, and write results/train.json and results/train.svg."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--repeats", type=int, default=15, help="steps per arm; the median counts")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--work", type=Path, default=WORK)
    parser.add_argument("--texts", type=Path, default=ORDERS, help="folder of the maintenance work orders")
    options = parser.parse_args()
    orders = options.texts.resolve()
    results = run_all(_jobs(options.seeds, orders), options.work.resolve(), orders, options.workers)
    steps = _measure_steps(options.repeats, options.work.resolve())
    rows = _summary(results)
    _print(rows, steps)
    settings = {
        "seeds": options.seeds,
        "recipes": [
            {"problem": problem, "per_class": per_class, **asdict(recipe)}
            for (problem, per_class), recipes in _recipes().items()
            for recipe in recipes
        ],
        "epochs": EPOCHS,
        "few_epochs": FEW_EPOCHS,
        "batch": 32,
        "image_size": 96,
        "threads": {"accuracy": 1, "steps": 2},
        "repeats": options.repeats,
    }
    write_report("train", settings, [*rows, {"steps": steps}], [*_step_claims(steps), *_accuracy_claims(rows)])
    write_plot(rows, ARMS, RESULTS / "train.svg")


if __name__ == "__main__":
    main()

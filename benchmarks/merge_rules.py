"""Merging rules on unlike plants, side by side: solar cells split over class and cell type by a Dirichlet draw.

Every arm trains with the same budget from the same start; only the rule that merges the updates differs. Each
plant chooses its own support by |gradient|, with structure and allocation as by default. Finished jobs are kept
below --work: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.kept import run_all
from benchmarks.report import Claim, write_report
from benchmarks.simulation import TEST_SHARE, Bench, images
from fedsparse import config
from fedsparse.aggregation import Policy, rule_named
from fedsparse.simulation import federate
from fedsparse.training import train_alone

ALONE = "each plant alone"
ARMS = (ALONE, "holders-mean", "shrunk 0.25", "zero-fill")


@dataclass(frozen=True)
class Job:
    """One run: an arm on one draw of plants."""

    arm: str
    alpha: float
    seed: int
    plants: int
    rounds: int
    training: dict[str, Any]


@cache
def _bench(work: Path) -> Bench:
    return images(work / "features", config.AdapterSettings())


def run_job(work: Path, job: Job) -> dict[str, Any]:
    """Run one job."""
    bench = _bench(work)
    plants = bench.plants(job.plants, job.alpha, job.seed)
    trainers = [bench.trainer(plant) for plant in plants]
    evaluator = bench.evaluator()
    schedule = config.TrainingDefaults(**job.training, seed=job.seed).schedule(job.rounds)
    started = time.monotonic()
    if job.arm == ALONE:
        finals = [list(train_alone(t, schedule, evaluator))[-1] for t in trainers]
        history = [max(quality.balanced_accuracy for quality in finals)]
        found = {"history": history, "mean_alone": statistics.mean(q.balanced_accuracy for q in finals)}
    else:
        name, _, strength = job.arm.partition(" ")
        policy = Policy(rule_named(name, float(strength or 0)))
        progress = list(federate(trainers, evaluator, policy, config.ServerSettings(), schedule))
        found = {
            "history": [one.balanced_accuracy for one in progress],
            "bytes_up": progress[-1].bytes_up,
            "union_density": progress[-1].union_density,
        }
    return {**found, "seconds": round(time.monotonic() - started, 1), "sizes": [len(plant) for plant in plants]}


def _jobs(options: argparse.Namespace) -> list[Job]:
    return [
        Job(arm, alpha, seed, options.plants, options.rounds, _training())
        for alpha in options.alphas
        for seed in range(options.seeds)
        for arm in ARMS
    ]


def _run_all(jobs: list[Job], work: Path, workers: int) -> list[dict[str, Any]]:
    _bench(work)  # computes the activations once, before the workers read them
    return run_all(jobs, partial(run_job, work), work, workers, _line)


def _line(found: dict[str, Any]) -> str:
    return f"alpha {found['alpha']:<5g} seed {found['seed']}  {found['arm']:<17} {found['history'][-1]:.3f}"


def _training() -> dict[str, Any]:
    """Return how plants train by default on images."""
    return config.training_defaults("delta", "image-classification").model_dump(exclude={"seed"})


def _summarise(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[tuple[float, str], list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["alpha"], result["arm"]), []).append(result)
    rows = []
    for (alpha, arm), members in sorted(groups.items(), key=lambda item: (item[0][0], ARMS.index(item[0][1]))):
        finals = [member["history"][-1] for member in members]
        spread = statistics.stdev(finals) / len(finals) ** 0.5 if len(finals) > 1 else float("nan")
        rows.append(
            {
                "alpha": alpha,
                "arm": arm,
                "balanced_accuracy": statistics.mean(finals),
                "standard_error": spread,
                "finals": finals,
                "bytes_up": statistics.mean(member.get("bytes_up", 0) for member in members),
                "union_density": statistics.mean(member.get("union_density", 0) for member in members),
            }
        )
    return rows


def _claims(rows: list[dict[str, Any]], default: str) -> list[Claim]:
    claims = []
    for alpha in sorted({row["alpha"] for row in rows}):
        here = {row["arm"]: row for row in rows if row["alpha"] == alpha}
        best = max((row for arm, row in here.items() if arm != ALONE), key=lambda row: row["balanced_accuracy"])
        mine, alone = here[default]["balanced_accuracy"], here[ALONE]["balanced_accuracy"]
        behind, error = best["balanced_accuracy"] - mine, best["standard_error"]
        claims += [
            Claim(
                f"default rule ({default}) against the best rule ({best['arm']}) at alpha {alpha:g}",
                behind,
                f"at most one standard error of the best ({error:.3f}) behind",
                "balanced accuracy behind",
                behind <= error,
            ),
            Claim(
                f"default rule ({default}) above the best plant alone at alpha {alpha:g}",
                mine - alone,
                "above 0",
                "balanced accuracy ahead",
                mine > alone,
            ),
        ]
    return claims


def main() -> None:
    """Run every arm, print the table, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--alphas", type=float, nargs="+", default=[0.5], help="Dirichlet concentrations")
    parser.add_argument("--plants", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--work", type=Path, default=Path("runs/merge_rules"), help="where finished jobs are kept")
    options = parser.parse_args()
    started = time.monotonic()
    rows = _summarise(_run_all(_jobs(options), options.work, options.workers))
    table = Table("alpha", "arm", "balanced accuracy", "bytes up", "union density", box=None)
    for row in rows:
        sent = f"{row['bytes_up']:,.0f}" if row["bytes_up"] else "-"
        union = f"{row['union_density']:.2%}" if row["bytes_up"] else "-"
        score = f"{row['balanced_accuracy']:.3f} ± {row['standard_error']:.3f}"
        table.add_row(f"{row['alpha']:g}", row["arm"], score, sent, union)
    Console().print(table)
    rule = config.AggregationSettings()
    default = f"{rule.rule} {rule.strength:g}" if rule.rule == "shrunk" else rule.rule
    settings = {
        "plants": options.plants,
        "rounds": options.rounds,
        "seeds": list(range(options.seeds)),
        "alphas": options.alphas,
        "test_share": TEST_SHARE,
        "training": _training(),
        "adapter": config.AdapterSettings().model_dump(),
        "wall_seconds": round(time.monotonic() - started, 1),
    }
    write_report("merge_rules", settings, rows, _claims(rows, default))


if __name__ == "__main__":
    main()

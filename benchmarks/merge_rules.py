"""Merging rules on unlike plants, side by side: solar cells split over class and cell type by a Dirichlet draw.

Every arm trains with the same budget from the same start; only the rule that merges the updates differs. Each
plant chooses its own support by |gradient|, so that supports overlap little, as they do in practice. Finished
jobs are kept below --work: an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.report import Claim, write_report
from benchmarks.simulation import Bench, federate
from fedsparse import config
from fedsparse.aggregation import rule_named
from fedsparse.delta import TrainingSettings
from fedsparse.training import train_alone
from fedsparse.training.partition import dirichlet_shares, hold_out, partition

ALONE = "each plant alone"
ARMS = (ALONE, "holders-mean", "shrunk 0.25", "zero-fill")
_TEST_SHARE = 0.25
_TEST_SEED = 7


@dataclass(frozen=True)
class Job:
    """One run: an arm on one draw of plants."""

    arm: str
    alpha: float
    seed: int
    plants: int
    rounds: int
    density: float
    learning_rate: float
    head_learning_rate: float
    epochs: int
    batch_size: int

    @property
    def key(self) -> str:
        """Name of the file that keeps its result."""
        return sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@cache
def _bench(work: Path) -> Bench:
    return Bench(work / "features", config.AdapterSettings())


def run_job(job: Job, work: Path) -> dict[str, Any]:
    """Run one job, or return what it found earlier."""
    kept = work / f"{job.key}.json"
    if kept.exists():
        result: dict[str, Any] = json.loads(kept.read_text())
        return result
    bench = _bench(work)
    strata = [(cell.label, cell.kind) for cell in bench.cells]
    rest, test = hold_out(strata, _TEST_SHARE, _TEST_SEED)
    parts = _draw_plants([strata[i] for i in rest], job)
    trainers = [bench.trainer([rest[i] for i in part]) for part in parts]
    evaluator = bench.evaluator(test)
    settings = TrainingSettings(
        job.density, job.epochs, job.batch_size, job.learning_rate, job.head_learning_rate, job.seed
    )
    started = time.monotonic()
    if job.arm == ALONE:
        finals = [list(train_alone(t, settings, job.rounds, evaluator))[-1] for t in trainers]
        history = [max(quality.balanced_accuracy for quality in finals)]
        found = {"history": history, "mean_alone": statistics.mean(q.balanced_accuracy for q in finals)}
    else:
        name, _, strength = job.arm.partition(" ")
        progress = federate(trainers, evaluator, rule_named(name, float(strength or 0)), settings, job.rounds)
        found = {
            "history": [one.balanced_accuracy for one in progress],
            "bytes_up": progress[-1].bytes_up,
            "union_density": progress[-1].union_density,
        }
    found |= {
        "job": asdict(job),
        "seconds": round(time.monotonic() - started, 1),
        "sizes": [len(p) for p in parts],
    }
    scratch = kept.with_suffix(".tmp")
    scratch.write_text(json.dumps(found))
    scratch.replace(kept)
    return found


def _draw_plants(strata: list[tuple[str, str]], job: Job) -> list[list[int]]:
    """Draw until every plant has enough of both classes to train on; the draw depends on the seed alone."""
    for attempt in range(1000):
        shares = dirichlet_shares(strata, job.plants, job.alpha, 1000 * job.seed + attempt)
        parts = partition(strata, shares, job.seed)
        counts = [[sum(strata[i][0] == label for i in part) for label in {s[0] for s in strata}] for part in parts]
        if min(min(count) for count in counts) >= 16:
            return parts
    raise SystemExit(f"no draw at alpha {job.alpha} gives every plant 16 images of each class")


def _jobs(options: argparse.Namespace) -> list[Job]:
    training = config.TrainingDefaults().model_dump(exclude={"seed"})
    return [
        Job(arm, alpha, seed, options.plants, options.rounds, **training)
        for alpha in options.alphas
        for seed in range(options.seeds)
        for arm in ARMS
    ]


def _run_all(jobs: list[Job], work: Path, workers: int) -> list[dict[str, Any]]:
    work.mkdir(parents=True, exist_ok=True)
    console = Console(highlight=False)
    _bench(work)  # computes the activations once, before the workers read them
    results = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(run_job, job, work): job for job in jobs}
        for future in as_completed(futures):
            job, result = futures[future], future.result()
            results.append(result)
            score, place = result["history"][-1], f"{len(results)}/{len(jobs)}"
            console.print(f"{place:>8}  alpha {job.alpha:<5g} seed {job.seed}  {job.arm:<17} {score:.3f}")
    return results


def _summarise(results: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[tuple[float, str], list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault((result["job"]["alpha"], result["job"]["arm"]), []).append(result)
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
        "test_share": _TEST_SHARE,
        "training": config.TrainingDefaults().model_dump(exclude={"seed"}),
        "adapter": config.AdapterSettings().model_dump(),
        "wall_seconds": round(time.monotonic() - started, 1),
    }
    write_report("merge_rules", settings, rows, _claims(rows, default))


if __name__ == "__main__":
    main()

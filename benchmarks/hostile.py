"""Federations in which two of ten plants are hostile: what is left of the accuracy, as by default and with guards.

Solar cells at a small size, plants unlike by class and cell type. What is lost is told against the better of both
settings among honest plants; how far the patch turns defective cells sound, against the same settings among honest
plants. Finished jobs are kept below --work.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.hostile_plants import ABSENT, ATTACKS, TARGET, Patched, with_hostile
from benchmarks.kept import run_all
from benchmarks.report import Claim, write_report
from benchmarks.simulation import Bench, images
from fedsparse import config
from fedsparse.aggregation import Policy
from fedsparse.delta import SparseDelta
from fedsparse.errors import DeltaError
from fedsparse.simulation import federate
from fedsparse.training import Evaluator

PLANTS, HOSTILE, ALPHA, ROUNDS, LAST = 10, 2, 0.5, 10, 3
IMAGE_SIZE, IMAGE_SHARE, LEAST, RATE = 64, 0.3, 4, 3e-2
MOST_LOST = 2.0  # points
FIRST_SEED = 1  # draws 0 and 10 were seen, on the same test cells, while the guards were chosen

DEFAULT, ROBUST = "default", "robust"
GUARDS = {
    "weigh_by": "plants", "norm_bound": 1.0, "max_norm": 3.0, "min_cosine": -0.1,
}  # fmt: skip
POLICIES: dict[str, dict[str, Any]] = {DEFAULT: {}, ROBUST: GUARDS}


@dataclass(frozen=True)
class Job:
    """All that decides one run's result."""

    data: str
    attack: str
    aggregation: dict[str, Any]
    training: dict[str, Any]
    seed: int
    plants: int = PLANTS
    hostile: int = HOSTILE
    image_size: int = IMAGE_SIZE
    image_share: float = IMAGE_SHARE
    version: int = 3  # of the code that decides results, which no other field tells
    alpha: float = ALPHA
    rounds: int = ROUNDS


@cache
def _bench(work: Path) -> Bench:
    spec = config.AdapterSettings(image_size=IMAGE_SIZE)
    return images(work / "features", spec).share(IMAGE_SHARE)


def run_job(work: Path, job: Job) -> dict[str, Any]:
    """Run one job."""
    bench = _bench(work)
    parts = bench.many_plants(job.plants, job.alpha, job.seed, LEAST)
    trainers = with_hostile(bench, parts, job.attack, job.hostile, job.seed)
    schedule = config.TrainingDefaults(**job.training, seed=job.seed).schedule(job.rounds)
    policy = Policy.of(config.AggregationSettings(**job.aggregation))
    evaluator = bench.evaluator()
    started = time.monotonic()
    history, left_out, failed, last = [], 0, "", None
    try:
        for progress in federate(trainers, evaluator, policy, config.ServerSettings(), schedule):
            history.append(progress.balanced_accuracy)
            last = progress
            left_out += sum(one.reason is not None for one in progress.standings)
    except DeltaError as error:  # so much harm that training diverges everywhere
        history += [1 / len(bench.samples.classes)] * (job.rounds - len(history))
        failed = str(error)
    return {
        "history": history,
        "left_out_per_round": left_out / job.rounds,
        "last_standings": [] if last is None else [[s.norm, s.cosine, s.reason] for s in last.standings],
        "backdoor": 0.0 if last is None else _backdoor(bench, last.state),
        "failed": failed,
        "seconds": round(time.monotonic() - started, 1),
    }


def _backdoor(bench: Bench, state: SparseDelta) -> float:
    """Return the share of the defective test cells that the patch makes sound, as the adapter is now."""
    defective = bench.test[bench.samples.labels[bench.test] != TARGET]
    patched = Patched(bench.inputs.take(defective), np.ones(len(defective), np.bool_))
    quality = Evaluator(bench.adapter, bench.samples.labels[defective], patched).evaluate(state)
    return 1 - quality.accuracy


def _line(found: dict[str, Any]) -> str:
    return (
        f"{found['attack'] or 'none':<22} {_name(found):<10} seed {found['seed']}: "
        f"{_score(found):.3f}, left out {found['left_out_per_round']:.1f} a round, in {found['seconds']:.0f} s"
    )


def _name(found: dict[str, Any]) -> str:
    return next(
        name for name, given in POLICIES.items()
        if config.AggregationSettings(**given).model_dump() == found["aggregation"]
    )  # fmt: skip


def _score(found: dict[str, Any]) -> float:
    return statistics.mean(found["history"][-LAST:])


def _rows(results: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for found in sorted(results, key=lambda one: int(one["seed"])):
        groups.setdefault((found["attack"], _name(found)), []).append(found)
    honest = {policy: [_score(one) for one in groups["", policy]] for policy in POLICIES}
    best = max(honest.values(), key=statistics.mean)
    rows = []
    for attack in ("", ABSENT, *ATTACKS):
        for policy in POLICIES:
            members = groups[attack, policy]
            scores = [_score(one) for one in members]
            losses = [100 * (a - b) for a, b in zip(best, scores, strict=True)]
            rises = [100 * (one["backdoor"] - other["backdoor"])
                     for one, other in zip(members, groups["", policy], strict=True)]  # fmt: skip
            rows.append(
                {
                    "attack": attack or "none",
                    "policy": policy,
                    "balanced_accuracy": statistics.mean(scores),
                    "scores": scores,
                    "points_lost": statistics.mean(losses),
                    "standard_error": statistics.stdev(losses) / len(losses) ** 0.5 if len(losses) > 1 else None,
                    "left_out_per_round": statistics.mean(one["left_out_per_round"] for one in members),
                    "backdoor_points": statistics.mean(rises),
                    "failed": [one["failed"] for one in members if one["failed"]],
                }
            )
    return rows


def _claims(rows: Sequence[dict[str, Any]]) -> list[Claim]:
    claims = []
    for row in (row for row in rows if row["policy"] == ROBUST and row["attack"] in ATTACKS):
        name = (
            f"{row['attack']}: balanced accuracy lost with guards, against the better settings among honest plants"
        )
        lost = row["points_lost"]
        claims.append(Claim(name, lost, f"≤ {MOST_LOST:g}", "points", lost <= MOST_LOST))
    return claims


def main() -> None:
    """Run every attack under every policy, print the table, write results/hostile.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--work", type=Path, default=Path("runs/hostile"), help="where finished jobs are kept")
    options = parser.parse_args()
    started = time.monotonic()
    training = config.training_defaults("delta", "image-classification").model_dump(
        exclude={"seed", "mask", "revote"}
    )
    training["learning_rate"] = RATE
    data = _bench(options.work).digest()
    jobs = [
        Job(data, attack, config.AggregationSettings(**given).model_dump(), training, seed)
        for seed in range(FIRST_SEED, FIRST_SEED + options.seeds)
        for attack in ("", ABSENT, *ATTACKS)
        for given in POLICIES.values()
    ]
    rows = _rows(run_all(jobs, partial(run_job, options.work), options.work, options.workers, _line))
    title = f"{HOSTILE} of {PLANTS} plants hostile, α {ALPHA:g}, {ROUNDS} rounds, {options.seeds} draws"
    table = Table(
        "attack",
        "settings",
        "balanced accuracy",
        "points lost",
        "left out a round",
        "backdoor, points",
        title=title,
    )
    for row in rows:
        table.add_row(
            row["attack"],
            row["policy"],
            f"{row['balanced_accuracy']:.3f}",
            f"{row['points_lost']:.1f}" + (f" ± {row['standard_error']:.1f}" if row["standard_error"] else ""),
            f"{row['left_out_per_round']:.1f}",
            f"{row['backdoor_points']:+.0f}",
        )
    Console(highlight=False, width=120).print(table)
    settings = {
        "plants": PLANTS,
        "hostile": HOSTILE,
        "alpha": ALPHA,
        "rounds": ROUNDS,
        "last_rounds_averaged": LAST,
        "seeds": list(range(FIRST_SEED, FIRST_SEED + options.seeds)),
        "image_size": IMAGE_SIZE,
        "share_of_the_training_images": IMAGE_SHARE,
        "policies": {name: config.AggregationSettings(**given).model_dump() for name, given in POLICIES.items()},
        "training": training,
        "wall_seconds": round(time.monotonic() - started, 1),
    }
    write_report("hostile", settings, rows, _claims(rows))


if __name__ == "__main__":
    main()

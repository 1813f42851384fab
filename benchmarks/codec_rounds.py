"""Bytes of a federation's round at equal accuracy: fedsparse's updates beside dense low-rank factors.

Every arm has the same plants, drawn unlike by class, the same rounds, epochs and head, and as many learning rates
to choose from, tried on another draw of plants, without the samples that are tested on in the end. Accuracy is the
mean over the last rounds, because it jumps from round to round where plants differ.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from benchmarks.kept import run_all
from benchmarks.report import Claim
from benchmarks.simulation import Bench, Name, images, texts
from fedsparse import config
from fedsparse.aggregation import Policy
from fedsparse.errors import DeltaError
from fedsparse.simulation import federate

PLANTS, ALPHA, ROUNDS, RANK = 4, 0.5, 10, 16
LAST = 3  # rounds whose accuracies are averaged
TUNING_SEEDS = (100,)
LORA, LORA_4BIT, OURS = "LoRA r = 16, fp32", "LoRA r = 16, int4", "fedsparse"
RATES = {LORA: (3e-4, 1e-3, 3e-3, 1e-2), OURS: (3e-4, 1e-3, 3e-3, 1e-2)}
_TASKS = {"images": "image-classification", "texts": "text-classification"}

Kind = Literal["delta", "lora"]


@dataclass(frozen=True)
class Job:
    """One federation: an arm on one draw of plants; a run for tuning never sees the test samples."""

    problem: Name
    data: str
    arm: str
    adapter: dict[str, Any]
    seed: int
    training: dict[str, Any]
    aggregation: dict[str, Any]
    server: dict[str, Any]
    tuning: bool
    plants: int = PLANTS
    alpha: float = ALPHA
    rounds: int = ROUNDS


def measure(work: Path, orders: Path, names: Sequence[Name], seeds: int, workers: int) -> list[dict[str, Any]]:
    """Choose each arm's learning rate, run every arm on ``seeds`` draws, and return a row for each."""
    run = partial(_run, work, orders)
    go = partial(run_all, run=run, folder=work / "rounds", workers=workers, describe=_line)
    # This also computes what the workers then only read.
    data = {name: _bench(name, work, orders, "delta").digest() for name in names}
    tuning = [
        _job(name, data[name], arm, seed, rate, tuning=True)
        for name in names
        for arm, grid in RATES.items()
        for rate in grid
        for seed in TUNING_SEEDS
    ]
    best = _best(go(tuning))
    jobs = [
        _job(name, data[name], arm, seed, best[name, LORA if arm == LORA_4BIT else arm], tuning=False)
        for name in names
        for arm in (LORA, LORA_4BIT, OURS)
        for seed in range(seeds)
    ]
    return _rows(go(jobs))


def _job(problem: Name, data: str, arm: str, seed: int, rate: float, *, tuning: bool) -> Job:
    kind: Kind = "delta" if arm == OURS else "lora"
    training = config.training_defaults(kind, _TASKS[problem]).model_dump(exclude={"seed"})
    training["learning_rate"] = rate
    if kind == "lora":
        training |= {"density": 1.0, "value_coding": "int4" if arm == LORA_4BIT else "fp32"}
    adapter, aggregation = _adapter(kind).model_dump(), config.AggregationSettings().model_dump()
    # Others send their values down as they are.
    server = (config.ServerSettings() if arm == OURS else config.ServerSettings(value_coding="fp32")).model_dump()
    return Job(problem, data, arm, adapter, seed, training, aggregation, server, tuning)


def _adapter(kind: Kind) -> config.AdapterSettings:
    return config.AdapterSettings(kind=kind, rank=RANK, alpha=2.0 * RANK)


@cache
def _bench(problem: Name, work: Path, orders: Path, kind: Kind) -> Bench:
    spec = _adapter(kind)
    return images(work / "rounds" / "features", spec) if problem == "images" else texts(orders, spec)


def _run(work: Path, orders: Path, job: Job) -> dict[str, Any]:
    bench = _bench(job.problem, work, orders, job.adapter["kind"])
    bench = bench.tuning() if job.tuning else bench
    trainers = [bench.trainer(plant) for plant in bench.plants(job.plants, job.alpha, job.seed)]
    policy = Policy.of(config.AggregationSettings(**job.aggregation))
    schedule = config.TrainingDefaults(**job.training, seed=job.seed).schedule(job.rounds)
    server = config.ServerSettings(**job.server)
    started = time.monotonic()
    try:
        history = list(federate(trainers, bench.evaluator(), policy, server, schedule))
    except DeltaError as error:  # a rate so high that training diverges has lost, and is no reason to stop
        return {"history": [0.0] * job.rounds, "bytes_up": 0.0, "seconds": 0.0, "failed": str(error)}
    size = bench.adapter.space.size
    return {
        "history": [one.balanced_accuracy for one in history],
        # What others send of a dense adapter is its values as they are.
        "bytes_up": 4.0 * size if job.arm == LORA else statistics.mean(one.bytes_up for one in history),
        "bytes_down": statistics.mean(one.bytes_down for one in history),
        "values_up": statistics.mean(one.values_up for one in history),
        "coordinates": size,
        "seconds": round(time.monotonic() - started, 1),
    }


def _accuracy(found: dict[str, Any]) -> float:
    return statistics.mean(found["history"][-LAST:])


def _line(found: dict[str, Any]) -> str:
    return (
        f"{found['problem']} {found['arm']:<18} rate {found['training']['learning_rate']:g} seed {found['seed']}: "
        f"balanced accuracy {_accuracy(found):.3f}, {found['bytes_up']:,.0f} bytes up, "
        f"in {found['seconds']:.0f} s"
    )


def _best(results: Sequence[dict[str, Any]]) -> dict[tuple[str, str], float]:
    """Return by problem and arm the rate with the best accuracy."""
    groups: dict[tuple[str, str, float], list[float]] = {}
    for found in results:
        key = (found["problem"], found["arm"], found["training"]["learning_rate"])
        groups.setdefault(key, []).append(_accuracy(found))
    best: dict[tuple[str, str], tuple[float, float]] = {}
    for (problem, arm, rate), scores in groups.items():
        score = statistics.mean(scores)
        best[problem, arm] = max(best.get((problem, arm), (0.0, 0.0)), (score, rate))
    return {key: rate for key, (_, rate) in best.items()}


def _rows(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for found in sorted(results, key=lambda one: int(one["seed"])):
        groups.setdefault((found["problem"], found["arm"]), []).append(found)
    rows = []
    for (problem, arm), members in sorted(groups.items()):
        finals = [_accuracy(member) for member in members]
        rows.append(
            {
                "problem": problem,
                "arm": arm,
                "learning_rate": members[0]["training"]["learning_rate"],
                "at_the_edge_of_its_grid": _at_the_edge(arm, members[0]["training"]["learning_rate"]),
                "balanced_accuracy": statistics.mean(finals),
                "standard_error": _error(finals),
                "finals": finals,
                **{
                    key: statistics.mean(member[key] for member in members)
                    for key in ("bytes_up", "bytes_down", "values_up", "coordinates")
                },
                "training": members[0]["training"],
            }
        )
    return rows


def _at_the_edge(arm: str, rate: float) -> bool:
    grid = RATES[LORA if arm == LORA_4BIT else arm]
    return rate in (grid[0], grid[-1])


def _error(values: Sequence[float]) -> float:
    return statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table for people."""
    dense = {row["problem"]: row["bytes_up"] for row in rows if row["arm"] == LORA}
    title = f"One plant's update, mean of {ROUNDS} rounds, and accuracy after them"
    table = Table(
        "problem", "arm", "values", "bytes up", "less by", "bytes down", "balanced accuracy", title=title
    )
    for row in rows:
        table.add_row(
            row["problem"],
            row["arm"],
            f"{row['values_up']:,.0f}",
            f"{row['bytes_up']:,.0f}",
            f"{dense[row['problem']] / row['bytes_up']:.1f} ×",
            f"{row['bytes_down']:,.0f}",
            f"{row['balanced_accuracy']:.3f} ± {row['standard_error']:.3f}",
        )
    Console(highlight=False, width=120).print(table)


def claims(rows: Sequence[dict[str, Any]]) -> list[Claim]:
    """Return the bytes beside those of dense factors, and the accuracy that both lead to."""
    found = []
    by = {(row["problem"], row["arm"]): row for row in rows}
    for problem in sorted({row["problem"] for row in rows}):
        ours, dense = by[problem, OURS], by[problem, LORA]
        ratio = dense["bytes_up"] / ours["bytes_up"]
        gains = [100 * (mine - other) for mine, other in zip(ours["finals"], dense["finals"], strict=True)]
        ahead, error = statistics.mean(gains), _error(gains)
        found += [
            Claim(
                f"bytes of a dense fp32 LoRA's update (r = 16) over ours, {problem}",
                ratio,
                "≥ 100",
                "×",
                ratio >= 100,
            ),
            Claim(
                f"balanced accuracy after {ROUNDS} rounds, less that LoRA's on the same plants, {problem}",
                ahead,
                f"≥ 0, or tied within one standard error of the difference ({error:.1f})",
                "points",
                ahead >= -error,
            ),
        ]
    return found

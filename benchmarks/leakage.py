"""What one plant's update tells of its images: our sparse delta, LoRA, and all adapted weights, side by side.

One plant's cells, an update from the untouched base, as its bytes would be sent; other cells that no plant trained
on stand for those that an attacker cannot tell apart. After one pass, as in a round, and after many, as a plant
might that does not care. An update that learns less tells less: accuracy stands beside every figure. Sparsity by
itself is claimed to protect nobody; what is found is stated, for this attack and these sizes.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import fedsparse
from benchmarks.kept import code_digest, run_all
from benchmarks.report import Claim, write_report
from benchmarks.simulation import Bench, images
from fedsparse import config
from fedsparse.delta import Operation, SparseDelta, ValueCoding, apply, compensate, decode, encode
from fedsparse.leakage import SCORES, UpdateView, measure, pictures_of, reconstruct, score
from fedsparse.leakage.membership import Membership
from fedsparse.training.local import HELD_OUT, SPLIT_SEED

SIZE, SAMPLES, OTHERS, RANK = 64, 400, 500, 16
PASSES = (1, 20)
ATTEMPTS, STEPS = 8, 80
ARMS: dict[str, dict[str, Any]] = {  # with the rates that benchmarks.federated found best for each
    "fedsparse (default)": {"kind": "delta", "rate": 3e-2},
    "LoRA": {"kind": "lora", "rate": 3e-3},
    "all adapted weights": {"kind": "delta", "whole": True, "rate": 1e-3},
}
_LIBRARY = Path(fedsparse.__file__).parent
_CODE = code_digest(*(_LIBRARY / room for room in ("adapters", "delta", "leakage", "sparsity", "training")))


@dataclass(frozen=True)
class Job:
    """All that decides one update's figures."""

    arm: str
    passes: int
    seed: int
    reconstructs: bool
    sizes: tuple[int, ...] = (SIZE, SAMPLES, OTHERS, RANK, ATTEMPTS, STEPS)
    code: str = _CODE
    version: int = 1  # of what this file does


def adapter_settings(arm: str) -> config.AdapterSettings:
    """Return what an arm trains."""
    told = ARMS[arm]
    dense = ("*",) if told.get("whole") else ("head.*",)
    return config.AdapterSettings(kind=told["kind"], rank=RANK, alpha=2.0 * RANK, dense=dense, image_size=SIZE)


@cache
def _bench(work: Path, arm: str) -> Bench:
    return images(work / "features", adapter_settings(arm))


def training(arm: str, passes: int, seed: int) -> config.TrainingDefaults:
    """Return how an arm trains: as by default but for the rate, and whole where it is not sparse."""
    told = ARMS[arm]
    found = config.training_defaults(told["kind"], "image-classification").model_dump()
    found |= {"learning_rate": told["rate"], "epochs": passes, "seed": seed}
    if arm != "fedsparse (default)":
        found |= {"density": 1.0, "value_coding": "fp32", "structure": "unstructured", "allocation": "global"}
    if told.get("whole"):
        found["head_learning_rate"] = told["rate"]
    return config.TrainingDefaults(**found)


def run_job(work: Path, job: Job) -> dict[str, Any]:
    """Train once, and probe the update."""
    bench, draw = _bench(work, job.arm), np.random.default_rng(job.seed)
    plant = np.sort(draw.choice(bench.rest, SAMPLES, replace=False))
    others = np.sort(draw.choice(bench.test, OTHERS, replace=False))
    trainer = bench.trainer(plant)
    settings = training(job.arm, job.passes, job.seed).of_round(1, 1)
    start = SparseDelta.empty(trainer.space.fingerprint, Operation.SET)
    trained = trainer.train(start, settings, 1)
    nothing = SparseDelta.empty(trainer.space.fingerprint, Operation.ADD)
    sent, _ = compensate(trained.delta, nothing, settings.value_coding)
    data = encode(sent, trainer.space, settings.value_coding)
    update = decode(data, trainer.space, max_bytes=len(data))
    members = plant[trainer.samples.split(HELD_OUT, SPLIT_SEED)[0]]
    both = np.concatenate([members, others])
    scores = score(bench.adapter, start, update, bench.inputs.take(both), bench.samples.labels[both])
    found = {name: measure(one[: len(members)], one[len(members) :]) for name, one in scores.items()}
    result = {
        "accuracy": bench.evaluator().evaluate(apply(start, update)).balanced_accuracy,
        "bytes": len(data),
        "coding": ValueCoding(settings.value_coding).name.lower(),
        "membership": {name: _plain(one) for name, one in found.items()},
    }
    if job.reconstructs:
        result["reconstruction"] = _reconstruct(bench, work, job, UpdateView(bench.adapter, start, update), both)
    return result


def _reconstruct(bench: Bench, work: Path, job: Job, view: UpdateView, both: np.ndarray[Any, Any]) -> Any:
    from fedsparse.adapters import load_base

    spec = adapter_settings(job.arm)
    base = load_base(config.BaseModelSettings(), spec, bench.samples.classes, "image-classification")
    known = len(both) - OTHERS  # the base's prefix is the same whatever the adapter is on
    members, others = (pictures_of(base, bench.samples, part) for part in (both[:known], both[known:]))
    found = reconstruct(base, view, members, others, attempts=ATTEMPTS, steps=STEPS, seed=job.seed)
    evidence = None if found.evidence is None else _plain(found.evidence)
    return {**asdict(found), "evidence": evidence, "is_telling": found.is_telling}


def _plain(found: Membership) -> dict[str, Any]:
    told = asdict(found)
    told["found"] = {f"{rate:g}": one and asdict(one) for rate, one in found.found.items()}
    return told


def main() -> None:
    """Run every arm, print the table, write results/leakage.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--work", type=Path, default=Path("runs/leakage"), help="for activations and results")
    options = parser.parse_args()
    started = time.monotonic()
    _bench(options.work, "fedsparse (default)")  # computes the activations once, for all processes
    jobs = [
        Job(arm, passes, seed, reconstructs=passes == PASSES[0] and seed == 0)
        for seed in range(options.seeds)
        for passes in PASSES
        for arm in ARMS
    ]
    rows = run_all(jobs, partial(run_job, options.work), options.work / "jobs", options.workers, _line)
    rows.sort(key=lambda row: (row["passes"], list(ARMS).index(row["arm"]), row["seed"]))
    Console(highlight=False, width=200).print(_table(rows))
    settings = {
        "arms": ARMS,
        "image_size": SIZE,
        "plant_samples": SAMPLES,
        "others": OTHERS,
        "passes": PASSES,
        "seeds": list(range(options.seeds)),
        "lora_rank": RANK,
        "attempts": ATTEMPTS,
        "steps": STEPS,
        "wall_seconds": round(time.monotonic() - started, 1),
    }
    write_report("leakage", settings, rows, _claims(rows))


def _line(row: dict[str, Any]) -> str:
    told = ", ".join(f"{name} {one['advantage']['value']:.3f}" for name, one in row["membership"].items())
    return f"{row['arm']:<20} {row['passes']:>2} passes, seed {row['seed']}: {told}"


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("update", "passes", "seed", "bytes", "balanced accuracy", *SCORES, "reconstruction", box=None)
    for row in rows:
        cells = [_interval(row["membership"][name]["advantage"]) for name in SCORES]
        tried = row.get("reconstruction")
        told = "–"
        if tried:
            by_nearness = _interval(tried["evidence"]["advantage"])
            told = f"{_interval(tried['advantage'])}, all {by_nearness}, control {_interval(tried['control'])}"
        table.add_row(
            row["arm"],
            str(row["passes"]),
            str(row["seed"]),
            f"{row['bytes']:,}",
            f"{row['accuracy']:.3f}",
            *cells,
            told,
        )
    return table


def _interval(one: dict[str, float]) -> str:
    return f"{one['value']:.3f} \\[{one['low']:.3f}, {one['high']:.3f}]"


def _claims(rows: list[dict[str, Any]]) -> list[Claim]:
    """Return the worst figure of each arm after one pass: stated, for comparison, and held against no aim."""
    claims = []
    for arm in ARMS:
        mine = [row for row in rows if row["arm"] == arm and row["passes"] == PASSES[0]]
        worst = max(one["advantage"]["high"] for row in mine for one in row["membership"].values())
        name = f"upper end of the membership advantage of an update after one pass, {arm}"
        claims.append(Claim(name, worst, "stated, at most 1", "", worst <= 1))
    return claims


if __name__ == "__main__":
    main()

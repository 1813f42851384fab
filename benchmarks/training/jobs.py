"""Runs of the benchmark of training: one arm, one set of samples, one seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from benchmarks import kept
from benchmarks.simulation import Name
from benchmarks.training.arms import Recipe, run
from benchmarks.training.problems import Problem, images, texts

WORK = Path("runs/bench_train")


@dataclass(frozen=True)
class Job:
    """One run: an arm on a problem, with all training samples (0) or ``per_class`` of each class.

    A run for tuning sees three quarters of the training samples and is measured on the rest of them; the test
    samples stay unseen.
    """

    problem: str
    per_class: int
    seed: int
    recipe: Recipe
    tuning: bool = False


@cache
def _problem(name: str, work: Path, orders: Path) -> Problem:
    return images(work / "images") if name == "images" else texts(orders)


def problems(orders: Path) -> list[Name]:
    """Return the problems whose data is here, and say which is not."""
    if orders.is_dir():
        return ["texts", "images"]
    print(f"no work orders at {orders}: the problem 'texts' is left out; name their folder with --texts")
    return ["images"]


def run_all(jobs: Sequence[Job], work: Path, orders: Path, workers: int) -> list[dict[str, Any]]:
    """Run jobs in as many processes, of one thread each, and tell of each as it ends."""
    for name in sorted({job.problem for job in jobs}):
        _problem(name, work, orders)  # computes what the workers then only read
    return kept.run_all(jobs, partial(_run_job, work, orders), work, workers, _line)


def _run_job(work: Path, orders: Path, job: Job) -> dict[str, Any]:
    problem = _problem(job.problem, work, orders)
    training, measured = problem.tuning(job.seed) if job.tuning else (problem.training, problem.test)
    if job.per_class:
        training = problem.few(training, job.per_class, job.seed)
    found = run(problem, job.recipe, training, measured, job.seed)
    return {"quality": asdict(found.quality), "trained": found.trained, "seconds": round(found.seconds, 1)}


def _line(found: dict[str, Any]) -> str:
    recipe, size = found["recipe"], found["per_class"] or "all"
    return (
        f"{found['problem']} {size} {recipe['arm']} {recipe['rate']:g}/{recipe['head_rate']:g} "
        f"seed {found['seed']}: balanced accuracy {found['quality']['balanced_accuracy']:.3f} "
        f"in {found['seconds']:.0f} s"
    )

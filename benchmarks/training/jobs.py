"""Runs of the benchmark of training: one arm, one set of samples, one seed; finished ones are kept."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.training.arms import Recipe, run
from benchmarks.training.problems import Problem, images, texts

# The C library otherwise gives every large activation back to the system at once, and asks for it again.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "8000000000", "MALLOC_TRIM_THRESHOLD_": "16000000000"}

WORK = Path("runs/bench_train")
ORDERS = Path("../shared/data/fmc-mwo2kg")


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

    @property
    def key(self) -> str:
        """Name of the file that keeps its result."""
        return sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


@cache
def _problem(name: str, work: Path, orders: Path) -> Problem:
    return images(work / "images") if name == "images" else texts(orders)


def problems(orders: Path) -> list[str]:
    """Return the problems whose data is here, and say which is not."""
    if orders.is_dir():
        return ["texts", "images"]
    print(f"no work orders at {orders}: the problem 'texts' is left out; name their folder with --texts")
    return ["images"]


def run_job(job: Job, work: Path, orders: Path) -> dict[str, Any]:
    """Run one job, or return what it found earlier."""
    kept = work / f"{job.key}.json"
    if kept.exists():
        earlier: dict[str, Any] = json.loads(kept.read_text())
        return earlier
    problem = _problem(job.problem, work, orders)
    training, measured = problem.tuning(job.seed) if job.tuning else (problem.training, problem.test)
    if job.per_class:
        training = problem.few(training, job.per_class, job.seed)
    found = run(problem, job.recipe, training, measured, job.seed)
    result = {
        **asdict(job),
        "quality": asdict(found.quality),
        "trained": found.trained,
        "seconds": round(found.seconds, 1),
    }
    scratch = kept.with_suffix(".tmp")
    scratch.write_text(json.dumps(result))
    scratch.replace(kept)
    return result


def run_all(jobs: Sequence[Job], work: Path, orders: Path, workers: int) -> list[dict[str, Any]]:
    """Run jobs in as many processes, of one thread each, and tell of each as it ends."""
    console = Console(highlight=False)
    work.mkdir(parents=True, exist_ok=True)
    for name in sorted({job.problem for job in jobs}):
        _problem(name, work, orders)  # computes what the workers then only read
    found = []
    with _environment(_KEEP_MEMORY), ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = {pool.submit(run_job, job, work, orders): job for job in jobs}
        for number, future in enumerate(as_completed(futures), 1):
            job, result = futures[future], future.result()
            found.append(result)
            accuracy = result["quality"]["balanced_accuracy"]
            size = job.per_class or "all"
            console.print(
                f"{number}/{len(jobs)}  {job.problem} {size} {job.recipe.arm} {job.recipe.rate:g}/"
                f"{job.recipe.head_rate:g} seed {job.seed}: "
                f"balanced accuracy {accuracy:.3f} in {result['seconds']:.0f} s"
            )
    return found


@contextmanager
def _environment(further: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(further)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)

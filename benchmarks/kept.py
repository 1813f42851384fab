"""A benchmark's jobs in several processes; what one found is kept, so that an interrupted run goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console

# The C library otherwise gives every large activation back to the system at once, and asks for it again.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "8000000000", "MALLOC_TRIM_THRESHOLD_": "16000000000"}

Found = dict[str, Any]
_Job = TypeVar("_Job")


def run_all(
    jobs: Sequence[_Job],
    run: Callable[[_Job], Found],
    folder: Path,
    workers: int,
    describe: Callable[[Found], str],
) -> list[Found]:
    """Run jobs in as many processes, of one thread each, and tell of each as it ends.

    Args:
        jobs: frozen dataclasses that hold all that decides their result.
        run: what it finds must survive JSON; it is called in another process.
        folder: where the results are kept, by a digest of the job.
        describe: one line for people.
    """
    console = Console(highlight=False, soft_wrap=True)
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    with _environment(_KEEP_MEMORY), ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(partial(_kept, run, folder), job) for job in jobs]
        for number, future in enumerate(as_completed(futures), 1):
            results.append(future.result())
            console.print(f"{number}/{len(jobs)}  {describe(results[-1])}")
    return results


def _kept(run: Callable[[_Job], Found], folder: Path, job: _Job) -> Found:
    """Run one job, or return what it found earlier."""
    given = asdict(job)  # type: ignore[call-overload] # a type variable cannot be bound to dataclasses
    file = folder / f"{sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()[:16]}.json"
    if not file.exists():
        scratch = file.with_suffix(".tmp")
        scratch.write_text(json.dumps({**given, **run(job)}))
        scratch.replace(file)
    found: Found = json.loads(file.read_text())
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

"""A benchmark's jobs in several processes; what one found is kept, so that an interrupted run goes on."""

from __future__ import annotations

import ast
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
    archive: Path | None = None,
) -> list[Found]:
    """Run jobs in as many processes, of one thread each, and tell of each as it ends.

    Args:
        jobs: frozen dataclasses that hold all that decides their result.
        run: what it finds must survive JSON; it is called in another process.
        folder: where the results are kept, by a digest of the job.
        describe: one line for people.
        archive: a file of JSON lines that what was found is taken from and added to. It outlives ``folder``, so
            jobs must tell which code they run (:func:`code_digest`).
    """
    console = Console(highlight=False, soft_wrap=True)
    folder.mkdir(parents=True, exist_ok=True)
    archived = _unpack(archive, jobs, folder) if archive is not None else set()
    results = []
    with _environment(_KEEP_MEMORY), ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(partial(_kept, run, folder), job) for job in jobs]
        for number, future in enumerate(as_completed(futures), 1):
            results.append(future.result())
            console.print(f"{number}/{len(jobs)}  {describe(results[-1])}")
            if archive is not None and (key := _key(job := jobs[futures.index(future)])) not in archived:
                found = {name: value for name, value in results[-1].items() if name not in _given(job)}
                with archive.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"job": key, **found}) + "\n")
    return results


def code_digest(*places: Path) -> str:
    """Return the SHA-256 of what Python files do, whatever their comments and docstrings say; hex.

    Args:
        places: files, or folders with all that is in them.
    """
    told = sha256()
    for file in sorted(file for place in places for file in ([place] if place.is_file() else place.rglob("*.py"))):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, _DOCUMENTED) and ast.get_docstring(node) is not None:
                node.body = node.body[1:]
        told.update(ast.dump(tree).encode() + b"\n")
    return told.hexdigest()


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)


def _unpack(archive: Path, jobs: Sequence[Any], folder: Path) -> set[str]:
    """Write what the archive holds of ``jobs`` into ``folder``, and return the digests of all that it holds."""
    lines = archive.read_text(encoding="utf-8").splitlines() if archive.exists() else []
    held = {found.pop("job"): found for found in map(json.loads, lines)}
    for job in jobs:
        file = folder / f"{_key(job)}.json"
        if (found := held.get(_key(job))) is not None and not file.exists():
            file.write_text(json.dumps({**_given(job), **found}))
    return set(held)


def _given(job: Any) -> Found:
    return asdict(job)


def _key(job: Any) -> str:
    return sha256(json.dumps(_given(job), sort_keys=True).encode()).hexdigest()[:16]


def _kept(run: Callable[[_Job], Found], folder: Path, job: _Job) -> Found:
    """Run one job, or return what it found earlier."""
    given = _given(job)
    file = folder / f"{_key(job)}.json"
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

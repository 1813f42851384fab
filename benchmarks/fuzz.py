"""Mutated messages against everything that decodes what strangers send: as many as asked for, under one seed.

A decoder returns what encodes to exactly the same bytes, or refuses with one of its own errors; it takes no more
than a second of CPU time for an input, and no more memory than a multiple of its length. What does otherwise is
kept below --work as SEED-NUMBER.bin; `--seed SEED --only NUMBER` tries it again. Inputs and what must be true of
them are in tests/fuzz.
"""

from __future__ import annotations

import argparse
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.report import Claim, write_report
from tests.fuzz.targets import (
    MOST_PER_BYTE,
    Depth,
    Input,
    Verdict,
    allocated,
    allowed,
    examine,
    input_of,
    originals,
    targets,
)

INPUTS = 1_000_000
SAMPLED = 50  # of so many inputs the allocations of one are traced, for tracing is slow
MOST_SECONDS = 1.0  # of CPU time, for an input
MOST_GROWTH = 256  # MiB, of a worker
LARGE = 1024  # bytes from which on the ratio of allocations to length says something
WORK = Path("runs/fuzz")

_CUT = 10.0  # seconds of CPU time after which an input is given up
_ROOM = 512 << 20  # bytes by which a worker's address space may grow: a huge allocation fails at once
_MOST_KEPT, _MOST_TOLD = 100, 20  # inputs that failed
_STEP = 10_000  # inputs between two lines of progress


@dataclass(frozen=True)
class Attempt:
    """One input tried.

    Attributes:
        target: its name.
        length: of the input, bytes.
        verdict: with a failure also where it took too long or too much memory.
        seconds: of CPU time.
        allocated: most bytes at a time; 0 where that was not traced.
    """

    target: str
    length: int
    verdict: Verdict
    seconds: float
    allocated: int


@dataclass
class Tally:
    """What became of the inputs of one target.

    Attributes:
        depths: inputs by how far the decoder got.
        refusals: inputs by what the decoder said.
        failures: what went wrong, by number of the input.
        ratio: most bytes allocated per byte of an input of at least ``LARGE``.
        seconds: of CPU time, the slowest input, encoding what was accepted included.
    """

    depths: Counter[Depth] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    failures: dict[int, str] = field(default_factory=dict)
    ratio: float = 0.0
    seconds: float = 0.0

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return self.depths.total()

    def at_least(self, depth: Depth) -> int:
        """Return the number of inputs with which the decoder got so far."""
        return sum(count for reached, count in self.depths.items() if reached >= depth)

    def note(self, number: int, attempt: Attempt) -> None:
        """Count one more input."""
        verdict = attempt.verdict
        self.depths[verdict.depth] += 1
        if verdict.said:
            self.refusals[verdict.said] += 1
        if verdict.failure:
            self.failures[number] = verdict.failure
        if attempt.length >= LARGE:
            self.ratio = max(self.ratio, attempt.allocated / attempt.length)
        self.seconds = max(self.seconds, attempt.seconds)

    def add(self, other: Tally) -> None:
        """Count what ``other`` counted."""
        self.depths += other.depths
        self.refusals += other.refusals
        self.failures |= other.failures
        self.ratio = max(self.ratio, other.ratio)
        self.seconds = max(self.seconds, other.seconds)


def attempt(seed: int, number: int, trace: bool) -> Attempt:
    """Try one input, and once more to trace what it allocates."""
    given = input_of(seed, number)
    started = time.process_time()
    verdict = _in_time(given)
    seconds = time.process_time() - started
    taken = allocated(given) if trace and not verdict.failure else 0
    if not verdict.failure and seconds > MOST_SECONDS:
        verdict = replace(verdict, failure=f"took {seconds:.1f} s of CPU time")
    elif taken > allowed(given):
        said = f"allocated {taken} bytes for {len(given.data)}, {allowed(given)} are allowed"
        verdict = replace(verdict, failure=said)
    return Attempt(given.target.name, len(given.data), verdict, seconds, taken)


def _in_time(given: Input) -> Verdict:
    """Return the verdict, a failure where there is none after ``_CUT`` seconds."""
    signal.setitimer(signal.ITIMER_PROF, _CUT)
    try:
        return examine(given)
    except TimeoutError as error:
        return Verdict(Depth.HEADER, failure=str(error))
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _give_up(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"no end after {_CUT:.0f} s of CPU time")


@dataclass(frozen=True)
class _Worker:
    """What one process goes by: its memory at the beginning, MiB, and when it has to stop."""

    memory: float
    deadline: float


_worker = _Worker(0.0, 0.0)


def _prepare(seconds: float | None) -> None:
    """Make the messages to begin with, and confine this process."""
    global _worker
    originals()
    signal.signal(signal.SIGPROF, _give_up)
    room = int(_status("VmSize") * (1 << 20)) + _ROOM
    resource.setrlimit(resource.RLIMIT_AS, (room, resource.getrlimit(resource.RLIMIT_AS)[1]))
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak starts anew here
    _worker = _Worker(_status("VmRSS"), time.monotonic() + (float("inf") if seconds is None else seconds))


def _status(field: str) -> float:
    """Return what Linux tells of this process, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def _try_some(seed: int, numbers: range) -> tuple[dict[str, Tally], float]:
    """Return tallies by target, and by how much this process has ever grown, MiB."""
    tallies: dict[str, Tally] = {}
    first = len(originals())
    for number in numbers:
        if time.monotonic() > _worker.deadline:
            break
        found = attempt(seed, number, trace=number < first or number % SAMPLED == 0)
        tallies.setdefault(found.target, Tally()).note(number, found)
    return tallies, _status("VmHWM") - _worker.memory


def _try_all(options: argparse.Namespace, console: Console) -> tuple[dict[str, Tally], float]:
    """Try all inputs in as many processes, and tell of every step; same results as :func:`_try_some`."""
    tallies = {target.name: Tally() for target in targets()}
    growth = 0.0
    steps = [range(start, min(start + _STEP, options.inputs)) for start in range(0, options.inputs, _STEP)]
    spawn = get_context("spawn")
    with ProcessPoolExecutor(options.workers, spawn, _prepare, (options.seconds,)) as pool:
        for future in as_completed([pool.submit(_try_some, options.seed, step) for step in steps]):
            found, grown = future.result()
            growth = max(growth, grown)
            for name, tally in found.items():
                tallies[name].add(tally)
            tried = sum(tally.inputs for tally in tallies.values())
            failed = sum(len(tally.failures) for tally in tallies.values())
            console.print(f"{tried:,}/{options.inputs:,} inputs, {failed} failures")
    return tallies, growth


def _keep(seed: int, tallies: Mapping[str, Tally], work: Path, console: Console) -> None:
    """Write the first inputs that failed, and say how to try them again."""
    failures = sorted(
        (number, name, said) for name, tally in tallies.items() for number, said in tally.failures.items()
    )
    work.mkdir(parents=True, exist_ok=True)
    for number, _, _ in failures[:_MOST_KEPT]:
        (work / f"{seed}-{number}.bin").write_bytes(input_of(seed, number).data)
    for number, name, said in failures[:_MOST_TOLD]:
        console.print(f"[bold red]failure[/] {name}: {escape(said)}: --seed {seed} --only {number}")
    if len(failures) > _MOST_TOLD:
        console.print(f"and {len(failures) - _MOST_TOLD} more failures; the first {_MOST_KEPT} are in {work}")


def _row(name: str, tally: Tally) -> dict[str, Any]:
    return {
        "target": name,
        "inputs": tally.inputs,
        "past_header": tally.at_least(Depth.INDICES),
        "past_coordinates": tally.at_least(Depth.VALUES),
        "accepted": tally.at_least(Depth.ACCEPTED),
        "refused": tally.refusals.total(),
        "failures": len(tally.failures),
        "most_allocated_per_byte": round(tally.ratio, 1),
        "slowest_seconds": round(tally.seconds, 3),
        "refusals": dict(tally.refusals.most_common()),
    }


def _print(rows: list[dict[str, Any]], console: Console) -> None:
    table = Table("target", "inputs", "past header", "past coordinates", "accepted", "refused", "failures")
    table.add_column("allocated per byte, at most")
    table.add_column("slowest")
    for row in rows:
        counts = ("inputs", "past_header", "past_coordinates", "accepted", "refused", "failures")
        cells = (f"{row[count]:,}" for count in counts)
        slowest = f"{1000 * row['slowest_seconds']:.0f} ms"
        table.add_row(row["target"], *cells, f"{row['most_allocated_per_byte']:.0f} bytes", slowest)
    console.print(table)
    refusals: Counter[str] = Counter()
    for row in rows[:-1]:
        refusals.update(row["refusals"])
    table = Table("refused because", "inputs")
    for said, count in refusals.most_common():
        table.add_row(escape(said), f"{count:,}")
    console.print(table)


def _claims(total: dict[str, Any], growth: float) -> list[Claim]:
    ratio, failures, inputs = total["most_allocated_per_byte"], total["failures"], total["inputs"]
    return [
        Claim("inputs tried", inputs, f"≥ {INPUTS:,}", "", inputs >= INPUTS),
        Claim("inputs that a decoder failed on", failures, "0", "", failures == 0),
        Claim(
            "most bytes allocated per byte of an input of 1 KiB or more",
            ratio,
            f"≤ {MOST_PER_BYTE}",
            "bytes",
            ratio <= MOST_PER_BYTE,
        ),
        Claim("growth of a process over all its inputs", growth, f"≤ {MOST_GROWTH}", "MiB", growth <= MOST_GROWTH),
    ]


def _try_again(seed: int, number: int, console: Console) -> None:
    """Try one input and tell everything of it; leave with status 1 where it fails."""
    given = input_of(seed, number)
    _prepare(None)
    found = attempt(seed, number, trace=True)
    console.print(
        f"input {number} of seed {seed}: {found.length} bytes for {found.target}, made from {given.item.name!r}"
    )
    console.print(f"{found.verdict.depth.name.lower()}; {found.seconds:.3f} s; {found.allocated} bytes allocated")
    console.print(escape(found.verdict.failure or found.verdict.said or "all is well"))
    sys.exit(1 if found.verdict.failure else 0)


def main() -> None:
    """Try all inputs, print the tables, and write results/fuzz.json; leave with status 1 after a failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=INPUTS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, help="after which every worker stops; default: no limit")
    parser.add_argument("--only", type=int, metavar="NUMBER", help="try this input alone")
    parser.add_argument("--work", type=Path, default=WORK, help="folder for inputs that failed")
    options = parser.parse_args()
    console = Console(highlight=False, width=160)
    if options.only is not None:
        _try_again(options.seed, options.only, console)
    started = time.monotonic()
    tallies, growth = _try_all(options, console)
    seconds = time.monotonic() - started
    rows = [_row(name, tally) for name, tally in tallies.items()]
    everything = Tally()
    for tally in tallies.values():
        everything.add(tally)
    total = {**_row("all", everything), "inputs_per_second": round(everything.inputs / seconds)}
    total.pop("refusals")
    _print([*rows, total], console)
    _keep(options.seed, tallies, options.work, console)
    settings = {name: getattr(options, name) for name in ("inputs", "seed", "workers", "seconds")}
    settings |= {"traced": f"the messages to begin with, and one of {SAMPLED} inputs", "growth_mib": round(growth)}
    write_report("fuzz", settings, [*rows, total], _claims(total, growth))
    sys.exit(1 if everything.failures else 0)


if __name__ == "__main__":
    main()

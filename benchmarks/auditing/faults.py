"""Faults at every system call of what writes to a ledger, and a disk of one megabyte that is full.

Each fault strikes a process of its own, on a copy of the same ledger. Afterwards three things must hold: nothing
was forwarded that the ledger does not have; verifying finds nothing; the ledger opens, has all it had, goes on.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import sqlite3
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import sha256
from multiprocessing.context import ForkServerContext
from pathlib import Path

from benchmarks.auditing import full_disk, operations, strace
from benchmarks.auditing.part import Part
from benchmarks.report import Claim
from fedsparse.audit import Evidence, Ledger, read_folder, verify_ledger
from fedsparse.errors import FedsparseError
from tests.unit.samples import Hub, delta, draft_of, fill_ledger, update

_ERRORS = ("EIO", "ENOSPC")
_NO_FILE = frozenset(  # killed at, no errors
    ["brk", "mmap", "munmap", "mremap", "futex", "getpid", "getrandom", "rseq", "set_robust_list"]
)
_BY_CHANCE = frozenset(
    ["futex", "mmap", "munmap", "madvise", "mprotect"]
)  # how often, where there are two threads
_LASTING = frozenset(
    ["openat", "write", "pwrite64", "fsync", "fdatasync", "ftruncate", "fallocate", "rename", "unlink"]
)
_STEPS = (operations.APPEND, operations.JUDGED, operations.EMPTYING, operations.RECEIPT, operations.ERASE)
_COLUMNS = ("points", "killed", "refused", "crashed", "held")
_DONE, _KILLED = "exited with 0", "killed by SIGKILL"
_WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Stage:
    """The ledger of which every fault gets a copy.

    Attributes:
        folder: where all of it is.
        authority: the CA's certificate, PEM.
    """

    folder: Path
    authority: bytes

    @classmethod
    def set_up(cls, folder: Path) -> Stage:
        """Write a ledger in which all but the last update have receipts, and lay that one's receipt beside it."""
        folder.mkdir()
        hub = Hub.create(folder / "pki")
        fill_ledger(folder / "template", hub)
        with Ledger(folder / "template", sha256(hub.authority).digest(), operations.PLANT) as ledger:
            payload = update(delta({0: {3: 1.0}}), round=5)
            recorded = ledger.append(draft_of(payload, "task-d"), payload)
            receipt = hub.receipt(ledger, recorded, 4)
        (folder / "receipt").write_bytes(recorded.sequence.to_bytes(8, "big") + receipt)
        return cls(folder, hub.authority)

    @property
    def peer(self) -> bytes:
        """Fingerprint of the hub's CA."""
        return sha256(self.authority).digest()

    def copy(self) -> Path:
        """Return a fresh copy of the ledger."""
        folder = self.folder / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        return Path(shutil.copytree(self.folder / "template", folder))


@dataclass
class Ended:
    """How a process under a fault ended.

    Attributes:
        forwarded: place and hash of what it sent on, after the ledger had recorded it.
        refused: how often the ledger said no.
        end: as strace saw it; multiprocessing now and then does not learn how its child ended.
        struck: whether the fault struck at all.
    """

    forwarded: list[tuple[int, bytes]] = field(default_factory=list)
    refused: int = 0
    end: str = ""
    struck: bool = True

    @property
    def crashed(self) -> bool:
        """Whether it ended by anything but the fault itself."""
        return self.end != _DONE and not self.killed

    @property
    def killed(self) -> bool:
        """Whether the fault ended it."""
        return self.end == _KILLED


def run(folder: Path) -> Part:
    """Inject every fault, and fill a small disk."""
    rows, claims, notes = [], [], []
    if (why := strace.why_not()) is not None:
        notes.append(f"Faults at system calls were not tried: {why}.")
    else:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["benchmarks.auditing.operations"])
        with ThreadPoolExecutor(len(_STEPS)) as pool:  # most of the time passes in SQLite's waits for locks
            told = list(pool.map(lambda name: _strike_all(Stage.set_up(folder / name), context, name), _STEPS))
        rows = [row for one in told for row in _rows(one)]
        claims = _claims(told)
        notes += [f"{one.name}: {problem}" for one in told for problem in one.problems[:5]]
    disk = full_disk.try_out(folder / "disk")
    notes += [
        *disk.notes,
        "Where a thread of its own writes, a fault strikes at its place in either thread; calls for memory and "
        "locks, whose number is up to chance there, are not struck.",
        "A kill ends the process, not the machine: that what was written survives a loss of power is shown by the "
        "order of calls alone (written, synced, then forwarded), on a disk that keeps what it says it has synced.",
    ]
    settings = {"errors": list(_ERRORS), "lasting": sorted(_LASTING), "disk_bytes": full_disk.BYTES}
    return Part("faults", settings, rows, [*claims, *disk.claims], notes)


@dataclass(frozen=True)
class Struck:
    """What became of all faults in one step.

    Attributes:
        name: of the step.
        calls: system calls that it makes.
        unsynced: files that it wrote and did not sync before anything could be forwarded.
        rows: counts by kind of fault.
        problems: each names fault and call.
    """

    name: str
    calls: int
    unsynced: list[str]
    rows: dict[str, Counter[str]]
    problems: list[str]


def _strike_all(stage: Stage, context: ForkServerContext, name: str) -> Struck:
    log = stage.folder / "trace"
    clean = _under(stage, context, name, None, log)
    if clean.refused or clean.end != _DONE:
        raise RuntimeError(f"{name} fails without any fault: {clean}")
    calls = strace.read_calls(log)
    problems: list[str] = []
    rows: dict[str, Counter[str]] = {}
    for fault, inject in _faults(_times(calls)):
        ended = _under(stage, context, name, inject, log)
        found = [] if ended.struck else ["the fault did not strike"]
        found += _examine(stage, name, ended)
        ends = [f"the process {ended.end}"] if ended.crashed else []
        problems += [f"{inject}: {problem}" for problem in found + ends]
        tally = rows.setdefault(fault, Counter())
        tally["points"] += 1
        tally["killed"] += ended.killed
        tally["refused"] += bool(ended.refused)
        tally["crashed"] += ended.crashed
        tally["held"] += not found
    return Struck(name, len(calls), _unsynced(calls), rows, problems)


def _times(calls: list[strace.Call]) -> Counter[str]:
    """Return how often each call is made by the thread that makes it most often."""
    by_thread: dict[int, Counter[str]] = {}
    for call in calls:
        by_thread.setdefault(call.thread, Counter())[call.name] += 1
    most: Counter[str] = Counter()
    for counted in by_thread.values():
        most |= counted
    if len(by_thread) > 1:
        for name in _BY_CHANCE:
            most.pop(name, None)
    return most


def _faults(calls: Counter[str]) -> Iterator[tuple[str, str]]:
    """Yield every fault: once, at each call; from then on, at those that a full or broken disk would fail."""
    for call, times in calls.items():
        for number in range(1, times + 1):
            yield "KILL", f"{call}:signal=KILL:when={number}"
            if call in _NO_FILE:
                continue
            for error in _ERRORS:
                yield error, f"{call}:error={error}:when={number}"
                if call in _LASTING:
                    yield f"{error} from then on", f"{call}:error={error}:when={number}+"


def _under(stage: Stage, context: ForkServerContext, name: str, inject: str | None, log: Path) -> Ended:
    """Run one step under one fault."""
    folder = stage.copy()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(_WAIT_SECONDS)
    process = context.Process(target=operations.perform, args=(name, folder, stage.peer, theirs), daemon=True)
    with ours:
        process.start()
        theirs.close()
        try:
            if ours.recv(64) != operations.READY or process.pid is None:
                raise RuntimeError(f"{name}: the process did not begin")
            with strace.traced(process.pid, log, inject):
                os.kill(process.pid, signal.SIGUSR1)
                process.join(_WAIT_SECONDS)
        finally:
            process.kill()
            process.join()
        said = list(iter(lambda: ours.recv(64), b""))
    ended = Ended(end=strace.ending(log), refused=said.count(operations.REFUSED))
    ended.struck = inject is None or ended.killed or strace.struck(log)
    ended.forwarded = [
        (int.from_bytes(one[1:9], "big"), one[9:]) for one in said if one.startswith(operations.FORWARDED)
    ]
    return ended


def _examine(stage: Stage, name: str, ended: Ended) -> Iterator[str]:
    """Yield whatever does not hold of the ledger that a fault has left."""
    folder = stage.folder / "copy"
    before = read_folder(stage.folder / "template")
    try:
        found = read_folder(folder)
        if not set(ended.forwarded) <= _places(found):
            yield "something was forwarded that the ledger does not have"
        yield from _fsck(stage, folder)
        _go_on(stage, name, folder, found)
        yield from (f"after going on: {problem}" for problem in _fsck(stage, folder))
        after = read_folder(folder)
    except (FedsparseError, sqlite3.Error) as error:
        yield f"the ledger does not go on: {error}"
        return
    if after.rows[: len(found.rows)] != found.rows or found.rows[: len(before.rows)] != before.rows:
        yield "entries are gone"
    if not before.receipts.items() <= found.receipts.items() <= after.receipts.items():
        yield "receipts are gone"


def _go_on(stage: Stage, name: str, folder: Path, found: Evidence) -> None:
    """Do once more what the fault has interrupted, as the next gateway would, and record one thing more."""
    with Ledger(folder, stage.peer, operations.PLANT) as ledger:
        if name != operations.RECEIPT or operations.unfiled(folder)[0] not in found.receipts:
            operations.prepare(name, ledger, folder)()
        operations.go_on(ledger)


def _fsck(stage: Stage, folder: Path) -> Iterator[str]:
    yield from verify_ledger(folder, stage.authority).problems
    with closing(sqlite3.connect(f"{(folder / 'ledger.db').as_uri()}?mode=ro", uri=True)) as database:
        for (said,) in database.execute("PRAGMA integrity_check"):
            if said != "ok":
                yield f"SQLite: {said}"


def _places(evidence: Evidence) -> set[tuple[int, bytes]]:
    return {(row.sequence, row.hash) for row in evidence.rows}


def _unsynced(calls: list[strace.Call]) -> list[str]:
    """Return the files that were written and not synced by the end; SQLite's shared index is rebuilt by itself."""
    dirty: dict[str, None] = {}
    for call in calls:
        if call.name in ("write", "pwrite64", "ftruncate") and not call.path.endswith("-shm"):
            dirty[call.path] = None
        elif call.name in ("fsync", "fdatasync"):
            dirty.pop(call.path, None)
        elif call.name in ("rename", "renameat", "renameat2", "unlink", "unlinkat"):
            dirty["a name in payloads"] = None
        if call.name == "fsync" and call.path.endswith("/payloads"):
            dirty.pop("a name in payloads", None)
    return list(dirty)


def _rows(told: Struck) -> list[dict[str, object]]:
    return [
        {"step": told.name, "its calls": told.calls, "fault": fault, **{name: tally[name] for name in _COLUMNS}}
        for fault, tally in told.rows.items()
    ]


def _claims(told: list[Struck]) -> list[Claim]:
    total = sum((tally for one in told for tally in one.rows.values()), Counter())
    unsynced = sum(len(one.unsynced) for one in told)
    return [
        Claim(
            "faults at system calls after which nothing was forwarded without an entry, verifying finds nothing, "
            "and the ledger goes on with all that it had",
            total["held"],
            f"all {total['points']}",
            "faults",
            0 < total["points"] == total["held"],
        ),
        Claim(
            "of them, faults that ended the process by an exception nobody foresaw",
            total["crashed"],
            "0",
            "faults",
            not total["crashed"],
        ),
        Claim(
            "files and names written and not synced when something is forwarded", unsynced, "0", "", not unsynced
        ),
    ]

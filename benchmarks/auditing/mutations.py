"""Evidence altered a hundred thousand times: whether that is found, and whether it is said where.

Two verifiers look: fedsparse's own at everything, the one in tests/reference at a share of every class.
"""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
from collections.abc import Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.auditing import changes
from benchmarks.auditing.changes import Change, Stage
from benchmarks.auditing.evidence import Parts
from benchmarks.auditing.federation import PLANT, Federation, update
from benchmarks.auditing.part import Part, upper_bound
from benchmarks.report import Claim
from fedsparse.audit import (
    compare_views,
    load_key,
    notes,
    opening,
    origin_of,
    public_bytes,
    read_bundle,
    read_receipts,
    receipt,
    said,
    verify_evidence,
    verify_ledger,
)
from fedsparse.audit.bundle import parse_bundle
from fedsparse.config import IdentitySettings
from fedsparse.errors import LedgerError
from fedsparse.security import Role, load_credentials
from fedsparse.v1 import link_pb2
from tests.reference.verifier import Verifier

SEED, WORKERS, ROUNDS, CHUNK = 20261126, 2, 12, 500
SECOND_LOOK = 12  # of so many mutations, one is also shown to the reference verifier
COUNTS: dict[str, int] = {
    "flipped_bit": 40_000,
    "overwritten": 10_000,
    "cut": 5_000,
    "rearranged": 10_000,
    "reworded": 10_000,
    "forged": 6_000,
    "swapped_payload": 6_000,
    "moved_receipt": 8_000,
    "other_signature": 3_000,
    "rolled_back": 500,
    "spliced": 1_500,
    "smuggled": 3_000,
    "recertified": 1_000,
    "rewritten": 1_000,
}
SQL_EDITS, APART = 1_500, 1_000
_RECEIPTS = re.compile(r"the hub witnessed|its receipt")
_NAMES = re.compile(r"entry \d|receipt \d|member '|from byte|number \d|at its beginning|receipts are|spaces/")


@dataclass(frozen=True)
class Tally:
    """How many of a kind were tried, found, and placed."""

    tried: int = 0
    found: int = 0
    named: int = 0
    right: int = 0
    placed: int = 0
    looked: int = 0
    agreed: int = 0

    def __add__(self, other: Tally) -> Tally:
        """Return both together."""
        return Tally(*(a + b for a, b in zip(_values(self), _values(other), strict=True)))


def _values(tally: Tally) -> tuple[int, ...]:
    return tuple(tally.__dict__.values())


def run(folder: Path) -> Part:
    """Alter, verify, and count."""
    stage_folder = prepare(folder)
    jobs = [(str(stage_folder), name, first) for name in COUNTS for first in range(0, COUNTS[name], CHUNK)]
    tallies = {name: Tally() for name in COUNTS}
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        for name, tally in pool.map(_chunk, jobs):
            tallies[name] = tallies[name] + tally
        sql = sum(pool.map(_edit_tables, [(str(stage_folder), n) for n in range(WORKERS)]), Tally())
        ends = list(pool.map(_apart, [(str(stage_folder), n) for n in range(WORKERS)]))
    tallies["edited in SQLite"] = sql
    apart = {name: sum((end[name] for end in ends), Tally()) for name in ends[0]}
    rows = [_row(name.replace("_", " "), tally) for name, tally in (tallies | apart).items()]
    whole = sum(tallies.values(), Tally())
    return Part("mutations", _settings(), rows, _claims(whole, tallies["rewritten"], apart), _NOTES)


_NOTES = (
    "Who holds the plant's key can cut entries off the end that no auditor has seen yet, and no bundle by itself "
    "shows it. The hub's record does: it is the witness.",
    "Receipts that were taken away contradict nothing, as the last one may always be under way: the verifier "
    "names the entries that have none. With the hub's record at hand nothing depends on them.",
    "A rewritten history counts as found only where a receipt shows it.",
)


def _settings() -> dict[str, Any]:
    return {
        "seed": SEED,
        "rounds": ROUNDS,
        "counts": COUNTS,
        "reference verifier sees one of": SECOND_LOOK,
        "sql_edits": SQL_EDITS,
        "of each kind told apart": APART,
    }


def _row(name: str, tally: Tally) -> dict[str, Any]:
    return {
        "evidence": name,
        "tried": tally.tried,
        "found": tally.found,
        "says where": tally.named,
        "right entry, of those with one": f"{tally.right}/{tally.placed}" if tally.placed else "",
        "reference verifier agrees": f"{tally.agreed}/{tally.looked}" if tally.looked else "",
        "missed at most (95 %)": f"{upper_bound(tally.tried - tally.found, tally.tried):.2g}",
    }


def _claims(whole: Tally, rewritten: Tally, apart: Mapping[str, Tally]) -> list[Claim]:
    missed, misplaced = whole.tried - whole.found, whole.placed - whole.right
    bound = upper_bound(missed, whole.tried)
    return [
        Claim("altered bundles and tables tried", whole.tried, "≥ 100,000", "", whole.tried >= 100_000),
        Claim("of them not found", missed, "0", "", missed == 0),
        Claim("of them not found, 95 % upper bound", bound, "≤ 3.1e-5", "", bound <= 3.1e-5),
        Claim("found, but not said where", whole.found - whole.named, "0", "", whole.found == whole.named),
        Claim("the altered entry not among those named", misplaced, "0", "", misplaced == 0),
        Claim("the two verifiers disagree", whole.looked - whole.agreed, "0", "", whole.looked == whole.agreed),
        _all("history rewritten with the plant's own key, found by receipts", rewritten),
        _all("two views for two auditors, found by comparing them", apart[_VIEWS]),
        _all("end cut off with the plant's own key, found with the hub's record", apart[_WITNESSED]),
        Claim("the same without the hub's record, found", apart[_ALONE].found, "stated", f"of {APART:,}", True),
        _all("receipts taken away, the entries without them named", apart[_DROPPED]),
    ]


def _all(name: str, tally: Tally) -> Claim:
    return Claim(name, tally.found, f"all {tally.tried}", f"of {tally.tried}", tally.found == tally.tried)


def prepare(folder: Path) -> Path:
    """Make two honest ledgers of one plant, the second with the same beginning of time and another key."""
    (folder / "pki").mkdir()
    federation = Federation.create(folder / "pki")
    for number, name in enumerate(("one", "other")):
        (folder / name).mkdir()
        federation.run(folder / name, ROUNDS, SEED + number)
    return folder


def _draw(name: str, number: int) -> random.Random:
    return random.Random(f"{SEED} {name} {number}")  # noqa: S311 # nothing secret is drawn


@lru_cache
def _stage(folder: str) -> tuple[Stage, Any]:
    """Return what mutations are made of, once in each process; the same bytes are checked or decoded once."""
    for module, name in ((receipt, "verify"), (opening, "verify"), (notes, "_verify"), (said, "decode")):
        setattr(module, name, lru_cache(maxsize=1 << 16)(getattr(module, name)))
    return make_stage(Path(folder))


def make_stage(home: Path) -> tuple[Stage, list[link_pb2.Receipt]]:
    """Return what mutations of the evidence in a folder that :func:`prepare` filled are made of."""
    federation = _reload(home / "pki")
    bundle = (home / "one" / "kiso.tar").read_bytes()
    key = load_key(home / "one" / "ledger" / "ledger.key", create=False)
    origin = origin_of(PLANT, public_bytes(key))
    parts, earlier = Parts.of(bundle), {}
    for size in range(1, len(parts.entries)):
        shorter = parts.copy()
        del shorter.entries[size:]
        shorter.sign(key, origin)
        earlier[size] = shorter.checkpoint
    stage = Stage(
        bundle, (home / "other" / "kiso.tar").read_bytes(), key, origin, federation, earlier, _erased(home, parts)
    )
    return stage, read_receipts(home / "one" / "receipts" / "kiso.jsonl")


def _reload(folder: Path) -> Federation:
    def load(role: Role, name: str) -> Any:
        files = {kind: folder / f"{name}.{kind}" for kind in ("pem", "key")}
        settings = IdentitySettings(certificate=files["pem"], key=files["key"], authority=folder / "ca.pem")
        return load_credentials(settings, role)

    return Federation((folder / "ca.pem").read_bytes(), load(Role.HUB, "hub"), load(Role.PLANT, PLANT))


def _erased(home: Path, parts: Parts) -> dict[str, bytes]:
    """Return the deleted payload, which somebody may have kept."""
    payload = update(1, np.random.default_rng(SEED))
    name = f"payloads/{sha256(payload).hexdigest()}"
    if name in parts.files or bytes.fromhex(name[9:]) not in parts.entries[4]:
        raise RuntimeError("the deleted payload is another than expected")
    return {name: payload}


def _judge(bundle: bytes, stage: Stage, kept: Any = None) -> list[str]:
    """Return what fedsparse's verifier says of a bundle."""
    try:
        return list(verify_evidence(parse_bundle(bundle), stage.federation.authority, kept).problems)
    except LedgerError as error:
        return [str(error)]


def _second(bundle: bytes, stage: Stage) -> bool:
    """Tell whether the reference verifier finds anything."""
    try:
        return bool(list(Verifier(bundle, stage.federation.authority).problems(None)))
    except Exception:
        return True


def _chunk(job: tuple[str, str, int]) -> tuple[str, Tally]:
    folder, name, first = job
    stage, _ = _stage(folder)
    change: Change = getattr(changes, name)
    tally = Tally()
    for number in range(first, min(first + CHUNK, COUNTS[name])):
        draw = _draw(name, number)
        altered, entry = stage.bundle, None
        while altered == stage.bundle:  # what changes nothing is no mutation
            altered, entry = change(stage, draw)
        problems = _judge(altered, stage)
        found = bool(problems) if name != "rewritten" else any(map(_RECEIPTS.search, problems))
        looked = number % SECOND_LOOK == 0
        tally += Tally(
            1,
            found,
            any(map(_NAMES.search, problems)),
            entry is not None and any(f"entry {entry}:" in problem for problem in problems),
            entry is not None,
            looked,
            looked and _second(altered, stage) == found,
        )
        if not found or (looked and not _second(altered, stage)):
            (Path(folder) / f"missed-{name}-{number}.tar").write_bytes(altered)
    return name, tally


def _edit_tables(job: tuple[str, int]) -> Tally:
    """Edit the ledger's database with a SQLite tool and no scruples."""
    folder, worker = job
    stage, _ = _stage(folder)
    home = Path(folder) / f"sql-{worker}"
    shutil.copytree(Path(folder) / "one" / "ledger", home, ignore=shutil.ignore_patterns("lock"))
    honest = (home / "ledger.db").read_bytes()
    tally = Tally()
    for number in range(worker, SQL_EDITS, WORKERS):
        draw = _draw("sql", number)
        (home / "ledger.db").write_bytes(honest)
        with closing(sqlite3.connect(home / "ledger.db")) as database, database:
            database.execute("PRAGMA journal_mode=MEMORY")
            for (trigger,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                database.execute(f"DROP TRIGGER {trigger}")
            _edit(database, draw)
        try:
            problems: Iterable[str] = verify_ledger(home, stage.federation.authority).problems
        except LedgerError as error:
            problems = [str(error)]
        found = bool(problems)
        tally += Tally(1, found, any(map(_NAMES.search, problems)))
    return tally


_CELLS = (
    ("entries", "sequence", "entry"),
    ("entries", "sequence", "hash"),
    ("receipts", "sequence", "receipt"),
    ("nodes", "level || ' ' || place", "hash"),
    ("checkpoint", "one", "note"),
)


def _edit(database: sqlite3.Connection, draw: random.Random) -> None:
    """Change a byte of a cell; or delete a row of entries or of the tree, or give it another place."""
    table, row, cell = draw.choice(_CELLS)
    rows = database.execute(f"SELECT {row}, {cell} FROM {table}").fetchall()  # noqa: S608 # names of our own
    place, data = draw.choice(rows)
    how = draw.randrange(3) if table in ("entries", "nodes") else 0
    if how == 0:
        changed = bytearray(data)
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
        database.execute(f"UPDATE {table} SET {cell} = ? WHERE {row} = ?", (bytes(changed), place))  # noqa: S608
    elif how == 1:
        database.execute(f"DELETE FROM {table} WHERE {row} = ?", (place,))  # noqa: S608
    else:
        number = "sequence" if table == "entries" else "level"
        database.execute(f"UPDATE {table} SET {number} = {number} + 100 WHERE {row} = ?", (place,))  # noqa: S608


_VIEWS = "two views for two auditors"
_WITNESSED = "end cut off and signed anew, hub's record at hand"
_ALONE = "end cut off and signed anew, nothing but the bundle"
_DROPPED = "receipts taken away: the entries without are named"


def _apart(job: tuple[str, int]) -> dict[str, Tally]:
    """Return how evidence fares that is not wrong in itself, or not without a witness."""
    folder, worker = job
    stage, kept = _stage(folder)
    honest = read_bundle(Path(folder) / "one" / "kiso.tar")
    counts = dict.fromkeys((_VIEWS, _WITNESSED, _ALONE, _DROPPED), Tally())
    for number in range(worker, APART, WORKERS):
        altered, _ = changes.rewritten(stage, _draw("view", number))
        counts[_VIEWS] += _found(list(compare_views(honest, parse_bundle(altered))))
        altered, _ = changes.truncated(stage, _draw("tail", number))
        counts[_WITNESSED] += _found(_judge(altered, stage, kept))
        counts[_ALONE] += _found(_judge(altered, stage))
        altered, _ = changes.unreceipted(stage, _draw("dropped", number))
        verdict = verify_evidence(parse_bundle(altered), stage.federation.authority)
        counts[_DROPPED] += _found([f"entry {one}: has no receipt" for one in verdict.missing_receipts])
    return counts


def _found(problems: list[str]) -> Tally:
    return Tally(1, bool(problems), any(map(_NAMES.search, problems)))

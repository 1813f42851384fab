"""Gateways killed at random instants under load, and started again on the same folders.

SuperLink, hub and gateways are the product's own processes. Every plant has one task at a time, answered at once,
and the next right after. In the end three records are compared: what the operator has, the hub's receipts, the
plants' ledgers.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from benchmarks.auditing.load import Answers, Load
from benchmarks.auditing.part import Part, upper_bound
from benchmarks.auditing.restarted import Gateway
from benchmarks.auditing.supernode import SuperNode
from benchmarks.linking.certificates import Certificates
from benchmarks.linking.messages import SPACE
from benchmarks.linking.operator import Operator
from benchmarks.linking.waiting import eventually
from benchmarks.report import Claim
from fedsparse.audit import LEFT, EntryKind, parse_entry, read_folder, read_receipts, verify_ledger
from fedsparse.errors import LedgerError
from fedsparse.security import Role
from fedsparse.v1 import link_pb2

PLANTS = ("kiso", "ise", "mino")
SEED, KILLS = 11, 70  # of each plant
_START_SPAN, _LOAD_SPAN = 1.2, 2.0  # seconds in which a kill comes
_PRESENT_SECONDS, _DRAIN_SECONDS = 60.0, 90.0


@dataclass
class Plant:
    """One plant, and what was seen of it.

    Attributes:
        found: counts by what was looked for.
        problems: each in words.
    """

    gateway: Gateway
    receipts: Path
    authority: bytes
    kills: int = 0
    found: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def kill_over_and_over(self, draw: Random) -> None:
        """Kill it at instants drawn from its presence at the hub on, and every fourth time from its start on."""
        for number in range(KILLS):
            starting = number % 4 == 0
            if not starting:
                eventually(
                    lambda: self.gateway.present or self.gateway.ended, "its presence", _PRESENT_SECONDS, 0.002
                )
            time.sleep(draw.uniform(0, _START_SPAN if starting else _LOAD_SPAN))
            if self.gateway.ended:
                self.problems.append(f"the gateway ended by itself before kill {number + 1}")
            self.found["killed before the hub had let it in"] += not self.gateway.present
            self.gateway.kill()
            self.kills += 1
            self._look()
            self.gateway.start()

    def _look(self) -> None:
        """See what a kill has left: no receipt for what the ledger does not have."""
        given = {receipt.body.ledger_hash for receipt in self._hub_receipts()}
        try:
            evidence = read_folder(self.gateway.ledger)
        except LedgerError:
            if given:
                self.problems.append("there are receipts, and no ledger")
            self.found["killed before there was a ledger"] += 1
            return
        unrecorded = given - {row.hash for row in evidence.rows}
        self.found["forwarded, not recorded"] += len(unrecorded)
        waiting = [
            row
            for row in evidence.rows
            if row.sequence not in evidence.receipts
            and (entry := parse_entry(row.entry)) is not None
            and entry.kind in LEFT
        ]
        self.found["killed between record and receipt"] += bool(waiting)
        self.found["of them, the hub had it already"] += any(row.hash in given for row in waiting)

    def _hub_receipts(self) -> list[link_pb2.Receipt]:
        return read_receipts(self.receipts) if self.receipts.exists() else []

    def missing(self) -> list[int]:
        """Return what is recorded to leave and has no receipt filed."""
        return list(verify_ledger(self.gateway.ledger, None).missing_receipts)

    def settle(self, load: Load) -> None:
        """Compare the three records."""
        verdict = verify_ledger(self.gateway.ledger, self.authority, self.receipts)
        self.problems += verdict.problems
        evidence = read_folder(self.gateway.ledger)
        entries = [entry for row in evidence.rows if (entry := parse_entry(row.entry)) is not None]
        left = {entry.payload_sha256 for entry in entries if entry.kind in LEFT}
        tasks = Counter(entry.task_id for entry in entries if entry.kind in LEFT)
        given = self._hub_receipts()
        mine = [task for task, plant in load.issued.items() if plant == self.gateway.name]
        answers = {task: load.answers.get(task, []) for task in mine}
        self.found["forwarded, not recorded"] += sum(
            digest not in left for found in answers.values() for digest in found
        )
        self.found["recorded, without a receipt"] = len(verdict.missing_receipts)
        self.found["receipts of the hub's, not filed"] = len(given) - len(evidence.receipts)
        self.found["tasks"] = len(mine)
        self.found["tasks never answered"] = sum(not found for found in answers.values())
        self.found["tasks answered twice"] = sum(len(found) > 1 for found in answers.values())
        self.found["tasks recorded twice"] = sum(count > 1 for count in tasks.values())
        self.found["entries"] = len(entries)
        self.found["updates recorded"] = verdict.updates
        self.found["reasons recorded"] = sum(int(entry.kind) == EntryKind.REASON for entry in entries)


def run(folder: Path) -> Part:
    """Kill, compare, and count."""
    certificates = Certificates(folder / "certificates", PLANTS)
    with Operator(folder, certificates, PLANTS) as operator:
        plants = [_plant(folder, certificates, operator, name) for name in PLANTS]
        nodes = [SuperNode(plant.gateway.port, Answers(SEED + number)) for number, plant in enumerate(plants)]
        try:
            load, seconds = _kill_all(operator, plants)
        finally:
            for node in nodes:
                node.stop()
            for plant in plants:
                plant.gateway.kill()
        for plant in plants:
            plant.settle(load)
    return _part(plants, load, seconds)


def _plant(folder: Path, certificates: Certificates, operator: Operator, name: str) -> Plant:
    home = certificates.home(Role.PLANT, name)
    gateway = Gateway(folder / name, name, home, operator.address, SPACE.fingerprint)
    receipts = operator.state / "receipts" / f"{name}.jsonl"
    return Plant(gateway, receipts, (home / "ca.pem").read_bytes())


def _kill_all(operator: Operator, plants: list[Plant]) -> tuple[Load, float]:
    """Kill every plant's gateway in a thread of its own, then let them finish; return also how long that took."""
    for plant in plants:
        plant.gateway.start()
    load, begun = Load(operator, PLANTS), time.monotonic()
    threads = [
        threading.Thread(target=plant.kill_over_and_over, args=(_draw(number),), daemon=True)
        for number, plant in enumerate(plants)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - begun
    load.stop(_DRAIN_SECONDS)
    end = time.monotonic() + _DRAIN_SECONDS
    while any(plant.missing() for plant in plants) and time.monotonic() < end:
        time.sleep(0.5)
    return load, seconds


def _draw(number: int) -> Random:
    return Random(SEED + number)  # noqa: S311 # instants, not secrets


def _part(plants: list[Plant], load: Load, seconds: float) -> Part:
    total = Counter[str]()
    for plant in plants:
        total.update(plant.found)  # unlike the sum of counters, it keeps those that are 0
    kills = sum(plant.kills for plant in plants)
    unrecorded = total["forwarded, not recorded"]
    lost = sum(
        total[name]
        for name in ("recorded, without a receipt", "receipts of the hub's, not filed", "tasks never answered")
    )
    twice = total["tasks answered twice"] + total["tasks recorded twice"]
    problems = [f"{plant.gateway.name}: {problem}" for plant in plants for problem in plant.problems]
    rows = [{"seen": name, "count": count} for name, count in sorted(total.items())]
    claims = [
        Claim("kills of a gateway under load", kills, "≥ 200", "kills", kills >= 200),
        Claim(
            "forwarded but not recorded, by receipts and by what the operator has",
            unrecorded,
            "0",
            "",
            not unrecorded,
        ),
        Claim(
            "95 % upper bound of that rate, over kills", upper_bound(unrecorded, kills), "stated", "", kills > 0
        ),
        Claim(
            "lost: recorded without a receipt in the end, receipts not filed, tasks never answered",
            lost,
            "0",
            "",
            not lost,
        ),
        Claim("tasks answered or recorded twice", twice, "0", "", not twice),
        Claim("what verifying finds, with the hub's record", len(problems), "0", "problems", not problems),
        Claim(
            "tasks answered while gateways were killed",
            len(load.answers) / seconds,
            "stated",
            "/s",
            bool(load.answers),
        ),
    ]
    settings = {"seed": SEED, "plants": len(plants), "kills_of_each": KILLS, "seconds": round(seconds, 1)}
    return Part("kills", settings, rows, claims, [*problems[:10], *load.errors[:5]])

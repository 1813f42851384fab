"""Attacks on the link between plants and hub: how each is refused, and whether honest plants notice.

A real SuperLink, a real hub, two honest plants with the gateway's own Link, and real gateways against hostile hubs
and a hostile SuperNode; everything on loopback. After every attack it is seen whether the attacked process is the
same one and lives, whether its log names what was refused, whether both honest plants were present all along, and
whether the hub answers one of them within two seconds. The result is also the table in docs/security.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from benchmarks.attacking import adapters, calls, doors, floods, gateways, ledgers, loopback, suite, table
from benchmarks.attacking.attack import Outcome
from benchmarks.attacking.federation import HONEST, Federation, Log
from benchmarks.attacking.insider import Stage
from benchmarks.report import Claim, write_report
from fedsparse.processes import interrupt_on_terminate

LEAST_ATTACKS, MOST_REVOKED_SECONDS, MOST_SECONDS = 60, 60.0, 300.0
PAGE = Path(__file__).parents[1] / "docs" / "security.md"


def _hub(federation: Federation) -> Iterator[Outcome]:
    for attack in doors.attacks():
        yield suite.run(federation, attack, federation, federation.hub)
    stage = Stage(federation)
    for attack in [*calls.attacks(), *ledgers.attacks()]:
        yield suite.run(federation, attack, stage, federation.hub)
    stage.close()


def _transport(federation: Federation) -> Iterator[Outcome]:
    for attack in floods.attacks():
        yield suite.run(federation, attack, federation, federation.hub)


def _plant(federation: Federation, stack: ExitStack) -> Iterator[Outcome]:
    for one in gateways.dial_impostors(federation, stack):
        yield suite.run(federation, one.attack, federation, one.watched)
    stage = gateways.Stage(federation)
    stack.callback(stage.close)
    stage.begin()
    for attack in [*gateways.attacks(), *loopback.attacks()]:
        yield suite.run(federation, attack, stage, stage.site.watched)
    yield suite.run(federation, gateways.claiming(), stage, stage.claiming.watched)
    trainer = adapters.begin(federation)
    for attack in adapters.attacks():
        yield suite.run(federation, attack, trainer, Log(trainer.log))


def _row(outcome: Outcome) -> dict[str, Any]:
    attack = outcome.attack
    return {
        "group": attack.group,
        "does": attack.does,
        "side": attack.side,
        "refused_how": attack.refused,
        "told": outcome.told[:200],
        "refused": outcome.refused,
        "log_pattern": attack.log,
        "logged": outcome.logged,
        "why_no_log": attack.why_no_log,
        "alive": outcome.alive,
        "served": outcome.served,
        "answer_seconds": round(outcome.answer_seconds, 4),
        "seconds": round(outcome.seconds, 2),
        "holds": outcome.holds,
    }


def _line(number: int, outcome: Outcome) -> str:
    failed = [
        name
        for name, held in (
            ("not refused as it must be", outcome.refused),
            ("no log line", outcome.logged is not False),
            ("does not live", outcome.alive),
            ("honest plants not served", outcome.served),
        )
        if not held
    ]
    verdict = f"[bold red]{', '.join(failed)}[/]" if failed else "[green]held[/]"
    return f"{number:3} {verdict}  {escape(outcome.attack.does)}: {escape(outcome.told[:100])}"


def _claims(rows: list[dict[str, Any]], revoked: float, rounds: list[float], seconds: float) -> list[Claim]:
    count, due = len(rows), [row for row in rows if row["logged"] is not None]

    def all_of(name: str, key: str, among: list[dict[str, Any]]) -> Claim:
        found = sum(bool(row[key]) for row in among)
        return Claim(name, found, f"all {len(among)}", "attacks", found == len(among))

    return [
        Claim("attacks tried", count, f"≥ {LEAST_ATTACKS}", "attacks", count >= LEAST_ATTACKS),
        all_of("refused with the right error, or without effect where nothing is refused", "refused", rows),
        all_of("named in the attacked process's log, of those where something is refused", "logged", due),
        all_of("the attacked process lives on, or ended as it must", "alive", rows),
        all_of("both honest plants present all the time, and a call answered within 2 s after", "served", rows),
        Claim("honest rounds between the attacks that closed", len(rounds), "all 4", "rounds", len(rounds) == 4),
        Claim("a revoked plant's open stream ended after", revoked, f"≤ {MOST_REVOKED_SECONDS:g}", "s",
              revoked <= MOST_REVOKED_SECONDS),
        Claim("the whole suite", seconds, f"≤ {MOST_SECONDS:g}", "s", seconds <= MOST_SECONDS),
    ]  # fmt: skip


def main() -> None:
    """Run every attack, write results/attacks.json and the table in docs/security.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    interrupt_on_terminate()
    started, console = time.monotonic(), Console(highlight=False, soft_wrap=True)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, Federation(Path(folder)) as federation, ExitStack() as stack:
        rounds = [federation.honest_round()]
        for part in (_hub(federation), _transport(federation), _plant(federation, stack)):
            for outcome in part:
                rows.append(_row(outcome))
                console.print(_line(len(rows), outcome))
            rounds.append(federation.honest_round())
        revoked = federation.revoked_seconds
    seconds = time.monotonic() - started
    settings = {"honest_plants": list(HONEST), "honest_round_seconds": rounds, "most_answer_seconds": 2.0}
    path = write_report("attacks", settings, rows, _claims(rows, revoked, rounds, seconds))
    if PAGE.exists():
        table.write(PAGE, json.loads(path.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()

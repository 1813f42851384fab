"""What the link costs beside bare Flower: small calls, large messages, empty rounds, and 500 plants on one hub."""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedsparse_client.gateway.link import Link
from rich.console import Console
from rich.table import Table

from benchmarks.bare_flower import round_seconds
from benchmarks.linking import large, many, prompt, small_calls
from benchmarks.linking.certificates import Certificates
from benchmarks.linking.messages import update
from benchmarks.linking.operator import MAX_UPDATE_BYTES, Operator
from benchmarks.linking.plant import Plant
from benchmarks.linking.waiting import allow_files, percentile
from benchmarks.report import Claim, write_report
from fedsparse.security import LiveCredentials, Revocations, Role

_FEW = ("carrier", "prober", "desk", "kiso", "ise")
_MAX_MESSAGE_BYTES = 1 << 30
_FILES = 8192
_console = Console(highlight=False, soft_wrap=True)


class _Bench:
    """Measures one thing after the other, and gathers what they come to."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._folder = options.folder.resolve()
        self._crowd = [f"plant-{number:03d}" for number in range(options.plants)]
        self.rows: list[dict[str, Any]] = []
        self.claims: list[Claim] = []

    def run(self) -> None:
        """Do all of it."""
        shutil.rmtree(self._folder / "work", ignore_errors=True)
        started = time.monotonic()
        self._certificates = Certificates(self._folder / "pki", [*_FEW, *self._crowd])
        issued = time.monotonic() - started
        _console.print(f"certificates of {len(_FEW) + len(self._crowd)} plants at hand after {issued:.1f} s")
        with Operator(self._folder / "work" / "few", self._certificates, _FEW) as operator:
            self._few(operator)
        self._tell_rounds(round_seconds(2, self._options.bare_rounds))
        self._many()

    def _few(self, operator: Operator) -> None:
        desk = Plant(operator, self._certificates, "desk", whole=False)
        with self._link(operator, "prober") as link:
            self._small(small_calls.measure(operator.superlink, desk.gateway, link, self._options.calls))
        with self._link(operator, "carrier") as link:
            self._large(large.LargeMessages(operator, desk), operator, link)
        plants = [Plant(operator, self._certificates, name, whole=True) for name in _FEW[3:]]
        with self._link(operator, "prober") as link:
            attendee = prompt.Attendee(link, operator.folder / "attendee", "prober")
            node = operator.node("prober")
            ours = prompt.notice(operator, node, attendee, self._options.tasks)
        self._rounds = prompt.rounds(operator, [plant.node for plant in plants], self._options.rounds)
        self._notice(ours, prompt.bare_notice(operator, plants[0], self._options.bare_tasks))

    def _link(self, operator: Operator, name: str) -> Link:
        credentials = LiveCredentials(self._certificates.settings(Role.PLANT, name), Role.PLANT, _console.print)
        return Link(operator.address, credentials, _MAX_MESSAGE_BYTES, Revocations(None, lambda: ()))

    def _table(self, part: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Print rows, and keep them for the report."""
        self.rows += [{"part": part, **row} for row in rows]
        table = Table(*rows[0], title=part, title_justify="left", box=None)
        for row in rows:
            table.add_row(*(str(value) for value in row.values()))
        _console.print(table)

    def _claim(self, name: str, value: float, aim: str, unit: str, holds: bool) -> None:
        self.claims.append(Claim(name, round(value, 3), aim, unit, holds))

    def _small(self, found: small_calls.SmallCalls) -> None:
        self._table("one small call", found.rows())
        added = 1000 * percentile(found.added, 99)
        self._claim("small call, p99 added by gateway, TLS and hub", added, "at most 10", "ms", added <= 10)

    def _large(self, messages: large.LargeMessages, operator: Operator, link: Link) -> None:
        down = [one for size in self._options.megabytes for one in messages.down(size * 1_000_000)]
        up = [one for tensors in self._options.tensors for one in messages.up(tensors)]
        alone = [large.carry(operator, link, _FEW[0], size * 1_000_000) for size in self._options.megabytes]
        every = [*down, *up, *alone]
        self._table("large messages", [one.row() for one in every])
        if lost := [one for one in every if one.trouble]:
            self._table("lost on the way", [{**one.row(), "why": one.trouble} for one in lost])
        self._stages(every)
        payload = update(1)
        size = len(payload) / 1e6
        self._table(
            "an update of 32-bit values, decoded strictly",
            [
                {
                    "part": part,
                    "seconds": round(seconds, 2),
                    "mb_per_second": round(size / seconds, 1),
                }
                for part, seconds in large.strict(payload)
            ],
        )
        self._claim_rates(_ours(down), _ours(up), alone[-1])

    def _stages(self, moved: Sequence[large.Moved]) -> None:
        rows = [
            {"way": one.way, "megabytes": round(one.size / 1e6, 1), "stage": name, "seconds": round(seconds, 2)}
            for one in moved
            for name, seconds in one.stages.items()
        ]
        if rows:
            self._table("where their time goes", rows)

    def _claim_rates(self, down: large.Moved, up: large.Moved, alone: large.Moved) -> None:
        """From end to end, and what the pair alone carries: a rate of the whole falls with every part of it."""
        pair = down.size / 1e6 / down.stages.get(large.PAIR_STAGE, float("inf"))
        for name, rate in (
            (f"task of {down.size / 1e6:.0f} MB from SuperLink to SuperNode, end to end", down.rate),
            (f"task of {down.size / 1e6:.0f} MB from the hub to the gateway's desk: the pair alone", pair),
            (f"update of {alone.size / 1e6:.0f} MB from the gateway's link to the hub, not decoded", alone.rate),
            (f"update of {up.size / 1e6:.0f} MB from SuperNode to receipt, decoded strictly twice", up.rate),
        ):
            self._claim(name, rate, "at least 100", "MB/s", rate >= 100)

    def _notice(self, ours: Sequence[float], bare: Sequence[float]) -> None:
        self._table(
            "from sent to at the plant",
            [_spread("fedsparse: on the plant's stream", ours), _spread("bare Flower: in its SuperNode", bare)],
        )
        worst = percentile(ours, 99)
        self._claim("task at the plant after it was sent, p99", worst, "below 1", "seconds", worst < 1)

    def _tell_rounds(self, bare: Sequence[float]) -> None:
        self._table(
            "empty round, two plants",
            [_spread("fedsparse: SuperLink, hub, gateway, SuperNode", self._rounds), _spread("bare Flower", bare)],
        )
        median = statistics.median(self._rounds)
        self._claim("empty round with two plants, median", median, "at most 1.5", "seconds", median <= 1.5)

    def _many(self) -> None:
        found = many.measure(
            self._folder / "work" / "many", self._certificates, self._crowd, self._options.quiet_seconds
        )
        self._table(f"{found.plants} plants, nothing to do", [one.row() for one in found.burdens])
        figures = {
            "present once all were, or once that was given up": found.connected,
            "seconds until then": round(found.connect_seconds, 1),
            "present after the quiet time": found.present,
            "online at Flower": found.online,
            "streams that broke": found.broken,
            "seconds to lay all tasks at the SuperLink": round(found.sent_seconds, 2),
            "plants that got their task": len(found.delivered),
            "seconds from then until the last got it": round(max(found.delivered, default=0.0), 2),
            "answers": len(found.answered),
            "seconds from then until the last answer": round(max(found.answered, default=0.0), 2),
        }
        self._table(f"{found.plants} plants", [{"what": what, "value": value} for what, value in figures.items()])
        if found.troubles:
            self._table("troubles", [{"what": what, "times": times} for what, times in found.troubles.items()])
        everyone = f"all {found.plants}"
        served = min(len(found.delivered), len(found.answered))
        self._claim("plants served in one round", served, everyone, "plants", served == found.plants)
        kept = min(found.present, found.online)
        steady = kept == found.plants and not found.lost
        self._claim(
            f"plants present after {self._options.quiet_seconds:.0f} quiet seconds, none lost meanwhile",
            kept,
            everyone,
            "plants",
            steady,
        )


def _ours(moved: Sequence[large.Moved]) -> large.Moved:
    return [one for one in moved if one.by == "fedsparse"][-1]


def _spread(what: str, seconds: Sequence[float]) -> dict[str, Any]:
    return {
        "what": what,
        "count": len(seconds),
        "median_s": round(statistics.median(seconds), 3),
        "p99_s": round(percentile(seconds, 99), 3),
        "most_s": round(max(seconds), 3),
    }


def main() -> None:
    """Measure, print the tables, write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-link"))
    parser.add_argument("--calls", type=int, default=550)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[64, 200], help="of each large task")
    parser.add_argument("--tensors", type=int, nargs="+", default=[1, 3], help="of 67 MB, in each large update")
    parser.add_argument("--tasks", type=int, default=50)
    parser.add_argument("--bare-tasks", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--bare-rounds", type=int, default=5)
    parser.add_argument("--plants", type=int, default=500)
    parser.add_argument("--quiet-seconds", type=float, default=60.0)
    options = parser.parse_args()
    files = allow_files(_FILES)
    bench = _Bench(options)
    load = {"load_average_before": round(os.getloadavg()[1], 1)}  # of five minutes: what else ran here
    started = time.monotonic()
    bench.run()
    settings = {name: value for name, value in vars(options).items() if name != "folder"}
    more = {"open_files": files, "max_update_bytes": MAX_UPDATE_BYTES}
    took = {"seconds": round(time.monotonic() - started, 1)}
    load["load_average_after"] = round(os.getloadavg()[1], 1)
    write_report("link", {**settings, **more, **load, **took}, bench.rows, bench.claims)


if __name__ == "__main__":
    main()

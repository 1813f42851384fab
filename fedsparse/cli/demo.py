"""`fedsparse demo`: a whole federation on one machine, every part real, torn down whatever happens."""

from __future__ import annotations

import json
import shutil
import statistics
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

from rich.console import Console

from fedsparse import config
from fedsparse.cli.demo_audit import FOLDER as AUDIT
from fedsparse.cli.demo_audit import audit_ledgers
from fedsparse.cli.demo_site import Layout, federation_text, lay_out
from fedsparse.cli.progress import ProgressView, final_table, say
from fedsparse.cli.summary import write_summary
from fedsparse.delta import AdapterSpace
from fedsparse.errors import ConfigError, FedsparseError
from fedsparse.events import EventFollower
from fedsparse.files import hold
from fedsparse.processes import Child, interrupt_on_terminate, script, stop_all
from fedsparse.v1 import link_pb2

_MARKER = ".fedsparse-demo"
_SETTABLE = {"adapter", "training", "aggregation"}
_RESTARTS = 10  # of killed plants, before the demo gives up
_OWN = ("pki", "hub", "plants", "test.csv", "summary.json", "summary.html", AUDIT)


@dataclass
class _Run:
    """What the demo has seen so far."""

    before: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)

    def see(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "baseline":
            self.before = event["balanced_accuracy"]
        elif event["event"] == "round_committed":
            self.history.append(dict(event))


def run_demo(folder: Path, rounds: int, *, alone: bool, settings: Path | None, console: Console) -> None:
    """Run the demo; see the command's help."""
    started = time.monotonic()
    interrupt_on_terminate()
    folder = folder.resolve()
    more = _further(settings)  # before an earlier demo's files go
    with _clear(folder):
        _run_in(folder, rounds, alone=alone, more=more, console=console, started=started)


def _further(settings: Path | None) -> str:
    """Return the tables that the demo adds to its federation.toml, checked."""
    if settings is None:
        return ""
    try:
        text = settings.read_text(encoding="utf-8")
        tables = set(tomllib.loads(text))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"{settings} cannot be read as TOML: {error}", "See deploy/examples/demo.toml for one that can"
        ) from None
    if others := sorted(tables - _SETTABLE):
        raise ConfigError(
            f"{settings} sets {', '.join(others)}, which the demo decides itself",
            f"Keep to {', '.join(sorted(_SETTABLE))}",
        )
    whole = tomllib.loads(federation_text("127.0.0.1:1", 1, text))
    config.from_options(config.FederationConfig, whole, str(settings))
    return text


def _run_in(folder: Path, rounds: int, *, alone: bool, more: str, console: Console, started: float) -> None:
    console.print(f"writing to {folder}", highlight=False, markup=False)
    layout = lay_out(folder, rounds, more=more)
    run = _federate(layout, rounds, console)
    if not run.history:
        raise FedsparseError("no round was committed", f"Read the logs below {folder}")
    alone_history = _train_alone(layout, console) if alone else {}
    summary = _summarise(layout, run, alone_history, time.monotonic() - started, folder)
    write_summary(summary, folder)
    console.print(final_table(summary))
    say(console, f"{folder / 'summary.html'}  {folder / 'summary.json'}")
    say(console, f"what left each plant, verified from its evidence alone: {folder / AUDIT}")
    if not summary["ledger"]["verified"]:
        raise FedsparseError("a ledger does not verify", "See the problems listed in summary.json")


def _clear(folder: Path) -> IO[str]:
    """Remove an earlier demo's files, and nothing else; return what holds the folder while it is open."""
    if folder.exists() and any(folder.iterdir()) and not (folder / _MARKER).exists():
        raise FedsparseError(
            f"{folder} holds files that are not an earlier demo's", "Name another folder with --folder"
        )
    folder.mkdir(parents=True, exist_ok=True)
    lock = hold(folder / _MARKER, "demo")
    for name in _OWN:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    return lock


def _federate(layout: Layout, rounds: int, console: Console) -> _Run:
    """Start everything, run the rounds, stop everything."""
    from fedsparse_server.supervisor import ServerSupervisor

    settings = config.load(layout.federation, config.FederationConfig)
    run = _Run()
    follower = EventFollower(settings.state / "events.jsonl")
    supervisor = ServerSupervisor(layout.federation, settings, partial(say, console))
    plants = _Plants(layout, console)
    try:
        supervisor.start()
        plants.start()
        with ProgressView(console, rounds) as view:
            console.print("three plants load the base model and cache its frozen activations, once")

            def watch() -> None:
                if (share := plants.new_quarter()) is not None:
                    view.handle(
                        {"event": "phase", "name": "images", "detail": f"{share:.0%} read", "time": time.time()}
                    )
                for event in follower.new():
                    run.see(event)
                    view.handle(event)
                plants.keep_up()

            supervisor.run(watch)
    finally:
        plants.stop()
        supervisor.stop()
    return run


class _Plants:
    """One agent per plant, each its own process with processes of its own; one that is killed starts again."""

    def __init__(self, layout: Layout, console: Console) -> None:
        self._sites = layout.sites
        self._console = console
        self._agents: dict[str, Child] = {}
        self._restarts = 0
        self._quarter = 0

    def start(self) -> None:
        for name in self._sites:
            self._start(name)

    def keep_up(self) -> None:
        """Start a plant again that was killed, as its service manager would.

        Raises:
            ProcessError: a plant stopped by itself, or plants keep being killed.
        """
        for name, agent in self._agents.items():
            if agent.exit_code is None:
                continue
            if agent.exit_code > 0 or self._restarts >= _RESTARTS:
                agent.require_running()
            self._restarts += 1
            say(self._console, f"plant {name} was killed (signal {-agent.exit_code}); starting it again")
            self._start(name)

    def new_quarter(self) -> float | None:
        """Return what share of all images has been read, each time another quarter is done."""
        from fedsparse_client.agent import read_progress

        found = [read_progress(site.parent / "state") for site in self._sites.values()]
        read = [progress for progress in found if progress is not None]
        if len(read) < len(found):
            return None
        share = sum(done for done, _ in read) / sum(total for _, total in read)
        if int(4 * share) <= self._quarter:
            return None
        self._quarter = int(4 * share)
        return share

    def stop(self) -> None:
        stop_all(list(self._agents.values()))

    def _start(self, name: str) -> None:
        site = self._sites[name]
        command = [script("fedsparse"), "client", "up", "--config", str(site)]
        self._agents[name] = Child(f"plant {name}", command, site.parent / "agent.log")


def _train_alone(layout: Layout, console: Console) -> dict[str, list[float]]:
    """Train each plant alone on its own data, with the budget it had in the federation."""
    console.print("each plant alone, with the same budget, to compare")
    children = []
    try:
        for name, site in layout.sites.items():
            command = [script("python"), "-u", "-m", "fedsparse.cli.alone", str(site), str(layout.federation)]
            children.append(Child(f"{name} alone", command, site.parent / "alone.log"))
        for child, site in zip(children, layout.sites.values(), strict=True):
            child.wait_until((site.parent / "alone.json").exists, timeout=3600)
    finally:
        stop_all(children)
    return {name: json.loads((site.parent / "alone.json").read_text()) for name, site in layout.sites.items()}


def _summarise(
    layout: Layout, run: _Run, alone: Mapping[str, list[float]], wall_seconds: float, folder: Path
) -> dict[str, Any]:
    settings = config.load(layout.federation, config.FederationConfig)
    federation = link_pb2.Federation.FromString((settings.state / "federation.pb").read_bytes())
    space = AdapterSpace.from_proto(federation.space)
    answers = [plant for entry in run.history for plant in entry["plants"] if plant["reason"] is None]
    last = run.history[-1]
    loads = {name: _base_model_loads(site.parent / "state") for name, site in layout.sites.items()}
    return {
        "rounds": len(run.history),
        "wall_seconds": round(wall_seconds, 1),
        "balanced_accuracy": {
            "before": run.before,
            "best_alone": max((values[-1] for values in alone.values()), default=None),
            "federated": last["balanced_accuracy"],
            "alone": {name: values[-1] for name, values in alone.items()},
        },
        "bytes_up_per_plant_round": round(statistics.mean(plant["bytes_up"] for plant in answers)),
        "bytes_down_per_plant_round": round(statistics.mean(plant["bytes_down"] for plant in answers)),
        "dense_adapter_bytes": space.dense_bytes,
        "dense_model_bytes": _model_bytes(layout),
        "round_overhead_seconds_median": round(
            statistics.median(entry["overhead_seconds"] for entry in run.history), 3
        ),
        "base_model_loads_per_plant": max(loads.values()),
        "ledger": audit_ledgers(layout, folder),
        "adapter_version": last["version"],
        "history": run.history,
        "alone_history": dict(alone),
        "plants": {name: {**data, "base_model_loads": loads[name]} for name, data in layout.plants.items()},
        "settings": {
            **settings.training.model_dump(),
            **settings.adapter.model_dump(),
            **settings.aggregation.model_dump(),
        },
        "software": _software(),
    }


def _base_model_loads(state: Path) -> int:
    path = state / "base_model_loads"
    return len(path.read_text().splitlines()) if path.exists() else 0


def _model_bytes(layout: Layout) -> int:
    """Size of the whole base model in fp32, what federated averaging of all weights would send."""
    from fedsparse.adapters import load_base

    settings = config.load(layout.federation, config.FederationConfig)
    base = load_base(settings.base, settings.adapter, settings.federation.classes, settings.federation.task)
    return base.parameter_bytes


def _software() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("fedsparse", "flwr", "grpcio", "torch")}

"""`fedsparse simulate`: rounds of a federation of virtual plants, by rule and draw, and a table to plan with."""

from __future__ import annotations

import hashlib
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from fedsparse import config
from fedsparse.cli.figures import bytes_text, score_text
from fedsparse.cli.progress import say
from fedsparse.cli.simulate_plot import draw
from fedsparse.errors import ConfigError, FedsparseError
from fedsparse.files import write_atomic
from fedsparse.processes import interrupt_on_terminate
from fedsparse.simulation.study import ALONE, Population, Study

DEFAULT_CONFIG = Path("simulate.toml")
_INTERRUPTED = 130
Found = dict[str, Any]


@dataclass(frozen=True)
class Options:
    """What the command line says; None leaves it to the settings file."""

    config: Path | None = None
    data: Path | None = None
    output: Path | None = None
    plants: int | None = None
    alpha: float | None = None
    rounds: int | None = None
    draws: int | None = None
    rules: tuple[str, ...] = ()


def run_simulate(options: Options, console: Console) -> None:
    """Simulate; see the command's help."""
    interrupt_on_terminate()
    settings = read_settings(options)
    try:
        settings.output.mkdir(parents=True, exist_ok=True)
        _Run(settings, console).run()
    except KeyboardInterrupt:
        say(console, "interrupted; the same command goes on after the last finished federation")
        raise typer.Exit(_INTERRUPTED) from None
    except OSError as error:
        raise FedsparseError(
            f"the system refused to read or write {error.filename or settings.output}: {error.strerror}",
            "Free some space there, or name another folder with --output",
        ) from None


def read_settings(options: Options) -> config.SimulateConfig:
    """Return the settings of the file with the options over them; with data alone no file is needed.

    Raises:
        ConfigError: there is neither, or a value is wrong.
    """
    plants = {
        "count": options.plants,
        "alpha": options.alpha,
        "rounds": options.rounds,
        "draws": options.draws,
        "rules": list(options.rules) or None,
    }
    overrides: dict[str, Any] = {"plants": {key: value for key, value in plants.items() if value is not None}}
    if options.data is not None:
        overrides["data"] = {"path": options.data.absolute()}
    if options.output is not None:
        overrides["output"] = options.output.absolute()
    if options.config is None and options.data is not None:
        return config.from_options(config.SimulateConfig, overrides)
    path = options.config or DEFAULT_CONFIG
    if options.config is None and not path.exists():
        raise ConfigError(
            "there are no samples to share out",
            f"Name them with --data, or settings with --config or in {path}",
        )
    return config.load(path, config.SimulateConfig, overrides)


class _Run:
    """One run of the command."""

    def __init__(self, settings: config.SimulateConfig, console: Console) -> None:
        self._settings = settings
        self._console = console
        say(console, "reading the samples; images pass through the frozen part of the base model once")
        self._study = Study(settings)
        self._kept = settings.output / "kept"

    def run(self) -> None:
        """Run every rule on every draw, and write the table."""
        plants, division = self._settings.plants, self._study.division
        say(
            self._console,
            f"{len(division.training)} samples among {plants.count} plants, alpha {plants.alpha:g}; "
            f"{len(division.holdout)} to test on; {self._study.adapter.space.size:,} coordinates",
        )
        arms = (*([ALONE] if plants.alone else []), *self._settings.rules)
        found = [self._arm(arm, draw) for draw in range(plants.draws) for arm in arms]
        rows = [_row(arm, [one for one in found if one["arm"] == arm]) for arm in arms]
        self._console.print(_table(rows, plants.rounds))
        report = {"settings": self._settings.model_dump(mode="json"), "rows": rows, "runs": found}
        path = self._settings.output / "simulate.json"
        write_atomic(path, (json.dumps(report, indent=1, ensure_ascii=False) + "\n").encode())
        drawing = path.with_suffix(".svg")
        write_atomic(drawing, draw(found, ALONE).encode())
        say(self._console, f"{path} and {drawing.name}: balanced accuracy per round")

    def _arm(self, arm: str, draw: int) -> Found:
        """Run one arm on one draw, or return what it found earlier."""
        file = self._kept / f"{self._key(arm, draw)}.json"
        if file.exists():
            earlier: Found = json.loads(file.read_text(encoding="utf-8"))
            say(self._console, f"draw {draw}  {arm}: {score_text(earlier['score'])}, from an earlier run")
            return earlier
        population = self._study.population(draw)
        run = self._alone if arm == ALONE else self._federated
        found = {
            "arm": arm,
            "draw": draw,
            "plants": len(population.trainers),
            "left_out": population.left_out,
            "samples": [len(trainer.samples) for trainer in population.trainers],
            **run(arm, population, draw),
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(found).encode())
        return found

    def _alone(self, arm: str, population: Population, draw: int) -> Found:
        def watch(plant: int, score: float) -> None:
            samples = len(population.trainers[plant].samples)
            say(self._console, f"draw {draw}  plant {plant + 1} alone, {samples} samples: {score_text(score)}")

        scores = self._study.alone(population, draw, watch)
        return {"score": max(scores), "scores": scores}

    def _federated(self, rule: str, population: Population, draw: int) -> Found:
        history = []
        for progress in self._study.rounds(population, rule, draw):  # type: ignore[arg-type] # validated
            history.append(progress.told())
            say(
                self._console,
                f"draw {draw}  {rule}, round {progress.round}/{self._settings.plants.rounds}: "
                f"{score_text(progress.balanced_accuracy)}  up {bytes_text(progress.bytes_up)}",
            )
        return {
            "score": history[-1]["balanced_accuracy"],
            "bytes_up": statistics.mean(one["bytes_up"] for one in history),
            "bytes_down": statistics.mean(one["bytes_down"] for one in history),
            "history": history,
        }

    def _key(self, arm: str, draw: int) -> str:
        """Return a digest of all that decides what an arm finds on a draw."""
        plants = self._settings.plants.model_dump(exclude={"draws", "rules", "alone"})
        given = self._settings.model_dump(mode="json", exclude={"output", "data", "holdout", "plants"})
        told = json.dumps([given, plants, self._study.digest, arm, draw], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:32]


def _row(arm: str, found: Sequence[Found]) -> Found:
    scores = [one["score"] for one in found]
    row = {
        "arm": arm,
        "balanced_accuracy": statistics.mean(scores),
        "standard_error": statistics.stdev(scores) / len(scores) ** 0.5 if len(scores) > 1 else None,
        "plants": statistics.mean(one["plants"] for one in found),
    }
    if arm == ALONE:
        return {**row, "mean_of_plants": statistics.mean(score for one in found for score in one["scores"])}
    return row | {key: statistics.mean(one[key] for one in found) for key in ("bytes_up", "bytes_down")}


def _table(rows: Sequence[Found], rounds: int) -> Table:
    title = f"after {rounds} rounds"
    table = Table("", "balanced accuracy", "plants", "up, per plant and round", "down", box=None, title=title)
    for row in rows:
        error = "" if row["standard_error"] is None else f" ± {row['standard_error']:.3f}"
        score = f"{row['balanced_accuracy']:.3f}{error}"
        sent = [bytes_text(row[key]) if key in row else "–" for key in ("bytes_up", "bytes_down")]
        if row["arm"] == ALONE:
            table.add_row("the best plant alone", score, f"{row['plants']:g}", *sent)
            table.add_row("the mean plant alone", f"{row['mean_of_plants']:.3f}", f"{row['plants']:g}", *sent)
        else:
            table.add_row(row["arm"], score, f"{row['plants']:g}", *sent)
    return table

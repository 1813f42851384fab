"""`fedsparse train`: one site by itself, from labelled samples to a saved adapter and a report."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typer
from rich.console import Console

from fedsparse import config
from fedsparse.adapters.saved import save_adapter
from fedsparse.cli.figures import bytes_text, seconds_text
from fedsparse.cli.progress import say
from fedsparse.cli.train_record import Cost, gather, positive_text
from fedsparse.cli.train_report import write_report
from fedsparse.cli.train_view import TrainView
from fedsparse.config import StageSettings, TrainConfig
from fedsparse.delta import apply
from fedsparse.errors import ConfigError, DataError, FedsparseError
from fedsparse.files import hold
from fedsparse.processes import interrupt_on_terminate
from fedsparse.training import solo
from fedsparse.training.automatic import candidate_densities, stages_for
from fedsparse.training.division import Division, divide
from fedsparse.training.outcome import Epoch, Selection

DEFAULT_CONFIG = Path("train.toml")
_MARKER = ".fedsparse-train"
_REPORTS = ("report.json", "report.html")
_INTERRUPTED = 130


@dataclass(frozen=True)
class Options:
    """What the command line says; None leaves it to the settings file."""

    config: Path | None = None
    data: Path | None = None
    output: Path | None = None
    density: str | None = None
    kind: str | None = None
    seed: int | None = None


def run_train(options: Options, console: Console) -> None:
    """Train; see the command's help."""
    interrupt_on_terminate()
    settings = read_settings(options)
    with _held(settings.output):
        _Run(settings, console).run()


def read_settings(options: Options) -> TrainConfig:
    """Return the settings of the file with the options over them; with data alone no file is needed.

    Raises:
        ConfigError: there is neither, or a value is wrong.
    """
    overrides: dict[str, Any] = {}
    if options.data is not None:
        overrides["data"] = {"path": options.data.absolute()}
    if options.output is not None:
        overrides["output"] = options.output.absolute()
    if options.kind is not None:
        overrides["adapter"] = {"kind": options.kind}
    training = {"density": _number(options.density), "seed": options.seed}
    overrides["training"] = {key: value for key, value in training.items() if value is not None}
    if options.config is None and options.data is not None:
        return config.from_options(TrainConfig, overrides)
    path = options.config or DEFAULT_CONFIG
    if options.config is None and not path.exists():
        raise ConfigError(
            "there is nothing to train on", f"Name samples with --data, or settings with --config or in {path}"
        )
    return config.load(path, TrainConfig, overrides)


def _number(text: str | None) -> float | str | None:
    """Return a number where the text is one; what else it may be, the settings know."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold the output folder, which is empty or an earlier run's."""
    try:
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"output = {folder} is a file", "Name a folder with --output")
        if folder.exists() and any(folder.iterdir()) and not (folder / _MARKER).exists():
            raise ConfigError(
                f"{folder} holds files that are not an earlier run's", "Name another folder with --output"
            )
        folder.mkdir(parents=True, exist_ok=True)
        lock = hold(folder / _MARKER, "training")
    except (OSError, ValueError) as error:  # ValueError: a path that holds a NUL
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(
            f"output = {str(folder)[:200]!r} cannot be used: {reason}", "Name another folder with --output"
        ) from None
    with lock:
        yield


class _Run:
    """One run of the command: what has happened so far."""

    def __init__(self, settings: TrainConfig, console: Console) -> None:
        self._settings = settings
        self._console = console
        self._view = TrainView(console, settings.metric)
        self._folder = settings.output / "adapter"
        self._started = time.monotonic()
        self._kept: Epoch | None = None

    def run(self) -> None:
        """Do everything, and say what is kept where it ends early."""
        say(self._console, f"writing to {self._settings.output}")
        try:
            self._run()
        except KeyboardInterrupt:
            say(self._console, f"interrupted; {self._what_is_kept()}")
            raise typer.Exit(_INTERRUPTED) from None
        except (FedsparseError, OSError) as error:
            if self._kept is not None:
                say(self._console, self._what_is_kept())
            if isinstance(error, FedsparseError):
                raise
            raise FedsparseError(
                f"the system refused to read or write {error.filename or self._settings.output}: {error.strerror}",
                "Free some space there, or name another folder with --output",
            ) from None

    def _run(self) -> None:
        settings, view = self._settings, self._view
        division = divide(settings)
        view.data(division)
        classes = division.training.classes
        _require_text(classes)
        model = self._build(classes)
        solo.check(settings, model, classes)
        view.positive(positive_text(settings, classes))
        started = time.monotonic()
        task, selection = solo.read(settings, model, division, settings.output / "cache", view.reading)
        view.step("inputs", f"ready after {seconds_text(time.monotonic() - started)}")
        before = solo.evaluate(settings, model, classes, selection, solo.untrained(model))
        for name in _REPORTS:  # of an earlier run; its adapter stays until an epoch is finished
            (settings.output / name).unlink(missing_ok=True)
        started = time.monotonic()
        result = solo.run(settings, model, task, selection, self._watch(model, division, selection))
        training_seconds = time.monotonic() - started
        after = solo.evaluate(settings, model, classes, selection, result.state)
        save_adapter(self._folder, solo.saved(settings, model, classes, result.state, after.quality))
        cost = _cost(time.monotonic() - self._started, training_seconds, model)
        stages = _stages(settings, model)
        report = gather(settings, division, model, stages, result, before, after, cost)
        write_report(report, settings.output)
        view.end(report)
        say(self._console, f"{self._folder}  {settings.output / 'report.html'}  {settings.output / 'report.json'}")

    def _build(self, classes: tuple[str, ...]) -> solo.Model:
        model = solo.build(self._settings, classes)
        space, dense = model.adapter.space, model.adapter.dense
        whole = sum(space.tensors[position].size for position in dense)
        self._view.step("base", f"{model.base.name}, {bytes_text(model.base_bytes)}, on {model.machine.device}")
        self._view.step(
            "adapter",
            f"{model.adapter.kind}: {space.size:,} coordinates in {len(space.tensors)} tensors, "
            f"{whole:,} of them in dense ones",
        )
        return model

    def _watch(self, model: solo.Model, division: Division, selection: Selection) -> Callable[[Epoch], None]:
        """Return what says how each epoch went, and saves the adapter wherever that is better."""

        def watch(epoch: Epoch) -> None:
            assert epoch.quality is not None  # noqa: S101 - there is an exam
            kept = None if self._kept is None else self._kept.quality
            better = selection.better(epoch.quality, kept)
            if better:
                state = apply(solo.untrained(model), model.adapter.trained())
                classes = division.training.classes
                save_adapter(self._folder, solo.saved(self._settings, model, classes, state, epoch.quality))
                self._kept = epoch
            self._view.epoch(epoch, better)

        return watch

    def _what_is_kept(self) -> str:
        if self._kept is not None:
            return f"{self._folder} holds the adapter of epoch {self._kept.number}, the best so far"
        if self._folder.exists():
            return f"no epoch was finished, and {self._folder} is still the earlier run's"
        return "no epoch was finished, so there is no adapter"


def _require_text(classes: tuple[str, ...]) -> None:
    """Check that the label names can be written: a folder's name may be any bytes."""
    for name in classes:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise DataError(f"the class name {name!r} is not UTF-8 text", "Rename its folder or label") from None


def _stages(settings: TrainConfig, model: solo.Model) -> tuple[StageSettings, ...]:
    """Return all stages that ran."""
    if settings.training.density != "auto":
        return solo.stages_of(settings, model)
    plan, pruning = stages_for(
        model.adapter,
        settings.task.kind,
        settings.training,
        candidate_densities(model.adapter, settings.automatic),
    )
    return plan + pruning


def _cost(seconds: float, training_seconds: float, model: solo.Model) -> Cost:
    device = model.machine.device
    gpu = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    return Cost(round(seconds, 3), round(training_seconds, 3), memory, gpu)

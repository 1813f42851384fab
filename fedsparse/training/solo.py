"""One site by itself, without a federation: from settings to a trained adapter and what it is worth."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedsparse.adapters import Adapter, BaseModel, build_adapter, load_base
from fedsparse.adapters.saved import SavedAdapter, settled
from fedsparse.config import StageSettings, TrainConfig
from fedsparse.delta import Operation, SparseDelta, apply
from fedsparse.errors import ConfigError
from fedsparse.training.automatic import Choice, candidate_densities, choose_density
from fedsparse.training.division import Division
from fedsparse.training.engine import train
from fedsparse.training.features import Progress
from fedsparse.training.inputs import prepare
from fedsparse.training.language import LanguageModelling, LanguageQuality
from fedsparse.training.machine import Machine, set_up
from fedsparse.training.metrics import Interval, Quality, intervals, measure
from fedsparse.training.outcome import Epoch, Selection
from fedsparse.training.plan import default_stages, dense_share
from fedsparse.training.stages import require_feasible
from fedsparse.training.tasks import Classification, ClassificationExam, Task

Watch = Callable[[Epoch], None]


@dataclass(frozen=True)
class Model:
    """A base model with an untrained adapter on it.

    Attributes:
        base: the base model.
        base_bytes: of its parameters in fp32, without the adapter's.
        adapter: on its network.
        machine: where it computes.
    """

    base: BaseModel
    base_bytes: int
    adapter: Adapter
    machine: Machine


@dataclass(frozen=True)
class Evaluation:
    """What one state is worth on the hold-out.

    Attributes:
        quality: its figures.
        intervals: 95 % bootstrap intervals by the figures' names; none for causal-lm.
        probabilities: of each class, (n, classes); None for causal-lm.
    """

    quality: Quality | LanguageQuality
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    probabilities: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Result:
    """What training yielded.

    Attributes:
        state: the adapter, operation SET against the untouched base.
        epochs: all that ran.
        best: number of the epoch that the state is of.
        choice: of the density, where it was left open.
    """

    state: SparseDelta
    epochs: tuple[Epoch, ...]
    best: int
    choice: Choice | None = None


def build(settings: TrainConfig, classes: Sequence[str]) -> Model:
    """Load the base model and put an untrained adapter on it.

    Raises:
        ModelError: the base model cannot be read, or does not fit the task.
        ConfigError: the settings do not fit the base model or the machine.
    """
    base = load_base(settings.base, settings.adapter, classes, settings.task.kind)
    size = base.parameter_bytes
    machine = set_up(settings.machine, base.network)
    return Model(base, size, build_adapter(base, settings.adapter), machine)


def check(settings: TrainConfig, model: Model, classes: Sequence[str]) -> None:
    """Find what does not fit before anything takes long.

    Raises:
        ConfigError: the densities, the metric or the positive class do not fit the adapter space or the classes.
    """
    if settings.task.kind != "causal-lm":
        positive_class(settings, classes)
    if settings.training.density == "auto":
        candidate_densities(model.adapter, settings.automatic)
    else:
        stages_of(settings, model)


def stages_of(settings: TrainConfig, model: Model) -> tuple[StageSettings, ...]:
    """Return the stages of one training to a density that is known, checked before the first one runs.

    Raises:
        ConfigError: they do not fit the adapter space or each other.
    """
    adapter = model.adapter
    stages = default_stages(
        settings.training, adapter.kind, settings.task.kind, dense_share(adapter.space, adapter.dense)
    )
    require_feasible(adapter.space, adapter.dense, stages)
    return stages


def read(
    settings: TrainConfig, model: Model, division: Division, cache: Path, progress: Callable[[str], Progress]
) -> tuple[Task, Selection]:
    """Return what is trained on and what is not, as the base model's network reads it.

    Args:
        cache: folder where activations of images are kept from one run to the next.
        progress: from what is read to what is told how far it is.

    Raises:
        DataError: a sample has changed meanwhile.
        ConfigError: the objective, the metric or the positive class does not fit the task.
    """
    training, held = division.training, division.holdout
    augmentation = settings.augmentation
    inputs = prepare(model.base, training, cache / "training", augmentation, progress("training"))
    held_inputs = prepare(model.base, held, cache / "holdout", None, progress("held-out"))
    objective, machine = settings.objective, model.machine
    if settings.task.kind == "causal-lm":
        exam = LanguageModelling(held_inputs, len(held), objective, machine)
        return LanguageModelling(inputs, len(training), objective, machine), _selection(settings, exam)
    task = Classification(inputs, training.labels, len(training.classes), objective, augmentation, machine)
    positive = positive_class(settings, training.classes)
    rate = settings.training.false_alarm_rate
    held_exam = ClassificationExam(held_inputs, held.labels, machine, positive=positive, false_alarm_rate=rate)
    return task, _selection(settings, held_exam)


def _selection(settings: TrainConfig, exam: ClassificationExam | LanguageModelling) -> Selection:
    return Selection(exam, settings.metric, settings.training.patience)


def positive_class(settings: TrainConfig, classes: Sequence[str]) -> int:
    """Return the position of the class to be found, where there are two.

    Raises:
        ConfigError: ``task.positive`` is none of two classes, or the metric asks for one where there are more.
    """
    name = settings.task.positive
    if name is not None and (len(classes) != 2 or name not in classes):
        raise ConfigError(
            f"task.positive = {name!r}, but the classes are {', '.join(classes)}",
            "Name one of two classes, or leave it out where there are more",
        )
    if settings.metric == "recall_at_false_alarm" and len(classes) != 2:
        raise ConfigError(
            f'training.metric = "recall_at_false_alarm" needs two classes, not {len(classes)}',
            "Choose another metric",
        )
    return 1 if name is None else classes.index(name)


def run(settings: TrainConfig, model: Model, task: Task, selection: Selection, watch: Watch) -> Result:
    """Train; ``watch`` is told of every epoch.

    Raises:
        ConfigError: the densities do not fit the adapter space or the byte limit.
        DeltaError: training diverged.
    """
    training, proximal = settings.training, settings.objective.proximal
    if training.density == "auto":
        choice = choose_density(
            model.adapter,
            task,
            settings.task.kind,
            training,
            settings.automatic,
            selection,
            proximal=proximal,
            watch=watch,
        )
        return Result(choice.chosen.state, choice.epochs, choice.chosen.epoch.number, choice)
    outcome = train(
        model.adapter,
        task,
        untrained(model),
        stages_of(settings, model),
        seed=(training.seed,),
        batch_size=training.batch_size,
        proximal=proximal,
        selection=selection,
        watch=watch,
    )
    return Result(apply(untrained(model), outcome.delta), outcome.epochs, outcome.best)


def untrained(model: Model) -> SparseDelta:
    """Return the state that changes nothing."""
    return SparseDelta.empty(model.adapter.space.fingerprint, Operation.SET)


def evaluate(
    settings: TrainConfig, model: Model, classes: Sequence[str], selection: Selection, state: SparseDelta
) -> Evaluation:
    """Return what ``state`` is worth on the hold-out."""
    network = model.adapter.load(state).network
    exam = selection.exam
    if not isinstance(exam, ClassificationExam):
        return Evaluation(exam.quality(network))
    found = exam.probabilities(network)
    positive, rate = positive_class(settings, classes), settings.training.false_alarm_rate
    return Evaluation(
        measure(exam.labels, found, positive=positive, false_alarm_rate=rate),
        intervals(exam.labels, found, positive=positive, false_alarm_rate=rate),
        found,
    )


def saved(
    settings: TrainConfig, model: Model, classes: Sequence[str], state: SparseDelta, quality: object
) -> SavedAdapter:
    """Return the adapter as it is kept, with the figures of ``quality``."""
    figures = {name: float(value) for name, value in vars(quality).items() if value is not None}
    return SavedAdapter(
        base=settings.base,
        settings=settled(settings.adapter, model.base),
        task=settings.task.kind,
        classes=() if settings.task.kind == "causal-lm" else tuple(classes),
        space=model.adapter.space,
        state=state,
        figures=figures,
        created=datetime.now(UTC),
    )

"""`density = "auto"`: the smallest density that is about as good as the best, found in one run that prunes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fedsparse.adapters import Adapter
from fedsparse.config import AutomaticSettings, StageSettings, TrainSettings
from fedsparse.delta import Operation, SparseDelta, ValueCoding, apply, encode, quantise
from fedsparse.errors import ConfigError
from fedsparse.training.engine import train
from fedsparse.training.language import LanguageQuality
from fedsparse.training.metrics import METRICS, Quality
from fedsparse.training.outcome import Epoch, Outcome, Selection, StageEnd
from fedsparse.training.plan import default_stages, dense_share
from fedsparse.training.tasks import Task

_PRUNING_EPOCHS = 4
"""Per smaller candidate, where there are few enough of them."""

_PRUNING_SHARE = 2
"""All pruning stages together have at most so many times the epochs of one training."""

_VALUE_BYTES = 2  # bf16


@dataclass(frozen=True)
class Candidate:
    """What one density led to.

    Attributes:
        density: share of the space's coordinates that may have changed, dense tensors included.
        state: the adapter, operation SET against the untouched base.
        bytes: of its canonical bf16 encoding.
        epoch: the last one at this density.
        figure: of its quality, the one that chooses.
    """

    density: float
    state: SparseDelta
    bytes: int
    epoch: Epoch
    figure: float

    @property
    def quality(self) -> Quality | LanguageQuality:
        """Return what it is worth on the hold-out."""
        assert self.epoch.quality is not None  # noqa: S101 - there is an exam
        return self.epoch.quality


@dataclass(frozen=True)
class Choice:
    """A density, and the others that it was chosen from.

    Attributes:
        candidates: from the largest density down.
        position: of the chosen one.
        best: position of the one with the best figure among those within the byte limit.
        metric: the figure's name.
        tolerance: how much of it may be given up.
        max_bytes: the byte limit, or None.
        epochs: all that ran.
        cost: epochs that ran, in those of one training with the default stages.
    """

    candidates: tuple[Candidate, ...]
    position: int
    best: int
    metric: str
    tolerance: float
    max_bytes: int | None
    epochs: tuple[Epoch, ...]
    cost: float

    @property
    def chosen(self) -> Candidate:
        """The candidate that is taken."""
        return self.candidates[self.position]

    @property
    def reason(self) -> str:
        """Why it is taken, in one sentence."""
        chosen, best, name = self.chosen, self.candidates[self.best], self.metric.replace("_", " ")
        text = f"{percent(chosen.density)} of the coordinates: {name} {chosen.figure:.3f}"
        if self.position == self.best:
            text += ", the best"
        else:
            text += f", within {self.tolerance:g} of the best, {best.figure:.3f} at {percent(best.density)}"
        if self.max_bytes is not None and any(one.bytes > self.max_bytes for one in self.candidates):
            text += f" of those that take at most {self.max_bytes:,} bytes"
        if self.position + 1 < len(self.candidates):
            smaller = self.candidates[self.position + 1]
            return f"{text}; the next smaller, {percent(smaller.density)}, has {smaller.figure:.3f}"
        return f"{text}; there is no smaller candidate"


def percent(density: float) -> str:
    """Write a density for people."""
    return f"{100 * density:.3g} %"


def choose_density(
    adapter: Adapter,
    task: Task,
    kind: str,
    training: TrainSettings,
    automatic: AutomaticSettings,
    selection: Selection,
    *,
    proximal: float = 0.0,
    watch: Callable[[Epoch], None] = lambda epoch: None,
) -> Choice:
    """Train once at the largest candidate density, prune on to each smaller one, and choose among them.

    The default stages lead to the largest candidate. Each smaller one is a stage that starts from it, in which
    values are pruned by magnitude along a cubic schedule while training goes on (https://arxiv.org/abs/1710.01878).
    All of it takes at most three times the epochs of one training with the default stages; as in those, every
    stage scores its coordinates once on at most 256 samples, and every epoch ends with the exam. Smaller
    candidates have been trained for longer, so one may well be better than a larger one.

    Raises:
        ConfigError: no candidate holds the dense tensors or is within ``automatic.max_bytes``.
        DeltaError: training diverged.
    """
    densities = candidate_densities(adapter, automatic)
    plan, pruning = stages_for(adapter, kind, training, densities)
    empty = SparseDelta.empty(adapter.space.fingerprint, Operation.SET)
    outcome = train(
        adapter,
        task,
        empty,
        [*plan, *pruning],
        seed=(training.seed,),
        batch_size=training.batch_size,
        proximal=proximal,
        selection=Selection(selection.exam, selection.metric),
        watch=watch,
    )
    ends = outcome.ends[len(plan) - 1 :]
    metric = _comparable(selection.metric, ends)
    candidates = tuple(
        _candidate(adapter, density, end, metric) for density, end in zip(densities, ends, strict=True)
    )
    best, position = choose(candidates, metric, automatic.tolerance, automatic.max_bytes)
    return Choice(
        candidates,
        position,
        best,
        metric,
        automatic.tolerance,
        automatic.max_bytes,
        outcome.epochs,
        _cost(outcome, plan),
    )


def stages_for(
    adapter: Adapter, kind: str, training: TrainSettings, densities: Sequence[float]
) -> tuple[tuple[StageSettings, ...], tuple[StageSettings, ...]]:
    """Return the default stages to the first of ``densities``, and a pruning stage for each further one.

    Args:
        kind: of the task, which decides the default stages.
    """
    largest = training.model_copy(update={"density": densities[0]})
    plan = default_stages(largest, adapter.kind, kind, dense_share(adapter.space, adapter.dense))
    budget = _PRUNING_SHARE * sum(stage.epochs for stage in plan)
    smaller = list(pairwise(densities))
    epochs = min(_PRUNING_EPOCHS, budget // max(len(smaller), 1))
    pruning = tuple(
        plan[-1].model_copy(
            update={"name": f"prune-{number}", "epochs": epochs, "density": density, "start_density": before}
        )
        for number, (before, density) in enumerate(smaller, 1)
    )
    return plan, pruning


def choose(
    candidates: Sequence[Candidate], metric: str, tolerance: float, max_bytes: int | None
) -> tuple[int, int]:
    """Return the positions of the best candidate within the byte limit, and of the one to take.

    Args:
        candidates: from the largest density down.

    Raises:
        ConfigError: none is within the limit.
    """
    allowed = [i for i, one in enumerate(candidates) if max_bytes is None or one.bytes <= max_bytes]
    if not allowed:
        smallest = candidates[-1]
        raise ConfigError(
            f"automatic.max_bytes = {max_bytes}, but the smallest candidate, {percent(smallest.density)}, "
            f"takes {smallest.bytes}",
            "Raise it, or add smaller densities to automatic.densities",
        )
    sign = 1 if METRICS[metric] else -1
    worth = {i: sign * candidates[i].figure for i in allowed}
    best = max(allowed, key=lambda i: (worth[i], i))
    enough = worth[best] - tolerance - 1e-12  # figures are sums that round
    return best, max(i for i in allowed if worth[i] >= enough)


def candidate_densities(adapter: Adapter, automatic: AutomaticSettings) -> tuple[float, ...]:
    """Return the candidates that hold the dense tensors.

    Raises:
        ConfigError: there is none, or the smallest is surely not within ``automatic.max_bytes``.
    """
    needed = dense_share(adapter.space, adapter.dense)
    densities = tuple(density for density in automatic.densities if density >= needed)
    if not densities:
        raise ConfigError(
            f"automatic.densities ends at {automatic.densities[0]}, but the dense tensors alone take {needed:.4g}",
            "Add larger densities, or name less in adapter.dense",
        )
    least = _VALUE_BYTES * int(densities[-1] * adapter.space.size)
    if automatic.max_bytes is not None and least > automatic.max_bytes:
        raise ConfigError(
            f"automatic.max_bytes = {automatic.max_bytes}, but the values of the smallest candidate, "
            f"{percent(densities[-1])}, take {least} without their positions",
            "Raise it, or add smaller densities to automatic.densities",
        )
    return densities


def _candidate(adapter: Adapter, density: float, end: StageEnd, metric: str) -> Candidate:
    state = apply(SparseDelta.empty(adapter.space.fingerprint, Operation.SET), end.delta)
    size = len(encode(quantise(state, ValueCoding.BF16), adapter.space, ValueCoding.BF16))
    return Candidate(density, state, size, end.epoch, float(getattr(end.epoch.quality, metric)))


def _comparable(metric: str, ends: Sequence[StageEnd]) -> str:
    """Return the metric, or the loss where it is undefined for one of them."""
    return "loss" if any(getattr(end.epoch.quality, metric, None) is None for end in ends) else metric


def _cost(outcome: Outcome, plan: Sequence[StageSettings]) -> float:
    return len(outcome.epochs) / sum(stage.epochs for stage in plan)

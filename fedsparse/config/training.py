"""How one site trains by itself: stages, objective, machine, and the choice of a density."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from fedsparse.config.names import Name, Settings


class StageSettings(Settings):
    """One stage of progressive fine-tuning; the coordinates of earlier stages stay among those of later ones.

    Attributes:
        density: share of the adapter space's coordinates that may have changed by its end, dense tensors included;
            0 trains the dense tensors (the head) alone.
        start_density: where the stage begins, from where the density goes along a cubic schedule.
        learning_rate: the highest of the stage, of Adam, for the sparse values.
        head_learning_rate: the same for the dense tensors.
        warm_up: share of the steps in which the rates rise; then they fall linearly.
        score: what says which coordinates matter.
        source: "local" scores on the site's own data; "seeded" draws from the seed alone.
        structure: what is taken whole: coordinates, rows (output neurons or filters), or square blocks.
        block: side of a block.
        allocation: "global" is one ranking over all tensors, "uniform" gives each the same density, "early" fills
            one tensor after another from the input side on.
        l1: λ of the L1 penalty on the sparse values, by proximal steps; those that reach 0 are not sent.
        regrow: share of the coordinates that is exchanged after each epoch, falling to 0 (RigL).
    """

    name: Name
    epochs: Annotated[int, Field(ge=1, le=10_000)]
    density: Annotated[float, Field(ge=0, le=1)] = 0.01
    start_density: Annotated[float, Field(gt=0, le=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    head_learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    warm_up: Annotated[float, Field(ge=0, lt=1)] = 0.1
    score: Literal["gradient", "magnitude", "snip", "fisher", "movement"] = "gradient"
    source: Literal["local", "seeded"] = "local"
    structure: Literal["unstructured", "row", "block"] = "unstructured"
    block: Annotated[int, Field(ge=2, le=256)] = 8
    allocation: Literal["global", "uniform", "early"] = "global"
    l1: Annotated[float, Field(ge=0, lt=1)] = 0.0
    regrow: Annotated[float, Field(ge=0, lt=1)] = 0.0


class ObjectiveSettings(Settings):
    """What training minimises, and what it holds on to.

    Attributes:
        loss: "generalised-cross-entropy" forgives wrong labels.
        balance: classes weigh by count^-balance: 1 gives every class the same say, 0 every sample.
        label_smoothing: share of each label that is spread over all classes.
        proximal: μ of FedProx, which holds the values near those that training started from.
        distillation: weight of staying near the starting model's answers.
        temperature: of the distillation.
        restricted: classes without a sample here are left alone, rather than learnt never to occur; plants in a
            federation always train so.
    """

    loss: Literal["cross-entropy", "generalised-cross-entropy"] = "cross-entropy"
    balance: Annotated[float, Field(ge=0, le=1)] = 1.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    proximal: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    distillation: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    temperature: Annotated[float, Field(gt=0, le=100)] = 2.0
    restricted: bool = False


class MachineSettings(Settings):
    """What training may use of the machine.

    Attributes:
        threads: of the processor; 0 takes all there are.
        device: "auto" takes a GPU if there is one.
        precision: "bf16" computes under autocast; the values stay fp32.
        checkpointing: compute activations twice instead of keeping them.
    """

    threads: Annotated[int, Field(ge=0, le=256)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    checkpointing: bool = False


def _check_densities(values: tuple[float, ...]) -> tuple[float, ...]:
    if any(not 0 < value <= 1 for value in values) or list(values) != sorted(set(values), reverse=True):
        raise ValueError("use densities above 0, at most 1, from the largest down, each once")
    return values


def _check_density(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and value != "auto" and not (number and 0 < value <= 1):
        raise ValueError('use a share above 0, at most 1, or "auto"')
    return value


Density = Annotated[float | Literal["auto"] | None, BeforeValidator(_check_density)]
Densities = Annotated[tuple[float, ...], Field(min_length=1, max_length=16), AfterValidator(_check_densities)]


class AutomaticSettings(Settings):
    """How `fedsparse train --density auto` chooses.

    Attributes:
        densities: candidates, tried from the largest down.
        tolerance: how much of the metric may be given up against the best candidate.
        max_bytes: no candidate whose adapter takes more is chosen.
    """

    densities: Densities = (0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
    tolerance: Annotated[float, Field(ge=0)] = 0.005
    max_bytes: Annotated[int, Field(ge=1024)] | None = None


Metric = Literal[
    "balanced_accuracy", "accuracy", "macro_f1", "auroc", "recall_at_false_alarm", "calibration_error", "loss"
]


class TrainSettings(Settings):
    """How one site trains by itself.

    Attributes:
        density: of the last stage, by default 0.01 for delta, and 0.25 for lora and bottleneck, whose spaces are
            small; "auto" lets [automatic] choose it.
        stages: in order; by default head, few, final, see :mod:`fedsparse.training.plan`.
        holdout: share of the samples that is never trained on, where no [holdout] is given.
        metric: of the hold-out, that chooses the best epoch; by default "balanced_accuracy", and "loss" for
            causal-lm.
        patience: epochs without a better metric after which a stage ends; 0 never ends one early.
        false_alarm_rate: at which the recall of the positive class is told.
    """

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    density: Density = None
    stages: tuple[StageSettings, ...] = ()
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.15
    metric: Metric | None = None
    patience: Annotated[int, Field(ge=0)] = 0
    false_alarm_rate: Annotated[float, Field(gt=0, lt=1)] = 0.05

    @model_validator(mode="after")
    def _one_plan(self) -> TrainSettings:
        if self.stages and self.density is not None:
            raise ValueError("each of its stages says its own density; leave out either density or stages")
        if self.density == "auto" and self.patience:
            raise ValueError('density = "auto" runs every stage to its end; leave patience out')
        return self

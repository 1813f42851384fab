"""Typed settings, read from one TOML file per role and validated before anything starts."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from fedsparse.errors import ConfigError, DataError

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")
_SOURCE_SUFFIXES = frozenset({".csv", ".jsonl", ".txt"})


def _check_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("use 1 to 63 lower-case letters, digits and hyphens")
    return value


def _check_address(value: str) -> str:
    found = _ADDRESS.fullmatch(value)
    if found is None or int(found[2]) > 65535:
        raise ValueError('use "HOST:PORT" with a port up to 65535, e.g. "hub.example:8443"')
    return value


def _check_distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if twice := {value for value in values if values.count(value) > 1}:
        raise ValueError(f"{', '.join(sorted(twice))} stands there more than once; name each one once")
    return values


Name = Annotated[str, AfterValidator(_check_name)]
Column = Annotated[str, Field(min_length=1, max_length=200)]
Address = Annotated[str, AfterValidator(_check_address)]


class _Settings(BaseModel):
    """Settings are values: no unknown keys, no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class IdentitySettings(_Settings):
    """Where this machine's certificate, its private key and the federation's CA lie."""

    certificate: Path
    key: Path
    authority: Path


class FederationSettings(_Settings):
    """What the federation is called, what its adapter does, and which labels it tells apart."""

    name: Name
    task: Literal["image-classification", "text-classification"] = "image-classification"
    classes: Annotated[tuple[str, ...], Field(min_length=2, max_length=1000), AfterValidator(_check_distinct)]


BUILT_IN_MODELS = ("efficientnet-lite0", "minilm")


class BaseModelSettings(_Settings):
    """The frozen base model, which every site has installed for itself.

    Attributes:
        model: "efficientnet-lite0", "minilm", or any name together with a folder or factory.
        folder: of a Hugging Face model: config.json, model.safetensors, tokenizer files.
        factory: "package.module:function", which gets the number of classes and returns a torch module of images.
    """

    model: Name = "efficientnet-lite0"
    folder: Path | None = None
    factory: str | None = None

    @model_validator(mode="after")
    def _one_source(self) -> BaseModelSettings:
        built_in = self.model in BUILT_IN_MODELS
        given = [key for key in ("folder", "factory") if getattr(self, key) is not None]
        if built_in and given:
            raise ValueError(f"{self.model} comes from its package; leave {given[0]} out, or choose another name")
        if not built_in and len(given) != 1:
            raise ValueError(
                f"{self.model} is none of efficientnet-lite0 and minilm; add either its folder or its factory"
            )
        return self


class AdapterSettings(_Settings):
    """What is trained on top of the frozen base.

    Attributes:
        kind: "delta" changes weights in place, "lora" adds low-rank factors, "bottleneck" inserts modules.
        include: globs over the names of the weights that are adapted; none: those that suit the kind.
        dense: globs over weight names that every update carries whole (the head).
        cut: number of leading blocks that stay frozen, so that a site caches their activations once.
        image_size: pixels, square; by default what the base model was made for.
        max_tokens: longer texts are cut off; by default 128.
        rank: of the factors, for lora.
        alpha: the factors' product is scaled by alpha / rank, for lora.
        width: features of an inserted module, for bottleneck.
    """

    kind: Literal["delta", "lora", "bottleneck"] = "delta"
    include: tuple[str, ...] = ()
    dense: tuple[str, ...] = ("head.*",)
    cut: Annotated[int, Field(ge=0, le=16)] | None = None
    image_size: Annotated[int, Field(ge=32, le=1024)] | None = None
    max_tokens: Annotated[int, Field(ge=4, le=8192)] | None = None
    rank: Annotated[int, Field(ge=1, le=1024)] = 8
    alpha: Annotated[float, Field(gt=0, le=4096)] = 16.0
    width: Annotated[int, Field(ge=1, le=4096)] = 16


class TrainingDefaults(_Settings):
    """How a plant trains in one round.

    Attributes:
        density: share of the adapter space's coordinates in one update; by default 0.01 for delta, and 0.25 for
            lora and bottleneck, whose spaces are small.
        epochs: passes over the local data per round.
        learning_rate: the highest of a round, of Adam, for the sparse values.
        head_learning_rate: the same for the tensors in ``adapter.dense``.
    """

    density: Annotated[float, Field(gt=0, le=1)] = 0.01
    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    head_learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0


class RoundSettings(_Settings):
    """When a round starts and when it ends.

    Attributes:
        min_plants: plants that must be present to start, and updates that must arrive to commit.
        deadline_seconds: a round closes with what has arrived by then.
        gather_seconds: how long the first round waits for the other plants once ``min_plants`` are present.
        start_timeout_seconds: how long to wait for ``min_plants`` before giving up.
    """

    count: Annotated[int, Field(ge=1, le=100_000)] = 8
    min_plants: Annotated[int, Field(ge=1, le=10_000)] = 2
    deadline_seconds: Annotated[float, Field(gt=0)] = 600.0
    gather_seconds: Annotated[float, Field(ge=0)] = 30.0
    start_timeout_seconds: Annotated[float, Field(gt=0)] = 3600.0


class AggregationSettings(_Settings):
    """How updates merge.

    Attributes:
        strength: of the shrunk rule, between 0 (holders' mean) and 1 (zero-fill).
    """

    rule: Literal["shrunk", "zero-fill", "holders-mean"] = "shrunk"
    strength: Annotated[float, Field(ge=0, le=1)] = 0.25


class HubSettings(_Settings):
    """The one port that listens off loopback, and who may dial it."""

    listen: Address
    plants: Annotated[tuple[Name, ...], Field(min_length=1), AfterValidator(_check_distinct)]
    identity: IdentitySettings
    max_update_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = 32 << 20


class DataSettings(_Settings):
    """Where labelled samples are.

    Attributes:
        path: a folder with one sub-folder per class, a CSV or JSONL manifest, or a Hugging Face dataset on disk.
        label: column of the label.
        text: column of the text, for tasks on texts.
        image: column of the image or of its path, for tasks on images.
        max_corrupt: so many unreadable samples are named and skipped; one more is an error.
    """

    path: Path
    label: Column = "label"
    text: Column = "text"
    image: Column = "path"
    max_corrupt: Annotated[int, Field(ge=0)] = 0


class AugmentationSettings(_Settings):
    """How training images are varied; each strength is the largest that is drawn, 0 leaves that step out.

    Attributes:
        flips: axes that may be mirrored; the variants of an image take their combinations in turn.
        rotate: degrees, either way.
        shift: share of the image's side, either way.
        zoom: share of the image's size, either way.
        brightness: share of full scale that is added or taken away.
        contrast: share by which differences from the image's mean grow or shrink.
        illumination: share of full scale that a broad light spot or shadow adds or takes away at its centre.
        noise: standard deviation of the sensor's noise, as a share of full scale; it is always this one.
        blur: standard deviation of a defocus, in pixels of the scaled image.
        mixup: α of Beta(α, α), for blending two samples and their labels (https://arxiv.org/abs/1710.09412).
        cutmix: α of Beta(α, α), for pasting a part of one sample into another (https://arxiv.org/abs/1905.04899).
        variants: how many of each image are computed where activations are cached; the first is the image itself.
            Flips alone make at most four different ones.
    """

    flips: tuple[Literal["horizontal", "vertical"], ...] = ("horizontal", "vertical")
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    zoom: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.0
    contrast: Annotated[float, Field(ge=0, le=1)] = 0.0
    illumination: Annotated[float, Field(ge=0, le=1)] = 0.0
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    blur: Annotated[float, Field(ge=0, le=32)] = 0.0
    mixup: Annotated[float, Field(ge=0, le=10)] = 0.0
    cutmix: Annotated[float, Field(ge=0, le=10)] = 0.0
    variants: Annotated[int, Field(ge=1, le=64)] = 4


class FederationConfig(_Settings):
    """federation.toml: the operator's side."""

    federation: FederationSettings
    base: BaseModelSettings = BaseModelSettings()
    adapter: AdapterSettings = AdapterSettings()
    training: TrainingDefaults = TrainingDefaults()
    rounds: RoundSettings = RoundSettings()
    aggregation: AggregationSettings = AggregationSettings()
    hub: HubSettings
    evaluation: DataSettings | None = None
    state: Path = Path("state")

    @model_validator(mode="before")
    @classmethod
    def _density_by_kind(cls, raw: Any) -> Any:
        return _with_density(raw)

    @model_validator(mode="after")
    def _enough_plants(self) -> FederationConfig:
        if self.rounds.min_plants > len(self.hub.plants):
            raise ValueError(
                f"rounds.min_plants is {self.rounds.min_plants}, but hub.plants names {len(self.hub.plants)}; "
                "lower it, or name more plants"
            )
        return self


class SiteSettings(_Settings):
    """Which plant this is and which hub it dials."""

    name: Name
    hub: Address
    identity: IdentitySettings


class TrainerSettings(_Settings):
    """What the trainer may use of the machine."""

    threads: Annotated[int, Field(ge=1, le=256)] = 1


class MetricLimits(_Settings):
    """The range in which a metric may leave the site."""

    minimum: float = 0.0
    maximum: float = 1.0


class EgressSettings(_Settings):
    """What may leave: everything that is not named here is refused."""

    max_update_bytes: Annotated[int, Field(ge=1, le=1 << 30)] = 8 << 20
    max_density: Annotated[float, Field(gt=0, le=1)] = 0.05
    min_samples: Annotated[int, Field(ge=1)] = 16
    metrics: dict[str, MetricLimits] = Field(
        default_factory=lambda: {
            "holdout_balanced_accuracy": MetricLimits(),
            "train_loss": MetricLimits(maximum=1e6),
            "train_seconds": MetricLimits(maximum=1e6),
        }
    )


class SiteConfig(_Settings):
    """site.toml: one plant.

    Attributes:
        base: where this site has the federation's base model, if that is none of the built-in ones.
    """

    site: SiteSettings
    base: BaseModelSettings | None = None
    data: DataSettings
    augmentation: AugmentationSettings = AugmentationSettings()
    trainer: TrainerSettings = TrainerSettings()
    egress: EgressSettings = EgressSettings()
    state: Path = Path("state")


class StageSettings(_Settings):
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


class ObjectiveSettings(_Settings):
    """What training minimises, and what it holds on to.

    Attributes:
        loss: "generalised-cross-entropy" forgives wrong labels.
        balance: classes weigh by count^-balance: 1 gives every class the same say, 0 every sample.
        label_smoothing: share of each label that is spread over all classes.
        proximal: μ of FedProx, which holds the values near those that training started from.
        distillation: weight of staying near the starting model's answers.
        temperature: of the distillation.
    """

    loss: Literal["cross-entropy", "generalised-cross-entropy"] = "cross-entropy"
    balance: Annotated[float, Field(ge=0, le=1)] = 1.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    proximal: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    distillation: Annotated[float, Field(ge=0, le=1e6)] = 0.0
    temperature: Annotated[float, Field(gt=0, le=100)] = 2.0


class MachineSettings(_Settings):
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


class AutomaticSettings(_Settings):
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


class TrainSettings(_Settings):
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


class TaskSettings(_Settings):
    """What is learnt.

    Attributes:
        classes: label names; by default those found in the data.
        positive: the class that recall at a false-alarm rate asks for, where there are two; by default the second.
    """

    kind: Literal["image-classification", "text-classification", "causal-lm"] = "image-classification"
    classes: Annotated[tuple[str, ...], Field(max_length=1000), AfterValidator(_check_distinct)] = ()
    positive: str | None = None


class TrainConfig(_Settings):
    """train.toml: one site by itself."""

    data: DataSettings
    holdout: DataSettings | None = None
    task: TaskSettings = TaskSettings()
    base: BaseModelSettings = BaseModelSettings()
    adapter: AdapterSettings = AdapterSettings()
    training: TrainSettings = TrainSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    automatic: AutomaticSettings = AutomaticSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    machine: MachineSettings = MachineSettings()
    output: Path = Path("runs/train")

    @model_validator(mode="after")
    def _fits_the_task(self) -> TrainConfig:
        if self.task.kind == "causal-lm":
            if self.metric not in LANGUAGE_METRICS:
                raise ValueError(f"training.metric = {self.metric!r} is for classification; use loss or accuracy")
            if self.task.classes or self.task.positive is not None:
                raise ValueError("task.classes and task.positive are for classification; leave them out")
        if self.task.kind != "image-classification" and (self.augmentation.mixup or self.augmentation.cutmix):
            raise ValueError("augmentation.mixup and augmentation.cutmix are for images; leave them out")
        return self

    @property
    def metric(self) -> Metric:
        """The figure of the hold-out that chooses the best epoch."""
        default: Metric = "loss" if self.task.kind == "causal-lm" else "balanced_accuracy"
        return self.training.metric or default


LANGUAGE_METRICS = frozenset({"loss", "accuracy"})
DENSITY_BY_KIND = {"delta": 0.01, "lora": 0.25, "bottleneck": 0.25}


def _with_density(raw: Any) -> Any:
    """Fill in the density that suits the adapter's kind, where none is given."""
    if not isinstance(raw, dict):
        return raw
    training, adapter = raw.get("training", {}), raw.get("adapter", {})
    if not (isinstance(training, dict) and isinstance(adapter, dict)) or "density" in training:
        return raw
    density = DENSITY_BY_KIND.get(str(adapter.get("kind", "delta")))
    return raw if density is None else {**raw, "training": {**training, "density": density}}


Config = TypeVar("Config", FederationConfig, SiteConfig, TrainConfig)


def load(path: Path, kind: type[Config], overrides: Mapping[str, Any] | None = None) -> Config:
    """Read and validate one settings file; relative paths in it start at its own folder.

    Args:
        overrides: tables and keys that take the place of those in the file.

    Raises:
        ConfigError: the file is absent, is not TOML, or a key or value is wrong; names each of them.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no settings file at {path}", "Name an existing file with --config") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from None
    return _validated(_overridden(raw, overrides or {}), kind, path.resolve().parent, str(path))


def from_options(kind: type[Config], options: Mapping[str, Any], what: str = "what the options say") -> Config:
    """Validate settings that no file of their kind holds; relative paths start at the current folder.

    Args:
        what: where they come from, for the message.

    Raises:
        ConfigError: a key or value is wrong; names each of them.
    """
    return _validated(options, kind, Path.cwd(), what)


def _overridden(raw: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(raw)
    for key, value in overrides.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = _overridden(below, value) if both else value  # type: ignore[arg-type] # both are mappings
    return merged


def _validated(raw: Mapping[str, Any], kind: type[Config], folder: Path, what: str) -> Config:
    try:
        return cast(Config, _rooted(kind.model_validate(raw), folder))
    except ValidationError as error:
        problems = [_explain(problem, kind) for problem in error.errors()]
        raise ConfigError(f"{what} is not valid:\n  " + "\n  ".join(problems)) from None


def require_source(path: Path, key: str) -> None:
    """Check that ``path`` can name samples: a folder, or a file of a known kind. Nothing is read.

    Args:
        key: the setting that names it.

    Raises:
        DataError: it is neither; names key and path.
    """
    try:
        usable = path.is_dir() or (path.is_file() and path.suffix.lower() in _SOURCE_SUFFIXES)
        present = usable or path.exists()
    except OSError as error:
        raise DataError(f"{key} = {str(path)[:200]} cannot be read: {error.strerror}", "Name another") from None
    if usable:
        return
    if present:
        raise DataError(f"{key} = {path} is neither a folder nor a .csv, .jsonl or .txt file", "Name one of them")
    raise DataError(
        f"{key} = {path} does not exist",
        "Name a folder with one sub-folder per class, a CSV or JSONL manifest, a Hugging Face dataset on disk, "
        "or a text file",
    )


def _rooted(settings: Any, folder: Path) -> Any:
    """Return ``settings`` with every relative path resolved against ``folder``."""
    changed: dict[str, Any] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Path):
            changed[name] = folder / value
        elif isinstance(value, _Settings):
            changed[name] = _rooted(value, folder)
    return settings.model_copy(update=changed)


_TOML_WORDS = {"model_type": "must be a table", "dict_type": "must be a table", "tuple_type": "must be a list"}


def _explain(problem: Any, kind: type[BaseModel]) -> str:
    """Say which key is wrong, what its value is, and what would be right."""
    key = ".".join(str(part) for part in problem["loc"]) or "the file"
    if problem["type"] == "extra_forbidden":
        known = _fields(kind, problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(sorted(known))}"
        return f"{key}: unknown key; {remedy}"
    if problem["type"] == "missing":
        return f"{key}: missing; add it"
    message = _TOML_WORDS.get(problem["type"], str(problem["msg"]).removeprefix("Value error, "))
    value = f" = {problem['input']!r}" if problem["loc"] else ""
    return f"{key}{value}: {message[0].lower()}{message[1:]}"


def _fields(kind: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Return the keys known at ``location`` below ``kind``."""
    for part in location:
        if (field := kind.model_fields.get(str(part))) is None:
            continue  # a name of the user's own in a table such as egress.metrics
        inside = (field.annotation, *get_args(field.annotation))  # also X | None and dict[str, X]
        kinds = [inner for inner in inside if isinstance(inner, type) and issubclass(inner, BaseModel)]
        if not kinds:
            return []
        kind = kinds[0]
    return list(kind.model_fields)

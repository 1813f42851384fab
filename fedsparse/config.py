"""Typed settings, read from one TOML file per role and validated before anything starts."""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedsparse.errors import ConfigError, DataError

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")


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
    """What the federation is called and which labels its detector tells apart."""

    name: Name
    classes: Annotated[tuple[str, ...], Field(min_length=2, max_length=1000), AfterValidator(_check_distinct)]


class BaseModelSettings(_Settings):
    """The frozen base model every plant has installed."""

    model: Literal["efficientnet-lite0"] = "efficientnet-lite0"


class AdapterSettings(_Settings):
    """What is trained on top of the frozen base.

    Attributes:
        include: globs over weight names that may be adapted.
        dense: globs over weight names that every update carries whole (the head).
        cut: number of leading blocks that stay frozen, so that a site caches their activations once.
        image_size: pixels, square.
    """

    kind: Literal["delta"] = "delta"
    include: tuple[str, ...] = ("*.weight", "head.*")
    dense: tuple[str, ...] = ("head.*",)
    cut: Annotated[int, Field(ge=0, le=16)] = 10
    image_size: Annotated[int, Field(ge=32, le=1024)] = 128


class TrainingDefaults(_Settings):
    """How a plant trains in one round.

    Attributes:
        density: share of the adapter space's coordinates in one update.
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
    """A folder with one sub-folder per class, or a CSV file with the columns ``path,label``."""

    path: Path


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
    """site.toml: one plant."""

    site: SiteSettings
    data: DataSettings
    trainer: TrainerSettings = TrainerSettings()
    egress: EgressSettings = EgressSettings()
    state: Path = Path("state")


Config = TypeVar("Config", FederationConfig, SiteConfig)


def load(path: Path, kind: type[Config]) -> Config:
    """Read and validate one settings file; relative paths in it start at its own folder.

    Raises:
        ConfigError: the file is absent, is not TOML, or a key or value is wrong; names each of them.
    """
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"no settings file at {path}", "Name an existing file with --config") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from None
    try:
        return cast(Config, _rooted(kind.model_validate(raw), path.resolve().parent))
    except ValidationError as error:
        problems = [_explain(problem, kind) for problem in error.errors()]
        raise ConfigError(f"{path} is not valid:\n  " + "\n  ".join(problems)) from None


def require_source(path: Path, key: str) -> None:
    """Check that ``path`` can name labelled images: a folder or a CSV file. Nothing is read.

    Args:
        key: the setting that names it.

    Raises:
        DataError: it is neither; names key and path.
    """
    if path.is_dir() or (path.is_file() and path.suffix.lower() == ".csv"):
        return
    if path.exists():
        raise DataError(f"{key} = {path} is neither a folder nor a .csv file", "Name one of both")
    raise DataError(
        f"{key} = {path} does not exist",
        "Name a folder with one sub-folder per class, or a CSV file with the columns path,label",
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

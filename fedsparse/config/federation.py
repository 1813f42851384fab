"""federation.toml: the operator's side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from fedsparse.config.data import DataSettings
from fedsparse.config.identity import IdentitySettings
from fedsparse.config.model import DENSITY_BY_KIND, AdapterSettings, BaseModelSettings
from fedsparse.config.names import Address, Name, Settings, check_distinct
from fedsparse.delta.settings import TrainingSettings


class FederationSettings(Settings):
    """What the federation is called, what its adapter does, and which labels it tells apart."""

    name: Name
    task: Literal["image-classification", "text-classification"] = "image-classification"
    classes: Annotated[tuple[str, ...], Field(min_length=2, max_length=1000), AfterValidator(check_distinct)]


class TrainingDefaults(Settings):
    """How a plant trains in one round.

    Attributes:
        density: share of the adapter space's coordinates in one update; by default 0.01 for delta, and 0.25 for
            lora and bottleneck, whose spaces are small.
        epochs: passes over the local data per round; by default 1 over images and 3 over texts.
        learning_rate: the highest of a round, of Adam, for the sparse values; by default 1e-3, for delta 1e-2 on
            images and 3e-3 on texts.
        head_learning_rate: the same for the tensors in ``adapter.dense``; by default 1e-3, and 3e-3 on texts.
        decay: what is left of both in the last round, falling by the same factor from round to round. Where plants
            differ, averaging converges only at falling rates (Li et al. 2020, https://arxiv.org/abs/1907.02189).
        value_coding: how an update's values are written, by default "ternary" for delta; what rounding takes from
            one is added to the next.
        upload_density: share of the space's coordinates that an update may hold, those that changed most, or the
            rows that did; the others wait for the next update.
        structure: what is chosen whole: coordinates, or rows (output neurons or filters), whose places cost next
            to nothing to say; by default rows for delta.
        allocation: "global" is one ranking over all tensors, "uniform" gives each the same density, "early" fills
            one tensor after another from the input side on; by default "early" for delta on images, "uniform" for
            delta on texts, "global" for other kinds.
        mask: who chooses the coordinates: "local", each plant on its own samples; "seeded", drawn from the seed,
            the same everywhere, so that they tell nothing of anybody's data; "consensus", each plant in a first
            round, and in the next ones all train those that most plants chose, by weight.
        revote: for how many rounds a drawn choice stands, or a voted one with the round of its vote.
    """

    density: Annotated[float, Field(gt=0, le=1)] = 0.01
    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 32
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    head_learning_rate: Annotated[float, Field(gt=0, le=1)] = 1e-3
    decay: Annotated[float, Field(gt=0, le=1)] = 0.1
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    value_coding: Literal["fp32", "bf16", "int8", "int4", "ternary"] = "int8"
    upload_density: Annotated[float, Field(gt=0, le=1)] = 1.0
    structure: Literal["unstructured", "row"] = "unstructured"
    allocation: Literal["global", "uniform", "early"] = "global"

    mask: Literal["local", "seeded", "consensus"] = "local"
    revote: Annotated[int, Field(ge=1, le=100_000)] = 10

    def of_round(self, number: int, rounds: int) -> TrainingSettings:
        """Return what round ``number`` of ``rounds`` asks of a plant; from 1, and later ones train as the last."""
        done = min(1.0, (number - 1) / (rounds - 1)) if rounds > 1 else 0.0
        rates = {key: getattr(self, key) * self.decay**done for key in ("learning_rate", "head_learning_rate")}
        return TrainingSettings.named(**{**self.model_dump(exclude={"decay"}), **rates})

    def schedule(self, rounds: int) -> tuple[TrainingSettings, ...]:
        """Return what each of ``rounds`` rounds asks of a plant."""
        return tuple(self.of_round(number, rounds) for number in range(1, rounds + 1))


class RoundSettings(Settings):
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


RuleName = Literal["shrunk", "zero-fill", "holders-mean", "sign-elected", "trimmed-mean", "median"]


class AggregationSettings(Settings):
    """How updates merge; see :mod:`fedsparse.aggregation`.

    Attributes:
        rule: from the values of those who hold a coordinate to its step.
        strength: of "shrunk" and "sign-elected", between 0 (the mean over holders) and 1 (zero-fill); of
            "trimmed-mean" the share of the holders that is left out at either end, up to 0.5. "auto", for shrunk,
            takes in every round what follows from how far the holders agree.
        weigh_by: "samples", as many as a plant claims behind its update, or "plants", all alike.
        max_samples: a plant's claim counts up to so many.
        norm_bound: an update whose norm is more than so many times the median of the round's is scaled down to it,
            and so is what it says of a tensor that more than two thirds of the updates hold, beside what those
            say; of fewer than three there is no telling which is too large.
        min_holders: coordinates that fewer updates hold do not move.
        max_norm: an update whose norm is more than so many times the median of the round's is left out. Limits act
            from four updates on, and leave out fewer than half, the worst first.
        min_cosine: an update whose cosine to the sum of the others is less than this is left out.
        late: what happens to an update that arrives after its round was closed: "drop", or "merge" in the round
            that is open then. With "merge" a plant gets no other task while its answer may still count.
        staleness_exponent: the values of an update that is s rounds late are multiplied by (1 + s) to the power of
            minus this (FedAsync, Xie et al. 2019, https://arxiv.org/abs/1903.03934).
        max_staleness: an update that is more rounds late is dropped, as is one whose drawn or voted coordinates no
            longer stand.
    """

    rule: RuleName = "shrunk"
    strength: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = 0.25
    weigh_by: Literal["samples", "plants"] = "samples"
    max_samples: Annotated[int, Field(ge=1, le=1 << 40)] | None = None
    norm_bound: Annotated[float, Field(ge=1)] | None = None
    min_holders: Annotated[int, Field(ge=1, le=10_000)] = 1
    max_norm: Annotated[float, Field(gt=1)] | None = None
    min_cosine: Annotated[float, Field(ge=-1, lt=1)] | None = None
    late: Literal["drop", "merge"] = "drop"
    staleness_exponent: Annotated[float, Field(ge=0, le=10)] = 0.5
    max_staleness: Annotated[int, Field(ge=1, le=1000)] = 4

    @model_validator(mode="after")
    def _fit_each_other(self) -> AggregationSettings:
        if self.strength == "auto":
            if self.rule in ("sign-elected", "trimmed-mean"):
                raise ValueError(f'strength = "auto" is for shrunk; give {self.rule} a number')
        elif self.rule == "trimmed-mean" and self.strength > 0.5:
            raise ValueError(f"strength = {self.strength} trims everything; use at most 0.5 with trimmed-mean")
        alike = self.weigh_by == "plants" or self.rule in ("trimmed-mean", "median")
        if alike and self.max_samples is not None:
            raise ValueError("max_samples means nothing where every plant weighs alike; leave it out")
        return self

    @property
    def told(self) -> str:
        """All of it in a line, for the manifest of what is merged so."""
        idle = {"late", "staleness_exponent", "max_staleness"} if self.late == "drop" else set()
        given = self.model_dump(exclude={"rule", *idle}, exclude_none=True)
        return ", ".join([self.rule, *(f"{key} {value}" for key, value in given.items())])


class ServerSettings(Settings):
    """How what is merged becomes the step that every plant takes; see :mod:`fedsparse.aggregation.server`.

    Attributes:
        optimiser: "none" takes what is merged; "momentum" (FedAvgM), "adam" and "yogi" (FedAdam, FedYogi) keep
            moments of the coordinates that rounds name; by default "momentum" for delta on texts, else "none".
        learning_rate: what the optimiser's step is multiplied by. Momentum adds steps up, to 1 / (1 - beta1) of
            them: 1 - beta1 makes up for it; adam and yogi need a small one, such as 1e-2.
        beta1: how much of the first moment stays from round to round; by default 0.9, for momentum of delta on
            texts 0.7.
        beta2: the same of the second, for adam and yogi.
        tau: keeps their steps from growing where the second moment is small.
        value_coding: how a step's values are written, for all plants alike, by default "ternary" for delta and
            "int8" for lora and bottleneck; what rounding takes from one step is added to the next.
        max_density: share of the space's coordinates that the adapter may hold; what would not fit waits, but for
            the tensors in ``adapter.dense``.
    """

    optimiser: Literal["none", "momentum", "adam", "yogi"] = "none"
    learning_rate: Annotated[float, Field(gt=0, le=100)] = 1.0
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    tau: Annotated[float, Field(gt=0, le=1)] = 1e-3
    value_coding: Literal["fp32", "bf16", "int8", "int4", "ternary"] = "ternary"
    max_density: Annotated[float, Field(gt=0, le=1)] = 1.0

    @property
    def told(self) -> str:
        """All of it in a line, for the manifest of what it led to."""
        moments = {"none": {"beta1", "beta2", "tau"}, "momentum": {"beta2", "tau"}}.get(self.optimiser, set())
        given = self.model_dump(exclude={"optimiser", *moments})
        return ", ".join([f"optimiser {self.optimiser}", *(f"{key} {value}" for key, value in given.items())])


class HubSettings(Settings):
    """The one port that listens off loopback, and who may dial it.

    Attributes:
        listen: "HOST:PORT".
        plants: who may dial; no other name of the same CA is let in.
        max_update_bytes: most that one update may have.
        grace_seconds: how long the open task of a plant waits for it after its connection dropped.
    """

    listen: Address
    plants: Annotated[tuple[Name, ...], Field(min_length=1), AfterValidator(check_distinct)]
    identity: IdentitySettings
    max_update_bytes: Annotated[int, Field(ge=1024, le=1 << 30)] = 32 << 20
    grace_seconds: Annotated[float, Field(ge=0, le=3600)] = 20.0


class FederationConfig(Settings):
    """federation.toml: the operator's side."""

    federation: FederationSettings
    base: BaseModelSettings = BaseModelSettings()
    adapter: AdapterSettings = AdapterSettings()
    training: TrainingDefaults = TrainingDefaults()
    rounds: RoundSettings = RoundSettings()
    aggregation: AggregationSettings = AggregationSettings()
    server: ServerSettings = ServerSettings()
    hub: HubSettings
    evaluation: DataSettings | None = None
    state: Path = Path("state")

    @model_validator(mode="before")
    @classmethod
    def _training_by_task(cls, raw: Any) -> Any:
        return with_training(raw, "federation", "task")

    @model_validator(mode="after")
    def _enough_plants(self) -> FederationConfig:
        if self.rounds.min_plants > len(self.hub.plants):
            raise ValueError(
                f"rounds.min_plants is {self.rounds.min_plants}, but hub.plants names {len(self.hub.plants)}; "
                "lower it, or name more plants"
            )
        if self.aggregation.min_holders > self.rounds.min_plants:
            raise ValueError(
                f"aggregation.min_holders is {self.aggregation.min_holders}, but rounds.min_plants = "
                f"{self.rounds.min_plants} updates commit a round, which might move nothing; lower the first, or "
                "raise the second"
            )
        return self


# Whole rows cost next to nothing to name. On images they do as well as scattered coordinates of the first layers,
# which gain most where a sensor's images meet a model of photographs. Texts gain in all layers; there rows are
# taken for their bytes: on one site they are a little behind (README, "Which adapter, how sparse").
_BY_KIND: dict[str, dict[str, Any]] = {
    "delta": {"structure": "row", "value_coding": "ternary"},
    "lora": {"learning_rate": 1e-3},
    "bottleneck": {"learning_rate": 1e-3},
}
_BY_TASK: dict[str, dict[str, Any]] = {
    "image-classification": {},
    "text-classification": {"epochs": 3, "head_learning_rate": 3e-3},
}
_DELTA_BY_TASK: dict[str, dict[str, Any]] = {
    "image-classification": {"allocation": "early", "learning_rate": 1e-2},
    "text-classification": {"allocation": "uniform", "learning_rate": 3e-3},
}


def training_defaults(kind: str, task: str) -> TrainingDefaults:
    """Return how plants train where federation.toml does not say.

    Args:
        kind: of the adapter: delta, lora or bottleneck.
        task: image-classification or text-classification.
    """
    return TrainingDefaults(**_by(kind, task))


def _by(kind: str, task: str) -> dict[str, Any]:
    if kind not in _BY_KIND or task not in _BY_TASK:
        return {}  # validation refuses it
    more = _DELTA_BY_TASK[task] if kind == "delta" else {}
    return {"density": DENSITY_BY_KIND[kind], **_BY_KIND[kind], **_BY_TASK[task], **more}


def server_defaults(kind: str, task: str) -> ServerSettings:
    """Return how the server steps where federation.toml does not say; arguments: see :func:`training_defaults`."""
    return ServerSettings(**_server_by(kind, task, {}))


# Over texts plants take few steps a round, and momentum makes up for some of that; images do not need it (README,
# "What happens when plants differ").
def _server_by(kind: str, task: str, given: Any) -> dict[str, Any]:
    if kind != "delta":
        return {"value_coding": "int8"}
    if task != "text-classification":
        return {}
    optimiser = _told(given, "optimiser", "momentum")
    return {"optimiser": optimiser, "beta1": 0.7} if optimiser == "momentum" else {}


def with_training(raw: Any, table: str, key: str) -> Any:
    """Fill in of ``training`` and ``server`` what suits the adapter's kind and the task, unless it is given.

    Args:
        raw: settings before they are validated.
        table: which of them holds the task.
        key: under this name.
    """
    if not isinstance(raw, dict):
        return raw
    kind = _told(raw.get("adapter"), "kind", "delta")
    task = _told(raw.get(table), key, "image-classification")
    server = raw.get("server")
    return {**raw, "training": _over(_by(kind, task), raw.get("training")),
            "server": _over(_server_by(kind, task, server), server)}  # fmt: skip


def _over(defaults: dict[str, Any], given: Any) -> Any:
    """Return a table with what is given in it above the defaults; something else as it is."""
    if given is None:
        return defaults
    return {**defaults, **given} if isinstance(given, dict) else given


def _told(table: Any, key: str, default: str) -> str:
    """Return what a table, as read or as settings, says of ``key``."""
    return str(table.get(key, default) if isinstance(table, dict) else getattr(table, key, default))

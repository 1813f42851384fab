"""simulate.toml: a federation of virtual plants on one machine, to plan a real one with."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError, model_validator

from fedsparse.config.data import AugmentationSettings, DataSettings
from fedsparse.config.federation import (
    AggregationSettings,
    RuleName,
    ServerSettings,
    TrainingDefaults,
    with_training,
)
from fedsparse.config.model import AdapterSettings, BaseModelSettings
from fedsparse.config.names import Settings, check_distinct


class SimulatedTask(Settings):
    """What is learnt.

    Attributes:
        classes: label names; by default those found in the data.
    """

    kind: Literal["image-classification", "text-classification"] = "image-classification"
    classes: Annotated[tuple[str, ...], Field(max_length=1000), AfterValidator(check_distinct)] = ()


class PlantSettings(Settings):
    """The virtual plants, and for how long they take part.

    Attributes:
        count: among how many the samples are shared out.
        alpha: how alike they are: 0.1 gives nearly one plant per class, 100 gives all nearly the same.
        min_samples: a plant that gets fewer, or only one class, does not take part.
        participation: share of the plants that a round asks.
        stragglers: share of those whose update arrives after its round was closed; see ``late`` in [aggregation].
        delay: rounds that such an update is late; its plant is not asked meanwhile.
        rounds: of each federation.
        draws: how many times the samples are shared out anew; the table tells mean and standard error.
        rules: merging rules to compare, by name; by default that of [aggregation] alone.
        alone: also train every plant by itself for as many rounds, to compare.
    """

    count: Annotated[int, Field(ge=1, le=1000)] = 4
    alpha: Annotated[float, Field(gt=0, le=1e6)] = 0.5
    min_samples: Annotated[int, Field(ge=4)] = 20
    participation: Annotated[float, Field(gt=0, le=1)] = 1.0
    stragglers: Annotated[float, Field(ge=0, lt=1)] = 0.0
    delay: Annotated[int, Field(ge=1, le=1000)] = 1
    rounds: Annotated[int, Field(ge=1, le=10_000)] = 10
    draws: Annotated[int, Field(ge=1, le=1000)] = 1
    rules: Annotated[tuple[RuleName, ...], AfterValidator(check_distinct)] = ()
    alone: bool = True


class SimulateConfig(Settings):
    """simulate.toml: virtual plants.

    Attributes:
        data: what the plants share out among themselves.
        holdout: what federations are tested on; by default a share of the data.
        test_share: that share, of each class.
    """

    data: DataSettings
    holdout: DataSettings | None = None
    test_share: Annotated[float, Field(gt=0, lt=1)] = 0.25
    task: SimulatedTask = SimulatedTask()
    base: BaseModelSettings = BaseModelSettings()
    adapter: AdapterSettings = AdapterSettings()
    training: TrainingDefaults = TrainingDefaults()
    aggregation: AggregationSettings = AggregationSettings()
    server: ServerSettings = ServerSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    plants: PlantSettings = PlantSettings()
    output: Path = Path("runs/simulate")

    @model_validator(mode="before")
    @classmethod
    def _training_by_task(cls, raw: Any) -> Any:
        return with_training(raw, "task", "kind")

    @model_validator(mode="after")
    def _rules_fit(self) -> SimulateConfig:
        for rule in self.plants.rules:
            try:
                AggregationSettings.model_validate({**self.aggregation.model_dump(), "rule": rule})
            except ValidationError as error:
                said = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
                raise ValueError(f"plants.rules names {rule}, but in aggregation {said}") from None
        return self

    @property
    def rules(self) -> tuple[RuleName, ...]:
        """The merging rules to compare."""
        return self.plants.rules or (self.aggregation.rule,)

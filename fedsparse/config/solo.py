"""train.toml: one site by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from fedsparse.config.data import AugmentationSettings, DataSettings
from fedsparse.config.model import AdapterSettings, BaseModelSettings
from fedsparse.config.names import Settings, check_distinct
from fedsparse.config.training import AutomaticSettings, MachineSettings, Metric, ObjectiveSettings, TrainSettings

LANGUAGE_METRICS = frozenset({"loss", "accuracy"})


class TaskSettings(Settings):
    """What is learnt.

    Attributes:
        classes: label names; by default those found in the data.
        positive: the class that recall at a false-alarm rate asks for, where there are two; by default the second.
    """

    kind: Literal["image-classification", "text-classification", "causal-lm"] = "image-classification"
    classes: Annotated[tuple[str, ...], Field(max_length=1000), AfterValidator(check_distinct)] = ()
    positive: str | None = None


class TrainConfig(Settings):
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

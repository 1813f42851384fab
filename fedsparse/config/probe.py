"""What a plant measures of its own updates before they leave."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from fedsparse.config.names import Settings


class ProbeSettings(Settings):
    """Whether, and how closely, updates are probed for what they tell of single training samples.

    Attributes:
        enabled: probe updates in the trainer; the figures stay at the site, in state/trainer/probe.jsonl.
        every_rounds: probe each so-manieth round; a limit holds for those rounds alone.
        samples: of those trained on and of those held out, so many at most; bounds the time it takes.
        max_membership_advantage: an update is not sent where the upper end of its 95 % interval is above, or where
            it cannot be told. A few held-out samples leave the interval wide: 100 of them about 0.15 either way.
    """

    enabled: bool = False
    every_rounds: Annotated[int, Field(ge=1, le=100_000)] = 1
    samples: Annotated[int, Field(ge=20, le=100_000)] = 256
    max_membership_advantage: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _limit_is_checked(self) -> Self:
        if self.max_membership_advantage is not None and not self.enabled:
            raise ValueError("max_membership_advantage is checked only where enabled = true")
        return self

"""What is trained: the frozen base model and the adapter on top."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedsparse.config.names import Name, Settings

BUILT_IN_MODELS = ("efficientnet-lite0", "minilm")


class BaseModelSettings(Settings):
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


class AdapterSettings(Settings):
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
        factors: "both" are trained, for lora, or "b" alone, whose updates average exactly.
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
    factors: Literal["both", "b"] = "both"
    width: Annotated[int, Field(ge=1, le=4096)] = 16


DENSITY_BY_KIND = {"delta": 0.01, "lora": 0.25, "bottleneck": 0.25}

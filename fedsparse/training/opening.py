"""From settings to a site's labelled samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fedsparse.config import DataSettings
from fedsparse.training.loading import MINIMUM_PER_CLASS, load_samples, load_texts
from fedsparse.training.samples import Labelled


def load_labelled(
    settings: DataSettings,
    task: Literal["image-classification", "text-classification", "causal-lm"],
    classes: Sequence[str] | None = None,
    *,
    minimum: int = MINIMUM_PER_CLASS,
) -> Labelled:
    """Read the samples that ``settings`` name, as the task needs them.

    Args:
        classes: label names; without any, those that occur, sorted.
        minimum: samples that each class needs.

    Raises:
        DataError: the source is absent or holds something unusable; see the functions that read it.
    """
    if task == "image-classification":
        return load_samples(
            settings.path,
            classes,
            image=settings.image,
            label=settings.label,
            max_corrupt=settings.max_corrupt,
            minimum=minimum,
        )
    return load_texts(
        settings.path,
        classes,
        text=settings.text,
        label=None if task == "causal-lm" else settings.label,
        max_corrupt=settings.max_corrupt,
        minimum=minimum,
    )

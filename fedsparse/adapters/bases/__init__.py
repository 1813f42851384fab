"""Base models: where their frozen weights come from, and what an adapter may change of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from fedsparse.adapters.bases import efficientnet, huggingface, imported, minilm
from fedsparse.adapters.bases.huggingface import Task
from fedsparse.adapters.bases.model import BaseModel, fingerprint
from fedsparse.adapters.bases.readers import ImageReader, TextReader
from fedsparse.errors import ConfigError

__all__ = ["BaseModel", "BaseSpec", "ImageReader", "InputSpec", "Task", "TextReader", "fingerprint", "load_base"]


class BaseSpec(Protocol):
    """Where a base model comes from; `config.BaseModelSettings` is one."""

    @property
    def model(self) -> str:
        """Name: one of ours, or any with a folder or factory."""

    @property
    def folder(self) -> Path | None:
        """Of a Hugging Face model."""

    @property
    def factory(self) -> str | None:
        """Import path of a function that builds a torch module."""


class InputSpec(Protocol):
    """How samples become inputs; `config.AdapterSettings` is one."""

    @property
    def cut(self) -> int | None:
        """Number of leading blocks that stay frozen."""

    @property
    def image_size(self) -> int | None:
        """Pixels, square."""

    @property
    def max_tokens(self) -> int | None:
        """Longer texts are cut off."""


def load_base(spec: BaseSpec, inputs: InputSpec, classes: Sequence[str], task: Task) -> BaseModel:
    """Load a base model and give it a head of zeros, one row per class.

    Raises:
        ModelError: it is not installed, cannot be read, or is not made for the task.
        ConfigError: a setting does not fit it.
    """
    if spec.model == efficientnet.NAME:
        _require(task == "image-classification", spec.model, f"classifies images; the task is {task}")
        return efficientnet.load(inputs.cut, inputs.image_size, len(classes))
    _require(not inputs.cut, spec.model, f"cannot be cut, but adapter.cut = {inputs.cut}")
    if spec.factory is not None:
        _require(task == "image-classification", spec.model, f"has a factory, for images; the task is {task}")
        return imported.load(spec.model, spec.factory, len(classes), inputs.image_size)
    folder = minilm.folder() if spec.model == minilm.NAME else spec.folder
    if folder is None:
        raise ConfigError(f"base.model = {spec.model!r} is unknown", "Name its base.folder or base.factory")
    return huggingface.load(
        spec.model, folder, task, len(classes), image_size=inputs.image_size, max_tokens=inputs.max_tokens
    )


def _require(right: bool, model: str, what: str) -> None:
    if not right:
        raise ConfigError(f"base.model = {model!r} {what}", "See [base] and [adapter] in the example settings")

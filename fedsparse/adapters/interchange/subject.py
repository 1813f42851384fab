"""What a PEFT folder applies to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn

from fedsparse.adapters.bases.huggingface import ImageClassifier, LanguageModel, TextClassifier
from fedsparse.errors import DeltaError

KEY_PREFIX = "base_model.model."  # of every tensor that PEFT saves, before the name in the module it wraps


@dataclass(frozen=True)
class Subject:
    """The module that `peft.PeftModel` wraps.

    Attributes:
        model: the backbone, or the whole network where it has none.
        prefix: of the model's names within the network.
        task_type: as PEFT calls it.
    """

    model: nn.Module
    prefix: str
    task_type: str | None

    def inner(self, name: str) -> str:
        """Return the name within the model of what the network calls ``name``."""
        return name.removeprefix(self.prefix)

    def outer(self, name: str) -> str:
        """Return the name within the network of what the model calls ``name``."""
        return self.prefix + name

    def key(self, name: str) -> str:
        """Return PEFT's key of what the network calls ``name``."""
        return KEY_PREFIX + self.inner(name)


def require_inside(names: Iterable[str], subject: Subject) -> None:
    """Check that PEFT can reach these modules of the network.

    Raises:
        DeltaError: one lies beside the model that PEFT wraps.
    """
    for name in names:
        if not name.startswith(subject.prefix):
            raise DeltaError(
                f"PEFT cannot adapt {name}: it is no part of the Hugging Face model", "Name it in adapter.dense"
            )


def subject_of(network: nn.Module) -> Subject:
    """Return what a folder for ``network`` applies to."""
    if isinstance(network, LanguageModel):
        return Subject(network.backbone, "backbone.", "CAUSAL_LM")
    if isinstance(network, TextClassifier):
        return Subject(network.backbone, "backbone.", "FEATURE_EXTRACTION")
    if isinstance(network, ImageClassifier):
        return Subject(network.backbone, "backbone.", None)
    return Subject(network, "", None)

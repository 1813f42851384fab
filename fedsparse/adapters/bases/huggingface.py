"""Any Hugging Face transformers model in a local folder; nothing is downloaded, no code of the folder is run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fedsparse.adapters.bases.model import BaseModel, fingerprint, try_out
from fedsparse.adapters.bases.readers import ImageReader, TextReader, normalisation
from fedsparse.errors import ConfigError, ModelError

Task = Literal["image-classification", "text-classification", "causal-lm"]

_MAX_TOKENS = 128
_FIRST_TOKEN = frozenset({"vit", "dinov2", "deit", "beit", "vit_mae", "dinov2_with_registers"})


class ImageClassifier(nn.Module):
    """Backbone, pooling and a head of zeros; images (n, 3, s, s) to logits (n, classes).

    Args:
        backbone: with the class token first, or with a map of features.
        width: d, of its hidden states.
    """

    def __init__(self, backbone: Any, width: int, classes: int, *, first_token: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self._type: torch.dtype = backbone.dtype
        self.head = _head(width, classes)
        self._first_token = first_token

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        hidden = self.backbone(pixel_values=images.to(self._type)).last_hidden_state.float()
        if hidden.ndim == 4:  # a convolutional backbone: (n, d, h, w)
            hidden = hidden.flatten(2).transpose(1, 2)
        logits: Tensor = self.head(hidden[:, 0] if self._first_token else hidden.mean(1))
        return logits


class TextClassifier(nn.Module):
    """Backbone, mean over each text's tokens, and a head of zeros; ids and mask (n, t) to logits (n, classes)."""

    def __init__(self, backbone: nn.Module, width: int, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = _head(width, classes)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the logits."""
        hidden = self.backbone(input_ids=ids, attention_mask=mask).last_hidden_state.float()
        weights = mask[..., None].to(hidden.dtype)
        logits: Tensor = self.head((hidden * weights).sum(1) / weights.sum(1).clamp(min=1))
        return logits


class LanguageModel(nn.Module):
    """A causal language model; ids and mask (n, t) to logits (n, t, vocabulary)."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return the logits; those at position i are for token i + 1."""
        logits: Tensor = self.backbone(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return logits


def load(
    name: str, folder: Path, task: Task, classes: int, *, image_size: int | None, max_tokens: int | None
) -> BaseModel:
    """Read configuration, weights (safetensors only) and tokenizer of ``folder`` for ``task``.

    Raises:
        ModelError: the folder is absent or incomplete, or the model unknown or not made for the task.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from transformers import AutoModel, AutoModelForCausalLM

    if not (folder / "config.json").is_file():
        raise ModelError(
            f"{folder} holds no config.json", "Name the folder of a Hugging Face model in base.folder"
        )
    kind = AutoModelForCausalLM if task == "causal-lm" else AutoModel
    backbone = _backbone(kind, folder)
    network = _network(backbone, task, classes)
    reader: ImageReader | TextReader
    if task == "image-classification":
        reader = _image_reader(folder, backbone.config, image_size)
    else:
        reader = TextReader(_tokenizer(folder), _token_limit(backbone.config, max_tokens))
    base = BaseModel(name, fingerprint(backbone.state_dict()), nn.Identity(), network, 0, reader)
    return base if task == "causal-lm" else try_out(base, classes)


_OFFLINE = {"local_files_only": True, "trust_remote_code": False}


def _backbone(kind: Any, folder: Path) -> Any:
    """Return the frozen model without a pooler: no task uses it, and few checkpoints have its weights."""
    backbone, report = _read(
        folder,
        lambda: kind.from_pretrained(folder, **_OFFLINE, use_safetensors=True, output_loading_info=True),
    )
    if isinstance(getattr(backbone, "pooler", None), nn.Module):
        backbone.pooler = nn.Identity()
    missing = sorted(name for name in report["missing_keys"] if not name.startswith("pooler."))
    if missing:  # transformers draws them at random, anew at every site
        raise ModelError(
            f"the model in {folder} lacks {len(missing)} weights, the first {missing[0]}",
            f"Use a checkpoint of a whole {type(backbone).__name__}",
        )
    return backbone.requires_grad_(False).eval()


def _read(folder: Path, read: Any) -> Any:
    try:
        return read()
    except Exception as error:  # transformers raises many types on a folder that is not right
        first = str(error).strip().splitlines()
        raise ModelError(
            f"the model in {folder} cannot be read: {first[0] if first else type(error).__name__}",
            "It needs config.json, model.safetensors and, for texts, tokenizer files",
        ) from None


def _network(backbone: Any, task: Task, classes: int) -> nn.Module:
    if task == "causal-lm":
        return LanguageModel(backbone).eval()
    width = getattr(backbone.config, "hidden_size", None) or getattr(backbone.config, "hidden_sizes", [None])[-1]
    if width is None:
        raise ModelError(
            f"the configuration of {backbone.config.model_type} names no hidden_size", "Use base.factory instead"
        )
    takes = backbone.main_input_name
    wanted = "pixel_values" if task == "image-classification" else "input_ids"
    if takes != wanted:
        raise ModelError(
            f"{backbone.config.model_type} reads {takes}, but the task {task} gives {wanted}",
            "Choose a base model made for this task",
        )
    if task == "text-classification":
        return TextClassifier(backbone, width, classes).eval()
    first = backbone.config.model_type in _FIRST_TOKEN
    return ImageClassifier(backbone, width, classes, first_token=first).eval()


def _head(width: int, classes: int) -> nn.Linear:
    """Return a head of zeros: the same on every site, and every class is equally likely before training."""
    head = nn.Linear(width, classes).requires_grad_(False)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


def _image_reader(folder: Path, config: Any, image_size: int | None) -> ImageReader:
    own = getattr(config, "image_size", None)
    own = own[0] if isinstance(own, (list, tuple)) else own
    if config.model_type in ("vit", "deit", "vit_mae") and image_size not in (None, own):
        raise ConfigError(
            f"adapter.image_size = {image_size}, but {config.model_type} in {folder} was trained on {own} pixels",
            f"Leave it out, or set it to {own}",
        )
    path = folder / "preprocessor_config.json"
    mean, deviation = _read(folder, lambda: normalisation(path.read_bytes() if path.is_file() else b"{}"))
    return ImageReader(image_size or own or 224, mean, deviation)


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    tokenizer = _read(folder, lambda: AutoTokenizer.from_pretrained(folder, **_OFFLINE))
    if tokenizer.pad_token is None and tokenizer.eos_token is None:
        raise ModelError(
            f"the tokenizer in {folder} has no token to pad with",
            "Name a pad_token in its tokenizer_config.json",
        )
    return tokenizer


def _token_limit(config: Any, max_tokens: int | None) -> int:
    own = getattr(config, "max_position_embeddings", None)
    if own is not None and max_tokens is not None and max_tokens > own:
        raise ConfigError(
            f"adapter.max_tokens = {max_tokens}, but {config.model_type} has {own} positions",
            f"Choose at most {own}",
        )
    wanted = max_tokens or _MAX_TOKENS
    return wanted if own is None else min(wanted, own)

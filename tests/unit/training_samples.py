"""Problems on which training takes a second or less: images on a base cut late, points, texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedsparse import config
from fedsparse.adapters import Adapter, BaseModel, ImageReader, TextReader, build_adapter, fingerprint, load_base
from fedsparse.delta import AdapterSpace, Operation, SparseDelta, TrainingSettings
from fedsparse.training import (
    Classification,
    ClassificationExam,
    LocalTrainer,
    Machine,
    Texts,
    load_samples,
    prepare,
)

from .data_samples import CLASSES, write_images

torch.set_num_threads(1)  # in networks this small, threads wait for one another for longer than they compute

ADAPTER = config.AdapterSettings(cut=15, image_size=32, include=("blocks.*.weight", "head.*"))
SETTINGS = TrainingSettings(
    density=0.02, epochs=6, batch_size=8, learning_rate=1e-3, head_learning_rate=1e-2, seed=3
)


def base() -> BaseModel:
    """Return a base model of its own: an adapter changes it."""
    return load_base(config.BaseModelSettings(), ADAPTER, CLASSES, "image-classification")


def adapter() -> Adapter:
    """Return a delta adapter on a base model of its own."""
    return build_adapter(base(), ADAPTER)


@cache
def space() -> AdapterSpace:
    return adapter().space


def trainer(folder: Path) -> LocalTrainer:
    """Return a trainer on images below ``folder``, written if absent."""
    images = folder / "images"
    samples = load_samples(images if images.exists() else write_images(images), CLASSES)
    model = base()
    inputs = prepare(model, samples, folder / "cache", config.AugmentationSettings())
    return LocalTrainer(build_adapter(model, ADAPTER), samples, inputs)


WIDTH, POINT_CLASSES = 12, 3


class Perceptron(nn.Module):
    """Points (n, 12) to logits (n, 3); its space has 192 + 256 coordinates and 51 in the head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.first = nn.Linear(WIDTH, 16)
        self.second = nn.Linear(16, 16)
        self.head = nn.Linear(16, POINT_CLASSES)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))


def perceptron(dense: tuple[str, ...] = ("head.*",), include: tuple[str, ...] = ()) -> Adapter:
    """Return a delta adapter on a perceptron of its own; without ``dense`` the head's weight is as the others."""
    network = Perceptron()
    model = BaseModel("points", fingerprint(network.state_dict()), nn.Identity(), network, 0, ImageReader(32))
    return build_adapter(model, config.AdapterSettings(dense=dense, include=include))


def untouched(one: Adapter) -> SparseDelta:
    return SparseDelta.empty(one.space.fingerprint, Operation.SET)


@dataclass(frozen=True)
class Points:
    """Points as inputs.

    Attributes:
        values: (n, variants, 12).
    """

    values: NDArray[np.float32]

    @property
    def variants(self) -> int:
        return self.values.shape[1]

    def batch(self, samples: NDArray[np.int64], variants: NDArray[np.int64] | int = 0) -> tuple[Tensor]:
        return (torch.from_numpy(self.values[samples, variants]),)

    def take(self, positions: NDArray[np.int64]) -> Points:
        return Points(self.values[positions])


def points(count: int, seed: int = 0) -> tuple[Points, NDArray[np.int64]]:
    """Return noisy points around one centre per class, in two variants, and their labels."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % POINT_CLASSES
    centres = np.random.default_rng(99).normal(0, 1, (POINT_CLASSES, WIDTH))
    values = centres[labels][:, None] + draw.normal(0, 1.0, (count, 2, WIDTH))
    return Points(values.astype(np.float32)), labels


def classification(
    count: int = 48,
    objective: config.ObjectiveSettings | None = None,
    augmentation: config.AugmentationSettings | None = None,
) -> Classification:
    inputs, labels = points(count)
    return Classification(
        inputs,
        labels,
        POINT_CLASSES,
        objective or config.ObjectiveSettings(),
        augmentation or config.AugmentationSettings(),
        Machine(),
    )


def examination(count: int = 60) -> ClassificationExam:
    return ClassificationExam(*points(count, seed=1), Machine())


class WordTokenizer:
    """Stands for a tokenizer of transformers: one token per word, from a fixed list."""

    pad_token = "[PAD]"

    def __init__(self, words: Sequence[str], side: str = "right") -> None:
        self._ids = {word: number for number, word in enumerate(words, 1)}
        self._side = side

    def __call__(self, texts: list[str], max_length: int, **options: object) -> dict[str, Tensor]:
        coded = [[self._ids[word] for word in text.split()][:max_length] for text in texts]
        longest = max(map(len, coded))
        blanks = [[0] * (longest - len(ids)) for ids in coded]
        right = self._side == "right"
        ids = [a + b if right else b + a for a, b in zip(coded, blanks, strict=True)]
        mask = torch.tensor(ids) != 0
        return {"input_ids": torch.tensor(ids), "attention_mask": mask.long()}


WORDS = ("the", "pump", "motor", "leaks", "drips", "hums", "squeals", "again", "badly", "today")


def write_texts(count: int = 40) -> Texts:
    """Return short texts of two classes, told apart by one word each, in the order of their digests."""
    draw = np.random.default_rng(2)
    found: dict[str, tuple[str, int]] = {}
    while len(found) < count:
        label = len(found) % 2
        told = draw.choice(("leaks", "drips") if label == 0 else ("hums", "squeals"))
        rest = draw.choice(("the", "pump", "motor", "again", "badly", "today"), draw.integers(2, 7)).tolist()
        text = " ".join([*rest, str(told)])
        found.setdefault(sha256(text.encode()).hexdigest(), (text, label))
    digests = tuple(sorted(found))
    texts, labels = zip(*(found[digest] for digest in digests), strict=True)
    return Texts(texts, np.array(labels), digests, ("leak", "noise"))


def text_base(side: str = "right") -> BaseModel:
    """Return a tiny BERT that classifies texts."""
    from transformers import BertConfig, BertModel

    from fedsparse.adapters.bases.huggingface import TextClassifier

    torch.manual_seed(3)
    size: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    backbone = BertModel(BertConfig(vocab_size=16, intermediate_size=64, max_position_embeddings=16, **size))
    network = TextClassifier(backbone, 32, 2).requires_grad_(False).eval()
    reader = TextReader(WordTokenizer(WORDS, side), 8)
    return BaseModel("tiny-bert", fingerprint(backbone.state_dict()), nn.Identity(), network, 0, reader)

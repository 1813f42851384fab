"""The two real problems: electroluminescence images of solar cells, and maintenance work orders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from numpy.typing import NDArray
from torch import nn

from fedsparse import config
from fedsparse.adapters import BaseModel, TextReader, load_base
from fedsparse.adapters.bases.efficientnet import read_tensors
from fedsparse.cli.demo_site import CLASSES, read_cells, write_manifest
from fedsparse.training import Inputs, Machine, Part, Quality, cached_features, load_samples
from fedsparse.training.inputs import tokenise
from fedsparse.training.partition import hold_out
from fedsparse.training.tasks import ClassificationExam

IMAGE_SIZE = 96  # as in the figures that the design names
_TEST_SHARE, _TEST_SEED = 0.25, 7

Family = Literal["sparse", "dense"]
"""Our own network, of which ten blocks stay frozen and cached, or a plain one that PEFT can take, whole."""


@dataclass(frozen=True)
class Problem:
    """Training and test samples of one classification problem.

    Attributes:
        name: for the table.
        inputs: by family, of all samples.
        labels: of all samples, (n,).
        classes: label names.
        training: positions.
        test: positions.
        balance: exponent of the class weights, the same for every arm.
    """

    name: str
    inputs: dict[Family, Inputs]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    training: NDArray[np.int64]
    test: NDArray[np.int64]
    balance: float

    @property
    def task(self) -> str:
        """What the default stages depend on."""
        return "image-classification" if self.name == "images" else "text-classification"

    def base(self, family: Family) -> BaseModel:
        """Return an untouched base model with a head of zeros."""
        return (_image_base if self.name == "images" else _text_base)(family, self.classes)

    def few(self, among: NDArray[np.int64], per_class: int, seed: int) -> NDArray[np.int64]:
        """Return the positions of ``per_class`` samples of each class."""
        draw = np.random.default_rng((seed, per_class))
        labels = self.labels[among]
        chosen = [draw.permutation(np.flatnonzero(labels == c))[:per_class] for c in range(len(self.classes))]
        return np.sort(among[np.concatenate(chosen)])

    def tuning(self, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return three quarters of the training samples, and the rest of them, to choose learning rates with."""
        rest, held = hold_out(self.labels[self.training].tolist(), _TEST_SHARE, seed)
        return self.training[rest], self.training[held]

    def quality(self, network: nn.Module, family: Family, asked: NDArray[np.int64]) -> Quality:
        """Return the quality of a network's answers on some samples."""
        return ClassificationExam(Part(self.inputs[family], asked), self.labels[asked], Machine()).quality(network)


def plain_efficientnet(classes: int) -> nn.Module:
    """Return EfficientNet-Lite0 as its package builds it, pretrained, with a classifier of zeros."""
    network = EfficientNet.from_name("efficientnet-lite0", num_classes=classes)
    network.load_state_dict(read_tensors(), strict=False)
    nn.init.zeros_(network._fc.weight)
    nn.init.zeros_(network._fc.bias)
    for name, module in list(network.named_modules()):
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1):
            network.set_submodule(name, _plain(module))
    return cast(nn.Module, network)


def _plain(convolution: nn.Conv2d) -> nn.Conv2d:
    """Return a 1 × 1 convolution of the same weights that PEFT can build its own beside; the package's cannot."""
    own = nn.Conv2d(convolution.in_channels, convolution.out_channels, 1, bias=convolution.bias is not None)
    own.load_state_dict(convolution.state_dict())
    return own


def images(work: Path) -> Problem:
    """Return the solar cells, 75/25, with the four flips of every image."""
    work.mkdir(parents=True, exist_ok=True)
    cells = read_cells()
    if not (work / "cells.csv").exists():  # the workers read it while others start
        write_manifest(work / "cells.csv", cells)
    samples = load_samples(work / "cells.csv", CLASSES)
    by_path = {cell.path: cell for cell in cells}
    strata = [(by_path[path].label, by_path[path].kind) for path in samples.paths]
    training, test = (np.array(part) for part in hold_out(strata, _TEST_SHARE, _TEST_SEED))
    flips = config.AugmentationSettings()
    families: tuple[Family, ...] = ("sparse", "dense")
    inputs: dict[Family, Inputs] = {
        family: cached_features(_image_base(family, CLASSES), samples, work / family, flips) for family in families
    }
    return Problem("images", inputs, samples.labels, CLASSES, training, test, balance=1.0)


def texts(folder: Path) -> Problem:
    """Return the work orders: the published training set; the development and test sets are tested on."""
    rows = [[line.rsplit(",", 1) for line in _lines(folder / f"{part}.txt")] for part in ("train", "dev", "test")]
    found = [row for part in rows for row in part]
    classes = tuple(sorted({label for _, label in found}))
    labels = np.array([classes.index(label) for _, label in found])
    reader = _text_base("sparse", classes).reader
    assert isinstance(reader, TextReader)
    tokens = tokenise(reader, [text for text, _ in found])
    training = np.arange(len(rows[0]))
    test = np.arange(len(rows[0]), len(found))
    inputs: dict[Family, Inputs] = {"sparse": tokens, "dense": tokens}
    return Problem("texts", inputs, labels, classes, training, test, balance=0.5)


def _lines(path: Path) -> Sequence[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _image_base(family: Family, classes: Sequence[str]) -> BaseModel:
    spec = config.AdapterSettings(image_size=IMAGE_SIZE)
    factory = f"{__name__}:{plain_efficientnet.__name__}"
    settings = (
        config.BaseModelSettings()
        if family == "sparse"
        else config.BaseModelSettings(model="plain", factory=factory)
    )
    return load_base(settings, spec, classes, "image-classification")


def _text_base(family: Family, classes: Sequence[str]) -> BaseModel:
    settings = config.BaseModelSettings(model="minilm")
    return load_base(settings, config.AdapterSettings(), classes, "text-classification")


torch.set_num_threads(1)

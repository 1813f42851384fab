"""A base model cut late and fed small images, so that a round of training takes a second."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from fedsparse import config
from fedsparse.adapters import Adapter, BaseModel, build_adapter, load_base
from fedsparse.delta import AdapterSpace, TrainingSettings
from fedsparse.training import LocalTrainer, load_samples, prepare

CLASSES = ("dark", "light")
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


def write_images(folder: Path, per_class: int = 16, size: int = 32) -> Path:
    """Write grey noise, darker in one class than in the other; the same bytes every time."""
    draw = np.random.default_rng(5)
    for label, mean in zip(CLASSES, (70, 180), strict=True):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            pixels = np.clip(draw.normal(mean, 40, (size, size)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number:03d}.png")
    return folder


def trainer(folder: Path) -> LocalTrainer:
    """Return a trainer on images below ``folder``, written if absent."""
    images = folder / "images"
    samples = load_samples(images if images.exists() else write_images(images), CLASSES)
    model = base()
    inputs = prepare(model, samples, folder / "cache", config.AugmentationSettings())
    return LocalTrainer(build_adapter(model, ADAPTER), samples, inputs)

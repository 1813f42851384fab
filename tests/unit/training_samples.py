"""A base model cut late and fed small images, so that a round of training takes a second."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from fedsparse import config
from fedsparse.adapters import BaseModel, DeltaAdapter, build_space, dense_tensors, load_base
from fedsparse.delta import AdapterSpace, TrainingSettings
from fedsparse.training import FLIPS, LocalTrainer, cached_features, load_samples

CLASSES = ("dark", "light")
ADAPTER = config.AdapterSettings(cut=15, image_size=32, include=("blocks.*.weight", "head.*"))
SETTINGS = TrainingSettings(
    density=0.02, epochs=6, batch_size=8, learning_rate=1e-3, head_learning_rate=1e-2, seed=3
)


def base() -> BaseModel:
    """Return a base model of its own: an adapter changes it."""
    return load_base("efficientnet-lite0", ADAPTER, CLASSES)


@cache
def space() -> AdapterSpace:
    return build_space(base(), ADAPTER)


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
    features = cached_features(model, samples, folder / "cache", len(FLIPS))
    return LocalTrainer(DeltaAdapter(model.suffix, space()), dense_tensors(space(), ADAPTER), samples, features)

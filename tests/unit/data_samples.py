"""Small labelled images and texts as files, for tests of what reads them; no torch here."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("dark", "light")


def write_images(folder: Path, per_class: int = 16, size: int = 32) -> Path:
    """Write grey noise, darker in one class than in the other; the same bytes every time."""
    draw = np.random.default_rng(5)
    for label, mean in zip(CLASSES, (70, 180), strict=True):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            pixels = np.clip(draw.normal(mean, 40, (size, size)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number:03d}.png")
    return folder


def write_csv(path: Path, rows: Sequence[Sequence[str]], header: Sequence[str]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_jsonl(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def encoded(image: Image.Image, kind: str = "PNG", **options: int) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()

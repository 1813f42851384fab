"""`fedsparse predict`: what a saved adapter answers to samples, as CSV; labels are not needed."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Sequence
from io import BytesIO, StringIO
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from fedsparse.adapters import Adapter, BaseModel, ImageReader
from fedsparse.adapters.saved import load_adapter, open_adapter
from fedsparse.cli.progress import say
from fedsparse.config import require_source
from fedsparse.errors import ConfigError, DataError, ModelError
from fedsparse.files import write_atomic
from fedsparse.training.images import thumbnail
from fedsparse.training.sources import Entry, UnusableError, list_texts

_BATCH = 32


def run_predict(folder: Path, path: Path, output: Path | None, column: str | None, console: Console) -> None:
    """Write a line per sample; see the command's help."""
    saved = load_adapter(folder)
    if saved.task == "causal-lm":
        raise ModelError(f"the adapter in {folder} continues texts and has no classes", "Serve it instead")
    require_source(path, "the path of the samples")
    images = saved.task == "image-classification"
    samples = list(_samples(path, column or ("path" if images else "text"), images))
    if not samples:
        raise DataError(f"{path} has no {'images' if images else 'texts'}", "Name a folder or file that has some")
    base, adapter = open_adapter(folder)
    text = StringIO()
    writer = csv.writer(text)
    writer.writerow(["path" if images else "text", "answer", *saved.classes])
    unusable = 0
    for start in range(0, len(samples), _BATCH):
        batch = samples[start : start + _BATCH]
        usable = [sample for sample in batch if _is_usable(sample, images)]
        unusable += len(batch) - len(usable)
        rows = dict(zip(usable, _probabilities(base, adapter, usable), strict=True)) if usable else {}
        for sample in batch:
            writer.writerow([sample, *_cells(rows.get(sample), saved.classes)])
    if output is None:
        sys.stdout.write(text.getvalue())
    else:
        _write(output, text.getvalue())
        say(console, f"{len(samples) - unusable:,} answers in {output}")
    if unusable:
        say(console, f"{unusable:,} samples cannot be read; their answers are left empty")


def _write(path: Path, text: str) -> None:
    try:
        write_atomic(path, text.encode())
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}", "Name another file with --output"
        ) from None


def _samples(path: Path, column: str, images: bool) -> Iterator[str]:
    """Yield each text, or each image's path; what a manifest lists without either is an empty one."""
    if images and path.is_dir():
        readable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
        found = (file for file in sorted(path.rglob("*")) if file.suffix.lower() in readable)
        yield from (str(file) for file in found if not file.name.startswith("."))
        return
    for entry in list_texts(path, column, None):  # reads any column of text, of paths too
        item = entry.item if isinstance(entry, Entry) else ""
        yield str(path.parent / item) if images and item else item


def _is_usable(sample: str, images: bool) -> bool:
    if not images:
        return bool(sample)
    try:
        thumbnail(Path(sample).read_bytes())
    except (OSError, ValueError, UnusableError):
        return False
    return True


@torch.inference_mode()
def _probabilities(base: BaseModel, adapter: Adapter, samples: Sequence[str]) -> list[list[float]]:
    logits: Tensor
    if isinstance(base.reader, ImageReader):
        pixels = [base.reader.pixels(Image.open(BytesIO(Path(sample).read_bytes()))) for sample in samples]
        images = base.reader.normalise(torch.stack(pixels)).contiguous(memory_format=torch.channels_last)
        logits = adapter.network(base.prefix(images))
    else:
        logits = adapter.network(*base.reader.tokens(samples))
    found: list[list[float]] = logits.double().softmax(1).tolist()
    return found


def _cells(probabilities: Sequence[float] | None, classes: Sequence[str]) -> list[str]:
    if probabilities is None:
        return [""] * (len(classes) + 1)
    return [classes[probabilities.index(max(probabilities))], *(f"{value:.6f}" for value in probabilities)]

"""`fedsparse predict`: what a saved adapter answers to samples, as CSV; labels are not needed."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path

import torch
import typer
from PIL import Image
from rich.console import Console
from torch import Tensor

from fedsparse.adapters import Adapter, BaseModel, ImageReader
from fedsparse.adapters.saved import load_adapter, open_adapter
from fedsparse.cli.exchange import base_settings
from fedsparse.cli.figures import count_text
from fedsparse.cli.progress import say
from fedsparse.config import require_source
from fedsparse.errors import ConfigError, DataError, ModelError
from fedsparse.files import write_atomic
from fedsparse.training.images import FORMATS, open_image, thumbnail
from fedsparse.training.samples import Source
from fedsparse.training.saved_dataset import SavedImage, chosen_split, is_saved_dataset, saved_rows
from fedsparse.training.sources import Entry, UnusableError, list_texts

_BATCH = 32


def run_predict(
    folder: Path, path: Path, output: Path | None, column: str | None, base: str | None, console: Console
) -> None:
    """Write a line per sample; see the command's help."""
    saved = load_adapter(folder)
    if saved.task == "causal-lm":
        raise ModelError(f"the adapter in {folder} continues texts and has no classes", "Serve it instead")
    require_source(path, "the path of the samples")
    images = saved.task == "image-classification"
    if not images and path.is_dir() and not is_saved_dataset(path):
        raise DataError(
            f"the adapter in {folder} reads texts, but {path} is a folder", "Name a file that lists them"
        )
    samples = list(_images(path, column or "path") if images else _texts(path, column or "text"))
    if not samples:
        raise DataError(f"{path} has no {'images' if images else 'texts'}", "Name a folder or file that has some")
    model, adapter = open_adapter(folder, None if base is None else base_settings(base))
    text = StringIO()
    writer = csv.writer(text)
    writer.writerow(["path" if images else "text", "answer", *saved.classes])
    unusable = 0
    for start in range(0, len(samples), _BATCH):
        batch = samples[start : start + _BATCH]
        read = [_read(model, sample) for sample in batch]
        usable = [content for content in read if content is not None]
        unusable += len(batch) - len(usable)
        rows = iter(_probabilities(model, adapter, usable) if usable else ())
        for sample, content in zip(batch, read, strict=True):
            writer.writerow([sample, *_cells(None if content is None else next(rows), saved.classes)])
    _write(text.getvalue().encode(errors="backslashreplace"), output)  # not every file's name is UTF-8
    if output is not None:
        say(console, f"{count_text(len(samples) - unusable, 'answer')} in {output}")
    if unusable:
        formats = f" as {', '.join(FORMATS)}" if images else ""
        say(console, f"{count_text(unusable, 'sample')} cannot be read{formats}; the answers are left empty")


def _write(data: bytes, path: Path | None) -> None:
    if path is None:
        typer.echo(data, nl=False)
        return
    try:
        write_atomic(path, data)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error.strerror}", "Name another file with --output"
        ) from None


def _images(path: Path, column: str) -> Iterator[Source | str]:
    """Yield where each image is; what a manifest or dataset lists without one is an empty text."""
    if path.is_dir() and is_saved_dataset(path):
        folder = chosen_split(path)
        for row in saved_rows(folder, (column,)):
            found = row[column]
            yield found if isinstance(found, SavedImage) else folder / found if isinstance(found, str) else ""
    elif path.is_dir():
        readable = {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in readable and not file.name.startswith("."):
                yield file
    else:
        yield from (path.parent / item if item else "" for item in _texts(path, column))


def _texts(path: Path, column: str) -> Iterator[str]:
    """Yield each text, of a column of paths too; what a source lists without one is an empty text."""
    for entry in list_texts(path, column, None):
        yield entry.item if isinstance(entry, Entry) else ""


def _read(base: BaseModel, sample: Source | str) -> Tensor | str | None:
    """Return an image's pixels, or a text; None where there is none or it cannot be read."""
    try:
        if isinstance(sample, str):
            sample.encode()
            return sample or None
        data = sample.read_bytes()
        thumbnail(data)
        return base.reader.pixels(open_image(data)) if isinstance(base.reader, ImageReader) else None
    except (OSError, ValueError, UnusableError):  # ValueError: a path that holds a NUL, half a surrogate pair
        return None


@torch.inference_mode()
def _probabilities(base: BaseModel, adapter: Adapter, contents: Sequence[Tensor | str]) -> list[list[float]]:
    logits: Tensor
    if isinstance(base.reader, ImageReader):
        pixels = torch.stack([content for content in contents if isinstance(content, Tensor)])
        images = base.reader.normalise(pixels).contiguous(memory_format=torch.channels_last)
        logits = adapter.network(base.prefix(images))
    else:
        logits = adapter.network(*base.reader.tokens([text for text in contents if isinstance(text, str)]))
    found: list[list[float]] = logits.double().softmax(1).tolist()
    if any(math.isnan(value) for row in found for value in row):
        raise ModelError(
            "the adapter answers with NaN, which is no probability", "Train it again, or copy it again"
        )
    return found


def _cells(probabilities: Sequence[float] | None, classes: Sequence[str]) -> list[str]:
    if probabilities is None:
        return [""] * (len(classes) + 1)
    return [classes[probabilities.index(max(probabilities))], *(f"{value:.6f}" for value in probabilities)]

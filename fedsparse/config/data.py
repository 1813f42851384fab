"""What it learns from: where samples are, and how images of them are varied."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fedsparse.config.names import Column, Settings
from fedsparse.errors import DataError

_SOURCE_SUFFIXES = frozenset({".csv", ".jsonl", ".txt"})


class DataSettings(Settings):
    """Where labelled samples are.

    Attributes:
        path: a folder with one sub-folder per class, a CSV or JSONL manifest, or a Hugging Face dataset on disk.
        label: column of the label.
        text: column of the text, for tasks on texts.
        image: column of the image or of its path, for tasks on images.
        max_corrupt: so many unreadable samples are named and skipped; one more is an error.
    """

    path: Path
    label: Column = "label"
    text: Column = "text"
    image: Column = "path"
    max_corrupt: Annotated[int, Field(ge=0)] = 0


class SiteDataSettings(DataSettings):
    """Where a plant's samples are, and which files they have to be.

    Attributes:
        manifest: what `fedsparse client data manifest` wrote: nothing is trained on other files than it lists.
        fingerprint: of that manifest, 64 hex digits; with both, the manifest has to have it. By itself it tells
            that data differ, but not which file.
    """

    manifest: Path | None = None
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None


class AugmentationSettings(Settings):
    """How training images are varied; each strength is the largest that is drawn, 0 leaves that step out.

    Attributes:
        flips: axes that may be mirrored; the variants of an image take their combinations in turn.
        rotate: degrees, either way.
        shift: share of the image's side, either way.
        zoom: share of the image's size, either way.
        brightness: share of full scale that is added or taken away.
        contrast: share by which differences from the image's mean grow or shrink.
        illumination: share of full scale that a broad light spot or shadow adds or takes away at its centre.
        noise: standard deviation of the sensor's noise, as a share of full scale; it is always this one.
        blur: standard deviation of a defocus, in pixels of the scaled image.
        mixup: α of Beta(α, α), for blending two samples and their labels (https://arxiv.org/abs/1710.09412).
        cutmix: α of Beta(α, α), for pasting a part of one sample into another (https://arxiv.org/abs/1905.04899).
        variants: how many of each image are computed where activations are cached; the first is the image itself.
            Flips alone make at most four different ones.
    """

    flips: tuple[Literal["horizontal", "vertical"], ...] = ("horizontal", "vertical")
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    zoom: Annotated[float, Field(ge=0, le=0.9)] = 0.0
    brightness: Annotated[float, Field(ge=0, le=1)] = 0.0
    contrast: Annotated[float, Field(ge=0, le=1)] = 0.0
    illumination: Annotated[float, Field(ge=0, le=1)] = 0.0
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    blur: Annotated[float, Field(ge=0, le=32)] = 0.0
    mixup: Annotated[float, Field(ge=0, le=10)] = 0.0
    cutmix: Annotated[float, Field(ge=0, le=10)] = 0.0
    variants: Annotated[int, Field(ge=1, le=64)] = 4


def require_source(path: Path, key: str) -> None:
    """Check that ``path`` can name samples: a folder, or a file of a known kind. Nothing is read.

    Args:
        key: the setting that names it.

    Raises:
        DataError: it is neither; names key and path.
    """
    try:
        usable = path.is_dir() or (path.is_file() and path.suffix.lower() in _SOURCE_SUFFIXES)
        present = usable or path.exists()
    except OSError as error:
        raise DataError(f"{key} = {str(path)[:200]} cannot be read: {error.strerror}", "Name another") from None
    if usable:
        return
    if present:
        raise DataError(f"{key} = {path} is neither a folder nor a .csv, .jsonl or .txt file", "Name one of them")
    raise DataError(
        f"{key} = {path} does not exist",
        "Name a folder with one sub-folder per class, a CSV or JSONL manifest, a Hugging Face dataset on disk, "
        "or a text file",
    )

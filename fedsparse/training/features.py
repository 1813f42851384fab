"""Activations after the frozen prefix, computed once per site and kept on its disk."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsparse.adapters import BaseModel, ImageReader
from fedsparse.config import AugmentationSettings
from fedsparse.errors import DataError
from fedsparse.training.augmentation import vary
from fedsparse.training.images import open_image
from fedsparse.training.samples import Samples

Progress = Callable[[int, int], None]
"""Told how many images are done, and of how many."""

_BATCH = 32
_UNCACHED = {"mixup", "cutmix"}  # drawn anew for every batch


@dataclass(frozen=True)
class Features:
    """Activations of a site's images, read from disk as they are used.

    Attributes:
        values: (n, variants, c, h, w), float16, memory-mapped.
    """

    values: NDArray[np.float16]

    @property
    def variants(self) -> int:
        """How many variants of each image there are."""
        return int(self.values.shape[1])

    def take(self, positions: NDArray[np.int64]) -> Features:
        """Return the activations of some samples, in memory."""
        return Features(self.values[positions])

    def batch(self, samples: NDArray[np.int64], variants: NDArray[np.int64] | int = 0) -> tuple[Tensor]:
        """Return the activations of some samples in the given variants, (len(samples), c, h, w), float32."""
        picked = torch.from_numpy(self.values[samples, variants].astype(np.float32))
        return (picked.contiguous(memory_format=torch.channels_last),)


def cached_features(
    base: BaseModel,
    samples: Samples,
    folder: Path,
    augmentation: AugmentationSettings | None,
    progress: Progress | None = None,
) -> Features:
    """Return the activations of ``samples``, computed only if ``folder`` does not hold them yet.

    The file is named by all that decides its content, written under another name and then renamed, so a file
    that is there is whole; caches of other data or models are removed. Of several processes one computes, and the
    others wait for it.

    Args:
        augmentation: how images are varied; none: each as it is.

    Raises:
        DataError: an image has changed or gone since it was checked, or there is no room on the disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"features-{_key(base, samples, augmentation)}.npy"
    with _one_at_a_time(folder):
        if not path.exists():
            scratch = path.with_suffix(".tmp")
            _compute(base, samples, scratch, augmentation, progress)
            scratch.replace(path)
            for stale in folder.glob("features-*"):
                if stale != path:
                    stale.unlink()
        return Features(np.load(path, mmap_mode="r"))


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait until no other process, nor thread, is in here for ``folder``."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # and with it the lock


def _key(base: BaseModel, samples: Samples, augmentation: AugmentationSettings | None) -> str:
    varied = augmentation.model_dump_json(exclude=_UNCACHED) if augmentation else ""
    told = f"features 2\n{base.fingerprint.hex()}\n{base.cut} {base.reader}\n{varied}\n"
    return hashlib.sha256((told + "\n".join(samples.digests)).encode()).hexdigest()[:32]


@torch.inference_mode()
def _compute(
    base: BaseModel,
    samples: Samples,
    path: Path,
    augmentation: AugmentationSettings | None,
    progress: Progress | None,
) -> None:
    assert isinstance(base.reader, ImageReader)  # noqa: S101 - checked by the caller
    settings = augmentation or AugmentationSettings(variants=1)
    values: NDArray[np.float16] | None = None
    for start in range(0, len(samples), _BATCH):
        positions = range(start, min(start + _BATCH, len(samples)))
        pixels = torch.stack([base.reader.pixels(open_image(samples.read(i))) for i in positions])
        for variant in range(settings.variants):
            images = base.reader.normalise(vary(pixels, variant, settings, seed=start))
            outputs = base.prefix(images.contiguous(memory_format=torch.channels_last)).to(torch.float16).numpy()
            if values is None:
                shape = (len(samples), settings.variants, *outputs.shape[1:])
                values = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
                _reserve(path, values.nbytes)
            values[positions.start : positions.stop, variant] = outputs
        if progress is not None:
            progress(positions.stop, len(samples))
    if values is not None:
        values.flush()  # type: ignore[attr-defined] # a memmap
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _reserve(path: Path, size: int) -> None:
    """Take the room on the disk now: where it ran out later, writing to mapped memory would kill the process.

    Raises:
        DataError: there is not enough.
    """
    try:
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):  # not every file system can reserve
            return
        path.unlink()
        raise DataError(
            f"the cached activations take {size:,} bytes, which {path.parent} cannot hold: {error.strerror}",
            "Free some space, or use fewer augmentation.variants or smaller images",
        ) from None

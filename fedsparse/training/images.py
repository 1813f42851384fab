"""Decoding of images as they come: damage is found, and a small grey picture is kept; no torch here."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedsparse.training.sources import UnusableError

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 16

FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Those that are read, by Pillow's names; PPM stands for PBM, PGM and PFM too."""


def open_image(data: bytes) -> Image:
    """Return an image that is yet to be decoded.

    Pillow knows some forty formats more, whose parsers would see whatever a file happens to hold.

    Raises:
        PIL.UnidentifiedImageError: it is of none of :data:`FORMATS`.
    """
    from PIL import Image

    return Image.open(BytesIO(data), formats=FORMATS)


def thumbnail(data: bytes) -> NDArray[np.float32]:
    """Decode an image in full and return it as (16, 16) grey levels from 0 to 255; 16 bits are scaled to 8.

    Raises:
        UnusableError: it is damaged or of none of :data:`FORMATS`, or its pixels have no known scale.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with open_image(data) as image:
            image.load()
            if image.mode == "F":
                raise UnusableError("pixels are floating-point numbers of no known scale")
            deep = image.mode.startswith("I")  # Pillow's own conversion would clip everything above 255 to white
            grey = np.asarray(image if deep else image.convert("L"), dtype=np.float32) / (256 if deep else 1)
            small = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            return np.asarray(small, dtype=np.float32)
    except UnusableError:
        raise
    except UnidentifiedImageError as error:
        raise UnusableError(f"not recognised as {', '.join(FORMATS)}") from error
    except Exception as error:  # Pillow raises many types on damaged files
        raise UnusableError(type(error).__name__) from error

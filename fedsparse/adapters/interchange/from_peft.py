"""From a PEFT folder to an adapter's settings and state."""

from __future__ import annotations

import glob
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fedsparse.adapters.bases import BaseModel
from fedsparse.adapters.build import build_adapter
from fedsparse.adapters.interchange import factors, shira
from fedsparse.adapters.interchange.content import Imported, state_of
from fedsparse.adapters.interchange.dense import import_dense
from fedsparse.adapters.interchange.fields import texts
from fedsparse.adapters.interchange.files import TENSORS, TensorFile, read_config
from fedsparse.adapters.interchange.keys import sort_keys
from fedsparse.adapters.interchange.lora import import_lora
from fedsparse.adapters.interchange.shira import import_shira
from fedsparse.adapters.interchange.subject import subject_of
from fedsparse.adapters.saved import settled
from fedsparse.config import AdapterSettings
from fedsparse.delta import SparseDelta
from fedsparse.errors import DeltaError

_READERS = {"LORA": (import_lora, factors.SUFFIXES), "SHIRA": (import_shira, shira.SUFFIXES)}


def import_peft(folder: Path, base: BaseModel) -> tuple[AdapterSettings, SparseDelta]:
    """Read a LoRA or SHiRA folder that PEFT or :func:`export_peft` wrote, as hostile input.

    ``build_adapter(base, settings).load(state)`` then computes what PEFT computes with the folder. Which modules
    are adapted is taken from the tensors: the configuration's target modules are not evaluated.

    Args:
        base: carries no adapter; it is as before afterwards.

    Returns:
        Settings that name each adapted weight, and the state, operation SET against the initial values.

    Raises:
        DataError: a file is absent; only safetensors are read.
        DeltaError: the folder holds what fedsparse cannot represent, or is damaged; names the field or tensor.
        ModelError: it is for another base model.
        ConfigError: the base model cannot take such an adapter.
    """
    config = read_config(folder)
    kind = config.get("peft_type")
    if not isinstance(kind, str) or kind not in _READERS:
        raise DeltaError(f"peft_type = {str(kind)[:100]!r} cannot be represented", "It must be LORA or SHIRA")
    read, suffixes = _READERS[kind]
    file = TensorFile(folder / TENSORS, base.fingerprint)
    subject = subject_of(base.network)
    keys = sort_keys(file.names, suffixes, texts(config, "modules_to_save"), base.network, subject)
    imported = read(config, file, keys, base.network)
    dense = import_dense(folder, file, keys.whole, base, subject)
    settings = settled(_settings(imported, dense), base)
    adapter = build_adapter(base, settings)
    try:
        return settings, state_of(adapter, imported.values | dense, imported.changes)
    finally:
        adapter.remove()


def _settings(imported: Imported, dense: Iterable[str]) -> AdapterSettings:
    """Return settings whose globs match just these names; where none is dense, an untouched head still is."""
    named: dict[str, Any] = {"include": tuple(map(glob.escape, imported.include))}
    if whole := tuple(map(glob.escape, dense)):
        named["dense"] = whole
    try:
        return AdapterSettings(**imported.settings, **named)
    except ValidationError as error:
        problem = error.errors()[0]
        raise DeltaError(
            f"{problem['loc'][0]} = {problem['input']} cannot be represented: {problem['msg']}"
        ) from None

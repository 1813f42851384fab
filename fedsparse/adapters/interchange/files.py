"""The files of a PEFT folder, of which those that are read may be hostile."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fedsparse.errors import DataError, DeltaError, ModelError
from fedsparse.files import write_atomic

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
HEAD = "head.safetensors"
_PICKLE = "adapter_model.bin"
_MAX_CONFIG_BYTES = 1 << 20
_BASE_KEY = "fedsparse_base"  # in a file's metadata: fingerprint of the base model, 64 hex digits
_FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


def write_tensors(path: Path, tensors: Mapping[str, Tensor], base: bytes) -> None:
    """Write ``tensors`` for the base model of this fingerprint."""
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    write_atomic(path, save(whole, {"format": "pt", _BASE_KEY: base.hex()}))


def read_config(folder: Path) -> dict[str, Any]:
    """Return what adapter_config.json says.

    Raises:
        DataError: it is absent or cannot be read.
        DeltaError: it is no JSON object.
    """
    path = folder / CONFIG
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_CONFIG_BYTES + 1)
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", "Name a folder that PEFT saved") from None
    if len(text) > _MAX_CONFIG_BYTES:
        raise DeltaError(f"{path} is larger than {_MAX_CONFIG_BYTES} bytes")
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DeltaError(f"{path} is not JSON: {error}") from None
    if not isinstance(config, dict):
        raise DeltaError(f"{path} must hold a JSON object, not {type(config).__name__}")
    return config


class TensorFile:
    """A safetensors file whose tensors are read one by one, each only if it has the shape that it must have.

    Args:
        base: fingerprint of the base model that it shall be for; it says which one only if we wrote it.

    Raises:
        DataError: it is absent.
        DeltaError: it is no safetensors file.
        ModelError: it is for another base model.
    """

    def __init__(self, path: Path, base: bytes) -> None:
        self._path = path
        if not path.is_file():
            raise DataError(f"there is no {path}", _absent(path))
        try:
            file: Any = safe_open(path, framework="pt")
            self._file = file
            self.names: tuple[str, ...] = tuple(file.keys())
            named = (file.metadata() or {}).get(_BASE_KEY)
        except (OSError, SafetensorError) as error:
            raise DeltaError(f"{path} is no safetensors file: {error}", "Save the adapter again") from None
        if named not in (None, base.hex()):
            raise ModelError(
                f"{path} is for the base model {named[:16]}, not for {base.hex()[:16]}",
                "Load the base model that it was trained on",
            )

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape as the file says it; nothing is read."""
        return tuple(self._file.get_slice(name).get_shape())

    def read(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return a tensor of finite numbers as float32.

        Raises:
            DeltaError: its shape or type is another, or a value is NaN or infinite.
        """
        values = self._get(name, shape, _FLOATS).float()
        if not torch.isfinite(values).all():
            raise DeltaError(f"{name} in {self._path.name}: a value is NaN or infinite")
        return values

    def read_indices(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return a tensor of whole numbers as int64; PEFT writes them as floats on Windows.

        Raises:
            DeltaError: its shape or type is another, or a value is not whole.
        """
        found = self._get(name, shape, frozenset({"I32", "I64", "F32"}))
        whole = found.long()
        if not torch.equal(whole.to(found.dtype), found):
            raise DeltaError(f"{name} in {self._path.name}: a value is no whole number")
        return whole

    def _get(self, name: str, shape: tuple[int, ...], types: frozenset[str]) -> Tensor:
        found = self._file.get_slice(name)
        if self.shape(name) != shape:
            raise DeltaError(
                f"{name} in {self._path.name} has the shape {self.shape(name)}, but must have {shape}",
                "The adapter was made for another base model, or its configuration is not its own",
            )
        if found.get_dtype() not in types:
            raise DeltaError(
                f"{name} in {self._path.name} has the type {found.get_dtype()}, "
                f"not one of {', '.join(sorted(types))}"
            )
        tensor: Tensor = self._file.get_tensor(name)
        return tensor


def _absent(path: Path) -> str:
    if (path.parent / _PICKLE).exists():
        return f"{_PICKLE} is a pickle, which could run code: save it again with safe_serialization=True"
    return "Name a folder that PEFT saved"

"""From an adapter to a PEFT folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

from fedsparse.adapters.adapter import Adapter
from fedsparse.adapters.bases import BaseModel
from fedsparse.adapters.interchange.content import Exported
from fedsparse.adapters.interchange.dense import Dense, export_dense
from fedsparse.adapters.interchange.files import CONFIG, HEAD, TENSORS, write_tensors
from fedsparse.adapters.interchange.lora import export_lora
from fedsparse.adapters.interchange.shira import export_shira
from fedsparse.adapters.interchange.subject import Subject, subject_of
from fedsparse.adapters.kinds.lora import LoraInjection
from fedsparse.delta import Operation, SparseDelta, TensorDelta
from fedsparse.errors import ConfigError, DeltaError, ModelError
from fedsparse.files import write_atomic


def export_peft(adapter: Adapter, base: BaseModel, folder: Path) -> None:
    """Write the adapter's state as it is loaded to a new folder that `peft.PeftModel.from_pretrained` loads.

    `lora` becomes LoRA, `delta` becomes SHiRA where it fits; see :mod:`fedsparse.adapters.interchange.shira`.
    Dense tensors become PEFT's ``modules_to_save``, each with the rest of its module. Only what lies beside a
    Hugging Face model goes into ``head.safetensors``, under the network's names (``head.weight``, ``head.bias``):
    PEFT, which wraps that model alone, does not see it, and ``README.md`` in the folder says how to apply it.

    Raises:
        ConfigError: the folder is not empty, or cannot be written.
        DeltaError: PEFT has no format for this adapter; names the tensor and the reason.
        ModelError: a support is attached.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is not empty", "Name a new folder")
    if any(len(where) for where in adapter.support):
        raise ModelError("a support is attached", "Detach it first")
    subject = subject_of(base.network)
    exported = _export(adapter, subject)
    dense = export_dense(adapter, subject, exported.modules)
    tensors = {subject.key(name): tensor for name, tensor in (exported.tensors | dense.tensors).items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / TENSORS, tensors, base.fingerprint)
        if dense.head:
            write_tensors(folder / HEAD, dense.head, base.fingerprint)
        write_atomic(folder / "README.md", _readme(dense, base).encode())
        write_atomic(folder / CONFIG, _config(exported, dense, subject, base).encode())
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror}", "Name another folder") from None


def _export(adapter: Adapter, subject: Subject) -> Exported:
    if isinstance(adapter.injection, LoraInjection):
        return export_lora(adapter, adapter.injection, subject)
    if adapter.kind == "delta":
        return export_shira(adapter, _loaded(adapter), subject)
    raise DeltaError(f"PEFT has no format for a {adapter.kind} adapter", "Choose lora or delta for that")


def _loaded(adapter: Adapter) -> SparseDelta:
    """Return the state that the adapter has loaded, without rounding it to the weights' precision."""
    found = [
        TensorDelta(position, offsets.where.cpu().numpy(), offsets.added.cpu().numpy())
        for position, offsets in sorted(adapter._weights._loaded.items())
    ]
    return SparseDelta(adapter.space.fingerprint, Operation.SET, tuple(found))


def _config(exported: Exported, dense: Dense, subject: Subject, base: BaseModel) -> str:
    fields = exported.fields | {
        "base_model_name_or_path": base.name,
        "task_type": subject.task_type,
        "inference_mode": True,
        "target_modules": _targets([subject.inner(name) for name in exported.modules], subject),
        "modules_to_save": list(dense.modules) or None,
    }
    return json.dumps(fields, indent=2, sort_keys=True)


def _targets(names: list[str], subject: Subject) -> list[str] | str:
    """Return the names, or a pattern that only they match where PEFT would take a name for the end of another."""
    endings = tuple(f".{name}" for name in names)
    if any(other.endswith(endings) and other not in names for other, _ in subject.model.named_modules()):
        return "|".join(map(re.escape, names))
    return names


def _readme(dense: Dense, base: BaseModel) -> str:
    head = ""
    if dense.head:
        head = (
            f"\nPEFT does not load `{HEAD}`. It holds the classifier behind the base model, a linear layer:\n"
            "logits = features · `head.weight`ᵀ + `head.bias`. For texts the features are the mean of\n"
            "`last_hidden_state` over each text's tokens (attention mask 1). For images they are its first token\n"
            "in a vision transformer that has a class token, else its mean over all positions.\n"
        )
    return (
        "---\nlibrary_name: peft\n---\n"
        f"An adapter trained with fedsparse on the base model `{base.name}`, whose fingerprint begins with\n"
        f"{base.fingerprint.hex()[:16]}. Load it with `peft.PeftModel.from_pretrained(model, folder)`.\n{head}"
    )

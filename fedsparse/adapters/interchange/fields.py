"""Which of a PEFT configuration's fields fedsparse can represent."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from fedsparse.errors import DeltaError

# They say where an adapter comes from, or how it was trained; or the tensors themselves say it again. The target
# modules are patterns over names, which a hostile folder could choose so that matching takes years.
_ANY = frozenset(
    {"auto_mapping", "base_model_name_or_path", "fan_in_fan_out", "inference_mode", "modules_to_save"}
    | {"peft_type", "peft_version", "r", "revision", "target_modules", "task_type"}
)
_ANY_LORA = _ANY | {
    *("alpha_pattern", "bias", "exclude_modules", "init_lora_weights", "layers_pattern", "layers_to_transform"),
    *("lora_alpha", "lora_dropout", "megatron_core", "qalora_group_size", "rank_pattern"),
}
_ANY_SHIRA = _ANY | {"init_weights", "mask_type", "random_seed"}
_KEPT_BASE = (True, False, "gaussian", "orthogonal")  # the other ways to begin change the base's weights as well


def require_plain_lora(config: Mapping[str, Any]) -> tuple[int, float]:
    """Return rank and alpha of a configuration that means W + (alpha / rank)·B·A at every adapted layer.

    Raises:
        DeltaError: it means something else.
    """
    _require_only(config, _ANY_LORA)
    rank, alpha = whole(config, "r"), _number(config, "lora_alpha")
    if config.get("bias", "none") != "none":
        raise _cannot("bias", config["bias"])
    if config.get("init_lora_weights", True) not in _KEPT_BASE:
        raise _cannot("init_lora_weights", config["init_lora_weights"])
    for key, common in (("rank_pattern", rank), ("alpha_pattern", alpha)):
        pattern = config.get(key) or {}
        if not isinstance(pattern, dict) or any(value != common for value in pattern.values()):
            raise _cannot(key, pattern, f"all layers have one value here, which is {common}")
    return rank, alpha


def require_plain_shira(config: Mapping[str, Any]) -> int:
    """Return r of a configuration that means W + ΔW with r·(m + n) values in ΔW, (m, n), at every adapted layer.

    Raises:
        DeltaError: it means something else.
    """
    _require_only(config, _ANY_SHIRA)
    return whole(config, "r")


def whole(config: Mapping[str, Any], key: str) -> int:
    """Return a field that is a whole number from 1 on.

    Raises:
        DeltaError: it is not.
    """
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise DeltaError(f"{key} = {_shown(value)} in the PEFT configuration must be a whole number from 1 on")
    return value


def texts(config: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Return a field that is a list of names, or absent.

    Raises:
        DeltaError: it is something else.
    """
    value = config.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise DeltaError(f"{key} = {_shown(value)} in the PEFT configuration must be a list of names")
    return tuple(value)


def _number(config: Mapping[str, Any], key: str) -> float:
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise DeltaError(f"{key} = {_shown(value)} in the PEFT configuration must be a number above 0")
    return value


def _require_only(config: Mapping[str, Any], known: frozenset[str]) -> None:
    """Check that what is not known is not in use: null, false, zero or empty."""
    for key, value in config.items():
        if key not in known and value:
            raise _cannot(key, value)


def _cannot(key: str, value: object, why: str = "fedsparse has no such adapter") -> DeltaError:
    return DeltaError(f"{key[:100]} = {_shown(value)} in the PEFT configuration cannot be represented: {why}")


def _shown(value: object) -> str:
    return repr(value)[:100]

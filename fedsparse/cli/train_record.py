"""Everything that `fedsparse train` remembers of a run, as one tree for ``report.json``."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsparse.config import StageSettings, TrainConfig
from fedsparse.delta import AdapterSpace, SparseDelta, ValueCoding, encode, quantise
from fedsparse.training.automatic import Choice
from fedsparse.training.division import Division
from fedsparse.training.language import LanguageQuality
from fedsparse.training.metrics import Quality
from fedsparse.training.outcome import Epoch
from fedsparse.training.solo import Evaluation, Model, Result, positive_class

_SOFTWARE = ("fedsparse", "torch", "transformers", "numpy", "scikit-learn")
_BINS = 15  # those of the calibration error
_LABELS = {"macro_f1": "macro F1", "auroc": "AUROC", "loss": "loss, nats"}
_JAPANESE = {
    "balanced_accuracy": "バランス精度",
    "accuracy": "正解率",
    "macro_f1": "マクロ F1",
    "recall_at_false_alarm": "許容誤報率での再現率",
    "calibration_error": "較正誤差",
    "loss": "損失",
    "perplexity": "パープレキシティ",
}


@dataclass(frozen=True)
class Cost:
    """What a run took.

    Attributes:
        seconds: all of it.
        training_seconds: of the epochs and their exams alone.
        memory_bytes: the most that the process held at once.
        gpu_bytes: the same on the GPU; None without one.
    """

    seconds: float
    training_seconds: float
    memory_bytes: int
    gpu_bytes: int | None


def gather(
    settings: TrainConfig,
    division: Division,
    model: Model,
    stages: Sequence[StageSettings],
    result: Result,
    before: Evaluation,
    after: Evaluation,
    cost: Cost,
) -> dict[str, Any]:
    """Return everything that ``report.json`` says; the same run gives the same figures but for ``cost``."""
    probabilities = after.probabilities
    labels = division.holdout.labels
    return {
        "format": 1,
        "settings": settings.model_dump(mode="json"),
        "stages": [stage.model_dump(mode="json") for stage in stages],
        "metric": settings.metric,
        "positive": positive_text(settings, division.training.classes),
        "data": _data(division),
        "base": {"model": model.base.name, "fingerprint": model.base.fingerprint.hex(), "bytes": model.base_bytes},
        "adapter": _adapter(model.adapter.space, model.adapter.dense, result.state) | {"kind": model.adapter.kind},
        "epochs": [_epoch(epoch) for epoch in result.epochs],
        "best": result.best,
        "figures": _figures(settings, division.training.classes, before, after),
        "automatic": None if result.choice is None else _automatic(result.choice),
        "confusion": None if probabilities is None else confusion(labels, probabilities),
        "reliability": None if probabilities is None else reliability(labels, probabilities),
        "software": {name: version(name) for name in _SOFTWARE} | {"python": platform.python_version()},
        "machine": {"device": str(model.machine.device), "precision": settings.machine.precision},
        "cost": vars(cost),
    }


def quality_figures(quality: Quality | LanguageQuality) -> dict[str, float]:
    """Return the defined figures by name; of a language model its perplexity as well."""
    found = {
        name: float(value) for name, value in vars(quality).items() if value is not None and name != "samples"
    }
    if isinstance(quality, LanguageQuality):
        found["perplexity"] = math.exp(min(quality.loss, 700.0))  # beyond that a float overflows
    return found


def positive_text(settings: TrainConfig, classes: Sequence[str]) -> str | None:
    """Say which of two classes is the positive one, and why; None where there are not two."""
    if len(classes) != 2:
        return None
    name = classes[positive_class(settings, classes)]
    if settings.task.positive is None:
        return f"{name}, the second of the two classes, unless task.positive names the other"
    return f"{name}, as task.positive says"


def figure_label(name: str) -> str:
    """Write a figure's name for people."""
    return _LABELS.get(name, name.replace("_", " "))


def japanese_label(name: str) -> str:
    """Write a figure's name in Japanese; empty where it is the same there."""
    return _JAPANESE.get(name, "")


def confusion(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> list[list[int]]:
    """Return how many samples of each class (rows) got each answer (columns)."""
    classes = probabilities.shape[1]
    counts = np.bincount(labels * classes + probabilities.argmax(1), minlength=classes * classes)
    found: list[list[int]] = counts.reshape(classes, classes).tolist()
    return found


def reliability(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> list[dict[str, float]]:
    """Return, for each bin of confidence that occurs, how confident the answers are and how many are right."""
    confidence = probabilities.max(1)
    right = labels == probabilities.argmax(1)
    bins = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    return [
        {
            "samples": int((bins == number).sum()),
            "confidence": float(confidence[bins == number].mean()),
            "accuracy": float(right[bins == number].mean()),
        }
        for number in np.unique(bins)
    ]


def _data(division: Division) -> dict[str, Any]:
    report = division.report
    rows = zip(report.classes, report.training, report.holdout, strict=True)
    return {
        "classes": [{"name": name, "training": trained, "holdout": held} for name, trained, held in rows],
        "imbalance": report.imbalance,
        "skipped": list(report.skipped),
        "near_duplicates": [str(pair) for pair in report.near_duplicates],
        "shared": division.shared,
        "lines": report.lines(),
    }


def _adapter(space: AdapterSpace, dense: frozenset[int], state: SparseDelta) -> dict[str, Any]:
    small = encode(quantise(state, ValueCoding.BF16), space, ValueCoding.BF16)
    return {
        "space_fingerprint": space.fingerprint.hex(),
        "coordinates": space.size,
        "dense_coordinates": sum(space.tensors[position].size for position in dense),
        "nnz": state.nnz,
        "density": state.nnz / space.size,
        "bytes_bf16": len(small),
        "bytes_fp32": len(encode(state, space, ValueCoding.FP32)),
        "bytes_dense": space.dense_bytes,
    }


def _epoch(epoch: Epoch) -> dict[str, Any]:
    told = {name: getattr(epoch, name) for name in ("stage", "number", "loss", "nnz", "seconds")}
    return told | {"quality": None if epoch.quality is None else quality_figures(epoch.quality)}


def _figures(
    settings: TrainConfig, classes: Sequence[str], before: Evaluation, after: Evaluation
) -> list[dict[str, Any]]:
    first = quality_figures(before.quality)
    labels = {name: figure_label(name) for name in first}
    if "recall_at_false_alarm" in labels:
        found, rate = classes[positive_class(settings, classes)], settings.training.false_alarm_rate
        labels["recall_at_false_alarm"] = f"recall of {found} at {100 * rate:g} % false alarms"
    return [
        {"name": name, "label": labels[name], "chooses": name == settings.metric}
        | {"before": _with_interval(first[name], name, before), "after": _with_interval(value, name, after)}
        for name, value in quality_figures(after.quality).items()
    ]


def _with_interval(value: float, name: str, evaluation: Evaluation) -> dict[str, float | None]:
    interval = evaluation.intervals.get(name)
    ends = (None, None) if interval is None else (interval.low, interval.high)
    return {"value": value, "low": ends[0], "high": ends[1]}


def _automatic(choice: Choice) -> dict[str, Any]:
    return {
        "candidates": [
            {"density": one.density, "nnz": one.state.nnz, "bytes": one.bytes, "figure": one.figure}
            | {"epoch": one.epoch.number, "quality": quality_figures(one.quality)}
            for one in choice.candidates
        ],
        "position": choice.position,
        "best": choice.best,
        "metric": choice.metric,
        "tolerance": choice.tolerance,
        "max_bytes": choice.max_bytes,
        "reason": choice.reason,
        "cost": choice.cost,
    }

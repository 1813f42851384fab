"""A run as the command line is told about it, made up but of the demo's size."""

from __future__ import annotations

from typing import Any

DENSE_ADAPTER, DENSE_MODEL = 12_904_000, 18_614_632
_ALONE_AHEAD = (-0.01, 0.012, -0.022, -0.03, 0.004, -0.015)


def committed(number: int, plants: tuple[str, ...], score: float | None = 0.7) -> dict[str, Any]:
    slowest = 8.4 + 0.3 * (number % 3)
    overhead = 1.6 + 0.2 * (number % 2)
    return {
        "event": "round_committed",
        "time": 1_795_000_000.0 + 12 * number,
        "round": number,
        "version": number,
        "seconds": slowest + overhead,
        "overhead_seconds": overhead,
        "balanced_accuracy": score,
        "accuracy": None if score is None else score + 0.04,
        "union_density": 0.008 * number,
        "plants": [_answer(number, index, plant, slowest) for index, plant in enumerate(plants)],
    }


def refused(entry: dict[str, Any], plant: str, reason: str) -> dict[str, Any]:
    """Return the round with one plant's update missing."""
    answer = {"bytes_up": 0, "train_seconds": 0.0, "samples": 0, "reason": reason, "metrics": {}}
    plants = [one | answer if one["plant"] == plant else one for one in entry["plants"]]
    return entry | {"plants": plants}


def summary(rounds: int = 6, plants: tuple[str, ...] = ("kiso", "ise", "owari"), evaluated: bool = True) -> Any:
    """Return a run in which the federation beats each plant alone."""
    steps = range(1, rounds + 1)
    history = [committed(n, plants, 0.79 - 0.27 * 0.55**n if evaluated else None) for n in steps]
    alone = {
        plant: [0.74 + _ALONE_AHEAD[i % 6] - 0.22 * 0.5**n + 0.008 * (-1) ** (n + i) for n in steps]
        for i, plant in enumerate(plants if evaluated else ())
    }
    final = {plant: values[-1] for plant, values in alone.items()}
    return {
        "rounds": rounds,
        "wall_seconds": 214.7,
        "balanced_accuracy": {
            "before": 0.5 if evaluated else None,
            "best_alone": max(final.values(), default=None),
            "federated": history[-1]["balanced_accuracy"],
            "alone": final,
        },
        "bytes_up_per_plant_round": 81_234.0,
        "bytes_down_per_plant_round": 143_210.5,
        "dense_adapter_bytes": DENSE_ADAPTER,
        "dense_model_bytes": DENSE_MODEL,
        "round_overhead_seconds_median": 1.7,
        "base_model_loads_per_plant": 1,
        "ledger": {"entries": rounds * len(plants), "verified": True, "problems": []},
        "adapter_version": rounds,
        "history": history,
        "alone_history": alone,
        "plants": {plant: _data(index) for index, plant in enumerate(plants)},
        "settings": {
            "training": {"density": 0.005, "epochs": 1},
            "aggregation": {"rule": "shrunk", "strength": 0.5},
        },
        "software": {"fedsparse": "0.1.0", "flwr": "1.41.0", "python": "3.11.9"},
    }


def _answer(number: int, index: int, plant: str, slowest: float) -> dict[str, Any]:
    seconds = slowest - 0.9 * (index % 3)
    return {
        "plant": plant,
        "bytes_up": 80_000 + 900 * (index % 4) + 150 * number,
        "bytes_down": 1_204 if number == 1 else 90_000 + 21_000 * number,
        "train_seconds": seconds,
        "wait_seconds": slowest + 1.7 - seconds,
        "samples": 600 - 70 * (index % 5),
        "reason": None,
        "metrics": {"holdout_balanced_accuracy": 0.7, "train_loss": 0.31},
    }


def _data(index: int) -> dict[str, Any]:
    functional, defective = (420, 130) if index % 2 else (130, 380)
    return {
        "samples": functional + defective,
        "classes": {"functional": functional, "defective": defective},
        "base_model_loads": 1,
        "cell_types": {
            "mono": 40 + 150 * (index % 3),
            "poly": functional + defective - 40 - 150 * (index % 3),
        },
    }

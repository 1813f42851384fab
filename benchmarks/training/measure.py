"""Run the measurements of steps, memory and serving, and write them as JSON: FILE REPEATS TOKENS..."""

from __future__ import annotations

import json
import statistics
import sys
import warnings
from pathlib import Path

import torch

from benchmarks.training.steps import ARMS, latency_and_swap, measure_memory, measure_times, median_ratio

THREADS = 2


def main(path: Path, repeats: int, tokens: list[int]) -> None:
    """Measure, for each number of tokens per text, and write ``path``."""
    warnings.filterwarnings("ignore")
    torch.set_num_threads(THREADS)
    times = {count: measure_times(count, repeats) for count in tokens}
    found = {
        "batch": 32,
        "threads": THREADS,
        "seconds": {n: {arm: statistics.median(t[arm]) for arm in ARMS} for n, t in times.items()},
        "ratio_to_lora": {n: {arm: median_ratio(t, arm, ARMS[0]) for arm in ARMS} for n, t in times.items()},
        "memory": measure_memory(64),
        "serving": latency_and_swap(repeats),
    }
    path.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), [int(count) for count in sys.argv[3:]])

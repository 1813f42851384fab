"""Time of one training step and peak memory, each arm in a process of its own, on MiniLM.

All arms read the same batches, in the same precision, without dropout, with a fused optimiser of the same kind.
"""

from __future__ import annotations

import gc
import json
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedsparse import config
from fedsparse.adapters import Adapter, build_adapter, load_base
from fedsparse.config import StageSettings
from fedsparse.delta import Operation, SparseDelta
from fedsparse.training.losses import classification_loss
from fedsparse.training.optimiser import Optimiser
from fedsparse.training.selection import Selector

CLASSES = tuple(f"mode {i}" for i in range(22))
BATCH = 32
ARMS = (
    "LoRA r=8 (PEFT)",
    "full fine-tuning",
    "delta 1 %, scattered",
    "delta 1 %, rows",
    "delta 1 %, blocks",
    "probe",
)
_SCORED_BATCHES = 8
_RATE = 1e-5  # nothing is learnt here, and nothing must blow up

Step = Callable[[tuple[Tensor, Tensor], Tensor], None]


def batches(tokens: int, count: int, seed: int = 0) -> list[tuple[tuple[Tensor, Tensor], Tensor]]:
    """Return random ids, full masks and labels: the time of a step does not depend on them."""
    draw = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        ids = torch.randint(1000, 30000, (BATCH, tokens), generator=draw)
        labels = torch.randint(len(CLASSES), (BATCH,), generator=draw)
        found.append(((ids, torch.ones_like(ids)), labels))
    return found


def build(arm: str, tokens: int) -> tuple[nn.Module, Step]:
    """Return a network and its training step."""
    base = load_base(
        config.BaseModelSettings(model="minilm"), config.AdapterSettings(), CLASSES, "text-classification"
    )
    network = base.network
    weights = torch.ones(len(CLASSES))
    if arm.startswith("delta"):
        adapter = build_adapter(base, config.AdapterSettings())
        return network, _sparse_step(adapter, arm, tokens, weights)
    network.head.requires_grad_(True)
    if arm == "full fine-tuning":
        network.requires_grad_(True)
    elif arm.startswith("LoRA"):
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
        network.backbone = get_peft_model(network.backbone, lora)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.Adam(trained, lr=_RATE, fused=True)

    def step(inputs: tuple[Tensor, Tensor], labels: Tensor) -> None:
        classification_loss(network(*inputs), labels, weights).backward()
        optimiser.step()
        optimiser.zero_grad()

    return network, step


def _sparse_step(adapter: Adapter, arm: str, tokens: int, weights: Tensor) -> Step:
    structure = {"scattered": "unstructured", "rows": "row", "blocks": "block"}[arm.rsplit(" ", 1)[1]]
    stage = StageSettings(
        name="steps",
        epochs=1,
        density=0.01,
        structure=structure,
        block=16,
        learning_rate=_RATE,
        head_learning_rate=_RATE,
    )
    network = adapter.network
    adapter.load(SparseDelta.empty(adapter.space.fingerprint, Operation.SET))
    nn.init.normal_(network.head.weight, std=0.02)  # a head of zeros would give every score 0

    def scored(inputs: tuple[Tensor, Tensor], labels: Tensor) -> Callable[[], Tensor]:
        return lambda: classification_loss(network(*inputs), labels, weights)

    losses = [scored(*batch) for batch in batches(tokens, _SCORED_BATCHES, seed=1)]
    support = Selector(adapter, 0).choose(stage, stage.density, losses)
    attachment = adapter.attach(support, stage.block if structure == "block" else None)
    optimiser = Optimiser(attachment, stage, 1000, 0.0)

    def step(inputs: tuple[Tensor, Tensor], labels: Tensor) -> None:
        classification_loss(network(*inputs), labels, weights).backward()
        optimiser.step()
        adapter.push()

    return step


def measure_times(tokens: int, repeats: int) -> dict[str, list[float]]:
    """Return seconds per step of every arm, (repeats,) each; they take turns, so that all see the same machine."""
    built = {arm: build(arm, tokens)[1] for arm in ARMS}
    data = batches(tokens, repeats + 2)
    times: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for number, batch in enumerate(data):
        for arm, step in built.items():
            started = time.perf_counter()
            step(*batch)
            if number >= 2:
                times[arm].append(time.perf_counter() - started)
    return times


def measure_memory(tokens: int) -> dict[str, dict[str, float]]:
    """Return MiB per arm: the process at its peak, and what training added to the loaded model."""
    found = {}
    for arm in ARMS:
        command = [sys.executable, "-m", "benchmarks.training.steps", arm, str(tokens)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[arm] = json.loads(done.stdout.splitlines()[-1])
    return found


def _memory_of(arm: str, tokens: int) -> Mapping[str, float]:
    """Train some steps, scoring included, in this process and tell its peak."""
    load_base(config.BaseModelSettings(model="minilm"), config.AdapterSettings(), CLASSES, "text-classification")
    if arm.startswith("LoRA"):
        import peft  # noqa: F401 - so that its import is not counted as training
    gc.collect()
    before = _resident()
    Path("/proc/self/clear_refs").write_text("5")  # the kernel's peak starts anew here
    _, step = build(arm, tokens)
    for batch in batches(tokens, 5):
        step(*batch)
    peak = _status("VmHWM")
    return {"peak": round(peak, 1), "training": round(peak - before, 1)}


def _resident() -> float:
    return _status("VmRSS")


def _status(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def median_ratio(times: Mapping[str, list[float]], arm: str, other: str) -> float:
    """Return the median over turns of one arm's time over another's in the same turn."""
    return statistics.median(a / b for a, b in zip(times[arm], times[other], strict=True))


def latency_and_swap(repeats: int) -> dict[str, Any]:
    """Return seconds of inference before and after merging, of a hot swap, and of reloading the model."""
    spec = config.AdapterSettings()
    settings = config.BaseModelSettings(model="minilm")
    reloads = []
    for _ in range(5):
        started = time.perf_counter()
        base = load_base(settings, spec, CLASSES, "text-classification")
        reloads.append(time.perf_counter() - started)
    plain = load_base(settings, spec, CLASSES, "text-classification")
    adapter = build_adapter(base, spec)
    states = [_random_state(adapter, seed) for seed in (1, 2)]
    swaps = []
    for number in range(10):
        started = time.perf_counter()
        adapter.load(states[number % 2])
        swaps.append(time.perf_counter() - started)
    adapter.merge()
    inputs = batches(64, 1)[0][0]
    base_times, merged_times = [], []
    with torch.inference_mode():
        for _ in range(repeats + 2):
            for network, times in ((plain.network, base_times), (adapter.network, merged_times)):
                started = time.perf_counter()
                network(*inputs)
                times.append(time.perf_counter() - started)
    ratio = statistics.median(
        merged / plain for merged, plain in zip(merged_times[2:], base_times[2:], strict=True)
    )
    return {
        "latency_base": statistics.median(base_times[2:]),
        "latency_ratio": ratio,
        "swap": statistics.median(swaps),
        "reload": statistics.median(reloads),
    }


def _random_state(adapter: Adapter, seed: int) -> SparseDelta:
    from fedsparse.delta import TensorDelta
    from fedsparse.sparsity import seeded_support

    support = seeded_support(adapter.space, 0.01, adapter.dense, seed)
    draw = np.random.default_rng(seed)
    parts = tuple(
        TensorDelta(position, indices, draw.normal(0, 1e-3, len(indices)).astype(np.float32))
        for position, indices in enumerate(support)
        if len(indices)
    )
    return SparseDelta(adapter.space.fingerprint, Operation.SET, parts)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(2)
    print(json.dumps(_memory_of(sys.argv[1], int(sys.argv[2]))))

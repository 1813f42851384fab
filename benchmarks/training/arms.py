"""What a user would otherwise pick, on the same data for the same number of steps, and our sparse adapter."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.training.problems import Family, Problem
from fedsparse import config
from fedsparse.adapters import build_adapter
from fedsparse.config import ObjectiveSettings, StageSettings, TrainSettings
from fedsparse.delta import Operation, SparseDelta, apply
from fedsparse.training import Classification, Machine, Part, Quality, train
from fedsparse.training.losses import class_weights, classification_loss
from fedsparse.training.optimiser import share_of_rate
from fedsparse.training.plan import default_stages, dense_share

BATCH = 32
_WARM_UP = 0.1

COORDINATES: dict[str, dict[str, str]] = {
    "default": {},
    "early rows": {"allocation": "early", "structure": "row"},
    "early, scattered": {"allocation": "early", "structure": "unstructured"},
    "uniform rows": {"allocation": "uniform", "structure": "row"},
    "uniform, scattered": {"allocation": "uniform", "structure": "unstructured"},
    "global, scattered": {"allocation": "global", "structure": "unstructured"},
    "global, scattered, at random": {"allocation": "global", "structure": "unstructured", "source": "seeded"},
}
"""Ways to choose the sparse arm's coordinates; all but the last by |gradient|."""


@dataclass(frozen=True)
class Recipe:
    """How an arm trains.

    Attributes:
        arm: "full", "lora", "probe" or "sparse".
        epochs: passes over the training samples, the same for every arm.
        rate: the highest, of Adam; for the sparse arm that of the scattered values.
        head_rate: of the head.
        density: of the sparse arm.
        coordinates: how it chooses them, one of :data:`COORDINATES`.
    """

    arm: str
    epochs: int
    rate: float
    head_rate: float
    density: float = 0.01
    coordinates: str = "default"


@dataclass(frozen=True)
class Run:
    """What one run yielded."""

    quality: Quality
    trained: int
    seconds: float


def run(
    problem: Problem, recipe: Recipe, training: NDArray[np.int64], measured: NDArray[np.int64], seed: int
) -> Run:
    """Train one arm on some samples and measure it on others."""
    started = time.monotonic()
    arm = _sparse if recipe.arm == "sparse" else _dense
    network, family, trained = arm(problem, recipe, training, seed)
    seconds = time.monotonic() - started
    return Run(problem.quality(network, family, measured), trained, seconds)


def _sparse(
    problem: Problem, recipe: Recipe, training: NDArray[np.int64], seed: int
) -> tuple[nn.Module, Family, int]:
    base = problem.base("sparse")
    adapter = build_adapter(base, config.AdapterSettings())
    task = Classification(
        Part(problem.inputs["sparse"], training),
        problem.labels[training],
        len(problem.classes),
        ObjectiveSettings(balance=problem.balance),
        config.AugmentationSettings(),
        Machine(),
    )
    untouched = SparseDelta.empty(adapter.space.fingerprint, Operation.SET)
    stages = _stages(recipe, problem.task, dense_share(adapter.space, adapter.dense))
    outcome = train(adapter, task, untouched, stages, seed=(seed,), batch_size=BATCH)
    adapter.load(apply(untouched, outcome.delta))
    return base.network, "sparse", outcome.delta.nnz


def _dense(
    problem: Problem, recipe: Recipe, training: NDArray[np.int64], seed: int
) -> tuple[nn.Module, Family, int]:
    torch.manual_seed(seed)  # of PEFT's initial values
    network = problem.base("dense").network.to(memory_format=torch.channels_last)  # a third faster
    head = network.head if hasattr(network, "head") else network._fc
    if recipe.arm == "full":
        network.requires_grad_(True)
    elif recipe.arm == "lora":
        network = _with_lora(network)
    head.requires_grad_(True)
    own = {id(parameter) for parameter in head.parameters()}
    body = [p for p in network.parameters() if p.requires_grad and id(p) not in own]
    groups = [(list(head.parameters()), recipe.head_rate), *([(body, recipe.rate)] if body else [])]
    _descend(network, groups, problem, recipe.epochs, training, seed)
    return network, "dense", sum(p.numel() for group, _ in groups for p in group)


def _with_lora(network: nn.Module) -> nn.Module:
    """Put PEFT's LoRA, r = 8, beside every linear layer of the backbone, or every 1 × 1 convolution."""
    from peft import LoraConfig, get_peft_model

    if hasattr(network, "backbone"):
        network.backbone = get_peft_model(
            network.backbone, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear")
        )
        return network
    pointwise = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1)
    ]
    pattern = "|".join(re.escape(name) for name in pointwise)
    return get_peft_model(network, LoraConfig(r=8, lora_alpha=16, target_modules=pattern))


def _descend(
    network: nn.Module,
    groups: list[tuple[list[nn.Parameter], float]],
    problem: Problem,
    epochs: int,
    training: NDArray[np.int64],
    seed: int,
) -> None:
    """Adam with the same warm-up and decay as ours."""
    draw = np.random.default_rng((seed,))
    labels = problem.labels[training]
    inputs = Part(problem.inputs["dense"], training)
    weights = class_weights(labels, len(problem.classes), power=problem.balance)
    adam = torch.optim.Adam([{"params": parameters, "lr": rate} for parameters, rate in groups], fused=True)
    steps = epochs * -(-len(labels) // BATCH)
    step = 0
    for _ in range(epochs):
        order = draw.permutation(len(labels))
        variants = draw.integers(inputs.variants, size=len(order))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            logits = network(*inputs.batch(chosen, variants[start : start + BATCH]))
            classification_loss(logits, torch.from_numpy(labels[chosen]), weights).backward()
            for group, (_, rate) in zip(adam.param_groups, groups, strict=True):
                group["lr"] = rate * share_of_rate(step, steps, _WARM_UP)
            adam.step()
            adam.zero_grad()
            step += 1


def _stages(recipe: Recipe, task: str, dense: float) -> tuple[StageSettings, ...]:
    """Return the default stages, with the recipe's rates and coordinates, and as many epochs in all."""
    plan = default_stages(TrainSettings(density=recipe.density), "delta", task, dense)
    whole = sum(stage.epochs for stage in plan)
    ends = [round(recipe.epochs * sum(s.epochs for s in plan[: i + 1]) / whole) for i in range(len(plan))]
    epochs = [max(1, end - start) for start, end in zip([0, *ends], ends, strict=False)]
    how = {"learning_rate": recipe.rate, "head_learning_rate": recipe.head_rate, **COORDINATES[recipe.coordinates]}
    return tuple(
        stage.model_copy(update={"epochs": count, **how}) for stage, count in zip(plan, epochs, strict=True)
    )

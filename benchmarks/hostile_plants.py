"""Plants that harm their federation, each in its own way; they have data and training like the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.simulation import Bench
from fedsparse.adapters import Adapter
from fedsparse.delta import AdapterSpace, SparseDelta, TensorDelta, TrainingSettings
from fedsparse.sparsity import Support
from fedsparse.training import Inputs, LocalTrainer, Trained

TARGET = 0
"""The class that the backdoor and the colluders ask for: a sound cell."""

_NOISE = 10.0  # standard deviations of the honest values
_BIAS = 0.5  # of the honest norm
_TRIGGER = 4.0  # what a patch adds to activations, whose scale is about 1
_PATCHED = 0.5  # share of the samples that carry the patch

Change = Callable[[SparseDelta, AdapterSpace, np.random.Generator], SparseDelta]


@dataclass(frozen=True)
class Hostile:
    """A plant that changes the update it has trained.

    Attributes:
        honest: trains it.
        change: what it does to it.
        number: of the hostile plant, from 0; colluders share ``seed``.
        claims: samples behind its updates; 0 tells the truth.
    """

    honest: LocalTrainer
    change: Change
    number: int
    seed: int
    claims: int = 0

    @property
    def space(self) -> AdapterSpace:
        """The adapter space."""
        return self.honest.space

    @property
    def adapter(self) -> Adapter:
        """The adapter."""
        return self.honest.adapter

    def train(
        self, state: SparseDelta, settings: TrainingSettings, round: int, support: Support | None = None
    ) -> Trained:
        """Train, and return something else."""
        trained = self.honest.train(state, settings, round, support)
        draw = np.random.default_rng((self.seed, self.number, round))
        samples = self.claims or trained.samples
        return replace(trained, delta=self.change(trained.delta, self.space, draw), samples=samples)


@dataclass(frozen=True)
class Patched:
    """Inputs whose activations, after the frozen prefix, carry a patch in the upper left corner.

    Attributes:
        which: samples that do, (n,).
    """

    clean: Inputs
    which: NDArray[np.bool_]

    @property
    def variants(self) -> int:
        """How many variants of each sample there are."""
        return self.clean.variants

    def batch(self, samples: NDArray[np.int64], variants: NDArray[np.int64] | int = 0) -> tuple[Tensor, ...]:
        """Return the activations of some samples."""
        (activations,) = self.clean.batch(samples, variants)
        marked = torch.from_numpy(self.which[samples])
        activations[marked, ::8, 0, 0] += _TRIGGER
        return (activations,)

    def take(self, positions: NDArray[np.int64]) -> Patched:
        """Return the inputs of some samples."""
        return Patched(self.clean.take(positions), self.which[positions])


def _norm(delta: SparseDelta) -> float:
    return float(sum(np.square(tensor.values, dtype=np.float64).sum() for tensor in delta.tensors) ** 0.5)


def _each(delta: SparseDelta, change: Callable[[TensorDelta], NDArray[np.float32]]) -> SparseDelta:
    return replace(delta, tensors=tuple(replace(tensor, values=change(tensor)) for tensor in delta.tensors))


def _scaled(factor: float) -> Change:
    return lambda delta, space, draw: _each(delta, lambda tensor: tensor.values * np.float32(factor))


def _noise(delta: SparseDelta, space: AdapterSpace, draw: np.random.Generator) -> SparseDelta:
    deviation = _NOISE * _norm(delta) / delta.nnz**0.5
    return _each(delta, lambda t: draw.normal(0, deviation, len(t.values)).astype(np.float32))


def _bias(delta: SparseDelta, space: AdapterSpace, draw: np.random.Generator) -> SparseDelta:
    """Lift the target's bias and lower the others', together by half of the honest norm, the same at all."""
    shift = _BIAS * _norm(delta) / space.tensors[_position(space, "head.bias")].size ** 0.5
    tensors = []
    for tensor in delta.tensors:
        values = tensor.values.copy()
        if space.tensors[tensor.tensor].name == "head.bias":
            values += np.where(tensor.indices == TARGET, shift, -shift).astype(np.float32)
        tensors.append(replace(tensor, values=values))
    return replace(delta, tensors=tuple(tensors))


def _position(space: AdapterSpace, name: str) -> int:
    return [tensor.name for tensor in space.tensors].index(name)


def _lone(delta: SparseDelta, space: AdapterSpace, draw: np.random.Generator) -> SparseDelta:
    """Put the whole norm on rows drawn at random; but for the head's, hardly anybody else holds them."""
    sizes = np.array([tensor.size if len(tensor.shape) > 1 else 0 for tensor in space.tensors])
    tensors, left = [], delta.nnz
    for position in draw.permutation(np.flatnonzero(sizes)).tolist():
        shape = space.tensors[position].shape
        width = sizes[position] // shape[0]
        rows = np.sort(draw.permutation(shape[0])[: max(1, min(shape[0] // 4, left // int(width)))])
        indices = (rows[:, None] * width + np.arange(width)).ravel()
        tensors.append((position, indices))
        left -= len(indices)
        if left <= 0:
            break
    value = np.float32(_norm(delta) / sum(len(indices) for _, indices in tensors) ** 0.5)
    changed = (
        TensorDelta(p, i, np.full(len(i), value, np.float32)) for p, i in sorted(tensors, key=lambda t: t[0])
    )
    return replace(delta, tensors=tuple(changed))


CLAIMED = 1_000_000
_CLAIM = "sign flip, claiming a million samples"
_CHANGES: dict[str, Change] = {
    "sign flip": _scaled(-1.0),
    _CLAIM: _scaled(-1.0),
    "× 100": _scaled(100.0),
    "noise": _noise,
    "small colluding bias": _bias,
    "support attack": _lone,
}
ABSENT = "hostile plants absent"
"""No attack: what is left where the hostile plants' samples are missed, and nothing else is wrong."""

ATTACKS = (
    "sign flip",
    _CLAIM,
    "× 100",
    "noise",
    "label-flipped training",
    "small colluding bias",
    "backdoor patch",
    "support attack",
)


def with_hostile(
    bench: Bench, parts: Sequence[NDArray[np.int64]], attack: str, count: int, seed: int
) -> list[Any]:
    """Return the plants' trainers, the last ``count`` of which are hostile; none where ``attack`` is empty."""
    trainers: list[Any] = [bench.trainer(part) for part in parts]
    if attack == ABSENT:
        return trainers[:-count]
    if attack:
        for number in range(count):
            place = len(parts) - 1 - number
            trainers[place] = _hostile(bench, parts[place], attack, number, seed)
    return trainers


def _hostile(bench: Bench, part: NDArray[np.int64], attack: str, number: int, seed: int) -> Any:
    samples, inputs = bench.samples.subset(part), bench.inputs.take(part)
    if attack in _CHANGES:
        claims = CLAIMED if attack == _CLAIM else 0
        return Hostile(LocalTrainer(bench.adapter, samples, inputs), _CHANGES[attack], number, seed, claims)
    labels = np.array(samples.labels)
    if attack == "label-flipped training":
        flipped = (labels + 1) % len(samples.classes)
        return LocalTrainer(bench.adapter, replace(samples, labels=flipped), inputs)
    which = np.random.default_rng((seed, number)).random(len(part)) < _PATCHED
    wanted = replace(samples, labels=np.where(which, TARGET, labels))
    return LocalTrainer(bench.adapter, wanted, Patched(inputs, which))

"""What federations without masks of their own do: averaging dense updates, and FLASC's top-k of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from fedsparse.delta import (
    AdapterSpace,
    Operation,
    SparseDelta,
    TensorDelta,
    TrainingSettings,
    ValueCoding,
    apply,
    compensate,
    encode,
)
from fedsparse.training import Evaluator, LocalTrainer


@dataclass(frozen=True)
class Dense:
    """A federation of dense updates after one round; bytes are means of one plant's."""

    balanced_accuracy: float
    bytes_up: float
    bytes_down: float


def average(
    trainers: Sequence[LocalTrainer],
    evaluator: Evaluator,
    schedule: Sequence[TrainingSettings],
    share: float = 1.0,
) -> Iterator[Dense]:
    """Yield each round of FedAvg (https://arxiv.org/abs/1602.05629) over all coordinates, by samples.

    Args:
        share: of the coordinates that goes down and up, those of largest magnitude; what is not sent counts as 0
            (FLASC, https://arxiv.org/abs/2406.05233; its server keeps the state whole). The state is what an
            adapter adds to values that everybody has.
    """
    space = trainers[0].space
    everything = tuple(np.arange(tensor.size) for tensor in space.tensors)
    most = int(share * space.size)
    state = SparseDelta.empty(space.fingerprint, Operation.SET)
    for number, settings in enumerate(schedule, 1):
        received = SparseDelta(space.fingerprint, Operation.SET, _largest(state, most))
        sums = [np.zeros(tensor.size) for tensor in space.tensors]
        sizes, total = [], 0
        for trainer in trainers:
            trained = trainer.train(received, settings, number, everything)
            sent = SparseDelta(space.fingerprint, Operation.ADD, _largest(trained.delta, most))
            for tensor in sent.tensors:
                sums[tensor.tensor][tensor.indices] += trained.samples * tensor.values.astype(np.float64)
            sizes.append(_size(sent, space, share))
            total += trained.samples
        state = apply(state, _step(space, [one / total for one in sums]))
        down = _size(received, space, share)
        yield Dense(evaluator.evaluate(state).balanced_accuracy, float(np.mean(sizes)), down)


def _largest(delta: SparseDelta, most: int) -> tuple[TensorDelta, ...]:
    if delta.nnz <= most:
        return delta.tensors
    adding = SparseDelta(delta.space, Operation.ADD, delta.tensors)
    nothing = SparseDelta.empty(delta.space, Operation.ADD)
    return compensate(adding, nothing, ValueCoding.FP32, most=most)[0].tensors


def _step(space: AdapterSpace, values: Sequence[np.ndarray[tuple[int], np.dtype[np.float64]]]) -> SparseDelta:
    tensors = []
    for position, dense in enumerate(values):
        where = np.flatnonzero(dense)
        if len(where):
            tensors.append(TensorDelta(position, where, dense[where].astype(np.float32)))
    return SparseDelta(space.fingerprint, Operation.ADD, tuple(tensors))


def _size(sent: SparseDelta, space: AdapterSpace, share: float) -> float:
    """Return the bytes of fp32 values: all as they are, or the largest with our own coding of their places."""
    return 4.0 * space.size if share == 1 else float(len(encode(sent, space, ValueCoding.FP32)))

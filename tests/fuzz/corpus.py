"""Messages to begin with: deltas of every index and value coding on small spaces, tasks and updates."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from fedsparse.delta import (
    AdapterSpace,
    Allocation,
    Mask,
    Operation,
    Reason,
    RoundTask,
    RoundUpdate,
    SharedSupport,
    SparseDelta,
    Structure,
    TensorDelta,
    TensorSpec,
    TrainingSettings,
    ValueCoding,
    encode,
    encode_task,
    encode_update,
    quantise,
)

Indices = NDArray[np.int64]
Support = Mapping[int, Indices]
"""Coordinates by tensor position."""

MATRIX = AdapterSpace(bytes(range(32)), (TensorSpec("weight", (64, 32)), TensorSpec("other", (64, 32))))
MIXED = AdapterSpace(
    bytes(32),
    (
        TensorSpec("scale", (1,)),
        TensorSpec("kernel", (8, 3, 3, 3)),
        TensorSpec("row", (1, 300)),
        TensorSpec("column", (300, 1)),
        TensorSpec("bias", (20,)),
    ),
)
TALL = AdapterSpace(bytes(32), (TensorSpec("embedding", (4096, 8)),))
HUGE = AdapterSpace(bytes(32), (TensorSpec("huge", (1 << 20, 1 << 20)),))
LONG = AdapterSpace(bytes(32), (TensorSpec("long", (16384,)),))
SEGMENTS = AdapterSpace(bytes(32), (TensorSpec("full", (1 << 20,)), TensorSpec("rest", (20,))))


@dataclass(frozen=True, eq=False)
class Item:
    """One message.

    Attributes:
        name: what is special about it.
        data: its bytes, as an encoder writes them.
        space: that its receiver knows.
        shared: the support that its receiver knows, if any.
        rare: it takes long to read, so that few inputs should come from it.
        valid: whether this receiver accepts it.
    """

    name: str
    data: bytes = field(repr=False)
    space: AdapterSpace = MATRIX
    shared: SharedSupport | None = None
    rare: bool = False
    valid: bool = True


@cache
def deltas() -> tuple[Item, ...]:
    """Return deltas for a receiver that knows no support."""
    items = []
    for coding in ValueCoding:
        items += [_item(f"{name} {coding.name}", MATRIX, {0: where}, coding) for name, where in _grid().items()]
        items.append(_item(f"all {coding.name}", MIXED, {1: np.arange(216)}, coding))
        items.append(_item(f"half {coding.name}", MIXED, {1: _chosen("half", 216, 108)}, coding))
        items.append(_item(f"skewed {coding.name}", MATRIX, {1: np.arange(300)}, coding, skewed=True))
        items.append(_item(f"many tensors {coding.name}", MIXED, _mixed(), coding))
        items.append(_item(f"full matrix {coding.name}", MATRIX, {1: np.arange(2048)}, coding, rare=True))
        items.append(_item(f"long {coding.name}", LONG, {0: np.arange(16384)}, coding, skewed=True, rare=True))
    for coding in (ValueCoding.FP32, ValueCoding.INT4):
        items.append(_item(f"two tensors {coding.name}", MATRIX, {0: _rated(), 1: np.arange(7, 90)}, coding))
        items.append(_item(f"tall {coding.name}", TALL, {0: np.arange(512)}, coding, skewed=True))
        items.append(_item(f"huge {coding.name}", HUGE, {0: np.array([5, 1 << 33, (1 << 40) - 1])}, coding))
    items.append(_item("nothing", MATRIX, {}, ValueCoding.BF16))
    items.append(_item("two segments", SEGMENTS, _full(), ValueCoding.INT4, skewed=True, rare=True))
    return tuple(items)


@cache
def deltas_on_known_supports() -> tuple[Item, ...]:
    """Return deltas for receivers that know a support: most of them on it, some not."""
    scattered = _shared(MATRIX, {0: _chosen("known", 2048, 150), 1: np.arange(40)})
    mixed = _shared(MIXED, _mixed())
    items = []
    for coding in ValueCoding:
        items.append(_item(f"known {coding.name}", MATRIX, _support(scattered), coding, shared=scattered))
        items.append(_item(f"known, many tensors {coding.name}", MIXED, _mixed(), coding, shared=mixed))
        items.append(_item(f"not the known {coding.name}", MATRIX, {0: _rated()}, coding, shared=scattered))
        spelled = _item(f"known, but spelled out {coding.name}", MATRIX, _support(scattered), coding)
        items.append(replace(spelled, shared=scattered, valid=False))
    full = _shared(SEGMENTS, _full())
    items.append(
        _item("known, two segments", SEGMENTS, _full(), ValueCoding.INT4, skewed=True, shared=full, rare=True)
    )
    return tuple(items)


@cache
def tasks() -> tuple[Item, ...]:
    """Return tasks of every form: with a delta, without one, from the untouched base."""
    training = TrainingSettings(0.01, 2, 16, 1e-3, 3e-3, 7)
    states = [item for item in deltas() if item.space is MATRIX and not item.rare][::12]
    with_delta = [
        RoundTask(3, MATRIX.fingerprint, 5, 4, (state.data,), b"manifest", b"signature", b"certificate", training)
        for state in states
    ]
    rows = replace(
        training, structure=Structure.ROW, allocation=Allocation.EARLY, value_coding=ValueCoding.TERNARY
    )
    held = RoundTask(1 << 20, MATRIX.fingerprint, 1 << 40, 1 << 40, (), b"manifest" * 30, b"s", b"c", rows)
    base = RoundTask(1, MATRIX.fingerprint, 0, 0, (), b"", b"signature", b"certificate", training)
    voted = replace(
        with_delta[0], round=7, deltas=(states[0].data, states[-1].data), support=states[0].data,
        training=replace(training, mask=Mask.CONSENSUS, revote=10),
    )  # fmt: skip
    return tuple(Item(f"task {task.round}", encode_task(task)) for task in (*with_delta, held, base, voted))


@cache
def updates() -> tuple[Item, ...]:
    """Return updates with metrics, without, and every refusal."""
    changes = [item for item in deltas() if item.space is MATRIX and not item.rare][::12]
    metrics = {"loss": 0.25, "accuracy": 0.75, "損失": -1.5, "zero": 0.0}
    found = [RoundUpdate(3, 2, 40, change.data, Reason.NONE, metrics) for change in changes]
    found.append(RoundUpdate(1 << 30, 1 << 50, 1 << 60, changes[0].data, Reason.NONE))
    found += [RoundUpdate.refusal(2, 1, reason) for reason in Reason if reason is not Reason.NONE]
    return tuple(Item(f"update {update.reason.name}", encode_update(update)) for update in found)


def _grid() -> dict[str, Indices]:
    """Return supports of a matrix of 64 rows and 32 columns that are scattered or have a structure."""
    rows = np.array([1, 2, 30, 63])
    corners = np.array([0, 12, 8 * 4 * 32 + 4, 60 * 32 + 28])
    tile = np.arange(4)[:, None] * 32 + np.arange(4)
    return {
        "scattered": _chosen("scattered", 2048, 60),
        "rows": (rows[:, None] * 32 + np.arange(32)).reshape(-1),
        "tiles": np.sort((corners[:, None, None] + tile).reshape(-1)),
        "rates": _rated(),
        "run": np.arange(1000, 1130),
        "last": np.array([2047]),
    }


def _rated() -> Indices:
    """Return many coordinates in a few rows and hardly any in the others."""
    dense = [row * 32 + _chosen(f"row {row}", 32, 16) for row in (3, 20, 21, 40, 63)]
    return np.unique(np.concatenate([*dense, _chosen("others", 2048, 15)]))


def _mixed() -> Support:
    whole, some = np.arange(1), _chosen("kernel", 216, 30)
    return {0: whole, 1: some, 2: np.arange(40, 170), 3: _chosen("column", 300, 50), 4: np.array([0, 19])}


def _full() -> Support:
    return {0: np.arange(1 << 20), 1: np.array([3, 7])}


def _chosen(name: str, size: int, count: int) -> Indices:
    return np.array(sorted(_draw(name).sample(range(size), count)), np.int64)


def _item(
    name: str,
    space: AdapterSpace,
    support: Support,
    coding: ValueCoding,
    *,
    skewed: bool = False,
    shared: SharedSupport | None = None,
    rare: bool = False,
) -> Item:
    """Return a delta of normal values, or of two values, one of them often, which entropy coding shortens."""
    draw = _draw(name)
    tensors = []
    for position, where in support.items():
        if skewed:
            values = np.resize(np.array([-1.5, 1.5, 1.5, 1.5], np.float32), len(where))
        else:
            values = np.array([draw.gauss(0, 0.01) for _ in where], np.float32)
        tensors.append(TensorDelta(position, where, values))
    delta = SparseDelta(space.fingerprint, draw.choice(list(Operation)), tuple(tensors))
    return Item(name, encode(quantise(delta, coding), space, coding, shared), space, shared, rare)


def _shared(space: AdapterSpace, support: Support) -> SharedSupport:
    nowhere = np.zeros(0, np.int64)
    indices: Sequence[Indices] = [support.get(position, nowhere) for position in range(len(space.tensors))]
    return SharedSupport(space, indices)


def _support(shared: SharedSupport) -> Support:
    return dict(shared.parts)


def _draw(name: str) -> random.Random:
    return random.Random(name)  # noqa: S311 - the same corpus in every run

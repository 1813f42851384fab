"""What is fuzzed: each decoder with messages for it, and what it must do with any bytes at all."""

from __future__ import annotations

import re
import traceback
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from fedsparse.delta import (
    Header,
    RoundTask,
    RoundUpdate,
    SparseDelta,
    decode,
    decode_task,
    decode_update,
    encode,
    encode_task,
    encode_update,
    header_of,
)
from fedsparse.errors import DeltaError, SpaceMismatchError
from fedsparse.v1 import delta_pb2
from tests.fuzz import corpus, mutations
from tests.fuzz.corpus import Item

LIMIT = 1 << 24
"""Bytes; no input is as long."""

MOST_PER_BYTE = 400
"""Bytes that a decoder may allocate per byte of its input, besides ``MOST_BESIDES``."""
MOST_BESIDES = 1 << 16

_RARE = 0.01  # share of inputs made from rare items
_PARTICULARS = re.compile(r"'.*' = \S+|\[.*\]|\(.*\)|\b[0-9a-f]{16}\b|-?\b\d+\b|\b(fp32|bf16|int8|int4|ternary)\b")


class Depth(IntEnum):
    """How far a decoder got."""

    HEADER = 0
    """No further than the header, or, of a task or an update, than the parser of Protocol Buffers."""
    INDICES = 1
    """Past the header; it stopped at the coordinates, or, of a task or an update, at its fields."""
    VALUES = 2
    """Past the coordinates; it stopped at the values, or at a form that is not canonical."""
    ACCEPTED = 3


@dataclass(frozen=True)
class Target:
    """One decoder.

    Attributes:
        name: for tables.
        share: of all inputs.
        schema: of its messages.
        items: messages to begin with.
        decode: reads bytes as the receiver of an item; raises only what :data:`REFUSALS` names.
        agrees: tells whether what ``decode`` returned gives exactly the bytes again.
    """

    name: str
    share: float
    schema: mutations.Schema
    items: Sequence[Item] = field(repr=False)
    decode: Callable[[Item, bytes], Any]
    agrees: Callable[[Item, Any, bytes], bool]


@dataclass(frozen=True)
class Input:
    """Bytes for a target; ``item`` is what they were made from, and tells what the receiver knows."""

    target: Target
    item: Item
    data: bytes


@dataclass(frozen=True)
class Verdict:
    """What a target did with an input.

    Attributes:
        depth: how far it got.
        said: the refusal with its particulars left out; empty for what was accepted.
        failure: what it did that it must not do; empty where all is well.
    """

    depth: Depth
    said: str = ""
    failure: str = ""


REFUSALS = (DeltaError, SpaceMismatchError)


@cache
def targets() -> tuple[Target, ...]:
    """Return all targets; their shares add up to 1."""
    return (
        Target("delta", 0.45, mutations.DELTA, corpus.deltas(), _decode, _same_delta),
        Target(
            "delta, known support", 0.2, mutations.DELTA, corpus.deltas_on_known_supports(), _decode, _same_delta
        ),
        Target("header", 0.1, mutations.DELTA, corpus.deltas(), _read_header, _same_header),
        Target("task", 0.1, mutations.TASK, corpus.tasks(), _decode_task, _same_task),
        Target("update", 0.15, mutations.UPDATE, corpus.updates(), _decode_update, _same_update),
    )


@cache
def originals() -> list[Input]:
    """Return every message to begin with as it is, target by target."""
    return [Input(target, item, item.data) for target in targets() for item in target.items]


def input_of(seed: int, number: int) -> Input:
    """Return input ``number``, always the same: first the originals, then what mutations make of them."""
    first = originals()
    if number < len(first):
        return first[number]
    draw = Random(f"{seed} {number}")  # noqa: S311 - the same inputs in every run
    target = draw.choices(targets(), [target.share for target in targets()])[0]
    rare = draw.random() < _RARE
    items = [item for item in target.items if item.rare == rare] or target.items
    item, other = draw.choice(items), draw.choice(items)
    return Input(target, item, mutations.mutate(item.data, other.data, target.schema, draw))


def examine(given: Input) -> Verdict:
    """Decode an input, and encode what was accepted."""
    try:
        value = given.target.decode(given.item, given.data)
    except REFUSALS as error:
        return Verdict(_depth(error), _PARTICULARS.sub("…", error.what))
    except Exception as error:
        return Verdict(_depth(error), failure=_where(error))
    try:
        same = given.target.agrees(given.item, value, given.data)
    except Exception as error:
        return Verdict(Depth.ACCEPTED, failure=f"accepted, but not encoded: {_where(error)}")
    return Verdict(Depth.ACCEPTED, failure="" if same else "accepted, but encoded as other bytes")


def allocated(given: Input) -> int:
    """Return the most bytes that are allocated at a time while an input is decoded."""
    tracemalloc.start()
    try:
        with suppress(Exception):
            given.target.decode(given.item, given.data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def allowed(given: Input) -> int:
    """Return the bytes that may be allocated at a time."""
    return MOST_PER_BYTE * len(given.data) + MOST_BESIDES


def _depth(error: Exception) -> Depth:
    """Return how far the decoder had got, by the functions that the error went through."""
    frames = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    functions = {code.co_name for code in frames}
    files = {Path(code.co_filename).stem for code in frames}
    if functions & {"_next_segment", "_canonical"} or files & {"values", "entropy", "value"}:
        return Depth.VALUES
    past = "_read_segments" in functions or ("rounds" in files and "_parse" not in functions)
    return Depth.INDICES if past else Depth.HEADER


def _where(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(last.filename).name}, line {last.lineno}: {error}"


def _decode(item: Item, data: bytes) -> SparseDelta:
    return decode(data, item.space, max_bytes=LIMIT, shared=item.shared)


def _same_delta(item: Item, delta: SparseDelta, data: bytes) -> bool:
    return encode(delta, item.space, header_of(data).coding, item.shared) == data


def _read_header(item: Item, data: bytes) -> Header:
    return header_of(data)


def _same_header(item: Item, header: Header, data: bytes) -> bool:
    """Compare with what Protocol Buffers' own library writes for these fields."""
    message = delta_pb2.SparseDelta(
        format=2,
        space=header.space,
        operation=delta_pb2.Operation.ValueType(header.operation),
        value_coding=delta_pb2.ValueCoding.ValueType(header.coding),
        support=header.support,
    )
    return data.startswith(message.SerializeToString(deterministic=True))


def _decode_task(item: Item, data: bytes) -> RoundTask:
    return decode_task(data, max_bytes=LIMIT)


def _same_task(item: Item, task: RoundTask, data: bytes) -> bool:
    return encode_task(task) == data


def _decode_update(item: Item, data: bytes) -> RoundUpdate:
    return decode_update(data, max_bytes=LIMIT)


def _same_update(item: Item, update: RoundUpdate, data: bytes) -> bool:
    return encode_update(update) == data

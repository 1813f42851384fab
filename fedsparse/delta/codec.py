"""Canonical bytes of a sparse delta; docs/format.md and protos/fedsparse/v1/delta.proto define them.

With one value coding and one support known in advance, one value has one byte string: the encoder takes the
shortest form of everything, and the decoder refuses whatever the encoder would not have written. Counts are
checked against the bytes at hand before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from fedsparse.delta import indices, values, wire
from fedsparse.delta.shared import SharedSupport
from fedsparse.delta.space import AdapterSpace
from fedsparse.delta.value import Operation, SparseDelta, TensorDelta, ValueCoding
from fedsparse.errors import DeltaError, SpaceMismatchError

FORMAT = 2
SEGMENT = 1 << 20
"""Coordinates after which a segment ends: what is in memory at a time, besides the largest tensor."""

_FORMAT, _SPACE, _OPERATION, _CODING, _SUPPORT, _SEGMENTS = range(1, 7)
_HEADER_KINDS = {_FORMAT: int, _SPACE: bytes, _OPERATION: int, _CODING: int, _SUPPORT: bytes}
_TENSORS, _VALUES = 1, 2
_TENSOR_KINDS = {1: int, 2: int, 3: int, 4: bytes}

_Part = tuple[int, NDArray[np.int64]]


@dataclass(frozen=True)
class Header:
    """What a delta says of itself before its first coordinate.

    Attributes:
        space: fingerprint of the adapter space, 32 bytes.
        operation: ADD or SET.
        coding: of all values.
        support: digest of the support that is known in advance, 32 bytes, or empty.
    """

    space: bytes
    operation: Operation
    coding: ValueCoding
    support: bytes = b""


def encode(
    delta: SparseDelta, space: AdapterSpace, coding: ValueCoding, shared: SharedSupport | None = None
) -> bytes:
    """Return the bytes of ``delta``.

    Args:
        delta: its values must be exact in ``coding``; see :func:`quantise`.
        space: that it belongs to.
        coding: of the values.
        shared: a support that the receiver knows; where the delta has exactly its coordinates, none are written.

    Raises:
        SpaceMismatchError: ``delta`` belongs to another space.
        DeltaError: an index is out of range, or a value has no exact form in ``coding``.
    """
    known = shared is not None and _same(delta.tensors, _of(shared, space))
    header = Header(delta.space, delta.operation, coding, shared.digest if shared is not None and known else b"")
    return b"".join(encode_stream(header, delta.tensors, space))


def encode_stream(header: Header, tensors: Iterable[TensorDelta], space: AdapterSpace) -> Iterator[bytes]:
    """Yield the bytes of a delta in pieces; in memory are one segment's tensors at a time.

    Args:
        header: with a support's digest, no indices are written: ``tensors`` must have exactly its coordinates.
        tensors: in increasing position.
        space: that they belong to.

    Raises:
        SpaceMismatchError: the header names another space.
        DeltaError: an index is out of range, tensors are out of order, or a value has no exact form.
    """
    _require_space(header.space, space)
    yield (
        wire.field(_FORMAT, FORMAT)
        + wire.field(_SPACE, header.space)
        + wire.field(_OPERATION, int(header.operation))
        + wire.field(_CODING, int(header.coding))
        + wire.field(_SUPPORT, header.support)
    )
    last = -1
    for group in _segments(tensors, lambda tensor: len(tensor.indices)):
        parts = []
        for tensor in group:
            if tensor.tensor <= last:
                raise DeltaError("tensors must be in strictly increasing position")
            last = tensor.tensor
            if not header.support:
                parts.append(wire.field(_TENSORS, _write_tensor(tensor, space)))
        body = b"".join(parts) + wire.field(_VALUES, values.write(group, header.coding))
        yield wire.field(_SEGMENTS, body)


def _write_tensor(tensor: TensorDelta, space: AdapterSpace) -> bytes:
    if tensor.tensor >= len(space.tensors):
        raise DeltaError(f"tensor {tensor.tensor} of {len(space.tensors)} in the adapter space")
    spec, where = space.tensors[tensor.tensor], tensor.indices
    if where[-1] >= spec.size:
        raise DeltaError(f"tensor {tensor.tensor}: index {where[-1]} of {spec.size} coordinates")
    plan = indices.plan(where, spec.shape)
    return (
        wire.field(1, tensor.tensor)
        + wire.field(2, len(where))
        + wire.field(3, int(plan.coding))
        + wire.field(4, plan.write())
    )


def decode(
    data: bytes, space: AdapterSpace, *, max_bytes: int, shared: SharedSupport | None = None
) -> SparseDelta:
    """Read what a stranger sent.

    Args:
        data: all of it.
        space: that it must belong to.
        max_bytes: limit of its length.
        shared: the support that it may refer to.

    Raises:
        SpaceMismatchError: it belongs to another space; names both.
        DeltaError: it is longer than ``max_bytes``, or not exactly what :func:`encode` writes.
    """
    if len(data) > max_bytes:
        raise DeltaError(f"the delta has {len(data)} bytes, the limit is {max_bytes}")
    header, tensors = decode_stream(BytesIO(data), space, max_bytes=max_bytes, shared=shared)
    return SparseDelta(header.space, header.operation, tuple(tensors))


def decode_stream(
    source: BinaryIO,
    space: AdapterSpace,
    *,
    max_bytes: int,
    shared: SharedSupport | None = None,
    known_canonical: bool = False,
) -> tuple[Header, Iterator[TensorDelta]]:
    """Read a delta piece by piece; arguments and errors as for :func:`decode`.

    The tensors that were yielded are a valid delta only once the iterator has ended without an error.

    Args:
        source: of its bytes.
        space: that it must belong to.
        max_bytes: limit of its length.
        shared: the support that it may refer to.
        known_canonical: whether these very bytes were decoded before without an error: that everything is in its
            shortest form is then not checked again, which takes a third of the time. All else is.
    """
    found = wire.stream(source, max_bytes)
    header, first = _read_header(found)
    _require_space(header.space, space)
    if shared is not None:
        _of(shared, space)
    if header.support and (shared is None or header.support != shared.digest):
        raise DeltaError(f"the delta refers to the support {header.support.hex()[:16]}, which is not known here")
    support = shared if header.support else None
    tensors = _read_segments(first, found, header.coding, space, support, known_canonical)
    return header, tensors if shared is None or header.support else _not_on(shared, tensors)


def header_of(data: bytes) -> Header:
    """Return what ``data`` says of itself, before it can be decoded.

    Raises:
        DeltaError: it is no delta of this format.
    """
    return _read_header(wire.stream(BytesIO(data), len(data)))[0]


_Fields = Iterator[tuple[int, memoryview | int]]


def _read_header(found: _Fields) -> tuple[Header, memoryview | None]:
    """Return the header, and the first segment where there is one."""
    known: dict[int, memoryview | int] = {}
    segment = None
    for number, value in found:
        if number == _SEGMENTS and isinstance(value, memoryview):
            segment = value
            break
        wire.require(number, value, _HEADER_KINDS, max(known, default=0))
        known[number] = value
        if number == _FORMAT and value != FORMAT:
            raise DeltaError(
                f"the delta has format {value}, this release reads format {FORMAT}",
                "Install the same release of fedsparse on both sides",
            )
    if _FORMAT not in known:
        raise DeltaError("the bytes are no sparse delta: they do not begin with their format")
    operation, coding = known.get(_OPERATION, 0), known.get(_CODING, 0)
    if operation not in list(Operation) or coding not in list(ValueCoding):
        raise DeltaError(f"operation {operation} or value coding {coding} is unknown")
    space, support = (bytes(known.get(number, b"")) for number in (_SPACE, _SUPPORT))
    if len(space) != 32 or len(support) not in (0, 32):
        raise DeltaError("fingerprints of a space and digests of a support have 32 bytes")
    return Header(space, Operation(operation), ValueCoding(coding), support), segment


def _read_segments(
    segment: memoryview | None,
    found: _Fields,
    coding: ValueCoding,
    space: AdapterSpace,
    known: SharedSupport | None,
    known_canonical: bool,
) -> Iterator[TensorDelta]:
    """Yield the tensors of all segments, beginning with ``segment``."""
    awaited = None if known is None else _segments(known.parts, lambda part: len(part[1]))
    last, closed = -1, True
    while segment is not None:
        tensors, written = _split(segment, space)
        if not closed or (awaited is not None and tensors):
            raise DeltaError("a segment ends before it is full, or names tensors of a support that is known")
        if awaited is not None:
            parts = next(awaited, [])
        else:
            parts = _read_tensors(tensors, written, coding, space, last, known_canonical)
        if not parts:
            raise DeltaError("a segment has no coordinates")
        counts = [len(where) for _, where in parts]
        if sum(counts[:-1]) >= SEGMENT:
            raise DeltaError("a segment goes on after it is full")
        closed, last = sum(counts) >= SEGMENT, parts[-1][0]
        found_values = values.read(written, counts, coding, known_canonical=known_canonical)
        make = TensorDelta._decoded if awaited is None else TensorDelta  # a known support's arrays are not our own
        for (position, where), read in zip(parts, found_values, strict=True):
            yield make(position, where, read)
        segment = _next_segment(found)
    if awaited is not None and next(awaited, None) is not None:
        raise DeltaError("values of the known support are missing")


def _next_segment(found: _Fields) -> memoryview | None:
    number, value = next(found, (_SEGMENTS, None))
    if number != _SEGMENTS or isinstance(value, int):
        raise DeltaError(f"field {number} does not belong after a segment")
    return value


@dataclass(frozen=True)
class _Tensor:
    """One tensor's indices before they are read."""

    position: int
    count: int
    coding: int
    data: memoryview


def _split(segment: memoryview, space: AdapterSpace) -> tuple[list[_Tensor], memoryview]:
    """Return a segment's tensors and its values."""
    tensors: list[_Tensor] = []
    written = None
    for number, value in wire.walk(segment):
        if isinstance(value, int) or written is not None:
            break
        if number == _TENSORS and len(tensors) < len(space.tensors):
            given = wire.fields(value, _TENSOR_KINDS)
            position, count, coding = (given.get(key, 0) for key in (1, 2, 3))
            tensors.append(_Tensor(position, count, coding, given.get(4, memoryview(b""))))
        elif number == _VALUES:
            written = value
        else:
            break
    else:
        if written is not None:
            return tensors, written
    raise DeltaError("a segment is tensors, no more than the space has, and then values, and nothing else")


def _read_tensors(
    tensors: list[_Tensor],
    written: memoryview,
    coding: ValueCoding,
    space: AdapterSpace,
    last: int,
    known_canonical: bool,
) -> list[_Part]:
    """Return position and indices of each tensor, once it is sure that there are as many values."""
    counts = [tensor.count for tensor in tensors]
    if values.least_bytes(counts, coding) > len(written):
        raise DeltaError(f"{len(written)} bytes cannot hold {sum(counts)} values as {coding.name.lower()}")
    parts = []
    for tensor in tensors:
        if not last < tensor.position < len(space.tensors):
            raise DeltaError(f"tensor {tensor.position} after tensor {last}, of {len(space.tensors)} in the space")
        last = tensor.position
        shape = space.tensors[last].shape
        try:
            where = indices.read(tensor.coding, tensor.data, tensor.count, shape, known_canonical=known_canonical)
            parts.append((last, where))
        except DeltaError as error:
            raise DeltaError(f"tensor {last}: {error}") from None
    return parts


_Item = TypeVar("_Item")


def _segments(items: Iterable[_Item], count: Callable[[_Item], int]) -> Iterator[list[_Item]]:
    """Yield groups that end with the item that makes them full."""
    group: list[_Item] = []
    held = 0
    for item in items:
        group.append(item)
        held += count(item)
        if held >= SEGMENT:
            yield group
            group, held = [], 0
    if group:
        yield group


def _same(tensors: Iterable[TensorDelta], shared: SharedSupport) -> bool:
    found = [(tensor.tensor, tensor.indices) for tensor in tensors]
    return len(found) == len(shared.parts) and all(
        mine == other and np.array_equal(where, theirs)
        for (mine, where), (other, theirs) in zip(found, shared.parts, strict=True)
    )


def _not_on(shared: SharedSupport, tensors: Iterator[TensorDelta]) -> Iterator[TensorDelta]:
    """Yield tensors, and refuse them in the end if they have exactly the known support and spell it out."""
    awaited = iter(shared.parts)
    same = True
    for tensor in tensors:
        position, where = next(awaited, (-1, tensor.indices))
        same = same and position == tensor.tensor and np.array_equal(where, tensor.indices)
        yield tensor
    if same and next(awaited, None) is None:
        raise DeltaError("the delta spells out the coordinates of a support that is known")


def _of(shared: SharedSupport, space: AdapterSpace) -> SharedSupport:
    if shared.space.fingerprint != space.fingerprint:
        raise SpaceMismatchError(
            f"the known support belongs to the adapter space {shared.space.fingerprint.hex()[:16]}, "
            f"here the space is {space.fingerprint.hex()[:16]}"
        )
    return shared


def _require_space(fingerprint: bytes, space: AdapterSpace) -> None:
    if fingerprint != space.fingerprint:
        raise SpaceMismatchError(
            f"the delta belongs to the adapter space {fingerprint.hex()[:16]}, "
            f"here the space is {space.fingerprint.hex()[:16]}"
        )

"""Canonical bytes of a sparse delta; protos/fedsparse/v1/delta.proto defines the form.

One value has one byte string: the encoder takes the smallest index coding, and the decoder refuses whatever the
encoder would not have written. Sizes are checked against the bytes at hand before anything is allocated.
"""

from __future__ import annotations

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from fedsparse.delta.space import AdapterSpace
from fedsparse.delta.value import Operation, SparseDelta, TensorDelta, ValueCoding
from fedsparse.errors import DeltaError, SpaceMismatchError
from fedsparse.v1 import delta_pb2

FORMAT = 1
_VALUE_BYTES = {ValueCoding.FP32: 4, ValueCoding.BF16: 2}
_MAX_VARINT_BYTES = 6  # gaps below 2^42
_ALL, _BITMAP, _GAPS = delta_pb2.INDEX_CODING_ALL, delta_pb2.INDEX_CODING_BITMAP, delta_pb2.INDEX_CODING_GAP_VARINT


def quantise(delta: SparseDelta, coding: ValueCoding) -> SparseDelta:
    """Return ``delta`` with every value rounded to the nearest that ``coding`` can write (ties to even)."""
    if coding is ValueCoding.FP32:
        return delta
    return SparseDelta(
        delta.space,
        delta.operation,
        tuple(TensorDelta(t.tensor, t.indices, _round_bf16(t.values)) for t in delta.tensors),
    )


def _round_bf16(values: NDArray[np.float32]) -> NDArray[np.float32]:
    bits = values.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) & np.uint64(0xFFFF0000)
    result = rounded.astype(np.uint32).view(np.float32)
    largest = np.array([0x7F7F0000], np.uint32).view(np.float32)[0]
    return np.clip(result, -largest, largest)  # what would round to infinity stays at the largest finite value


def encode(delta: SparseDelta, space: AdapterSpace, coding: ValueCoding) -> bytes:
    """Return the bytes of ``delta``.

    Raises:
        SpaceMismatchError: ``delta`` belongs to another space.
        DeltaError: an index is out of range, or a value has no exact form in ``coding`` (see :func:`quantise`).
    """
    _require_space(delta.space, space)
    message = delta_pb2.SparseDelta(
        format=FORMAT, space=delta.space, operation=delta_pb2.Operation.ValueType(delta.operation)
    )
    for tensor in delta.tensors:
        size = _size_of(tensor.tensor, space)
        if tensor.indices[-1] >= size:
            raise DeltaError(f"tensor {tensor.tensor}: index {tensor.indices[-1]} of {size} coordinates")
        index_coding, indices = _encode_indices(tensor.indices, size)
        message.tensors.add(
            tensor=tensor.tensor,
            nnz=tensor.indices.size,
            index_coding=index_coding,
            indices=indices,
            value_coding=delta_pb2.ValueCoding.ValueType(coding),
            values=_encode_values(tensor, coding),
        )
    return message.SerializeToString(deterministic=True)


def decode(data: bytes, space: AdapterSpace, *, max_bytes: int) -> SparseDelta:
    """Read what a stranger sent.

    Raises:
        SpaceMismatchError: it belongs to another space; names both.
        DeltaError: it is longer than ``max_bytes``, or not exactly what :func:`encode` writes.
    """
    if len(data) > max_bytes:
        raise DeltaError(f"the delta has {len(data)} bytes, the limit is {max_bytes}")
    try:
        message = delta_pb2.SparseDelta.FromString(data)
    except DecodeError:
        raise DeltaError("the bytes are no SparseDelta message") from None
    if message.format != FORMAT:
        raise DeltaError(
            f"the delta has format {message.format}, this release reads format {FORMAT}",
            "Install the same release of fedsparse on both sides",
        )
    _require_space(message.space, space)
    if int(message.operation) not in set(map(int, Operation)):
        raise DeltaError(f"operation {message.operation} is unknown")
    codings = {tensor.value_coding for tensor in message.tensors}
    if len(codings) > 1 or not codings <= set(_VALUE_BYTES):
        raise DeltaError(f"value codings {sorted(codings)}: one known coding is needed")
    if len(message.tensors) > len(space.tensors):
        raise DeltaError(f"the delta has {len(message.tensors)} tensors, the adapter space {len(space.tensors)}")
    tensors = tuple(_decode_tensor(tensor, space) for tensor in message.tensors)
    delta = SparseDelta(message.space, Operation(message.operation), tensors)
    coding = ValueCoding(codings.pop()) if codings else ValueCoding.FP32
    if encode(delta, space, coding) != data:
        raise DeltaError("the delta is not in canonical form: other bytes say the same")
    return delta


def space_of(data: bytes) -> bytes:
    """Return the fingerprint of the space that ``data`` claims to belong to, before it can be decoded.

    Raises:
        DeltaError: the bytes are no delta.
    """
    try:
        return delta_pb2.SparseDelta.FromString(data).space
    except DecodeError:
        raise DeltaError("the bytes are no SparseDelta message") from None


def _require_space(fingerprint: bytes, space: AdapterSpace) -> None:
    if fingerprint != space.fingerprint:
        raise SpaceMismatchError(
            f"the delta belongs to the adapter space {fingerprint.hex()[:16]}, "
            f"here the space is {space.fingerprint.hex()[:16]}"
        )


def _size_of(position: int, space: AdapterSpace) -> int:
    if position >= len(space.tensors):
        raise DeltaError(f"tensor {position} of {len(space.tensors)} in the adapter space")
    return space.tensors[position].size


def _decode_tensor(message: delta_pb2.TensorDelta, space: AdapterSpace) -> TensorDelta:
    size = _size_of(message.tensor, space)
    width = _VALUE_BYTES[ValueCoding(message.value_coding)]
    if not 0 < message.nnz <= size or len(message.values) != message.nnz * width:
        raise DeltaError(
            f"tensor {message.tensor}: {message.nnz} values of {width} bytes are announced for {size} "
            f"coordinates, {len(message.values)} bytes are there"
        )
    indices = _decode_indices(message, size)
    return TensorDelta(message.tensor, indices, _decode_values(message.values, message.value_coding))


def _encode_values(tensor: TensorDelta, coding: ValueCoding) -> bytes:
    if coding is ValueCoding.FP32:
        return tensor.values.astype("<f4").tobytes()
    bits = tensor.values.view(np.uint32)
    if np.any(bits & np.uint32(0xFFFF)):
        raise DeltaError(f"tensor {tensor.tensor}: a value has no exact bf16 form", "Quantise first")
    return (bits >> np.uint32(16)).astype("<u2").tobytes()


def _decode_values(data: bytes, coding: int) -> NDArray[np.float32]:
    if coding == ValueCoding.FP32:
        return np.frombuffer(data, "<f4").astype(np.float32)
    return (np.frombuffer(data, "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)


def _encode_indices(indices: NDArray[np.int64], size: int) -> tuple[delta_pb2.IndexCoding.ValueType, bytes]:
    """Return the smallest coding; where two tie, the lower number."""
    if indices.size == size:
        return _ALL, b""
    gaps = _encode_varints(np.diff(indices, prepend=-1) - 1)
    if (size + 7) // 8 <= len(gaps):
        bitmap = np.zeros(size, np.bool_)
        bitmap[indices] = True
        return _BITMAP, np.packbits(bitmap, bitorder="little").tobytes()
    return _GAPS, gaps


def _decode_indices(message: delta_pb2.TensorDelta, size: int) -> NDArray[np.int64]:
    if message.index_coding == _ALL and message.nnz == size and not message.indices:
        return np.arange(size, dtype=np.int64)
    if message.index_coding == _BITMAP and len(message.indices) == (size + 7) // 8:
        octets = np.frombuffer(message.indices, np.uint8)
        _require_count(int(np.bitwise_count(octets).sum(dtype=np.int64)), message)
        indices = np.flatnonzero(np.unpackbits(octets, bitorder="little")).astype(np.int64)
    elif message.index_coding == _GAPS:
        octets = np.frombuffer(message.indices, np.uint8)
        _require_count(int(np.count_nonzero(octets < 0x80)), message)
        indices = np.cumsum(_decode_varints(octets, message.tensor) + 1) - 1
    else:
        raise DeltaError(f"tensor {message.tensor}: index coding {message.index_coding} does not fit")
    if indices[-1] >= size or indices[0] < 0:
        raise DeltaError(f"tensor {message.tensor}: the last index must be below {size}")
    return indices


def _require_count(found: int, message: delta_pb2.TensorDelta) -> None:
    """Compare the number of indices with that of the values, which is bounded by their bytes."""
    if found != message.nnz:
        raise DeltaError(f"tensor {message.tensor}: {found} indices for {message.nnz} values")


def _encode_varints(numbers: NDArray[np.int64]) -> bytes:
    """Write minimal base-128 varints, least significant group first (Protocol Buffers encoding)."""
    lengths = np.ones(numbers.size, np.int64)
    for group in range(1, _MAX_VARINT_BYTES):
        lengths += numbers >= 1 << (7 * group)
    ends = np.cumsum(lengths)
    result = np.zeros(int(ends[-1]), np.uint8)
    starts = ends - lengths
    for group in range(int(lengths.max())):
        has = lengths > group
        more = (lengths[has] > group + 1).astype(np.uint8) << 7
        result[starts[has] + group] = ((numbers[has] >> (7 * group)) & 0x7F).astype(np.uint8) | more
    return result.tobytes()


def _decode_varints(octets: NDArray[np.uint8], tensor: int) -> NDArray[np.int64]:
    """Read varints; that they are minimal shows when the delta is encoded again."""
    ends = np.flatnonzero(octets < 0x80)
    if ends.size == 0 or ends[-1] != octets.size - 1:
        raise DeltaError(f"tensor {tensor}: the index bytes end inside a number")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if int(lengths.max()) > _MAX_VARINT_BYTES:
        raise DeltaError(f"tensor {tensor}: an index takes more than {_MAX_VARINT_BYTES} bytes")
    numbers = np.zeros(ends.size, np.int64)
    for group in range(int(lengths.max())):
        has = lengths > group
        numbers[has] |= (octets[starts[has] + group] & 0x7F).astype(np.int64) << (7 * group)
    return numbers

"""How values are rounded and written: as floats, or as small integers with a scale per block; docs/format.md.

Integers times a scale: QSGD (https://arxiv.org/abs/1610.02132), TernGrad (https://arxiv.org/abs/1705.07878); the
threshold of three values without stochastic rounding is that of ternary weight networks
(https://arxiv.org/abs/1605.04711).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from fedsparse import kernels
from fedsparse.delta import entropy
from fedsparse.delta.value import SparseDelta, TensorDelta, ValueCoding
from fedsparse.errors import DeltaError

Values = NDArray[np.float32]
Integers = NDArray[np.int64]

BLOCK = 128
"""Values, one after another in a tensor, that share a scale."""

_LARGEST = {ValueCoding.INT8: 127, ValueCoding.INT4: 7, ValueCoding.TERNARY: 1}  # magnitude
_ALPHABET = {ValueCoding.INT8: 256, ValueCoding.INT4: 16, ValueCoding.TERNARY: 3}
_ZERO = {ValueCoding.INT8: 128, ValueCoding.INT4: 8, ValueCoding.TERNARY: 1}  # the symbol of 0
_FLOAT_BYTES = {ValueCoding.FP32: 4, ValueCoding.BF16: 2}
_DOMAIN = 0x66656473706172  # keeps this use of a seed apart from others
_HIGHEST_BF16 = np.uint32(0x7F7F0000)


def quantise(delta: SparseDelta, coding: ValueCoding, seed: int | None = None) -> SparseDelta:
    """Return ``delta`` with every value rounded to one that ``coding`` can write.

    Args:
        delta: exact.
        coding: fp32 keeps every bit; bf16 rounds to the nearest, ties to even.
        seed: from 0 to 2^64 - 1: integers are rounded up or down at random, the same for equal seeds, so that on
            average nothing is lost but what the scale's own rounding takes from a block's largest values. None
            rounds to the nearest, where the error is smallest; error feedback then makes up for it.
    """
    if coding is ValueCoding.FP32:
        return delta
    tensors = []
    for tensor in delta.tensors:
        if coding is ValueCoding.BF16:
            values = round_bf16(tensor.values)
        else:
            draw = None if seed is None else _stream(seed, tensor.tensor)
            values = _in_blocks(tensor.values, coding, draw)
        tensors.append(TensorDelta(tensor.tensor, tensor.indices, values))
    return SparseDelta(delta.space, delta.operation, tuple(tensors))


def round_bf16(values: Values) -> Values:
    """Return the nearest bf16 numbers, ties to even; what would round to infinity stays finite."""
    bits = values.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) & np.uint64(0xFFFF0000)
    largest = np.array(_HIGHEST_BF16).view(np.float32)
    return np.clip(rounded.astype(np.uint32).view(np.float32), -largest, largest)


def _in_blocks(values: Values, coding: ValueCoding, draw: np.random.Philox | None) -> Values:
    """Round to integers times their block's scale; the largest value becomes the largest integer."""
    largest = _LARGEST[coding]
    blocks = np.zeros((-(-len(values) // BLOCK), BLOCK), np.float64)
    blocks.reshape(-1)[: len(values)] = values
    magnitude = np.abs(blocks)
    peak = magnitude.max(axis=1)
    if coding is ValueCoding.TERNARY and draw is None:
        scales, integers = _ternary(blocks, magnitude)
    else:
        scales = _scales(peak / largest)
        ratio = np.divide(blocks, scales, where=scales > 0, out=np.zeros_like(blocks))
        shift = 0.5 if draw is None else _uniform(draw, blocks.size).reshape(ratio.shape)
        integers = np.floor(ratio + shift)
    integers = np.clip(integers, -largest, largest)
    at = magnitude.argmax(axis=1)
    every = np.arange(len(blocks))
    integers[every, at] = np.sign(blocks[every, at]) * largest
    return (integers * scales).reshape(-1)[: len(values)].astype(np.float32)


def _ternary(
    blocks: NDArray[np.float64], magnitude: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Keep the sign of what is above 0.7 of the mean magnitude; the scale is the mean of that."""
    there = np.maximum(1, np.count_nonzero(magnitude, axis=1))[:, None]
    kept = magnitude > 0.7 * magnitude.sum(axis=1, keepdims=True) / there
    means: NDArray[np.float64] = (magnitude * kept).sum(axis=1) / np.maximum(1, kept.sum(axis=1))
    signs: NDArray[np.float64] = np.where(kept, np.sign(blocks), 0.0)
    return _scales(means), signs


def _scales(wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the nearest bf16 numbers, (blocks, 1); times the largest integer they are finite.

    The largest float32 over 127 or 7 rounds down, and what rounds to infinity itself stays finite.
    """
    return round_bf16(wanted.astype(np.float32)).astype(np.float64)[:, None]


def _stream(seed: int, tensor: int) -> np.random.Philox:
    key, counter = np.array([seed, _DOMAIN], np.uint64), np.array([0, 0, 0, tensor], np.uint64)
    return np.random.Philox(key=key, counter=counter)


def _uniform(draw: np.random.Philox, count: int) -> NDArray[np.float64]:
    """Return numbers in [0, 1), the upper 53 bits of the stream's words, the same for every version of NumPy."""
    words: NDArray[np.uint64] = draw.random_raw(count)
    return (words >> np.uint64(11)).astype(np.float64) * 2.0**-53


def write(tensors: Sequence[TensorDelta], coding: ValueCoding) -> bytes:
    """Return the values of some tensors, one after another.

    Raises:
        DeltaError: a value has no exact form in ``coding``; see :func:`quantise`.
    """
    if (width := _FLOAT_BYTES.get(coding)) is not None:
        octets = np.concatenate([tensor.values for tensor in tensors]).astype("<f4").view(np.uint8).reshape(-1, 4)
        if np.any(octets[:, : 4 - width]):
            raise _inexact(tensors, coding)
        return b"".join(
            entropy.write(np.ascontiguousarray(octets[:, place]), 256) for place in range(4 - width, 4)
        )
    scales, integers = zip(*(_integers(tensor, coding) for tensor in tensors), strict=True)
    symbols = (np.concatenate(integers) + _ZERO[coding]).astype(np.uint8)
    return np.concatenate(scales).astype("<u2").tobytes() + entropy.write(symbols, _ALPHABET[coding])


def _integers(tensor: TensorDelta, coding: ValueCoding) -> tuple[NDArray[np.uint32], Integers]:
    """Return the scales' upper halves and the integers of values that are multiples of them."""
    largest = _LARGEST[coding]
    values = tensor.values
    starts = np.arange(0, len(values), BLOCK)
    scales = np.maximum.reduceat(np.abs(values), starts) / np.float32(largest)
    spread = np.repeat(scales, BLOCK)[: len(values)]
    integers = np.divide(values, spread, where=spread > 0, out=np.zeros_like(values)).astype(np.int64)
    bits = scales.view(np.uint32)
    if np.any(bits & np.uint32(0xFFFF)) or np.any(integers.astype(np.float32) * spread != values):
        raise _inexact([tensor], coding)
    return bits >> np.uint32(16), integers


def _inexact(tensors: Sequence[TensorDelta], coding: ValueCoding) -> DeltaError:
    where = ", ".join(str(tensor.tensor) for tensor in tensors[:3])
    return DeltaError(f"tensor {where}: a value has no exact form as {coding.name.lower()}", "Quantise first")


def least_bytes(counts: Sequence[int], coding: ValueCoding) -> int:
    """Return the fewest bytes that the values of tensors with so many coordinates can take."""
    if (width := _FLOAT_BYTES.get(coding)) is not None:
        return width * -(-sum(counts) // entropy.MOST_PER_BYTE)
    return 2 * sum(-(-count // BLOCK) for count in counts) + -(-sum(counts) // entropy.MOST_PER_BYTE)


def read(
    data: memoryview, counts: Sequence[int], coding: ValueCoding, *, known_canonical: bool = False
) -> list[Values]:
    """Read the values of tensors with so many coordinates each; for ``known_canonical`` see :func:`entropy.read`.

    Raises:
        DeltaError: ``data`` is not what :func:`write` writes.
    """
    total = sum(counts)
    if least_bytes(counts, coding) > len(data):
        raise DeltaError(f"{len(data)} bytes cannot hold {total} values as {coding.name.lower()}")
    read_all = _read_floats if coding in _FLOAT_BYTES else _read_integers
    found = read_all(data, counts, coding, known_canonical)
    for values in found:
        values.flags.writeable = False  # so that nobody needs a copy to be safe from changes
    return found


def _read_floats(
    data: memoryview, counts: Sequence[int], coding: ValueCoding, known_canonical: bool
) -> list[Values]:
    total, width = sum(counts), _FLOAT_BYTES[coding]
    planes = [np.zeros(total, np.uint8)] * (4 - width)
    for _ in range(width):
        plane, data = entropy.read(data, total, 256, known_canonical=known_canonical)
        planes.append(plane)
    _require_end(data)
    found = [kernels.joined([plane[start:end] for plane in planes]) for start, end in _spans(counts)]
    if any(kernels.unusual(values)[1] for values in found):
        raise DeltaError("a value is a negative zero, which is written as zero")
    return found


def _spans(counts: Sequence[int]) -> list[tuple[int, int]]:
    """Return where each of some parts, one after another, begins and ends."""
    return list(pairwise(accumulate(counts, initial=0)))


def _read_integers(
    data: memoryview, counts: Sequence[int], coding: ValueCoding, known_canonical: bool
) -> list[Values]:
    blocks = [-(-count // BLOCK) for count in counts]
    end = 2 * sum(blocks)
    bits = np.frombuffer(data[:end], "<u2").astype(np.uint32) << np.uint32(16)
    largest = _LARGEST[coding]
    with np.errstate(over="ignore", invalid="ignore"):
        scales = bits.view(np.float32)
        finite = np.isfinite(scales * np.float32(largest)) & ~np.signbit(scales)
    if not finite.all():
        raise DeltaError("a scale is negative or too large")
    symbols, rest = entropy.read(data[end:], sum(counts), _ALPHABET[coding], known_canonical=known_canonical)
    _require_end(rest)
    found = []
    for (start, end), (first, last) in zip(_spans(counts), _spans(blocks), strict=True):
        sizes = np.full(last - first, BLOCK)
        sizes[-1] = (end - start - 1) % BLOCK + 1
        values, peaks = kernels.scaled(symbols[start:end], _ZERO[coding], scales[first:last], sizes)
        if np.any(peaks != np.where(scales[first:last] > 0, largest, 0)):
            raise DeltaError(
                f"the largest integer of a block is not {largest}, or its scale is 0 and an integer is not"
            )
        found.append(values)
    return found


def _require_end(data: memoryview) -> None:
    if len(data):
        raise DeltaError(f"{len(data)} bytes follow the values")

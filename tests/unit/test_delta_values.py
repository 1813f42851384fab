from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from fedsparse.delta import (
    AdapterSpace,
    Operation,
    SparseDelta,
    TensorDelta,
    TensorSpec,
    ValueCoding,
    decode,
    encode,
    quantise,
)
from fedsparse.delta.values import BLOCK
from tests.unit.samples import LIMIT

Values = NDArray[np.float32]

FP32, BF16, INT8, INT4, TERNARY = ValueCoding
LARGEST = {INT8: 127, INT4: 7, TERNARY: 1}
INTEGERS = list(LARGEST)
SPACE = AdapterSpace(bytes(32), (TensorSpec("a", (20_000,)), TensorSpec("b", (20_000,))))
MOST = float(np.finfo(np.float32).max)
STEP = 2.0**-133
"""The smallest positive bf16 number, and the distance of the scales of tiny values."""


def of(values: Values | list[float], tensor: int = 0) -> SparseDelta:
    numbers = np.array(values, np.float32)
    return SparseDelta(SPACE.fingerprint, Operation.ADD, (TensorDelta(tensor, np.arange(len(numbers)), numbers),))


def rounded(values: Values | list[float], coding: ValueCoding, seed: int | None = None) -> NDArray[np.float64]:
    return quantise(of(values), coding, seed).tensors[0].values.astype(np.float64)


def normal(count: int, scale: float = 1.0, seed: int = 0) -> Values:
    return (np.random.default_rng(seed).normal(size=count) * scale).astype(np.float32)


def peaks(values: Values) -> NDArray[np.float64]:
    """Return for every value the largest magnitude of its block, each block of 128 values."""
    starts = np.arange(0, len(values), BLOCK)
    highest = np.maximum.reduceat(np.abs(values.astype(np.float64)), starts)
    return np.repeat(highest, BLOCK)[: len(values)]


def bf16(value: float) -> float:
    """Return the nearest bf16 number, ties to even, by the definition."""
    exponent = math.frexp(value)[1]
    step = math.ldexp(1.0, max(exponent - 8, -133))
    return round(value / step) * step


SAMPLES = {
    "normal": normal(1000),
    "one": np.array([0.3], np.float32),
    "a block": normal(BLOCK, 1e-3),
    "a block and one": normal(BLOCK + 1, 1e-3),
    "heavy tails": np.random.default_rng(0).standard_cauchy(700).astype(np.float32),
    "zeros": np.zeros(300, np.float32),
    "a block of zeros between": np.concatenate([normal(BLOCK), np.zeros(BLOCK, np.float32), normal(5)]),
    "equal": np.full(200, -0.1, np.float32),
    "3e38": np.array([3e38, -3e38, 1.0, 0.0, MOST, -MOST], np.float32),
    "the largest": np.full(130, MOST, np.float32),
    "subnormal": np.array([2.0**-149, -(2.0**-140), 3e-39, 0.0], np.float32),
    "subnormal alone": np.array([2.0**-149], np.float32),
    "tiny": normal(300, 1e-36),
    "every magnitude": np.ldexp(np.float32(1), np.arange(-149, 128)).astype(np.float32),
}


@pytest.mark.parametrize("coding", ValueCoding)
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("seed", [None, 7])
def test_what_was_quantised_is_written_exactly(name: str, coding: ValueCoding, seed: int | None) -> None:
    exact = quantise(of(SAMPLES[name]), coding, seed)
    assert decode(encode(exact, SPACE, coding), SPACE, max_bytes=LIMIT) == exact


@pytest.mark.parametrize("coding", ValueCoding)
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("seed", [None, 7])
def test_quantising_again_changes_nothing(name: str, coding: ValueCoding, seed: int | None) -> None:
    once = quantise(of(SAMPLES[name]), coding, seed)
    assert quantise(once, coding) == once


@pytest.mark.parametrize("coding", INTEGERS)
def test_quantising_again_at_random_changes_nothing(coding: ValueCoding) -> None:
    once = quantise(of(SAMPLES["normal"]), coding, 1)
    assert quantise(once, coding, 2) == once


@pytest.mark.parametrize("name", SAMPLES)
def test_bf16_rounds_to_the_nearest_and_stays_finite(name: str) -> None:
    highest = float(np.array(0x7F7F0000, np.uint32).view(np.float32))
    expected = [max(-highest, min(highest, bf16(float(value)))) for value in SAMPLES[name]]
    assert rounded(SAMPLES[name], BF16).tolist() == expected


@pytest.mark.parametrize("coding", [INT8, INT4])
@pytest.mark.parametrize("name", SAMPLES)
def test_the_nearest_integer_is_off_by_half_a_step(name: str, coding: ValueCoding) -> None:
    step, tiny = peaks(SAMPLES[name]) / LARGEST[coding], STEP * LARGEST[coding]
    assert np.all(np.abs(rounded(SAMPLES[name], coding) - SAMPLES[name]) <= 0.51 * step + tiny)


@pytest.mark.parametrize("coding", INTEGERS)
@pytest.mark.parametrize("name", SAMPLES)
def test_an_integer_at_random_is_off_by_a_step(name: str, coding: ValueCoding) -> None:
    step, tiny = peaks(SAMPLES[name]) / LARGEST[coding], STEP * LARGEST[coding]
    assert np.all(np.abs(rounded(SAMPLES[name], coding, 3) - SAMPLES[name]) <= 1.01 * step + tiny)


@pytest.mark.parametrize("name", SAMPLES)
def test_three_values_are_the_signs_of_what_is_above_the_threshold_times_their_mean(name: str) -> None:
    expected: list[float] = []
    for start in range(0, len(SAMPLES[name]), BLOCK):
        expected += _three(SAMPLES[name][start : start + BLOCK].tolist())
    assert rounded(SAMPLES[name], TERNARY).tolist() == expected


def _three(block: list[float]) -> list[float]:
    """Return a block as ternary weight networks have it (https://arxiv.org/abs/1605.04711)."""
    there = [abs(value) for value in block if value]
    threshold = 0.7 * math.fsum(there) / max(1, len(there))
    kept = [value for value in there if value > threshold]
    scale = min(bf16(math.fsum(kept) / max(1, len(kept))), bf16(MOST) - 2.0**120)
    return [math.copysign(scale, value) if abs(value) > threshold and scale else 0.0 for value in block]


def test_every_block_has_a_scale_of_its_own() -> None:
    values = np.concatenate([np.full(BLOCK, 1000, np.float32), normal(BLOCK, 1e-6)])
    for coding in INTEGERS:
        apart = np.concatenate([rounded(values[:BLOCK], coding), rounded(values[BLOCK:], coding)])
        assert rounded(values, coding).tolist() == apart.tolist()
        assert np.count_nonzero(apart[BLOCK:]) > BLOCK // 2


@pytest.mark.parametrize("coding", INTEGERS)
def test_the_largest_of_a_block_becomes_the_largest_integer(coding: ValueCoding) -> None:
    for seed in (None, *range(20)):
        values = normal(BLOCK, seed=seed or 0)
        found = rounded(values, coding, seed)
        at = int(np.abs(values).argmax())
        assert abs(found[at]) == np.abs(found).max()
        assert found[at] / LARGEST[coding] == bf16(found[at] / LARGEST[coding])
        if coding is not TERNARY or seed is not None:
            assert found[at] == pytest.approx(values[at], rel=2**-8)


@pytest.mark.parametrize("coding", INTEGERS)
def test_rounding_at_random_loses_nothing_on_average(coding: ValueCoding) -> None:
    values = normal(1000)
    ends = np.repeat([LARGEST[coding] * bf16(p / LARGEST[coding]) for p in peaks(values)[::BLOCK]], BLOCK)[:1000]
    scales = ends / LARGEST[coding]
    expected = np.clip(values, -ends, ends)  # a scale that was rounded down cuts off at most 1/256 of the largest
    for start in range(0, 1000, BLOCK):
        at = start + int(np.abs(values[start : start + BLOCK]).argmax())
        expected[at] = math.copysign(ends[at], values[at])
    mean = sum(rounded(values, coding, seed) for seed in range(200)) / 200
    part = expected / scales % 1
    assert np.all(np.abs(mean - expected) <= 5 * scales * np.sqrt(part * (1 - part) / 200) + 1e-12)


@pytest.mark.parametrize("coding", INTEGERS)
def test_rounding_at_random_depends_on_seed_and_tensor_alone(coding: ValueCoding) -> None:
    values = normal(500)
    drawn = {tuple(rounded(values, coding, seed).tolist()) for seed in (0, 1, 2, (1 << 64) - 1)}
    assert len(drawn) == 4
    assert quantise(of(values), coding, 5) == quantise(of(values), coding, 5)
    other = quantise(of(values, tensor=1), coding, 5).tensors[0].values
    assert other.tolist() != rounded(values, coding, 5).tolist()
    both = SparseDelta(SPACE.fingerprint, Operation.ADD, (*of(values).tensors, *of(values, tensor=1).tensors))
    assert quantise(both, coding, 5).tensors[1].values.tolist() == other.tolist()


def test_equal_seeds_draw_equally_in_every_release() -> None:
    values = [0.5] * 15 + [1.0]
    assert rounded(values, TERNARY, 7).astype(int).tolist() == [1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 1]


@pytest.mark.parametrize("coding", ValueCoding)
@pytest.mark.parametrize("seed", [None, 0])
def test_what_becomes_zero_has_no_sign(coding: ValueCoding, seed: int | None) -> None:
    found = rounded([-1e-42, -0.0, 0.0, -1.0 if coding in INTEGERS else 0.0], coding, seed)
    assert not np.any(np.signbit(found[found == 0]))


@pytest.mark.parametrize("coding", ValueCoding)
def test_quantising_keeps_coordinates_and_operation(coding: ValueCoding) -> None:
    tensor = TensorDelta(1, np.array([3, 700]), np.array([0.1, -0.2], np.float32))
    found = quantise(SparseDelta(SPACE.fingerprint, Operation.SET, (tensor,)), coding)
    assert (found.space, found.operation) == (SPACE.fingerprint, Operation.SET)
    assert [(part.tensor, part.indices.tolist()) for part in found.tensors] == [(1, [3, 700])]


@pytest.mark.parametrize("coding", ValueCoding)
def test_nothing_stays_nothing(coding: ValueCoding) -> None:
    nothing = SparseDelta.empty(SPACE.fingerprint, Operation.ADD)
    assert quantise(nothing, coding, 1) == nothing


def test_fp32_needs_no_quantising() -> None:
    third = of([1 / 3])
    assert quantise(third, FP32) is third


@pytest.mark.parametrize(
    ("value", "nearest"),
    [
        (1.0 + 2**-8, 1.0),  # a tie goes to the even neighbour
        (1.0 + 3 * 2**-8, 1.0 + 2**-6),
        (1.0 + 2**-8 + 2**-20, 1.0 + 2**-7),
        (-1.0 - 3 * 2**-8, -1.0 - 2**-6),
        (MOST, 3.3895313892515355e38),
        (-MOST, -3.3895313892515355e38),
        (2.0**-149, 0.0),
        (-(2.0**-149), 0.0),
        (STEP, STEP),
    ],
)
def test_bf16_takes_the_nearest_and_stays_finite(value: float, nearest: float) -> None:
    assert rounded([value], BF16).tolist() == [nearest]

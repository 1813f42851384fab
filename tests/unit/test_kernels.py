"""The compiled loops do to the bit what those in NumPy do, also with what no encoder writes."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedsparse import kernels
from fedsparse.delta import rice
from fedsparse.kernels import plain

_COMPILER = shutil.which("cc") is not None and Path(sysconfig.get_paths()["include"], "Python.h").exists()
_TOTAL = 4096

needs_compiled = pytest.mark.skipif(
    not kernels.COMPILED, reason="fedsparse.kernels was installed without a compiler"
)


@pytest.mark.skipif(not _COMPILER, reason="there is no C compiler, or no Python headers")
def test_where_there_is_a_compiler_the_loops_are_compiled() -> None:
    assert kernels.COMPILED


@needs_compiled
def test_processors_without_avx2_get_the_same() -> None:
    """All of this file once more, with the form for them."""
    if os.environ.get("FEDSPARSE_SCALAR"):
        return
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__]
    given = {**os.environ, "FEDSPARSE_SCALAR": "1"}
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout[-2000:]


def test_both_forms_have_the_same_functions() -> None:
    for name in set(kernels.__all__) - {"COMPILED"}:
        assert callable(getattr(plain, name))


def same(name: str, *arguments: Any) -> Any:
    """Return what both forms return, each with arguments of its own."""
    results = []
    for form in (kernels, plain):
        own = [one.copy() if isinstance(one, np.ndarray) else one for one in arguments]
        result = getattr(form, name)(*own)
        changed = [one for one in own if isinstance(one, np.ndarray)]
        results.append([*(result if isinstance(result, tuple) else [result]), *changed])
    for mine, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert np.asarray(mine).dtype == np.asarray(theirs).dtype
    return results[0]


def frequencies(symbols: np.ndarray[Any, Any], alphabet: int) -> np.ndarray[Any, Any]:
    counts = np.bincount(symbols, minlength=alphabet)
    found = np.where(counts > 0, np.maximum(1, counts * (_TOTAL - alphabet) // len(symbols)), 0)
    found[found.argmax()] += _TOTAL - found.sum()
    return found.astype(np.uint32)


def starts(frequency: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (np.cumsum(frequency) - frequency).astype(np.uint32)


def tables(frequency: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], ...]:
    slots = np.arange(_TOTAL) - np.repeat(starts(frequency), frequency)
    symbol_at = np.repeat(np.arange(len(frequency), dtype=np.uint8), frequency)
    return symbol_at, np.repeat(frequency, frequency).astype(np.uint32), slots.astype(np.uint32)


def gaps_of(largest: int) -> st.SearchStrategy[Any]:
    return hnp.arrays(np.int64, st.integers(1, 300), elements=st.integers(0, largest))


@needs_compiled
@given(hnp.arrays(np.uint8, st.integers(1, 3000), elements=st.integers(0, 15)))
def test_histogram(symbols: np.ndarray[Any, Any]) -> None:
    assert same("histogram", symbols, 16)[0].sum() == len(symbols)
    assert same("histogram", symbols % 3, 3)[0].sum() == len(symbols)


@needs_compiled
@settings(deadline=None)
@given(hnp.arrays(np.uint8, st.integers(2, 2000), elements=st.integers(0, 15)), st.integers(1, 40))
def test_what_rans_encodes_is_decoded(symbols: np.ndarray[Any, Any], lanes: int) -> None:
    frequency = frequencies(np.append(symbols, [0, 1]), 16)
    words, states = same("rans_encode", symbols, frequency, starts(frequency), lanes)[:2]
    assert len(states) == lanes
    used, ended, *_, decoded = same("rans_decode", states, words, *tables(frequency), np.zeros_like(symbols))
    assert used == len(words)
    assert np.all(ended == 1 << 16)
    assert np.array_equal(decoded, symbols)


@needs_compiled
@given(
    hnp.arrays(np.uint32, st.integers(1, 40), elements=st.integers(1 << 16, (1 << 32) - 1)),
    hnp.arrays(np.uint16, st.integers(0, 200)),
    st.integers(1, 500),
    st.integers(0, 99),
)
def test_rans_decodes_any_words_alike(
    states: np.ndarray[Any, Any], words: np.ndarray[Any, Any], count: int, seed: int
) -> None:
    frequency = frequencies(np.random.default_rng(seed).geometric(0.3, 200).clip(0, 15), 16)
    results = []
    for form in (kernels, plain):
        own, symbols = states.copy(), np.zeros(count, np.uint8)
        used = form.rans_decode(own, words, *tables(frequency), symbols)
        results.append((used, b"" if used < 0 else own.tobytes() + symbols.tobytes()))
    assert results[0] == results[1]


@needs_compiled
def test_rans_codes_of_many_states_that_end_anywhere_are_decoded_alike() -> None:
    draw = np.random.default_rng(3)
    symbols = draw.geometric(0.4, 3000).clip(0, 15).astype(np.uint8)
    frequency = frequencies(symbols, 16)
    for lanes in (7, 8, 23, 64):
        words, states = kernels.rans_encode(symbols, frequency, starts(frequency), lanes)
        for end in (*range(20), *draw.integers(0, len(words), 50), *range(len(words) - 20, len(words) + 1)):
            found = []
            for form in (kernels, plain):
                own, decoded = states.copy(), np.zeros_like(symbols)
                used = form.rans_decode(own, words[:end].copy(), *tables(frequency), decoded)
                found.append((used, decoded.tolist() if used >= 0 else []))
            assert found[0] == found[1]
            assert found[0][0] == (len(words) if end == len(words) else -1)


@needs_compiled
@given(
    hnp.arrays(
        np.float32, st.integers(0, 300), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
    )
)
def test_squares(values: np.ndarray[Any, Any]) -> None:
    same("squares", values)


@needs_compiled
def test_squares_of_more_values_than_are_summed_at_once() -> None:
    draw = np.random.default_rng(8)
    same("squares", (draw.standard_normal(200_001) * 10.0 ** draw.integers(-40, 30, 200_001)).astype(np.float32))
    same("squares", np.full(70_000, np.nextafter(np.float32(2), np.float32(0))))


@needs_compiled
@given(
    hnp.arrays(np.float32, st.integers(1, 600), elements=st.sampled_from([-1.0, 0.0, 1.0])),
    hnp.arrays(np.float32, 5, elements=st.floats(0, 2.0**100, width=32)),
    st.integers(0, 599),
)
def test_squares_of_three_values(signs: np.ndarray[Any, Any], scales: np.ndarray[Any, Any], other: int) -> None:
    values = signs * np.repeat(scales, 128)[: len(signs)]
    same("squares", values)
    values[other % len(values)] = 0.3
    same("squares", values)


@needs_compiled
@given(hnp.arrays(np.uint8, st.tuples(st.just(4), st.integers(0, 70))))
def test_floats_of_any_bytes(octets: np.ndarray[Any, Any]) -> None:
    found = [form.joined(list(octets)) for form in (kernels, plain)]
    assert found[0].tobytes() == found[1].tobytes() == octets.T.tobytes()
    assert found[0].dtype == found[1].dtype == np.float32


@needs_compiled
@given(gaps_of(1 << 20), st.integers(0, 40))
def test_sums_of_quotients(numbers: np.ndarray[Any, Any], k: int) -> None:
    assert same("quotients", numbers, k)[0] == sum(int(number) >> k for number in numbers)


@needs_compiled
@given(gaps_of(50))
def test_gaps(numbers: np.ndarray[Any, Any]) -> None:
    assert np.array_equal(same("gaps", np.cumsum(numbers + 1) - 1)[0], numbers)


@needs_compiled
@given(gaps_of(1 << 20), st.integers(0, 40))
def test_sums_of_quotients_of_gaps(numbers: np.ndarray[Any, Any], k: int) -> None:
    found = same("gap_quotients", np.cumsum(numbers + 1) - 1, k)[:3]
    assert found == [sum(int(number) >> j for number in numbers) for j in (max(0, k - 1), k, k + 1)]


@needs_compiled
@given(gaps_of(50), st.integers(1, 60), st.integers(0, 99))
def test_gaps_within_rows(numbers: np.ndarray[Any, Any], columns: int, seed: int) -> None:
    indices = np.cumsum(numbers + 1) - 1
    height = int(indices[-1]) // columns + 1
    counts = same("row_counts", indices, height, columns)[0]
    assert counts.sum() == len(indices)
    same("row_quotients", indices, columns, counts, np.random.default_rng(seed).integers(0, 9, height))


@needs_compiled
@given(hnp.arrays(np.uint8, st.integers(0, 60)), st.integers(0, 100), st.integers(0, 80))
def test_unary_of_any_bytes(data: np.ndarray[Any, Any], start: int, count: int) -> None:
    results = []
    for form in (kernels, plain):
        found, there = form.unary(data, start, count)
        results.append((there, found[: min(there, count)].tolist()))
    assert results[0] == results[1]


@needs_compiled
@given(hnp.arrays(np.uint8, st.integers(1, 300)), st.integers(0, 40), st.data())
def test_rice_codes_of_any_bytes(data: np.ndarray[Any, Any], k: int, draw: st.DataObject) -> None:
    count = draw.draw(st.integers(1, max(1, 8 * len(data) // (k + 1))))
    if count * (k + 1) > 8 * len(data):
        with pytest.raises(IndexError):
            kernels.rice_decode(data, k, count, False)
        return
    for cumulative in (False, True):
        results = []
        for form in (kernels, plain):
            found, there = form.rice_decode(data, k, count, cumulative)
            results.append((there, found.tolist() if there >= count else []))
        assert results[0] == results[1]


@needs_compiled
@given(gaps_of(1 << 14), st.integers(0, 20))
def test_what_is_rice_coded_is_decoded(numbers: np.ndarray[Any, Any], k: int) -> None:
    code = np.frombuffer(rice.encode(numbers, k), np.uint8)
    assert same("rice_decode", code, k, len(numbers), False)[0].tolist() == numbers.tolist()
    assert same("rice_decode", code, k, len(numbers), True)[0].tolist() == (np.cumsum(numbers + 1) - 1).tolist()


@needs_compiled
@pytest.mark.parametrize("k", range(10))
def test_rice_codes_of_many_numbers_that_end_anywhere_are_decoded_alike(k: int) -> None:
    draw = np.random.default_rng(k)
    numbers = (draw.exponential(1.4 * 2**k, 1000) * 50.0 ** (draw.random(1000) < 0.01)).astype(np.int64)
    code = np.frombuffer(rice.encode(numbers, k), np.uint8)
    least = -(-1000 * (k + 1) // 8)
    for end in (least, *draw.integers(least, len(code), 50), *range(len(code) - 20, len(code) + 1)):
        for data in (code[:end], np.append(code[:end], np.uint8(0)), np.append(code[:end], np.uint8(9))):
            found = []
            for form in (kernels, plain):
                read, there = form.rice_decode(data, k, 1000, True)
                found.append((there, read.tolist() if there >= 1000 else []))
            assert found[0] == found[1]
    assert found[0][1] == (np.cumsum(numbers + 1) - 1).tolist()


@needs_compiled
@given(hnp.arrays(np.int64, st.integers(0, 40), elements=st.integers(-2, 60) | st.just(2**63 - 1)))
def test_increasing(indices: np.ndarray[Any, Any]) -> None:
    for candidate in (indices, np.unique(indices)):
        right = all(a < b for a, b in zip([-1, *candidate.tolist()], candidate.tolist(), strict=False))
        assert kernels.increasing(candidate) is plain.increasing(candidate) is right


@needs_compiled
@given(hnp.arrays(np.float32, st.integers(0, 40), elements=st.floats(width=32)))
def test_unusual(values: np.ndarray[Any, Any]) -> None:
    for candidate in (values, np.abs(values), np.nan_to_num(values), np.append(values, np.float32(-0.0))):
        endless = any(not math.isfinite(value) for value in candidate.tolist())
        negative_zero = any(value == 0 and math.copysign(1, value) < 0 for value in candidate.tolist())
        assert kernels.unusual(candidate) == plain.unusual(candidate) == (endless, negative_zero)


@needs_compiled
@given(hnp.arrays(np.uint8, st.integers(1, 40)), st.sampled_from([(3, 5), (16, 2)]), st.integers(0, 250))
def test_digits(octets: np.ndarray[Any, Any], packing: tuple[int, int], count: int) -> None:
    same("digits", octets, *packing, min(count, len(octets) * packing[1]))


@needs_compiled
@given(
    hnp.arrays(np.int64, st.integers(1, 9), elements=st.integers(1, 40)), st.integers(0, 255), st.integers(0, 99)
)
def test_scaled(sizes: np.ndarray[Any, Any], zero: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    scales = draw.random(len(sizes)).astype(np.float32)
    same("scaled", draw.integers(0, 256, int(sizes.sum())).astype(np.uint8), zero, scales, sizes)


@needs_compiled
@given(gaps_of(20), st.floats(0.01, 1e6), st.integers(0, 9), st.integers(0, 99))
def test_sums_of_what_is_held(numbers: np.ndarray[Any, Any], weight: float, start: int, seed: int) -> None:
    indices = start + np.cumsum(numbers + 1) - 1
    values = np.random.default_rng(seed).standard_normal(len(indices)).astype(np.float32)
    size = int(indices[-1]) - start + 3
    sums = np.stack([np.linspace(-1, 1, size), (np.arange(size) % 3 == 0) / 3], axis=1)
    ends = np.array([0, 1]), np.array([len(indices) // 2 + 1, len(indices)])
    results = []
    for form in (kernels, plain):
        results.append(sums.copy())
        form.Scatter([indices] * 2, [values] * 2, [weight, 3.0]).add(*ends, start, results[-1])
    np.testing.assert_array_equal(*results)
    added = results[0]
    union = same("where_held", added, start)[0]
    for strength in (0.0, 0.3, 1.0):
        results = []
        for form in (kernels, plain):
            moved, by = np.zeros(size + 8, np.int64), np.zeros(size + 8, np.float32)
            used = form.steps(added, start, strength, 2e6, moved, by, 7)
            results.append((used, moved[:used].tolist(), by[:used].tobytes()))
        assert results[0] == results[1]
        assert results[0][1][7:] == union.tolist()


@needs_compiled
def test_what_lies_outside_an_array_is_an_error_and_no_crash() -> None:
    with pytest.raises(IndexError):
        kernels.rice_decode(np.zeros(1, np.uint8), 3, 8, False)
    with pytest.raises(IndexError):
        kernels.rice_decode(np.zeros(0, np.uint8), 0, 1, False)
    with pytest.raises(IndexError):
        kernels.gap_quotients(np.zeros(0, np.int64), 1)
    with pytest.raises(IndexError):
        kernels.scaled(np.zeros(3, np.uint8), 0, np.ones(1, np.float32), np.array([4]))
    with pytest.raises(IndexError):
        kernels.scaled(np.zeros(3, np.uint8), 0, np.ones(1, np.float32), np.array([1, 2]))
    with pytest.raises(IndexError):
        kernels.scaled(np.zeros(3, np.uint8), 0, np.ones(2, np.float32), np.array([4, -1]))
    with pytest.raises(IndexError):
        kernels.scaled(np.zeros(3, np.uint8), 0, np.ones(2, np.float32), np.array([3, 5]))
    with pytest.raises(IndexError):
        kernels.scaled(np.zeros(3, np.uint8), 0, np.ones(3, np.float32), np.array([3, -1, 1]))
    with pytest.raises(IndexError):
        kernels.row_counts(np.array([5]), 1 << 40, 1 << 40)
    with pytest.raises(IndexError):
        kernels.quotients(np.array([5]), 64)
    with pytest.raises(IndexError):
        kernels.steps(np.ones((2, 2)), 0, 0.5, 2.0, np.zeros(1, np.int64), np.zeros(1, np.float32), 0)
    with pytest.raises(IndexError):
        kernels.rans_decode(
            np.ones(1, np.uint32), np.zeros(9, np.uint16), np.zeros(4095, np.uint8), np.zeros(4096, np.uint32),
            np.zeros(4096, np.uint32), np.zeros(9, np.uint8),
        )  # fmt: skip
    with pytest.raises(IndexError):
        kernels.row_counts(np.array([5]), 1, 2)
    with pytest.raises(IndexError):
        kernels.row_quotients(np.zeros(2, np.int64), 1, np.array([9]), np.array([1]))
    with pytest.raises(IndexError):
        kernels.row_quotients(np.zeros(2, np.int64), 1, np.array([1, -1]), np.array([1, 1]))
    with pytest.raises(IndexError):
        kernels.row_quotients(np.zeros(2, np.int64), 1, np.array([1, 1]), np.array([1]))
    with pytest.raises(IndexError):
        kernels.histogram(np.array([3], np.uint8), 3)
    with pytest.raises(IndexError):
        kernels.histogram(np.array([16], np.uint8), 16)
    with pytest.raises(IndexError):
        kernels.rans_encode(np.array([7], np.uint8), np.ones(2, np.uint32), np.zeros(2, np.uint32), 1)
    with pytest.raises(ZeroDivisionError):
        kernels.rans_encode(np.zeros(1, np.uint8), np.zeros(2, np.uint32), np.zeros(2, np.uint32), 1)
    with pytest.raises(ZeroDivisionError):
        kernels.digits(np.ones(8, np.uint8), 3, 0, 3)
    with pytest.raises(ZeroDivisionError):
        kernels.digits(np.ones(8, np.uint8), 0, 5, 3)


@needs_compiled
def test_sums_outside_their_room_are_an_error_and_no_crash() -> None:
    def add(indices: list[int], first: list[int], last: list[int], start: int = 0, size: int = 9) -> None:
        scatter = kernels.Scatter([np.array(indices)], [np.zeros(len(indices), np.float32)], [1.0])
        scatter.add(np.array(first), np.array(last), start, np.zeros((size, 2)))

    add([1, 8], [0], [2])
    add([1], [1], [1])
    for wrong in (
        ([1], [0], [2]), ([1], [-1], [1]), ([1], [1], [0]), ([9], [0], [1]), ([-1], [0], [1]), ([1], [0, 0], [1])
    ):  # fmt: skip
        with pytest.raises(IndexError):
            add(*wrong)
    with pytest.raises(IndexError):
        add([1], [0], [1], start=2)
    with pytest.raises(IndexError):
        kernels.Scatter([np.array([1])], [np.zeros(2, np.float32)], [1.0])
    with pytest.raises(IndexError):
        kernels.Scatter([np.array([1])], [], [1.0])
    kernels.Scatter([], [], []).add(np.zeros(0, np.int64), np.zeros(0, np.int64), 0, np.zeros((1, 2)))
    kernels.Scatter([np.zeros(0, np.int64)], [np.zeros(0, np.float32)], [1.0])

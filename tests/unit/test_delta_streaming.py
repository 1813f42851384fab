"""A large adapter, encoded to a file and decoded from it, without ever being in memory whole."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from fedsparse.delta import (
    AdapterSpace,
    Header,
    Operation,
    TensorDelta,
    TensorSpec,
    ValueCoding,
    decode_stream,
    encode_stream,
)

ROWS, COLUMNS = 2048, 4096
TENSORS = 120  # 1.007 billion coordinates
NNZ = ROWS * COLUMNS // 100  # of a tensor: 10.07 million in all, 121 MB of indices and values
SPACE = AdapterSpace(b"\7" * 32, tuple(TensorSpec(f"layer{i}", (ROWS, COLUMNS)) for i in range(TENSORS)))
HEADER = Header(SPACE.fingerprint, Operation.ADD, ValueCoding.BF16, b"")
BOUND = 48 << 20


def _tensors() -> Iterator[TensorDelta]:
    for position in range(TENSORS):
        draw = np.random.default_rng(position)
        indices = np.unique(draw.integers(ROWS * COLUMNS, size=NNZ))
        values = draw.integers(1, 128, size=len(indices)).astype(np.float32)  # bf16 holds them exactly
        yield TensorDelta(position, indices, values)


def _peak(act: Callable[[], None]) -> int:
    """Return the bytes that Python and NumPy held at most while ``act`` ran, beyond those before."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_ten_million_of_a_billion_coordinates_pass_in_bounded_memory(tmp_path: Path) -> None:
    file = tmp_path / "delta"

    def write() -> None:
        with file.open("wb") as sink:
            for piece in encode_stream(HEADER, _tensors(), SPACE):
                sink.write(piece)

    def read() -> None:
        nonlocal found
        with file.open("rb") as source:
            header, tensors = decode_stream(source, SPACE, max_bytes=file.stat().st_size)
            assert header == HEADER
            for got, expected in zip(tensors, _tensors(), strict=True):
                assert got.tensor == expected.tensor
                assert np.array_equal(got.indices, expected.indices)
                assert np.array_equal(got.values, expected.values)
                found += len(got.indices)

    found = 0
    assert _peak(write) < BOUND
    assert _peak(read) < BOUND
    assert SPACE.size > 1_000_000_000
    assert found > 10_000_000

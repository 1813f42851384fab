"""The gradient of a linear layer's weight at a support alone, without the dense product; three ways.

The gradient of a weight (r, c) is Aᵀ·B with A (n, r), B (n, c) over n tokens. Which way is fastest was measured by
`make bench-gradients`; the choice follows from shape, support, device and number of threads alone, so equal runs
give equal bits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsparse.sparsity.structure import structured_rows, structured_tiles

GradientKernel = Callable[[Tensor, Tensor], Tensor]
"""From A (n, r) and B (n, c) to the gradient at the support's k coordinates, (k,), float32."""

_TOKENS_AT_ONCE = 256  # their transposes stay in the processor's cache
_UP_TO = 0.05  # density of tiles or scattered coordinates; above, the dense product is as fast
_SAMPLED_FROM = 256  # of the smaller side of the weight
_SAMPLED_THREADS = 4  # with more the dense product, which uses them all, is as fast


def row_kernel(rows: NDArray[np.int64], device: torch.device) -> GradientKernel:
    """Return the kernel of whole rows: one small dense product."""
    chosen = torch.from_numpy(rows).to(device)

    def gradient(a: Tensor, b: Tensor) -> Tensor:
        return (a.index_select(1, chosen).t() @ b).reshape(-1).float()

    return gradient


def tile_kernel(
    row_blocks: NDArray[np.int64], column_blocks: NDArray[np.int64], block: int, indices: Tensor, columns: int
) -> GradientKernel:
    """Return the kernel of square tiles: one small dense product per tile, all in one batch.

    On a processor it takes some tokens at a time, so that the rows and columns it copies stay in the cache.

    Args:
        row_blocks: of each tile, (tiles,).
        column_blocks: the same.
        indices: the support, (k,), flat in the weight.
        columns: c, of the weight.
    """
    device = indices.device
    within = torch.arange(block, device=device)
    rows = torch.from_numpy(row_blocks).to(device)[:, None] * block + within  # (tiles, block)
    cols = torch.from_numpy(column_blocks).to(device)[:, None] * block + within
    flat = (rows[:, :, None] * columns + cols[:, None, :]).reshape(-1)
    order = torch.argsort(flat)

    def products(a: Tensor, b: Tensor) -> Tensor:
        left = a.index_select(1, rows.reshape(-1)).t().reshape(len(rows), block, -1)
        right = b.index_select(1, cols.reshape(-1)).t().reshape(len(cols), block, -1)
        return torch.bmm(left, right.transpose(1, 2)).float()

    def gradient(a: Tensor, b: Tensor) -> Tensor:
        tokens = len(a) if device.type != "cpu" else _TOKENS_AT_ONCE
        total = products(a[:tokens], b[:tokens])
        for start in range(tokens, len(a), tokens):
            total += products(a[start : start + tokens], b[start : start + tokens])
        return total.reshape(-1)[order]

    return gradient


def sampled_kernel(indices: Tensor, rows: int, columns: int) -> GradientKernel:
    """Return the kernel of scattered coordinates: dot products over the tokens (`torch.sparse.sampled_addmm`).

    It runs in one thread: with two, each would read what the other has just transposed, and take twice as long.
    """
    starts = torch.searchsorted(indices // columns, torch.arange(rows + 1, device=indices.device))
    zeros = torch.zeros(len(indices), device=indices.device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        pattern = torch.sparse_csr_tensor(
            starts, indices % columns, zeros, (rows, columns), check_invariants=False
        )

    def gradient(a: Tensor, b: Tensor) -> Tensor:
        total = pattern
        with _one_thread():
            for start in range(0, len(a), _TOKENS_AT_ONCE):
                left = a[start : start + _TOKENS_AT_ONCE].float().t().contiguous()
                right = b[start : start + _TOKENS_AT_ONCE].float().t().contiguous().t()
                total = torch.sparse.sampled_addmm(total, left, right, beta=1.0 if start else 0.0)
        return total.values()

    return gradient


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def choose_kernel(indices: Tensor, shape: tuple[int, int], block: int | None) -> GradientKernel | None:
    """Return the fastest kernel for a support of a weight, or None where the dense product is.

    Args:
        indices: (k,), strictly increasing.
        shape: (r, c) of the weight.
        block: side of the tiles, where the support consists of tiles.
    """
    where = indices.cpu().numpy()
    if (whole := structured_rows(where, shape)) is not None:
        return row_kernel(whole, indices.device)
    density = len(indices) / (shape[0] * shape[1])
    if density > _UP_TO:
        return None
    if block is not None and (tiles := structured_tiles(where, shape, block)) is not None:
        return tile_kernel(*tiles, block, indices, shape[1])
    few_threads = indices.device.type == "cpu" and torch.get_num_threads() <= _SAMPLED_THREADS
    return sampled_kernel(indices, *shape) if few_threads and min(shape) >= _SAMPLED_FROM else None

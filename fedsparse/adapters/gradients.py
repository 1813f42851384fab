"""The gradient of a linear layer's weight at a support alone, without the dense product; three ways.

The gradient of a weight (r, c) is Aᵀ·B with A (n, r), B (n, c) over n tokens. Which way is fastest was measured by
`make bench-gradients`; the choice follows from shape, support and device alone, so equal runs give equal bits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedsparse.sparsity.structure import structured_rows, structured_tiles

GradientKernel = Callable[[Tensor, Tensor], Tensor]
"""From A (n, r) and B (n, c) to the gradient at the support's k coordinates, (k,), float32."""

_TOKENS_AT_ONCE = 256  # their transposes stay in the processor's cache
_SAMPLED_UP_TO = 0.02  # density; above, the dense product is as fast
_SAMPLED_FROM = 256  # of the smaller side of the weight


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

    def gradient(a: Tensor, b: Tensor) -> Tensor:
        left = a.index_select(1, rows.reshape(-1)).t().reshape(len(rows), block, -1)
        right = b.index_select(1, cols.reshape(-1)).t().reshape(len(cols), block, -1)
        return torch.bmm(left, right.transpose(1, 2)).reshape(-1)[order].float()

    return gradient


def sampled_kernel(indices: Tensor, rows: int, columns: int) -> GradientKernel:
    """Return the kernel of scattered coordinates: dot products over the tokens (`torch.sparse.sampled_addmm`)."""
    starts = torch.searchsorted(indices // columns, torch.arange(rows + 1, device=indices.device))
    zeros = torch.zeros(len(indices), device=indices.device)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        pattern = torch.sparse_csr_tensor(
            starts, indices % columns, zeros, (rows, columns), check_invariants=False
        )

    def gradient(a: Tensor, b: Tensor) -> Tensor:
        total = pattern
        for start in range(0, len(a), _TOKENS_AT_ONCE):
            left = a[start : start + _TOKENS_AT_ONCE].float().t().contiguous()
            right = b[start : start + _TOKENS_AT_ONCE].float().t().contiguous().t()
            total = torch.sparse.sampled_addmm(total, left, right, beta=1.0 if start else 0.0)
        return total.values()

    return gradient


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
    if block is not None and (tiles := structured_tiles(where, shape, block)) is not None:
        return tile_kernel(*tiles, block, indices, shape[1])
    sparse = len(indices) <= _SAMPLED_UP_TO * shape[0] * shape[1] and min(shape) >= _SAMPLED_FROM
    if sparse and indices.device.type == "cpu":
        return sampled_kernel(indices, *shape)
    return None

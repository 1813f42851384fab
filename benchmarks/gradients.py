"""Ways to compute a linear layer's weight gradient at a support, side by side: what `choose_kernel` rests on."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.report import Claim, write_report
from fedsparse.adapters.gradients import choose_kernel, row_kernel, sampled_kernel, tile_kernel

SHAPES = ((384, 384), (1536, 384), (384, 1536), (2048, 2048))
TOKENS = (256, 2048)
DENSITIES = (0.002, 0.01, 0.02, 0.05, 0.1)
BLOCK = 16
_SEED = 0


def _supports(
    shape: tuple[int, int], density: float, draw: np.random.Generator
) -> dict[str, np.ndarray[Any, Any]]:
    """Return a support of each structure with about the same number of coordinates."""
    rows, columns = shape
    count = round(density * rows * columns)
    scattered = np.sort(draw.choice(rows * columns, count, replace=False))
    chosen = np.sort(draw.choice(rows, max(1, round(density * rows)), replace=False))
    whole = (chosen[:, None] * columns + np.arange(columns)).reshape(-1)
    across = columns // BLOCK
    tiles = draw.choice(rows // BLOCK * across, max(1, count // BLOCK**2), replace=False)
    corner = (tiles // across * BLOCK * columns + tiles % across * BLOCK)[:, None, None]
    inside = corner + np.arange(BLOCK)[:, None] * columns + np.arange(BLOCK)
    return {"scattered": scattered, "rows": whole, "blocks": np.sort(inside.reshape(-1))}


def _ways(
    shape: tuple[int, int], indices: Tensor, structure: str
) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    from fedsparse.sparsity import structured_rows, structured_tiles

    ways = {
        "dense, then gather": lambda a, b: (a.t() @ b).reshape(-1)[indices],
        "sampled": sampled_kernel(indices, *shape),
    }
    if structure == "rows" and (rows := structured_rows(indices.numpy(), shape)) is not None:
        ways["rows"] = row_kernel(rows, indices.device)
    if structure == "blocks" and (tiles := structured_tiles(indices.numpy(), shape, BLOCK)) is not None:
        ways["blocks"] = tile_kernel(*tiles, BLOCK, indices, shape[1])
    return ways


def _times(
    ways: dict[str, Callable[[Tensor, Tensor], Tensor]], a: Tensor, b: Tensor, repeats: int
) -> dict[str, float]:
    """Return the median milliseconds of each way; the ways take turns."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            way(a, b)
            taken[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


def _chosen(shape: tuple[int, int], indices: Tensor, structure: str) -> str:
    kernel = choose_kernel(indices, shape, BLOCK if structure == "blocks" else None)
    made_by = "" if kernel is None else kernel.__qualname__.split(".")[0]  # type: ignore[attr-defined]
    return {"": "dense, then gather", "row_kernel": "rows", "tile_kernel": "blocks", "sampled_kernel": "sampled"}[
        made_by
    ]


def main() -> None:
    """Measure, print the table, and write results/gradients.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    draw = np.random.default_rng(_SEED)
    rows: list[dict[str, Any]] = []
    for shape in SHAPES:
        for tokens in TOKENS:
            a, b = (torch.randn(tokens, side) for side in shape)
            for density in DENSITIES:
                for structure, found in _supports(shape, density, draw).items():
                    indices = torch.from_numpy(found)
                    times = _times(_ways(shape, indices, structure), a, b, options.repeats)
                    chosen = _chosen(shape, indices, structure)
                    rows.append(
                        {
                            "weight": shape,
                            "tokens": tokens,
                            "density": density,
                            "structure": structure,
                            "milliseconds": times,
                            "chosen": chosen,
                            "over_best": times[chosen] / min(times.values()),
                        }
                    )
    _print(rows)
    worst = statistics.quantiles([row["over_best"] for row in rows], n=10)[-1]
    gain = statistics.median(
        row["milliseconds"]["dense, then gather"] / row["milliseconds"][row["chosen"]]
        for row in rows
        if row["density"] == 0.01
    )
    claims = [
        Claim(
            "the chosen way over the fastest, in nine of ten cases at most", worst, "≤ 1.25", "×", worst <= 1.25
        ),
        Claim("the dense product over the chosen way at 1 %, median", gain, "> 1", "×", gain > 1),
    ]
    settings = {"threads": options.threads, "repeats": options.repeats, "seed": _SEED, "block": BLOCK}
    write_report("gradients", settings, rows, claims)


def _print(rows: list[dict[str, Any]]) -> None:
    ways = ("dense, then gather", "sampled", "rows or blocks")
    table = Table("weight", "tokens", "density", "support", *(f"{way}, ms" for way in ways), "chosen")
    for row in rows:
        times = row["milliseconds"]
        special = times.get("rows", times.get("blocks"))
        table.add_row(
            "×".join(map(str, row["weight"])),
            str(row["tokens"]),
            f"{row['density']:.1%}",
            row["structure"],
            f"{times['dense, then gather']:.2f}",
            f"{times['sampled']:.2f}",
            "" if special is None else f"{special:.2f}",
            row["chosen"],
        )
    Console(highlight=False, width=120).print(table)


if __name__ == "__main__":
    main()

"""Gradients of depthwise convolutions: by sums over shifts, as fedsparse does on small maps, and by PyTorch."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.report import Claim, write_report
from fedsparse.adapters.bases.depthwise import is_small, small_depthwise

CHANNELS = (672, 1152)
KERNELS = (3, 5)
SIDES = (1, 2, 3, 4, 5, 6, 8)
BATCH = 32
_SEED = 0


def _milliseconds(way: Callable[[], Tensor], wanted: tuple[Tensor, Tensor], repeats: int) -> float:
    """Return the median time of a backward pass."""
    taken = []
    for _ in range(repeats + 1):
        output = way()
        upstream = torch.ones_like(output)
        started = time.perf_counter()
        torch.autograd.grad(output, wanted, upstream)
        taken.append(1000 * (time.perf_counter() - started))
    return statistics.median(taken[1:])


def _row(side: int, channels: int, size: int, repeats: int) -> dict[str, float | bool]:
    x = torch.randn(BATCH, channels, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias = torch.randn(channels, 1, size, size).requires_grad_(), torch.randn(channels)
    shifts = _milliseconds(lambda: small_depthwise(x, weight, bias), (x, weight), repeats)
    pytorch = _milliseconds(
        lambda: F.conv2d(x, weight, bias, padding=size // 2, groups=channels), (x, weight), repeats
    )
    chosen = is_small(x, size)
    return {
        "side": side,
        "channels": channels,
        "kernel": size,
        "shifts_ms": shifts,
        "pytorch_ms": pytorch,
        "shifts_chosen": chosen,
        "gain": pytorch / shifts if chosen else 1.0,
        "over_best": (shifts if chosen else pytorch) / min(shifts, pytorch),
    }


def main() -> None:
    """Measure, print the table, and write results/depthwise.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(_SEED)
    rows = [
        _row(side, channels, size, options.repeats) for side in SIDES for channels in CHANNELS for size in KERNELS
    ]
    table = Table("map", "channels", "kernel", "shifts, ms", "PyTorch, ms", "chosen")
    for row in rows:
        table.add_row(
            f"{row['side']} × {row['side']}",
            str(row["channels"]),
            f"{row['kernel']} × {row['kernel']}",
            f"{row['shifts_ms']:.2f}",
            f"{row['pytorch_ms']:.2f}",
            "shifts" if row["shifts_chosen"] else "PyTorch",
        )
    Console(highlight=False, width=120).print(table)
    gain = statistics.median(row["gain"] for row in rows if row["shifts_chosen"])
    worst = max(row["over_best"] for row in rows)
    claims = [
        Claim(
            "PyTorch's time over that of the shifts, where those are chosen, median",
            gain,
            "> 1",
            "×",
            gain > 1,
        ),
        Claim("the chosen way over the faster one, at most", worst, "≤ 1.5", "×", worst <= 1.5),
    ]
    settings = {"threads": options.threads, "repeats": options.repeats, "batch": BATCH, "seed": _SEED}
    write_report("depthwise", settings, rows, claims)


if __name__ == "__main__":
    main()

"""Merging at size: how much of a plain scatter-add's speed is left, and in how much memory.

Every update is random: it names its own coordinates, independent of all others, which is the worst there is for
the union. The plain scatter-add is NumPy's on a dense array, without the holders' weights, a rule, or anything to
decode. Flower's FedAvg averages dense arrays at a size where a hundred of them fit.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import get_context
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from rich.console import Console
from rich.table import Table

from benchmarks.report import Claim, write_report
from fedsparse.aggregation import Accumulator, Part, Policy, admit, merge_tensor, shrunk
from fedsparse.delta import (
    AdapterSpace,
    Header,
    Operation,
    Reason,
    RoundUpdate,
    TensorDelta,
    TensorSpec,
    ValueCoding,
    encode_stream,
    encode_update,
)

ROWS, COLUMNS = 2048, 4096
_SIZE = ROWS * COLUMNS
_DENSITY = 0.01
_FEDAVG_TENSORS = 1  # of Flower's dense arrays, of which a hundred take 3.4 GB
_LIMIT = 1 << 40
_CODING = ValueCoding.TERNARY


def _space(tensors: int) -> AdapterSpace:
    return AdapterSpace(bytes(32), tuple(TensorSpec(f"t{i}", (ROWS, COLUMNS)) for i in range(tensors)))


def _tensor(update: int, position: int) -> TensorDelta:
    draw = np.random.default_rng((update, position))
    where = np.unique(draw.integers(_SIZE, size=round(_DENSITY * _SIZE)))
    return TensorDelta(position, where, (draw.integers(-1, 2, size=len(where)) / 1024).astype(np.float32))


def _payload(update: int, space: AdapterSpace) -> bytes:
    tensors: Iterator[TensorDelta] = (_tensor(update, position) for position in range(len(space.tensors)))
    data = b"".join(encode_stream(Header(space.fingerprint, Operation.ADD, _CODING), tensors, space))
    return encode_update(RoundUpdate(1, 0, 100 + update, data, Reason.NONE))


def at_size(updates: int, tensors: int) -> dict[str, Any]:
    """Merge updates of random supports, and return how long it took and the most memory of the process, in GiB."""
    space = _space(tensors)
    accumulator = Accumulator(space)
    admitting, nnz, sent = 0.0, 0, 0
    for number in range(updates):
        payload = _payload(number, space)
        started = time.perf_counter()
        update = admit(payload, space, round=1, version=0, max_bytes=_LIMIT, max_density=1.0)
        accumulator.add(update)
        admitting += time.perf_counter() - started
        nnz, sent = nnz + update.nnz, sent + len(payload)
    started = time.perf_counter()
    union = sum(len(step.indices) for step in accumulator.steps(Policy(shrunk(0.25))))
    merging = time.perf_counter() - started
    return {
        "what": f"{updates} updates of {nnz / updates / 1e6:.1f} M of {space.size / 1e9:.2f} B coordinates",
        "nnz": nnz,
        "bytes": sent,
        "union": union,
        "admitted_per_second": nnz / admitting,
        "merged_per_second": nnz / merging,
        "seconds": merging,
        "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def one_tensor(updates: int, repeats: int) -> dict[str, Any]:
    """Merge updates that are decoded already in one tensor, beside a plain scatter-add of the same values."""
    parts = [Part(t.indices, t.values, 100.0 + n) for n, t in enumerate(_tensor(n, 0) for n in range(updates))]
    nnz = sum(len(part.indices) for part in parts)
    rule = shrunk(0.25)

    def ours() -> None:
        TensorDelta(0, *merge_tensor(rule, 1, parts, _SIZE, sum(part.weight for part in parts)))

    def plain() -> None:
        total = np.zeros(_SIZE, np.float32)
        for part in parts:
            total[part.indices] += np.float32(part.weight) * part.values

    def unbuffered() -> None:
        total = np.zeros(_SIZE, np.float32)
        for part in parts:
            np.add.at(total, part.indices, np.float32(part.weight) * part.values)

    seconds = _best((ours, plain, unbuffered), repeats)
    speeds = {name: nnz / taken for name, taken in seconds.items()}
    return {"what": f"{updates} decoded updates in one tensor of {_SIZE / 1e6:.1f} M", "nnz": nnz, **speeds}


def fedavg(updates: int) -> dict[str, Any]:
    """Average dense arrays as Flower does, and merge sparse updates of the same tensor."""
    draw = np.random.default_rng(0)
    records = [
        RecordDict(
            {
                "arrays": ArrayRecord([draw.random(_SIZE, np.float32)]),
                "metrics": MetricRecord({"num-examples": 100 + number}),
            }
        )
        for number in range(updates)
    ]
    started = time.perf_counter()
    aggregate_arrayrecords(records, "num-examples")
    dense = time.perf_counter() - started
    del records
    sparse = at_size(updates, _FEDAVG_TENSORS)
    return {
        "what": f"{updates} updates of one tensor of {_SIZE / 1e6:.1f} M: Flower's FedAvg, and ours at 1 %",
        "flower_seconds": dense,
        "ours_seconds": sparse["seconds"],
    }


def _best(acts: Sequence[Callable[[], None]], repeats: int) -> dict[str, float]:
    """Return the least seconds by name: what the machine can do when nothing else is in the way.

    They take turns: a virtual machine is slow for seconds at a time, and it must not be one of them alone.
    """
    taken: dict[str, list[float]] = {act.__name__: [] for act in acts}
    for _ in range(repeats):
        for act in acts:
            started = time.perf_counter()
            act()
            taken[act.__name__].append(time.perf_counter() - started)
    return {name: min(times) for name, times in taken.items()}


def _apart(act: Callable[..., dict[str, Any]], *arguments: int) -> dict[str, Any]:
    """Run in a process of its own, whose memory is then its own."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(act, arguments)


def _claims(size: dict[str, Any], tensor: dict[str, Any]) -> list[Claim]:
    plain = max(tensor["plain"], tensor["unbuffered"])
    merged, whole = tensor["ours"] / plain, size["merged_per_second"] / plain
    share = "share of a plain scatter-add's speed"
    return [
        Claim(
            f"memory of the process that merged {size['what']}",
            size["peak_gib"],
            "≤ 4",
            "GiB",
            size["peak_gib"] <= 4,
        ),
        Claim(f"{share}, of updates that are decoded already", merged, "≥ 0.8", "×", merged >= 0.8),
        Claim(f"{share}, decoding included", whole, "≥ 0.8", "×", whole >= 0.8),
    ]


def main() -> None:
    """Measure, print the table, and write results/aggregate.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--updates", type=int, default=100)
    parser.add_argument("--tensors", type=int, default=120, help="of 8.4 M coordinates each: 120 are a billion")
    parser.add_argument("--repeats", type=int, default=30)
    options = parser.parse_args()
    tensor = _apart(one_tensor, options.updates, options.repeats)
    dense = _apart(fedavg, options.updates)
    size = _apart(at_size, options.updates, options.tensors)
    table = Table("what", "non-zeros per second", "seconds", "memory, GiB", box=None)
    for name in ("ours", "plain", "unbuffered"):
        table.add_row(f"{tensor['what']}: {name}", f"{tensor[name] / 1e6:.1f} M", "", "")
    table.add_row(f"{dense['what']}: FedAvg", "", f"{dense['flower_seconds']:.2f}", "")
    table.add_row(f"{dense['what']}: ours", "", f"{dense['ours_seconds']:.2f}", "")
    table.add_row(
        f"{size['what']}: merged from their bytes",
        f"{size['merged_per_second'] / 1e6:.1f} M",
        f"{size['seconds']:.1f}",
        f"{size['peak_gib']:.2f}",
    )
    Console(highlight=False, width=140).print(table)
    settings = {**vars(options), "tensor": [ROWS, COLUMNS], "density": _DENSITY, "coding": _CODING.name.lower()}
    write_report("aggregate", settings, [tensor, dense, size], _claims(size, tensor))


if __name__ == "__main__":
    main()

"""The codec of deltas: index bits beside the entropy and what one would otherwise write, and values per second.

The real supports are those of one update trained on the solar cells and one on the work orders, as the default
stages choose them, in whole rows of all layers, and by |gradient| over all layers. The bytes of whole rounds are
those of federations on both.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zstandard
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks import codec_rounds
from benchmarks.report import Claim, write_report
from benchmarks.simulation import ORDERS
from benchmarks.training.arms import COORDINATES
from benchmarks.training.jobs import problems
from benchmarks.training.problems import Problem, images, texts
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
from fedsparse.delta.indices import plan

DENSITIES = (0.0001, 0.001, 0.01, 0.1)
ROWS, COLUMNS = 2048, 4096  # of the tensor with a random support
SPEED_NNZ = 10_000_000
_SEED = 0

Indices = NDArray[np.int64]


def entropy(count: int, size: int) -> float:
    """Return the bits that say which ``count`` of ``size`` coordinates, at random, are named: size · H(p)."""
    if not 0 < count < size:
        return 0.0
    p = count / size
    return -size * (p * math.log2(p) + (1 - p) * math.log2(1 - p))


def _varints(gaps: Indices) -> int:
    return int(sum(((gaps >> (7 * group)) > 0).sum() for group in range(1, 6)) + len(gaps))


def index_row(name: str, supports: Sequence[tuple[Indices, tuple[int, ...]]]) -> dict[str, Any]:
    """Return the bits per coordinate of a support of several tensors, in every way to write it."""
    count = sum(len(where) for where, _ in supports)
    size = sum(math.prod(shape) for _, shape in supports)
    gaps = [np.diff(where, prepend=-1) - 1 for where, _ in supports]
    raw = b"".join(where.astype("<u4").tobytes() for where, _ in supports)
    plans = [plan(where, shape) for where, shape in supports]
    octets = {
        "ours": sum(one.size for one in plans),
        "uint32": len(raw),
        "bitmap": sum(-(-math.prod(shape) // 8) for _, shape in supports),
        "gap varint": sum(_varints(one) for one in gaps),
        "zlib of uint32": len(zlib.compress(raw, 9)),
        "zstd of uint32": _zstd(raw),
    }
    return {
        "support": name,
        "nnz": count,
        "density": count / size,
        "bits": {way: 8 * found / count for way, found in octets.items()},
        "entropy": entropy(count, size) / count,
        "codings": sorted({one.coding.name for one in plans}),
    }


def _zstd(data: bytes) -> int:
    return len(zstandard.ZstdCompressor(level=19).compress(data))


def random_rows() -> list[dict[str, Any]]:
    """Return rows for random supports of one large tensor."""
    draw = np.random.default_rng(_SEED)
    size = ROWS * COLUMNS
    return [
        index_row(
            f"random, {density:.2%}",
            [(np.sort(draw.choice(size, round(density * size), replace=False)), (ROWS, COLUMNS))],
        )
        for density in DENSITIES
    ]


def real_rows(work: Path, orders: Path) -> list[dict[str, Any]]:
    """Return rows for supports that training chose."""
    rows = []
    for name in problems(orders):
        problem = images(work / "images") if name == "images" else texts(orders)
        for coordinates in ("default", "uniform rows", "global, scattered"):
            space, support = _support(problem, coordinates)
            chosen = [(w, s.shape) for w, s in zip(support, space.tensors, strict=True) if 0 < len(w) < s.size]
            rows.append(index_row(f"{name}, {coordinates}", chosen))
    return rows


def _support(problem: Problem, coordinates: str) -> tuple[AdapterSpace, tuple[Indices, ...]]:
    """Return the support that the last of the default stages starts with."""
    from fedsparse import config
    from fedsparse.adapters import build_adapter
    from fedsparse.config import ObjectiveSettings, TrainSettings
    from fedsparse.training import Classification, Machine, Part, train
    from fedsparse.training.plan import default_stages, dense_share

    adapter = build_adapter(problem.base("sparse"), config.AdapterSettings())
    part = Part(problem.inputs["sparse"], problem.training)
    labels = problem.labels[problem.training]
    objective = ObjectiveSettings(balance=problem.balance)
    task = Classification(part, labels, len(problem.classes), objective, config.AugmentationSettings(), Machine())
    stages = default_stages(TrainSettings(), "delta", problem.task, dense_share(adapter.space, adapter.dense))
    short = [stage.model_copy(update={"epochs": 1, **COORDINATES[coordinates]}) for stage in stages]
    start = SparseDelta.empty(adapter.space.fingerprint, Operation.SET)
    delta = train(adapter, task, start, tuple(short), seed=(_SEED,), batch_size=32).delta
    found = {tensor.tensor: tensor.indices for tensor in delta.tensors}
    return adapter.space, tuple(found.get(i, np.empty(0, np.int64)) for i in range(len(adapter.space.tensors)))


def speed_rows(repeats: int) -> list[dict[str, Any]]:
    """Return values per second, encoding and decoding, with 10 M coordinates at 1 % in one process and thread."""
    draw = np.random.default_rng(_SEED)
    tensors = SPEED_NNZ // (ROWS * COLUMNS // 100)
    space = AdapterSpace(bytes(32), tuple(TensorSpec(f"t{i}", (ROWS, COLUMNS)) for i in range(tensors)))
    count = ROWS * COLUMNS // 100
    parts = []
    for position in range(tensors):
        where = np.unique(draw.integers(ROWS * COLUMNS, size=count))
        parts.append(TensorDelta(position, where, draw.normal(0, 1e-3, len(where)).astype(np.float32)))
    exact = SparseDelta(space.fingerprint, Operation.ADD, tuple(parts))
    rows = []
    for coding in ValueCoding:
        delta = quantise(exact, coding)
        data = encode(delta, space, coding)
        encoding = _median(repeats, partial(encode, delta, space, coding))
        decoding = _median(repeats, partial(decode, data, space, max_bytes=len(data)))
        rows.append(
            {
                "coding": coding.name.lower(),
                "bits": 8 * len(data) / delta.nnz,
                "encode": delta.nnz / encoding / 1e6,
                "decode": delta.nnz / decoding / 1e6,
                "nnz": delta.nnz,
            }
        )
    return rows


def _median(repeats: int, act: Callable[[], object]) -> float:
    """Return the median seconds."""
    taken = []
    for _ in range(repeats):
        started = time.perf_counter()
        act()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def _claims(
    random: Sequence[dict[str, Any]], real: Sequence[dict[str, Any]], speed: Sequence[dict[str, Any]]
) -> list[Claim]:
    worst = max(row["bits"]["ours"] / row["entropy"] for row in random)
    structured = max(row["bits"]["ours"] / row["entropy"] for row in real)
    encoding, decoding = (min(row[way] for row in speed) for way in ("encode", "decode"))
    return [
        Claim("index bits over the entropy, random supports of 0.01 to 10 %", worst, "≤ 1.05", "×", worst <= 1.05),
        Claim("index bits over the entropy, real supports", structured, "< 1", "×", structured < 1),
        Claim("values encoded per second, the slowest coding", encoding, "≥ 20", "million", encoding >= 20),
        Claim("values decoded per second, the slowest coding", decoding, "≥ 20", "million", decoding >= 20),
    ]


def _print(index: Sequence[dict[str, Any]], speed: Sequence[dict[str, Any]]) -> None:
    console = Console(highlight=False, width=120)
    ways = list(index[0]["bits"])
    table = Table("support", "coordinates", "entropy", *ways, title="Index bits per coordinate")
    for row in index:
        table.add_row(
            row["support"],
            f"{row['nnz']:,}",
            f"{row['entropy']:.2f}",
            *(f"{row['bits'][way]:.2f}" for way in ways),
        )
    console.print(table)
    table = Table(
        "values", "bits in all", "encoded, M/s", "decoded, M/s", title="10 M coordinates, 1 %, one thread"
    )
    for row in speed:
        table.add_row(row["coding"], f"{row['bits']:.2f}", f"{row['encode']:.1f}", f"{row['decode']:.1f}")
    console.print(table)


def _at_least_two(text: str) -> int:
    if (number := int(text)) < 2:
        raise argparse.ArgumentTypeError(f"{number} draws give no standard error: use 2 or more")
    return number


def main() -> None:
    """Measure, print the tables, and write results/codec.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("runs/bench_train"))
    parser.add_argument("--texts", type=Path, default=ORDERS, help="folder of the maintenance work orders")
    parser.add_argument(
        "--seeds", type=_at_least_two, default=4, help="draws of plants, for the bytes of whole rounds"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread, for the same")
    options = parser.parse_args()
    work, orders = options.work.resolve(), options.texts.resolve()
    torch.set_num_threads(1)
    rounds = codec_rounds.measure(work, orders, problems(orders), options.seeds, options.workers)
    random, speed = random_rows(), speed_rows(options.repeats)
    real = real_rows(work, orders)
    _print([*random, *real], speed)
    codec_rounds.print_rows(rounds)
    settings = {
        "seed": _SEED,
        "repeats": options.repeats,
        "tensor": [ROWS, COLUMNS],
        "threads": 1,
        "rounds": {
            "plants": codec_rounds.PLANTS,
            "alpha": codec_rounds.ALPHA,
            "rounds": codec_rounds.ROUNDS,
            "last": codec_rounds.LAST,
            "seeds": list(range(options.seeds)),
            "tuning_seeds": codec_rounds.TUNING_SEEDS,
            "learning_rates": codec_rounds.RATES,
        },
    }
    claims = [*_claims(random, real, speed), *codec_rounds.claims(rounds)]
    write_report("codec", settings, [*random, *real, *speed, *rounds], claims)


if __name__ == "__main__":
    main()

"""The demo's promises, measured: one `fedsparse demo`, and beside it rounds of bare Flower that do nothing."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.bare_flower import round_seconds
from benchmarks.report import Claim, write_report
from fedsparse.processes import script

_BARE_ROUNDS = 8
_PLANTS = 3


def _claims(summary: dict[str, Any]) -> list[Claim]:
    scores = summary["balanced_accuracy"]
    federated, alone = scores["federated"], scores["best_alone"]
    up = summary["bytes_up_per_plant_round"] / summary["dense_adapter_bytes"]
    overhead = summary["round_overhead_seconds_median"]
    minutes = summary["wall_seconds"] / 60
    loads = summary["base_model_loads_per_plant"]
    return [
        Claim("demo after installation", minutes, "at most 6", "minutes", minutes <= 6),
        Claim("rounds", summary["rounds"], "at least 5", "rounds", summary["rounds"] >= 5),
        Claim(
            "federated above the best plant alone",
            federated - alone,
            "above 0",
            "balanced accuracy ahead",
            federated > alone,
        ),
        Claim(
            "federated on the common test set", federated, "at least 0.75", "balanced accuracy", federated >= 0.75
        ),
        Claim("bytes up per plant and round", 100 * up, "at most 1", "% of the dense fp32 adapter", up <= 0.01),
        Claim("round overhead, median", overhead, "at most 3", "seconds", overhead <= 3),
        Claim("base model loads per plant", loads, "exactly 1", "loads", loads == 1),
        Claim(
            "ledgers verify",
            len(summary["ledger"]["problems"]),
            "0 problems in at least one entry",
            "problems",
            summary["ledger"]["verified"] and summary["ledger"]["entries"] > 0,
        ),
    ]


def main() -> None:
    """Run both, print the table, write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-demo"))
    options = parser.parse_args()
    subprocess.run([script("fedsparse"), "demo", "--folder", str(options.folder)], check=True)
    summary = json.loads((options.folder / "summary.json").read_text(encoding="utf-8"))
    bare = round_seconds(_PLANTS, _BARE_ROUNDS)
    dense, model = summary["dense_adapter_bytes"], summary["dense_model_bytes"]
    table = Table("what", "fedsparse", "what a user would otherwise pick", box=None)
    table.add_row(
        "round without training",
        f"{summary['round_overhead_seconds_median']:.1f} s (merging, evaluation and commit included)",
        f"{statistics.median(bare):.1f} s: a no-op round of bare Flower, {_PLANTS} nodes",
    )
    table.add_row(
        "bytes up per plant and round",
        f"{summary['bytes_up_per_plant_round']:,.0f}",
        f"{dense:,} dense adapter, {model:,} all weights (fp32)",
    )
    scores = summary["balanced_accuracy"]
    alone = ", ".join(f"{value:.3f}" for value in scores["alone"].values())
    table.add_row("balanced accuracy", f"{scores['federated']:.3f}", f"{alone}: each plant alone")
    Console().print(table)
    figures = ("rounds", "plants", "settings", "software")
    write_report(
        "demo",
        {"bare_flower_rounds": _BARE_ROUNDS, **{name: summary[name] for name in figures}},
        [
            {
                **{name: value for name, value in summary.items() if name not in figures},
                "bare_flower_round_seconds": [round(one, 3) for one in bare],
            }
        ],
        _claims(summary),
    )


if __name__ == "__main__":
    main()

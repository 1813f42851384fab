"""docs/security.md shows what benchmarks/results/attacks.json holds; the wheel has neither."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE, RESULT = ROOT / "docs" / "security.md", ROOT / "benchmarks" / "results" / "attacks.json"

pytestmark = pytest.mark.skipif(not RESULT.exists(), reason="outside a checkout")


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULT.read_text(encoding="utf-8"))
    return found


def test_the_page_shows_the_table_of_the_newest_run(report: dict[str, Any]) -> None:
    from benchmarks.attacking.table import shown, table

    assert shown(PAGE) == table(report).strip(), "run `make attacks`, or undo the change of the table by hand"


def test_every_claim_follows_from_the_rows(report: dict[str, Any]) -> None:
    rows, claims = report["rows"], {claim["name"]: claim for claim in report["claims"]}
    assert claims["attacks tried"]["value"] == len(rows)
    for row in rows:
        sound = row["refused"] and row["logged"] is not False and row["alive"] and row["served"]
        assert row["holds"] == sound, row["does"]
        assert (row["logged"] is None) == (row["log_pattern"] is None) == bool(row["why_no_log"]), row["does"]


def test_no_attack_is_told_of_twice(report: dict[str, Any]) -> None:
    names = [(row["group"], row["does"]) for row in report["rows"]]
    assert len(set(names)) == len(names)

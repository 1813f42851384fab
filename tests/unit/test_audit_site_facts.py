"""docs/audit.md names every key of the site's facts, and its example is one; the wheel carries no docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fedsparse.audit.report import SiteFacts, read_facts
from fedsparse.errors import ConfigError

AUDIT = Path(__file__).resolve().parents[2] / "docs" / "audit.md"

pytestmark = pytest.mark.skipif(not AUDIT.exists(), reason="outside a checkout")


def _section() -> str:
    text = AUDIT.read_text(encoding="utf-8")
    return text.partition("### What only the site can state\n")[2].partition("\n## ")[0]


def test_every_key_is_documented_once_and_no_other() -> None:
    rows = [line.split("|")[1] for line in _section().splitlines() if line.startswith("| `")]
    keys = [key for row in rows for key in re.findall(r"`(\w+)`", row)]
    assert sorted(keys) == sorted(SiteFacts.model_fields)


def test_the_example_is_read(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", _section(), re.DOTALL)
    (tmp_path / "facts.toml").write_text(example, encoding="utf-8")
    assert read_facts(tmp_path / "facts.toml").site == "Kiso, line 3"


def test_a_file_that_is_nested_too_deep_is_told(tmp_path: Path) -> None:
    (tmp_path / "facts.toml").write_text("a = " + "[" * 100_000)
    with pytest.raises(ConfigError, match=r"facts\.toml cannot be read as TOML"):
        read_facts(tmp_path / "facts.toml")

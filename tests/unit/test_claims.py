"""docs/claims.md names only commands that exist; run from a checkout, for the wheel carries no docs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CLAIMS = ROOT / "docs" / "claims.md"

pytestmark = pytest.mark.skipif(not CLAIMS.exists(), reason="outside a checkout")


def _commands() -> list[str]:
    rows = [line for line in CLAIMS.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    promises = [row for row in rows if "checked by" not in row]
    commands = [re.findall(r"`([^`]+)`", row.rsplit("|", 2)[1]) for row in promises]
    assert all(len(found) == 1 for found in commands)
    return [found[0] for found in commands]


def test_every_promise_has_a_command_that_exists() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    commands = _commands()
    assert len(commands) >= 25
    for command in commands:
        program, *arguments = command.split()
        if program == "make":
            assert arguments[0] in targets, command
        else:
            paths = [argument for argument in arguments if "/" in argument]
            assert program in ("pytest", "bash")
            assert paths, command
            assert all((ROOT / path).exists() for path in paths), command


def test_every_expression_behind_k_selects_a_test() -> None:
    for command in _commands():
        if " -k " in command:
            paths, _, word = command.partition(" -k ")
            (path,) = paths.split()[1:]
            names = re.findall(r"^def (test_\w+)", (ROOT / path).read_text(), re.MULTILINE)
            assert any(word in name for name in names), command

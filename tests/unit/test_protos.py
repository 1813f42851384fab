from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_the_generated_code_is_what_the_protos_say() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "generate_protos.py"), "--check"]
    if not (ROOT / "fedsparse" / "v1").exists():
        pytest.skip("these tests run against an installed package, without its sources")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")

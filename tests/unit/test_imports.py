from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = "torch", "torchvision", "transformers", "kornia", "sklearn", "pandas"


@pytest.mark.parametrize(
    "room",
    [
        "fedsparse.delta",
        "fedsparse.aggregation",
        "fedsparse.audit",
        "fedsparse.registry",
        "fedsparse.security",
        "fedsparse.cli.main",
        "fedsparse.cli.inspect",
        "fedsparse_client.app",
        "fedsparse_client.gateway.main",
        "fedsparse_server.hub",
    ],
)
def test_the_gateway_the_hub_and_the_auditor_never_load_what_trains(room: str) -> None:
    code = f"import sys, {room}; print(sorted({{m.partition('.')[0] for m in sys.modules}} & set({HEAVY!r})))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("room", ["delta", "aggregation", "audit", "registry", "security"])
def test_what_an_auditor_needs_does_not_even_load_flower(room: str) -> None:
    code = f"import sys, fedsparse.{room}; print('flwr' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"

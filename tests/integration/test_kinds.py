"""Federations of the other kinds of adapter: one line of configuration away."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fedsparse.registry import Registry

from .conftest import Federation

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_a_federation_of_another_kind_learns(federation_factory: Callable[..., Federation], kind: str) -> None:
    federation = federation_factory(3, kind=kind)
    for name in ("server", *federation.layout.sites):
        federation.start(name)
    federation.wait_for_server()
    rounds = [event for event in federation.events() if event["event"] == "round_committed"]
    assert [event["round"] for event in rounds] == [1, 2, 3]
    assert rounds[-1]["balanced_accuracy"] > 0.5
    registry = Registry.open(federation.state / "registry")
    inserted = [tensor.name for tensor in registry.space.tensors if not tensor.name.startswith("head.")]
    assert inserted
    assert all(f".{kind}." in name for name in inserted)
    changed = {registry.space.tensors[part.tensor].name for part in registry.state(3).tensors}
    assert changed - {"head.weight", "head.bias"}

from __future__ import annotations

from itertools import pairwise

import pytest
from pydantic import ValidationError

from fedsparse import config


def test_rates_fall_by_the_same_factor_to_their_last_share() -> None:
    settings = config.TrainingDefaults(learning_rate=0.1, head_learning_rate=0.01, decay=0.01)
    rounds = settings.schedule(5)
    rates = [one.learning_rate for one in rounds]
    assert rates[0] == 0.1
    assert rates[-1] == pytest.approx(0.001)
    assert [b / a for a, b in pairwise(rates)] == pytest.approx([0.01**0.25] * 4)
    assert rounds[-1].head_learning_rate == pytest.approx(0.0001)


def test_without_decay_every_round_is_alike() -> None:
    settings = config.TrainingDefaults(decay=1)
    assert len(set(settings.schedule(4))) == 1


def test_a_single_round_trains_at_the_full_rate_and_later_ones_as_the_last() -> None:
    settings = config.TrainingDefaults(learning_rate=0.1, decay=0.1)
    assert settings.of_round(1, 1).learning_rate == 0.1
    assert settings.of_round(9, 3) == settings.of_round(3, 3)


@pytest.mark.parametrize(("kind", "coding"), [("delta", "ternary"), ("lora", "int8"), ("bottleneck", "int8")])
def test_steps_are_written_as_suits_the_adapter_unless_it_is_said(kind: str, coding: str) -> None:
    base = {"data": {"path": "x"}, "adapter": {"kind": kind}}
    assert config.SimulateConfig.model_validate(base).server.value_coding == coding
    told = {**base, "server": {"value_coding": "bf16"}}
    assert config.SimulateConfig.model_validate(told).server.value_coding == "bf16"


@pytest.mark.parametrize("strength", ["auto", 0.8])
def test_a_rule_to_compare_must_fit_its_strength(strength: object) -> None:
    told = {"data": {"path": "x"}, "aggregation": {"strength": strength}, "plants": {"rules": ["trimmed-mean"]}}
    with pytest.raises(ValidationError, match=r"plants\.rules names trimmed-mean"):
        config.SimulateConfig.model_validate(told)


@pytest.mark.parametrize(
    ("kind", "task", "given", "optimiser", "beta1"),
    [
        ("delta", "text-classification", {}, "momentum", 0.7),
        ("delta", "text-classification", {"optimiser": "momentum"}, "momentum", 0.7),
        ("delta", "text-classification", {"beta1": 0.2}, "momentum", 0.2),
        ("delta", "text-classification", {"optimiser": "adam"}, "adam", 0.9),
        ("delta", "image-classification", {}, "none", 0.9),
        ("lora", "text-classification", {}, "none", 0.9),
    ],
)
def test_the_server_steps_as_suits_the_task_and_the_kind_unless_it_is_said(
    kind: str, task: str, given: dict[str, object], optimiser: str, beta1: float
) -> None:
    raw = {"data": {"path": "x"}, "task": {"kind": task}, "adapter": {"kind": kind}, "server": given}
    found = config.SimulateConfig.model_validate(raw).server
    assert (found.optimiser, found.beta1) == (optimiser, beta1)
    if not given:
        assert found == config.server_defaults(kind, task)

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedsparse import config
from fedsparse.aggregation import Lateness, Policy, holders_mean
from fedsparse.simulation import Progress, Stragglers, federate
from fedsparse.training import Evaluator, LocalTrainer, Trained
from tests.unit.training_samples import trainer

QUARTERS = tuple(np.arange(first, 24, 4) for first in range(4))


def rounds(
    folder: Path, late: Lateness | None, stragglers: Stragglers, number: int = 4
) -> tuple[list[Progress], Counter[int]]:
    """Return what each round leads to, and how often plants trained in it."""
    asked: Counter[int] = Counter()

    class Watched(LocalTrainer):
        def train(self, *given: Any) -> Trained:
            asked[given[2]] += 1
            return super().train(*given)

    one = trainer(folder)
    plants = [Watched(one.adapter, one.samples.subset(part), one.inputs.take(part)) for part in QUARTERS]
    schedule = config.TrainingDefaults(density=0.3, batch_size=8).schedule(number)
    evaluator = Evaluator(one.adapter, one.samples.labels, one.inputs)
    policy, server = Policy(holders_mean, late=late), config.ServerSettings()
    return list(federate(plants, evaluator, policy, server, schedule, stragglers=stragglers)), asked


def test_stragglers_updates_arrive_rounds_later_and_are_merged_once(tmp_path: Path) -> None:
    found, asked = rounds(tmp_path, Lateness(0.5, 4), Stragglers(0.5, 2))
    assert [asked[n] for n in (1, 2, 3, 4)] == [4, 2, 1, 3]  # who is late is not asked meanwhile
    assert [one.plants for one in found] == [4, 2, 1, 3]
    assert [one.late for one in found] == [0, 0, 2, 1]
    assert [len(one.standings) for one in found] == [2, 1, 3, 3]


@pytest.mark.parametrize(("late", "delay"), [(None, 1), (Lateness(0.5, 1), 2)])
def test_late_updates_are_dropped_by_default_and_where_they_are_too_late(
    tmp_path: Path, late: Lateness | None, delay: int
) -> None:
    found, _ = rounds(tmp_path, late, Stragglers(0.5, delay))
    assert [one.late for one in found] == [0, 0, 0, 0]


def test_the_weight_decides_what_late_updates_move(tmp_path: Path) -> None:
    ways = [rounds(tmp_path, Lateness(exponent, 4), Stragglers(0.5, 1), 2)[0] for exponent in (0.0, 10.0)]
    assert ways[0][0].state == ways[1][0].state
    assert ways[0][1].state != ways[1][1].state


def test_where_nobody_is_late_the_policy_changes_nothing(tmp_path: Path) -> None:
    ways = [rounds(tmp_path, late, Stragglers())[0][-1].state for late in (None, Lateness(0.5, 4))]
    assert ways[0] == ways[1]

from __future__ import annotations

from dataclasses import replace

import pytest
from pydantic import ValidationError

from fedsparse.aggregation import Asked, Lateness, Policy
from fedsparse.config import AggregationSettings
from fedsparse.delta import Mask
from fedsparse.errors import DeltaError
from tests.unit.federation_samples import TRAINING

SEEDED = replace(TRAINING, mask=Mask.SEEDED, revote=3)
VOTED = replace(TRAINING, mask=Mask.CONSENSUS, revote=3)
LATENESS = Lateness(0.5, 2)


def test_by_default_late_updates_are_dropped_and_the_manifest_says_nothing_of_them() -> None:
    settings = AggregationSettings()
    assert Policy.of(settings).late is None
    assert "late" not in settings.told
    assert "stale" not in settings.told


def test_the_settings_lead_to_the_policy_and_stand_in_the_manifest() -> None:
    settings = AggregationSettings(late="merge", staleness_exponent=1.0, max_staleness=3)
    assert Policy.of(settings).late == Lateness(1.0, 3)
    assert settings.told.endswith("late merge, staleness_exponent 1.0, max_staleness 3")


@pytest.mark.parametrize("wrong", [{"late": "later"}, {"staleness_exponent": -0.1}, {"max_staleness": 0}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        AggregationSettings.model_validate(wrong)


def test_plants_that_choose_for_themselves_may_be_late_across_rounds() -> None:
    assert LATENESS.staleness(Asked.of(TRAINING, 1, 0), Asked.of(TRAINING, 3, 2)) == 2


def test_an_update_that_is_too_late_is_refused_naming_both_rounds_and_the_limit() -> None:
    with pytest.raises(DeltaError, match="round 1, 3 rounds before round 4; at most 2 are merged"):
        LATENESS.staleness(Asked.of(TRAINING, 1, 0), Asked.of(TRAINING, 4, 3))


@pytest.mark.parametrize("now", [Asked.of(TRAINING, 1, 1), Asked.of(TRAINING, 2, 0)])
def test_an_update_from_a_round_or_version_to_come_is_refused(now: Asked) -> None:
    with pytest.raises(DeltaError, match="for round 2 from version 1, this is round"):
        LATENESS.staleness(Asked.of(TRAINING, 2, 1), now)


def test_drawn_coordinates_count_while_their_draw_stands() -> None:
    assert LATENESS.staleness(Asked.of(SEEDED, 2, 1), Asked.of(SEEDED, 3, 2)) == 1
    with pytest.raises(DeltaError, match="whose coordinates are draw 1; those of round 4 are draw 2"):
        LATENESS.staleness(Asked.of(SEEDED, 3, 2), Asked.of(SEEDED, 4, 3))


def test_voted_coordinates_count_while_their_vote_stands() -> None:
    assert LATENESS.staleness(Asked.of(VOTED, 2, 1, b"a"), Asked.of(VOTED, 3, 2, b"a")) == 1
    with pytest.raises(DeltaError, match="the vote that led to"):
        LATENESS.staleness(Asked.of(VOTED, 3, 2, b"a"), Asked.of(VOTED, 5, 4, b"b"))


def test_a_vote_counts_in_its_own_round_alone() -> None:
    assert LATENESS.staleness(Asked.of(VOTED, 1, 0), Asked.of(VOTED, 1, 0)) == 0
    for later in (Asked.of(VOTED, 2, 1, b"a"), Asked.of(replace(VOTED, revote=1), 2, 1)):
        with pytest.raises(DeltaError, match="whose coordinates are the vote of round 1"):
            LATENESS.staleness(Asked.of(VOTED, 1, 0), later)

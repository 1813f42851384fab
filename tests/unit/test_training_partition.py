from __future__ import annotations

import pytest

from fedsparse.errors import DataError
from fedsparse.training.partition import dirichlet_shares, hold_out, partition

STRATA = [("intact", "mono")] * 40 + [("defective", "poly")] * 20 + [("intact", "poly")] * 11


def test_hold_out_takes_the_same_share_of_every_stratum() -> None:
    rest, test = hold_out(STRATA, 0.25, seed=0)
    assert sorted(rest + test) == list(range(71))
    assert [sum(STRATA[i] == s for i in test) for s in dict.fromkeys(STRATA)] == [10, 5, 3]


@pytest.mark.parametrize("alpha", [0.1, 0.5, 100.0])
def test_a_partition_gives_every_sample_to_exactly_one_site(alpha: float) -> None:
    parts = partition(STRATA, dirichlet_shares(STRATA, 4, alpha, seed=3), seed=3)
    assert len(parts) == 4
    assert sorted(position for part in parts for position in part) == list(range(71))


def test_shares_decide_how_many_samples_of_a_stratum_a_site_gets() -> None:
    shares = dict.fromkeys(STRATA, (0.5, 0.5)) | {("intact", "mono"): (0.1, 0.9)}
    parts = partition(STRATA, shares, seed=0)
    assert [sum(STRATA[i] == ("intact", "mono") for i in part) for part in parts] == [4, 36]


def test_shares_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(DataError, match="add up to 1"):
        partition(STRATA, dict.fromkeys(STRATA, (0.5, 0.4)), seed=0)

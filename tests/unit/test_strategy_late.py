"""The strategy with plants that answer late; only Flower behind it is a stand-in."""

from __future__ import annotations

from pathlib import Path

import pytest
from flwr.app import ArrayRecord, ConfigRecord
from flwr.supercore.task_identity import TaskIdentity

from tests.unit.federation_samples import Pki, change
from tests.unit.strategy_samples import ISE, KISO, TENRYU, Bench, made


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(autouse=True)
def in_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be the process of a Flower run, which alone may make messages."""
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 7)


@pytest.fixture
def bench(pki: Pki, tmp_path: Path) -> Bench:
    return made(pki, tmp_path)


def value(bench: Bench, index: int) -> float:
    """Return what the newest version holds at a coordinate of the first tensor."""
    (tensor,) = bench.registry.state(bench.registry.head()).tensors
    return float(tensor.values[tensor.indices.tolist().index(index)])


def test_a_late_update_is_merged_in_the_open_round_with_its_weight_and_recorded_so(bench: Bench) -> None:
    bench.start()
    bench.finish(KISO, ISE)
    bench.start()
    late = bench.update(TENRYU, change(90, 95))
    bench.flower.answer(TENRYU, late)
    bench.finish(KISO, ISE)
    assert value(bench, 90) == pytest.approx(-(2**-0.5))
    assert value(bench, 95) == pytest.approx(2**-0.5)
    told = bench.plants()
    assert (told["tenryu"]["staleness"], told["tenryu"]["reason"]) == (1, None)
    assert told["tenryu"]["weight"] == pytest.approx(2**-0.5)
    assert (told["kiso"]["staleness"], told["kiso"]["weight"]) == (0, 1.0)
    received = [(event["plant"], event["round"], event["staleness"]) for event in bench.events("update_received")]
    assert sorted(received[2:]) == [("ise", 2, 0), ("kiso", 2, 0), ("tenryu", 2, 1)]
    manifest = bench.registry.versions()[-1]
    assert len(manifest.contributions) == 3
    assert "late merge, staleness_exponent 0.5, max_staleness 2" in manifest.rule


def test_a_plant_that_may_still_answer_gets_no_other_task(bench: Bench) -> None:
    bench.start()
    bench.finish(KISO, ISE)
    bench.start()
    assert [bench.flower.tasks[node].round for node in (KISO, ISE, TENRYU)] == [2, 2, 1]
    assert bench.events("round_started")[-1]["plants"] == ["kiso", "ise"]
    bench.finish(KISO, ISE)
    assert (bench.plants()["tenryu"]["reason"], bench.plants()["tenryu"]["weight"]) == ("busy", None)
    bench.start()
    bench.finish(KISO, TENRYU)
    bench.start()
    assert bench.flower.tasks[TENRYU].round == 4


def test_with_the_task_after_its_late_update_a_plant_is_told_a_version_that_has_it(bench: Bench) -> None:
    """It takes the update for merged: the version names it, or begins after the one it was trained from."""
    bench.start()
    bench.finish(KISO)
    bench.start()
    bench.finish(KISO, TENRYU)
    bench.start()
    task = bench.flower.tasks[TENRYU]
    assert (task.version, bench.registry.versions()[-1].parents) == (2, (1,))
    assert 0 not in bench.registry.versions()[-1].parents


def test_an_update_that_is_too_late_is_given_up_and_its_answer_comes_to_nothing(bench: Bench) -> None:
    bench.start()
    late, name = bench.update(TENRYU), bench.flower.newest[TENRYU]
    bench.finish(KISO, ISE)
    for _ in range(2):
        bench.start()
        bench.finish(KISO, ISE)
    assert bench.events("update_given_up") == []
    bench.start()
    (event,) = bench.events("update_given_up")
    assert (event["plant"], event["round"]) == ("tenryu", 4)
    assert "3 rounds before round 4; at most 2 are merged" in event["reason"]
    assert bench.flower.tasks[TENRYU].round == 4
    bench.flower.answer(TENRYU, late, name)
    bench.finish(KISO, ISE)
    assert bench.plants()["tenryu"]["reason"] == "no answer"


def test_an_update_that_answers_another_task_than_its_plants_is_refused(bench: Bench) -> None:
    bench.start()
    old = bench.update(TENRYU)
    bench.finish(KISO, ISE, TENRYU)
    bench.start()
    bench.flower.answer(ISE, bench.update(ISE))
    bench.flower.answer(TENRYU, old)  # round 1's, in answer to round 2
    bench.finish(KISO)
    assert bench.plants()["tenryu"]["reason"] == "invalid"


def test_bytes_that_a_version_has_already_are_not_merged_again(bench: Bench) -> None:
    bench.start()
    copied = bench.update(KISO)
    bench.flower.answer(KISO, copied)
    bench.finish(ISE)
    bench.start()
    bench.flower.answer(TENRYU, copied)
    bench.finish(KISO)
    assert bench.plants()["tenryu"]["reason"] == "invalid"
    merged = [one.update_sha256 for version in bench.registry.versions() for one in version.contributions]
    assert len(merged) == len(set(merged)) == 3


def test_a_round_that_is_asked_again_takes_the_answers_to_its_first_task_in_full(bench: Bench) -> None:
    bench.start()
    bench.finish()
    assert bench.events("round_failed")
    bench.start()
    assert bench.strategy.wants_late()  # nobody is left to ask
    bench.flower.answer(TENRYU, bench.update(TENRYU, change(90, 95)))
    bench.finish()
    assert value(bench, 95) == 1.0
    assert (bench.plants()["tenryu"]["staleness"], bench.plants()["tenryu"]["weight"]) == (0, 1.0)


def test_a_round_waits_for_late_answers_only_where_it_lacks_updates(bench: Bench) -> None:
    bench.start()
    bench.finish()
    messages = bench.strategy.configure_train(2, ArrayRecord(), ConfigRecord(), bench.grid)
    assert list(messages) == []
    bench.flower.answer(ISE, bench.update(ISE))
    bench.grid.send_and_receive(messages, timeout=30)
    assert not bench.strategy.wants_late()
    bench.finish()
    assert bench.plants()["ise"]["reason"] is None


def test_a_plant_that_has_connected_anew_is_not_counted_for_both_connections(bench: Bench) -> None:
    bench.start()
    bench.finish(KISO)
    bench.flower.answer(ISE, bench.update(ISE))
    bench.flower.nodes = [KISO, 9]
    bench.start()
    assert bench.events("update_given_up")[-1]["reason"] == "it has connected anew"
    bench.finish(KISO, 9)
    committed = bench.events("round_committed")[-1]["plants"]
    assert [(one["plant"], one["reason"]) for one in committed if one["plant"] == "ise"] == [("ise", None)]


def test_a_plant_whose_task_can_no_longer_be_answered_is_asked_anew(bench: Bench) -> None:
    bench.start()
    bench.finish(KISO, ISE)
    bench.start()
    bench.flower.fail(TENRYU)
    bench.finish(KISO, ISE)
    assert bench.plants()["tenryu"]["reason"] == "left"
    bench.start()
    assert bench.flower.tasks[TENRYU].round == 3


def test_by_default_late_updates_are_dropped_and_every_round_asks_all(pki: Pki, tmp_path: Path) -> None:
    bench = made(pki, tmp_path, late="")
    bench.start()
    late, name = bench.update(TENRYU), bench.flower.newest[TENRYU]
    bench.finish(KISO)
    bench.start()
    assert bench.flower.tasks[TENRYU].round == 2
    bench.flower.answer(TENRYU, late, name)
    bench.finish(KISO)
    assert bench.plants()["tenryu"]["reason"] == "no answer"
    assert not bench.strategy.wants_late()
    assert "late" not in bench.registry.versions()[-1].rule


@pytest.mark.parametrize("mask", ["consensus", "seeded"])
def test_an_update_whose_coordinates_no_longer_stand_is_given_up_at_once(
    pki: Pki, tmp_path: Path, mask: str
) -> None:
    bench = made(pki, tmp_path, training=f"mask = '{mask}'\nrevote = 2")
    bench.start()
    bench.finish(KISO, ISE)
    bench.start()  # of a consensus the first round after its vote, of a draw the second of two
    assert (bench.flower.tasks[TENRYU].round == 2) == (mask == "consensus")
    bench.finish(KISO, ISE)
    bench.start()
    assert bench.flower.tasks[TENRYU].round == 3
    assert "those of round " in bench.events("update_given_up")[-1]["reason"]


def test_plants_whose_task_flower_did_not_take_are_asked_again_in_the_next_round(bench: Bench) -> None:
    bench.flower.full = True
    bench.start()
    bench.finish()
    assert [event["reason"] for event in bench.events("round_failed")] != []
    bench.flower.full = False
    bench.start()
    bench.finish(KISO, ISE, TENRYU)
    assert {plant["reason"] for plant in bench.plants().values()} == {None}

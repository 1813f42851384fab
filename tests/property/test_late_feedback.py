"""Error feedback where updates come late: the plants' own residuals against the real strategy and registry."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from fedsparse_client.residual import Residual
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse.delta import (
    Operation,
    Reason,
    RoundTask,
    RoundUpdate,
    SparseDelta,
    TensorDelta,
    ValueCoding,
    compensate,
    encode,
    encode_update,
)
from fedsparse.registry import AdapterVersion
from tests.unit.federation_samples import SPACE, Pki
from tests.unit.strategy_samples import ISE, KISO, TENRYU, Bench, made

NODES = (KISO, ISE, TENRYU)
answers = st.lists(st.sets(st.sampled_from(NODES)), min_size=2, max_size=8)


class Plant:
    """Trains at random and answers as the client does.

    Attributes:
        taken_back: digests of updates that it took for not merged, and whose residual it has used again.
    """

    def __init__(self, folder: Path, node: int) -> None:
        folder.mkdir()
        self._residual = Residual(folder, SPACE)
        self._draw = np.random.default_rng(node)
        self._last: tuple[str, SparseDelta] | None = None
        self.taken_back: list[str] = []

    def train(self, task: RoundTask) -> bytes:
        before = self._residual.settle(
            task.version, AdapterVersion.from_bytes(task.manifest) if task.manifest else None
        )
        if self._last is not None and before != self._last[1]:
            self.taken_back.append(self._last[0])
        values = self._draw.normal(size=6).astype(np.float32)
        places = np.sort(self._draw.choice(100, 6, replace=False))
        trained = SparseDelta(SPACE.fingerprint, Operation.ADD, (TensorDelta(0, places, values),))
        sent, left = compensate(trained, before, ValueCoding.TERNARY)
        data = encode(sent, SPACE, ValueCoding.TERNARY)
        update = RoundUpdate(task.round, task.version, 10, data, Reason.NONE, {})
        self._residual.leave(left, update)
        payload = encode_update(update)
        self._last = sha256(payload).hexdigest(), left
        return payload


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def play(bench: Bench, plants: dict[int, Plant], rounds: Sequence[set[int]]) -> None:
    """Play rounds; each set names the plants whose answers arrive while a round is open, if they work on one."""
    working: dict[int, tuple[str, bytes]] = {}
    for arriving in rounds:
        bench.start()
        for node, plant in plants.items():
            name = bench.flower.newest[node]
            if working.get(node, ("", b""))[0] != name:
                working[node] = name, plant.train(bench.flower.tasks[node])
        for node in arriving:
            name, payload = working[node]
            bench.flower.answer(node, payload, name)
        bench.finish()


@settings(max_examples=25, deadline=None)
@given(answers, st.sampled_from(["", 'late = "merge"\nmax_staleness = 1', 'late = "merge"\nmax_staleness = 3']))
def test_no_update_is_merged_twice_or_merged_and_taken_back(pki: Pki, rounds: list[set[int]], late: str) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        for key in ("_task_id", "_run_id", "_node_id"):
            patch.setattr(TaskIdentity, key, 7)
        bench = made(pki, Path(name), late)
        plants = {node: Plant(Path(name) / f"plant-{node}", node) for node in NODES}
        play(bench, plants, [*rounds, set(NODES), set(NODES)])
        merged = [one.update_sha256 for version in bench.registry.versions() for one in version.contributions]
    assert len(merged) == len(set(merged))
    assert not set(merged) & {digest for plant in plants.values() for digest in plant.taken_back}

from __future__ import annotations

import math

import numpy as np
import pytest

from fedsparse import config
from fedsparse.aggregation import Memory, Server, Step
from fedsparse.delta import SparseDelta, ValueCoding, apply, decode, quantise
from fedsparse.errors import DeltaError
from tests.unit.samples import LIMIT, NOTHING, SPACE, delta, state


def server(rows: bool = False, **settings: object) -> Server:
    told = config.ServerSettings.model_validate({"value_coding": "fp32", **settings})
    return Server(SPACE, told, dense={1}, rows=rows)


def rounds(server: Server, *merged: SparseDelta, before: SparseDelta = NOTHING) -> tuple[SparseDelta, list[Step]]:
    now, steps, memory = before, list[Step](), Memory.empty(SPACE)
    for one in merged:
        steps.append(server.step(now, one, memory))
        now, memory = apply(now, steps[-1].delta), steps[-1].memory
    return now, steps


def values(step: SparseDelta) -> dict[int, dict[int, float]]:
    return {
        tensor.tensor: dict(zip(tensor.indices.tolist(), tensor.values.tolist(), strict=True))
        for tensor in step.tensors
    }


def test_without_an_optimiser_the_step_is_what_was_merged() -> None:
    merged = delta({0: {1: 1.5}, 2: {9: -2.0}})
    assert server().step(NOTHING, merged, Memory.empty(SPACE)).delta == merged


def test_the_learning_rate_scales_the_step() -> None:
    step = server(learning_rate=0.5).step(NOTHING, delta({0: {1: 3.0}}), Memory.empty(SPACE))
    assert values(step.delta) == {0: {1: 1.5}}


def test_momentum_adds_up_and_leaves_what_is_not_named_alone() -> None:
    first, second = delta({0: {1: 1.0, 2: 1.0}}), delta({0: {1: 1.0, 3: 4.0}})
    _, steps = rounds(server(optimiser="momentum", beta1=0.5), first, second, first)
    assert values(steps[1].delta) == {0: {1: 1.5, 3: 4.0}}
    assert values(steps[2].delta) == {0: {1: 1.75, 2: 1.5}}


@pytest.mark.parametrize("optimiser", ["adam", "yogi"])
def test_adaptive_steps_are_those_of_the_paper(optimiser: str) -> None:
    settings = config.ServerSettings(optimiser=optimiser, learning_rate=0.1, beta1=0.8, beta2=0.9, tau=0.01)
    _, steps = rounds(
        server(**settings.model_dump(exclude={"value_coding"})), delta({0: {1: 2.0}}), delta({0: {1: -1.0}})
    )
    m, v = 0.0, settings.tau**2
    for gradient, step in zip((2.0, -1.0), steps, strict=True):
        m = 0.8 * m + 0.2 * gradient
        if optimiser == "adam":
            v = 0.9 * v + 0.1 * gradient**2
        else:
            v = v - 0.1 * gradient**2 * math.copysign(1, v - gradient**2)
        assert values(step.delta)[0][1] == pytest.approx(0.1 * m / (math.sqrt(v) + 0.01), rel=1e-6)


@pytest.mark.parametrize("coding", ["bf16", "int8", "int4", "ternary"])
def test_a_step_is_sent_as_it_is_taken_and_nothing_is_lost(coding: str) -> None:
    draw = np.random.default_rng(5)
    merged = [delta({2: dict(enumerate(draw.normal(size=300).astype(np.float32)))}) for _ in range(12)]
    now, steps = rounds(server(value_coding=coding), *merged)
    for step in steps:
        assert decode(step.data, SPACE, max_bytes=LIMIT) == step.delta
        assert quantise(step.delta, ValueCoding[coding.upper()]) == step.delta
    reached = np.zeros(300)
    for part in (now, steps[-1].memory.residual):
        for tensor in part.tensors:
            reached[tensor.indices] += tensor.values
    wanted = sum(one.tensors[0].values.astype(np.float64) for one in merged)
    assert reached == pytest.approx(wanted, abs=1e-4)


def test_the_adapter_never_grows_beyond_its_density_and_the_rest_waits() -> None:
    held = state({0: {0: 1.0, 1: 1.0}})
    density = 4.5 / SPACE.size
    merged = delta({0: {0: 0.5, 2: 1.0, 3: 3.0}, 2: {5: -2.0}})
    now, steps = rounds(server(max_density=density), merged, before=held)
    assert values(now) == {0: {0: 1.5, 1: 1.0, 3: 3.0}, 2: {5: -2.0}}
    assert values(steps[0].memory.residual) == {0: {2: 1.0}}


def test_what_waits_enters_once_there_is_room() -> None:
    tight, wide = server(max_density=1.5 / SPACE.size), server(max_density=1.0)
    first = tight.step(NOTHING, delta({0: {1: 5.0, 2: 1.0}}), Memory.empty(SPACE))
    second = wide.step(apply(NOTHING, first.delta), delta({0: {2: 1.0}}), first.memory)
    assert values(second.delta) == {0: {2: 2.0}}


def test_a_full_adapter_still_moves() -> None:
    held = state({0: {0: 1.0, 1: 1.0}})
    now, _ = rounds(server(max_density=2 / SPACE.size), delta({0: {0: 1.0, 5: 9.0}}), before=held)
    assert values(now) == {0: {0: 2.0, 1: 1.0}}


def test_rows_grow_whole() -> None:
    row = dict.fromkeys(range(5), 1.0)
    merged = delta({0: {**row, **dict.fromkeys(range(10, 15), 2.0)}})
    now, _ = rounds(server(rows=True, max_density=6 / SPACE.size), merged)
    assert values(now) == {0: dict.fromkeys(range(10, 15), 2.0)}


def test_memory_survives_the_disk() -> None:
    merged = [delta({0: {1: 1.0, 2: 0.3}, 2: {7: -0.2}}), delta({0: {1: 1.0}})]
    memory = rounds(server(optimiser="adam", value_coding="ternary"), *merged)[1][-1].memory
    assert Memory.from_bytes(memory.to_bytes(SPACE), SPACE) == memory


@pytest.mark.parametrize("cut", [0, 4, 20, -1])
def test_damaged_memory_is_refused(cut: int) -> None:
    data = Memory.empty(SPACE).to_bytes(SPACE)
    with pytest.raises(DeltaError):
        Memory.from_bytes(data[:cut], SPACE)


def test_dense_tensors_always_fit() -> None:
    held = state({0: {0: 1.0, 1: 1.0}})
    now, _ = rounds(server(max_density=2 / SPACE.size), delta({0: {5: 9.0}, 1: {2: 0.01}}), before=held)
    assert values(now)[1] == {2: pytest.approx(0.01)}
    assert values(now)[0] == {0: 1.0, 1: 1.0}


def test_moments_of_another_optimiser_are_not_believed() -> None:
    merged = delta({0: {1: 2.0}})
    memory = server(optimiser="momentum").step(NOTHING, merged, Memory.empty(SPACE)).memory
    fresh = server(optimiser="adam", learning_rate=0.01).step(NOTHING, merged, Memory.empty(SPACE))
    assert server(optimiser="adam", learning_rate=0.01).step(NOTHING, merged, memory).delta == fresh.delta

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fedsparse.delta import (
    Allocation,
    Mask,
    Reason,
    RoundTask,
    RoundUpdate,
    Structure,
    TrainingSettings,
    ValueCoding,
    decode_task,
    decode_update,
    encode_task,
    encode_update,
)
from fedsparse.errors import DeltaError
from tests.property.strategies import damaged
from tests.unit.samples import LIMIT

few = settings(max_examples=100, deadline=None)
many = settings(max_examples=300, deadline=None)
rounds = st.integers(1, 2**32 - 1)
counts = st.integers(0, 2**64 - 1)
content = st.binary(min_size=1, max_size=40)
names = st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=64)
metrics = st.dictionaries(names, st.floats(allow_nan=False, allow_infinity=False), max_size=5)
rates = st.floats(0, 1, exclude_min=True)

trained = st.builds(RoundUpdate, rounds, counts, counts, content, st.just(Reason.NONE), metrics)
refusals = st.builds(
    RoundUpdate.refusal,
    rounds,
    counts,
    st.sampled_from([reason for reason in Reason if reason is not Reason.NONE]),
)
updates = st.one_of(trained, refusals)
training = st.builds(
    TrainingSettings,
    density=rates,
    epochs=st.integers(1, 1000),
    batch_size=st.integers(1, 4096),
    learning_rate=rates,
    head_learning_rate=rates,
    seed=st.integers(0, 2**63 - 1),
    value_coding=st.sampled_from(ValueCoding),
    upload_density=rates,
    structure=st.sampled_from(Structure),
    allocation=st.sampled_from(Allocation),
    mask=st.sampled_from(Mask),
    revote=st.integers(1, 100_000),
)


@st.composite
def tasks(draw: st.DrawFn) -> RoundTask:
    version, held = draw(counts), draw(counts)
    settings = draw(training)
    return RoundTask(
        round=draw(rounds),
        space=draw(st.binary(min_size=32, max_size=32)),
        version=version,
        held_version=held,
        deltas=() if version == held else tuple(draw(st.lists(content, min_size=1, max_size=3))),
        manifest=draw(content) if version else b"",
        manifest_signature=draw(content),
        hub_certificate=draw(content),
        training=settings,
        support=draw(content) if settings.mask is Mask.CONSENSUS else b"",
    )


@few
@given(updates)
def test_every_update_comes_back(update: RoundUpdate) -> None:
    assert decode_update(encode_update(update), max_bytes=LIMIT) == update


@few
@given(tasks())
def test_every_task_comes_back(task: RoundTask) -> None:
    assert decode_task(encode_task(task), max_bytes=LIMIT) == task


@many
@given(damaged(updates.map(encode_update)))
def test_a_damaged_update_is_refused_or_is_what_the_encoder_writes(data: bytes) -> None:
    try:
        update = decode_update(data, max_bytes=LIMIT)
    except DeltaError:
        return
    assert encode_update(update) == data


@many
@given(damaged(tasks().map(encode_task)))
def test_a_damaged_task_is_refused_or_is_what_the_encoder_writes(data: bytes) -> None:
    try:
        task = decode_task(data, max_bytes=LIMIT)
    except DeltaError:
        return
    assert encode_task(task) == data

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedsparse import config
from fedsparse.adapters import ImageReader, build_adapter
from fedsparse.delta import (
    Allocation,
    Operation,
    SparseDelta,
    Structure,
    TrainingSettings,
    ValueCoding,
    apply,
    encode,
)
from fedsparse.errors import ConfigError, DataError
from fedsparse.training import (
    Evaluator,
    Features,
    LocalTrainer,
    cached_features,
    load_samples,
    prepare,
    train_alone,
)
from fedsparse.training.local import HELD_OUT, SPLIT_SEED

from .training_samples import (
    ADAPTER,
    CLASSES,
    SETTINGS,
    adapter,
    base,
    space,
    text_base,
    trainer,
    write_images,
    write_texts,
)

FLIPS = config.AugmentationSettings()
UNTOUCHED = SparseDelta.empty(space().fingerprint, Operation.SET)


def _bytes(delta: SparseDelta) -> bytes:
    return encode(delta, space(), ValueCoding.FP32)


def test_a_round_learns_and_its_delta_keeps_to_the_density(tmp_path: Path) -> None:
    one = trainer(tmp_path)
    first = one.train(UNTOUCHED, SETTINGS, 1)
    state = apply(UNTOUCHED, first.delta)
    second = one.train(state, SETTINGS, 2)
    third = one.train(apply(state, second.delta), SETTINGS, 3)
    assert first.loss > third.loss
    assert first.received.balanced_accuracy == 0.5
    assert third.received.balanced_accuracy > 0.5
    assert 0 < first.delta.nnz <= SETTINGS.density * space().size
    assert first.samples == 28  # of 32, four are held out


def test_the_same_round_gives_the_same_bytes_and_another_round_others(tmp_path: Path) -> None:
    one, two = trainer(tmp_path), trainer(tmp_path)
    assert _bytes(one.train(UNTOUCHED, SETTINGS, 1).delta) == _bytes(two.train(UNTOUCHED, SETTINGS, 1).delta)
    assert _bytes(one.train(UNTOUCHED, SETTINGS, 2).delta) != _bytes(two.train(UNTOUCHED, SETTINGS, 1).delta)
    other = replace(SETTINGS, seed=4)
    assert _bytes(one.train(UNTOUCHED, other, 1).delta) != _bytes(two.train(UNTOUCHED, SETTINGS, 1).delta)


def test_a_round_chooses_rows_from_the_input_side_on_where_it_is_asked_to(tmp_path: Path) -> None:
    one = trainer(tmp_path)
    asked = replace(SETTINGS, structure=Structure.ROW, allocation=Allocation.EARLY)
    early, scattered = (
        {
            t.tensor: t.indices
            for t in one.train(UNTOUCHED, how, 1).delta.tensors
            if t.tensor not in one.adapter.dense
        }
        for how in (asked, SETTINGS)
    )
    width = int(np.prod(space().tensors[0].shape[1:]))
    assert np.unique(early[0] // width).size * width == len(early[0])
    assert np.unique(scattered[0] // width).size * width > len(scattered[0])
    assert len(early) < len(scattered)


def test_a_round_that_fails_leaves_the_next_one_as_it_would_have_been(tmp_path: Path) -> None:
    one, two = trainer(tmp_path), trainer(tmp_path)
    with pytest.raises(ConfigError, match="density"):
        one.train(UNTOUCHED, replace(SETTINGS, density=1e-9), 1)
    assert _bytes(one.train(UNTOUCHED, SETTINGS, 1).delta) == _bytes(two.train(UNTOUCHED, SETTINGS, 1).delta)


def test_the_evaluator_sees_the_state_it_is_given_and_no_other(tmp_path: Path) -> None:
    model = base()
    samples = load_samples(write_images(tmp_path / "images"), CLASSES)
    features = cached_features(model, samples, tmp_path / "cache", None)
    evaluator = Evaluator(build_adapter(model, ADAPTER), samples.labels, features)
    local = trainer(tmp_path)
    state = UNTOUCHED
    for number in (1, 2, 3):
        state = apply(state, local.train(state, SETTINGS, number).delta)
    trained = evaluator.evaluate(state)
    assert trained.balanced_accuracy > 0.8
    assert evaluator.evaluate(UNTOUCHED).balanced_accuracy == 0.5
    assert evaluator.evaluate(state) == trained


def test_training_alone_yields_a_quality_per_round(tmp_path: Path) -> None:
    local = trainer(tmp_path)
    samples = load_samples(tmp_path / "images", CLASSES)
    evaluator = Evaluator(local.adapter, samples.labels, local.inputs)
    qualities = list(train_alone(local, [SETTINGS] * 3, evaluator))
    assert len(qualities) == 3
    assert qualities[-1].balanced_accuracy > 0.8


def test_cached_activations_are_used_again_and_old_ones_removed(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    samples = load_samples(images, CLASSES)
    told: list[int] = []
    model = base()
    first = cached_features(model, samples, tmp_path / "cache", FLIPS, lambda done, total: told.append(done))
    again = cached_features(model, samples, tmp_path / "cache", FLIPS, lambda done, total: told.append(done))
    assert told == [32]
    assert np.array_equal(first.values, again.values)
    (images / "dark" / "000.png").unlink()
    cached_features(model, load_samples(images, CLASSES), tmp_path / "cache", FLIPS)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_a_cached_variant_is_the_flipped_images_activation(tmp_path: Path) -> None:
    model = base()
    samples = load_samples(write_images(tmp_path / "images", per_class=4), CLASSES)
    features = cached_features(model, samples, tmp_path / "cache", FLIPS)
    from PIL import Image

    assert isinstance(model.reader, ImageReader)
    image = model.reader.normalise(model.reader.pixels(Image.open(samples.paths[0])))
    with torch.inference_mode():
        flipped = model.prefix(image.flip(2)[None])
    torch.testing.assert_close(features.batch(np.array([0]), np.array([1]))[0], flipped, rtol=1e-2, atol=1e-2)


def test_an_image_that_changes_after_the_check_is_an_error_and_leaves_no_cache(tmp_path: Path) -> None:
    samples = load_samples(write_images(tmp_path / "images"), CLASSES)
    samples.paths[3].write_bytes(samples.paths[4].read_bytes())
    with pytest.raises(DataError, match="changed or gone"):
        cached_features(base(), samples, tmp_path / "cache", None)
    assert not list((tmp_path / "cache").glob("*.npy"))


def test_a_trainer_learns_to_tell_texts_apart() -> None:
    model, texts = text_base(), write_texts()
    adapter = build_adapter(model, config.AdapterSettings())
    one = LocalTrainer(adapter, texts, prepare(model, texts, Path("unused"), None))
    settings = TrainingSettings(
        density=0.3, epochs=12, batch_size=8, learning_rate=2e-2, head_learning_rate=5e-2, seed=0
    )
    state = SparseDelta.empty(adapter.space.fingerprint, Operation.SET)
    first = one.train(state, settings, 1)
    state = apply(state, first.delta)
    second = one.train(state, settings, 2)
    third = one.train(apply(state, second.delta), settings, 3)
    assert first.received.balanced_accuracy == 0.5
    assert third.received.balanced_accuracy > 0.8
    assert first.loss > second.loss > third.loss
    assert first.samples == 34
    assert 0 < second.delta.nnz <= 0.3 * adapter.space.size


def test_a_rounds_samples_are_weighed_by_class_and_the_held_out_ones_are_never_trained_on(tmp_path: Path) -> None:
    one = trainer(tmp_path)
    training, held_out = one.samples.split(HELD_OUT, SPLIT_SEED)
    assert sorted([*training, *held_out]) == [*range(32)]
    values = one.inputs.values.copy()
    values[held_out] = np.nan
    blind = LocalTrainer(adapter(), one.samples, Features(values))
    with pytest.raises(DataError, match="are not finite"):
        blind.train(UNTOUCHED, SETTINGS, 1)  # it measures on them
    values[held_out] = 0
    blind = LocalTrainer(adapter(), one.samples, Features(values))
    assert _bytes(blind.train(UNTOUCHED, SETTINGS, 1).delta) == _bytes(one.train(UNTOUCHED, SETTINGS, 1).delta)

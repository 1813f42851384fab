from __future__ import annotations

import errno
import os
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fedsparse import config
from fedsparse.adapters import BaseModel
from fedsparse.errors import DataError
from fedsparse.training import (
    Features,
    Part,
    Samples,
    Texts,
    Tokens,
    cached_features,
    load_labelled,
    load_samples,
    prepare,
)
from fedsparse.training.inputs import in_batches

from .training_samples import CLASSES, base, text_base, write_images, write_texts

AUGMENTATION = config.AugmentationSettings()
IDS = np.array([[1, 2, 0, 0, 0], [3, 0, 0, 0, 0], [4, 5, 6, 7, 0]], np.int32)
RIGHT = Tokens(IDS, (IDS > 0).astype(np.int8))
LEFT = Tokens(IDS[:, ::-1].copy(), (IDS[:, ::-1] > 0).astype(np.int8))


def lists(batch: tuple[Tensor, ...]) -> list[Any]:
    return [part.tolist() for part in batch]


def test_a_batch_of_texts_is_as_long_as_the_longest_in_it() -> None:
    assert lists(RIGHT.batch(np.array([1, 0]))) == [[[3, 0], [1, 2]], [[1, 0], [1, 1]]]
    assert lists(RIGHT.batch(np.array([1]))) == [[[3]], [[1]]]
    assert [part.shape for part in RIGHT.batch(np.array([2, 0, 1]))] == [(3, 4)] * 2
    assert all(part.dtype == torch.int64 for part in RIGHT.batch(np.array([2])))


def test_texts_padded_on_the_left_are_trimmed_there() -> None:
    assert lists(LEFT.batch(np.array([1, 0]))) == [[[0, 3], [2, 1]], [[0, 1], [1, 1]]]


def test_a_text_without_any_token_still_is_one() -> None:
    nothing = Tokens(np.zeros((2, 3), np.int32), np.zeros((2, 3), np.int8))
    assert lists(nothing.batch(np.array([0, 1]))) == [[[0], [0]], [[0], [0]]]


def test_texts_are_tokenised_from_the_first_position_on_whichever_side_is_padded() -> None:
    texts = write_texts(6)
    right, left = (prepare(text_base(side), texts, Path("unused"), None) for side in ("right", "left"))
    assert isinstance(right, Tokens)
    assert isinstance(left, Tokens)
    assert np.array_equal(right.ids, left.ids)
    assert np.array_equal(right.mask, left.mask)
    assert (np.diff(right.mask, axis=1) <= 0).all()
    assert right.mask.sum(1).tolist() == [len(text.split()) for text in texts.texts]
    assert right.variants == 1


def test_taking_some_texts_keeps_their_order() -> None:
    taken = RIGHT.take(np.array([2, 0]))
    assert lists(taken.batch(np.array([0, 1]))) == lists(RIGHT.batch(np.array([2, 0])))


def features() -> Features:
    return Features(np.arange(5 * 3 * 4, dtype=np.float16).reshape(5, 3, 4, 1, 1))


def test_features_are_read_in_the_variants_asked_for() -> None:
    (batch,) = features().batch(np.array([4, 0]), np.array([2, 1]))
    assert batch.flatten().tolist() == [56, 57, 58, 59, 4, 5, 6, 7]
    assert batch.dtype == torch.float32
    assert features().batch(np.array([1]))[0].flatten().tolist() == [12, 13, 14, 15]
    assert features().variants == 3


def test_a_part_is_read_from_the_whole_and_can_be_divided_again() -> None:
    part = Part(features(), np.array([1, 3, 4]))
    assert torch.equal(
        part.batch(np.array([2, 0]), np.array([1, 2]))[0], features().batch(np.array([4, 1]), np.array([1, 2]))[0]
    )
    again = part.take(np.array([2, 1]))
    assert torch.equal(again.batch(np.array([0, 1]))[0], features().batch(np.array([4, 3]))[0])
    assert torch.equal(
        features().take(np.array([4, 3])).batch(np.array([0, 1]))[0], again.batch(np.array([0, 1]))[0]
    )
    assert part.variants == 3


def test_positions_come_in_batches() -> None:
    assert [batch.tolist() for batch in in_batches(5, 2)] == [[0, 1], [2, 3], [4]]
    assert in_batches(0, 2) == []


def test_images_for_a_model_of_texts_are_refused(tmp_path: Path) -> None:
    samples = load_samples(write_images(tmp_path, per_class=4), CLASSES)
    with pytest.raises(DataError, match="the base model tiny-bert reads texts, but the samples are images"):
        prepare(text_base(), samples, tmp_path / "cache", None)


def test_texts_for_a_model_of_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="efficientnet-lite0 reads images, but the samples are texts"):
        prepare(base(), write_texts(4), tmp_path / "cache", None)


@pytest.fixture
def images(tmp_path: Path) -> Samples:
    return load_samples(write_images(tmp_path / "images", per_class=4), CLASSES)


def computed(samples: Samples, folder: Path, augmentation: config.AugmentationSettings | None) -> bool:
    """Return whether activations had to be computed."""
    told: list[int] = []
    cached_features(base(), samples, folder, augmentation, lambda done, total: told.append(done))
    return bool(told)


def test_activations_are_cached_by_augmentation_whatever_is_mixed(images: Samples, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert computed(images, cache, AUGMENTATION)
    assert not computed(images, cache, AUGMENTATION)
    assert not computed(images, cache, AUGMENTATION.model_copy(update={"mixup": 0.4, "cutmix": 1.0}))
    assert computed(images, cache, AUGMENTATION.model_copy(update={"brightness": 0.1}))
    assert computed(images, cache, None)
    assert computed(images, cache, AUGMENTATION.model_copy(update={"variants": 2}))


def test_an_image_has_the_variants_asked_for_and_the_first_is_itself(images: Samples, tmp_path: Path) -> None:
    settings = config.AugmentationSettings(noise=0.1, variants=3)
    varied = cached_features(base(), images, tmp_path / "a", settings)
    plain = cached_features(base(), images, tmp_path / "b", None)
    assert varied.values.shape[:2] == (8, 3)
    assert plain.values.shape[:2] == (8, 1)
    assert np.array_equal(varied.values[:, 0], plain.values[:, 0])
    assert not np.array_equal(varied.values[:, 1], varied.values[:, 2])


def test_samples_are_read_as_the_task_needs_them(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "images", per_class=4)
    opened = load_labelled(config.DataSettings(path=folder), "image-classification", CLASSES)
    assert isinstance(opened, Samples)
    assert opened.classes == CLASSES
    table = tmp_path / "orders.csv"
    table.write_text("order,kind\n" + "".join(f"pump {i} leaks,{'ab'[i % 2]}\n" for i in range(8)))
    settings = config.DataSettings(path=table, text="order", label="kind")
    texts = load_labelled(settings, "text-classification")
    assert isinstance(texts, Texts)
    assert texts.classes == ("a", "b")
    assert texts.counts().tolist() == [4, 4]
    unlabelled = load_labelled(settings, "causal-lm")
    assert unlabelled.classes == ("text",)
    assert len(unlabelled) == 8


def test_of_two_that_need_the_same_activations_one_computes_and_the_other_waits(
    images: Samples, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    told: list[str] = []
    others = [base(), base()]

    def get(model: BaseModel) -> Features:
        return cached_features(model, images, cache, AUGMENTATION, lambda done, total: told.append(model.name))

    with ThreadPoolExecutor(1) as pool:
        started: list[Future[Features]] = []

        def begin_the_other(done: int, total: int) -> None:
            started.append(pool.submit(get, others[0]))
            wait(started, timeout=0.5)  # it has all the time it needs, if nothing holds it

        first = cached_features(others[1], images, cache, AUGMENTATION, begin_the_other)
        second = started[0].result()
    assert told == []
    assert np.array_equal(first.values, second.values)
    assert [path.suffix for path in cache.iterdir()] == [".npy"]


def test_what_a_crash_left_behind_is_removed(images: Samples, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "features-0123.tmp").write_bytes(b"half")
    assert computed(images, cache, AUGMENTATION)
    assert [path.suffix for path in cache.iterdir()] == [".npy"]


def test_a_full_disk_is_an_error_before_anything_is_computed(
    images: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DataError, match=r"the cached activations take [0-9,]+ bytes.*No space left"):
        computed(images, tmp_path / "cache", AUGMENTATION)
    assert not list((tmp_path / "cache").iterdir())

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from fedsparse.errors import DataError
from fedsparse.training.loading import load_samples
from fedsparse.training.samples import Samples, Texts

from .data_samples import CLASSES, write_images


def _texts(labels: list[int], classes: tuple[str, ...] = ("a", "b")) -> Texts:
    by_digest = sorted((hashlib.sha256(f"text {i}".encode()).hexdigest(), f"text {i}") for i in range(len(labels)))
    digests, texts = zip(*by_digest, strict=True)
    return Texts(texts, np.array(labels, dtype=np.int64), digests, classes)


def test_the_split_holds_out_every_class_alike_whatever_the_paths(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    samples = load_samples(images, CLASSES)
    training, held = samples.split(0.25, seed=1)
    assert sorted([*training, *held]) == list(range(32))
    assert np.bincount(samples.labels[held]).tolist() == [4, 4]
    moved = load_samples(images.rename(tmp_path / "elsewhere"), CLASSES)
    assert moved.split(0.25, seed=1)[1].tolist() == held.tolist()
    assert samples.split(0.25, seed=2)[1].tolist() != held.tolist()


def test_the_split_of_these_texts_never_changes() -> None:
    assert _texts([0] * 8).split(0.25, seed=3)[1].tolist() == [5, 7]


def test_a_class_with_a_single_sample_stays_in_training() -> None:
    training, held = _texts([0, 0, 0, 0, 1]).split(0.25, seed=0)
    assert 4 in training
    assert len(held) == 1


def test_a_class_without_samples_is_held_out_nowhere_and_counts_zero() -> None:
    texts = _texts([0, 0, 2, 2], classes=("a", "b", "c"))
    assert texts.counts().tolist() == [2, 0, 2]
    assert texts.labels[texts.split(0.5, seed=0)[1]].tolist() == [0, 2]


def test_a_subset_keeps_contents_labels_and_digests_together(tmp_path: Path) -> None:
    samples = load_samples(write_images(tmp_path / "images", per_class=4), CLASSES)
    some = samples.subset([1, 4, 6])
    assert some.paths == tuple(samples.paths[i] for i in (1, 4, 6))
    assert some.labels.tolist() == samples.labels[[1, 4, 6]].tolist()
    assert [hashlib.sha256(some.read(i)).hexdigest() for i in range(3)] == [samples.digests[i] for i in (1, 4, 6)]
    assert some.thumbnails is not None
    assert samples.thumbnails is not None
    assert np.array_equal(some.thumbnails, samples.thumbnails[[1, 4, 6]])
    texts = _texts([0, 1, 0, 1])
    assert texts.subset([0, 3]).texts == (texts.texts[0], texts.texts[3])


def test_a_subset_out_of_order_is_refused() -> None:
    with pytest.raises(DataError, match="not in the order of their digests"):
        _texts([0, 1, 0]).subset([2, 1])


def test_labels_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        _texts([0, 1]).labels[0] = 1


def test_labels_that_do_not_fit_the_contents_are_refused() -> None:
    with pytest.raises(DataError, match="1 images have 2 labels and 1 digests"):
        Samples((Path("a.png"),), np.array([0, 1]), ("00",), CLASSES)


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(b"other"), lambda path: path.unlink()])
def test_an_image_that_changes_or_goes_after_the_check_is_an_error_that_names_it(tmp_path: Path, change) -> None:
    samples = load_samples(write_images(tmp_path / "images", per_class=4), CLASSES)
    change(samples.paths[3])
    with pytest.raises(DataError, match=rf"{samples.paths[3].name} has changed or gone since it was checked"):
        samples.read(3)


def test_the_name_of_a_text_is_its_beginning_on_one_line() -> None:
    texts = Texts(("pump\n" + "x" * 100,), np.array([0]), ("00",), ("a",))
    assert texts.name(0) == "'pump\\n" + "x" * 54 + "…'"

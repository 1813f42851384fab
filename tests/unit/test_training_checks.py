from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from fedsparse.training.checks import DataReport, NearDuplicate, report
from fedsparse.training.duplicates import alike_images, alike_texts
from fedsparse.training.images import thumbnail
from fedsparse.training.loading import load_samples
from fedsparse.training.samples import Samples, Texts

from .data_samples import CLASSES, encoded, write_images

SIZE = 120


def _surface(seed: int, grain: float = 5) -> Image.Image:
    """Return a part under a lamp: the same for all, with marks and grain of its own."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    pixels = 170 - 40 * (x * x + y * y) + draw.normal(0, grain, x.shape)
    for _ in range(3):
        cx, cy, radius = draw.uniform(-0.8, 0.8), draw.uniform(-0.8, 0.8), draw.uniform(0.1, 0.3)
        pixels -= 80 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / radius**2)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _blank(seed: int, lamp: float) -> Image.Image:
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    pixels = 180 - 40 * ((x - lamp) ** 2 + y * y) + draw.normal(0, 3, x.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _thumbnails(images: list[Image.Image]) -> NDArray[np.float32]:
    return np.stack([thumbnail(encoded(image)) for image in images])


def _noisier(image: Image.Image) -> Image.Image:
    noise = np.random.default_rng(1).normal(0, 4, (SIZE, SIZE))
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    "alter",
    [
        lambda image: encoded(image, "JPEG", quality=60),
        lambda image: encoded(image.resize((90, 90), Image.Resampling.BICUBIC)),
        lambda image: encoded(image.point(lambda value: value - 15)),
        lambda image: encoded(image.filter(ImageFilter.GaussianBlur(0.7))),
        lambda image: encoded(_noisier(image)),
        lambda image: encoded(image.convert("RGB"), "BMP"),
    ],
    ids=["jpeg", "scaled", "darker", "blurred", "noisier", "colour"],
)
def test_an_altered_copy_of_an_image_is_found_with_its_original(alter) -> None:
    training = _thumbnails([_surface(seed) for seed in range(40)])
    holdout = np.stack([thumbnail(alter(_surface(seed))) for seed in (7, 30, 100)])
    assert list(alike_images(training, holdout)) == [(7, 0), (30, 1)]


def test_different_parts_under_one_lamp_are_not_called_copies() -> None:
    images = _thumbnails([_surface(seed) for seed in range(80)])
    assert list(alike_images(images[:60], images[60:])) == []


def test_blank_parts_under_two_lamps_are_not_called_copies_but_a_copy_is() -> None:
    blanks = [_blank(seed, lamp=0.3 * (seed % 2)) for seed in range(60)]
    images = _thumbnails(blanks)
    assert list(alike_images(images[:40], images[40:])) == []
    again = np.stack([thumbnail(encoded(blanks[9], "JPEG", quality=95))])
    assert list(alike_images(images[:40], again)) == [(9, 0)]


def test_images_without_any_detail_are_like_none() -> None:
    flat = _thumbnails([Image.new("L", (SIZE, SIZE), level) for level in (0, 0, 128, 255)])
    assert list(alike_images(flat[:3], flat[3:])) == []
    assert list(alike_images(flat[1:], flat[:1])) == []


def test_sixteen_bits_are_scaled_to_eight_and_not_clipped() -> None:
    pixels = np.arange(SIZE * SIZE, dtype=np.uint16).reshape(SIZE, SIZE) * 4
    deep = thumbnail(encoded(Image.fromarray(pixels)))
    assert np.allclose(deep, thumbnail(encoded(Image.fromarray((pixels >> 8).astype(np.uint8)))), atol=1)
    assert deep.max() > 200


LONG = "The seal of the feed pump in hall 3 leaks under load, and was replaced by the night shift"


@pytest.mark.parametrize(
    ("training", "holdout", "alike"),
    [
        ("Pump leaks.", "  PUMP   leaks", True),
        ("ﾎﾟﾝﾌﾟ、漏れ", "ポンプ 漏れ", True),
        ("ＰＵＭＰ-leaks", "pump leaks", True),
        ("pump leaks", "pump leak", False),
        ("> 80 °C", "< 80 °C", False),
        ("!!!", "???", False),
        (LONG, LONG.replace("replaced", "repaired"), False),
        (LONG, LONG.replace("hall 3", "hall 4"), True),
        (LONG, "An operator found oil below the gear box of the second conveyor, and stopped the line", False),
    ],
)
def test_texts_are_alike_up_to_case_width_spaces_and_punctuation_or_few_letters(
    training: str, holdout: str, alike: bool
) -> None:
    assert list(alike_texts(["something else", training], [holdout])) == ([(1, 0)] if alike else [])


def test_the_most_similar_texts_are_those_that_comparing_all_pairs_finds() -> None:
    draw = np.random.default_rng(3)
    words = ["".join(draw.choice(list("abcdefgh"), draw.integers(3, 9))) for _ in range(60)]
    training = [" ".join(draw.choice(words, draw.integers(6, 26))) for _ in range(150)]
    holdout = []
    for text in training[:100]:
        parts = text.split()
        for _ in range(draw.integers(1, 3)):
            parts[draw.integers(len(parts))] = str(draw.choice(words))
        holdout.append(" ".join(parts))

    def similarity(one: str, other: str) -> float:
        a, b = ({text[i : i + 3] for i in range(len(text) - 2)} for text in (one, other))
        return len(a & b) / len(a | b)

    expected = []
    for position, text in enumerate(holdout):
        best = max(range(len(training)), key=lambda i: similarity(training[i], text))
        if similarity(training[best], text) >= 0.9:
            expected.append((best, position))
    assert 10 < len(expected) < 90
    assert list(alike_texts(training, holdout)) == expected


def _with_copy(folder: Path, label: str) -> Samples:
    """Return samples of which the last one read is a paler copy of the first of the class "dark"."""
    write_images(folder, size=64)
    original = Image.open(folder / "dark" / "000.png")
    (folder / label / "copy.png").write_bytes(encoded(original.point(lambda value: value * 0.9)))
    return load_samples(folder, CLASSES)


@pytest.mark.parametrize("label", CLASSES)
@pytest.mark.parametrize("decoded", [True, False])
def test_a_near_duplicate_across_the_split_is_reported_with_names_and_labels(
    tmp_path: Path, label: str, decoded: bool
) -> None:
    samples = _with_copy(tmp_path / "images", label)
    if not decoded:
        samples = Samples(samples.sources, samples.labels, samples.digests, samples.classes)
    copy = [path.name for path in samples.paths].index("copy.png")
    original = samples.paths.index(tmp_path / "images" / "dark" / "000.png")
    holdout = np.array([copy])
    told = report(samples, np.setdiff1d(np.arange(len(samples)), holdout), holdout)
    names = str(samples.paths[original]), str(samples.paths[copy])
    assert told.near_duplicates == (NearDuplicate(original, copy, names, labels_differ=label == "light"),)
    assert told.samples == 33
    assert sum(told.holdout) == 1


def test_a_report_needs_no_held_out_samples(tmp_path: Path) -> None:
    samples = load_samples(write_images(tmp_path / "images", per_class=4), CLASSES)
    told = report(samples, np.arange(8), np.array([], dtype=np.int64))
    assert told.holdout == (0, 0)
    assert told.near_duplicates == ()


def test_the_report_on_texts_counts_and_warns() -> None:
    texts = [f"{'pump' if i < 24 else 'motor'} number {i}" for i in range(26)] + ["PUMP, number 3!"]
    labels = [0] * 24 + [1] * 2 + [1]
    ranked = sorted((hashlib.sha256(t.encode()).hexdigest(), t, n) for t, n in zip(texts, labels, strict=True))
    digests, ordered, numbers = zip(*ranked, strict=True)
    corpus = Texts(ordered, np.array(numbers), digests, ("pump", "motor"), ("a.csv, line 9 (text is empty)",))
    holdout = np.array([ordered.index("PUMP, number 3!")])
    told = report(corpus, np.setdiff1d(np.arange(27), holdout), holdout, minimum=4)
    assert told.imbalance == 8.0
    assert told.lines() == [
        "27 samples: 26 to train on, 1 held out",
        "  pump: 24 + 0",
        "  motor: 2 + 1",
        "skipped 1 that cannot be used:",
        "  a.csv, line 9 (text is empty)",
        "warning: too few samples to learn from (fewer than 4):",
        "  motor (3)",
        "warning: 1 of 1 held-out samples are nearly the same as one trained on; the quality measured on them is "
        "too good",
        "  'PUMP, number 3!' is nearly 'pump number 3', and is labelled differently",
    ]


def test_a_report_on_good_data_warns_of_nothing() -> None:
    told = DataReport(("a", "b"), (1200, 130), (200, 20), (), (), 4)
    assert told.lines() == ["1,550 samples: 1,330 to train on, 220 held out", "  a: 1,200 + 200", "  b: 130 + 20"]


def test_a_report_warns_of_imbalance_above_ten_and_names_at_most_five() -> None:
    told = DataReport(("a", "b", "none"), (1000, 90, 0), (100, 5, 0), tuple("uvwxyz"), (), 4)
    assert told.lines()[4:] == [
        "skipped 6 that cannot be used:",
        *("  u", "  v", "  w", "  x", "  y"),
        "  and 1 more",
        "warning: the largest class is 12 times as large as the smallest",
        "warning: too few samples to learn from (fewer than 4):",
        "  none (0)",
    ]

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedsparse.config import require_source
from fedsparse.errors import DataError
from fedsparse.training import load_samples
from fedsparse.training.partition import dirichlet_shares, hold_out, partition

from .training_samples import CLASSES, write_images


def _manifest(folder: Path, lines: list[str], header: str = "path,label") -> Path:
    path = folder / "data.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return path


def test_a_folder_and_a_manifest_of_the_same_images_are_the_same_samples(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    listed = sorted(images.rglob("*.png"), reverse=True)
    manifest = _manifest(tmp_path, [f"{p.relative_to(tmp_path)},{p.parent.name}" for p in listed])
    one, two = load_samples(images, CLASSES), load_samples(manifest, CLASSES)
    assert one.digests == two.digests
    assert one.labels.tolist() == two.labels.tolist()
    assert len(one) == 32


def test_a_copied_image_counts_once(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    (images / "dark" / "copy.png").write_bytes((images / "dark" / "000.png").read_bytes())
    assert len(load_samples(images, CLASSES)) == 32


def test_one_image_with_two_labels_is_refused_naming_both_files(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    (images / "light" / "copy.png").write_bytes((images / "dark" / "000.png").read_bytes())
    with pytest.raises(DataError, match=r"000\.png.*copy\.png"):
        load_samples(images, CLASSES)


def test_corrupt_images_are_counted_and_named(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    whole = (images / "dark" / "001.png").read_bytes()
    (images / "dark" / "001.png").write_bytes(whole[: len(whole) // 2])
    (images / "light" / "002.png").write_bytes(b"no image at all")
    with pytest.raises(DataError, match=r"(?s)2 images cannot be decoded.*001\.png.*002\.png"):
        load_samples(images, CLASSES)


def test_a_label_that_the_federation_does_not_know_is_refused(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    (images / "light").rename(images / "lite")
    with pytest.raises(DataError, match=r"'lite'.*dark, light"):
        load_samples(images, CLASSES)


def test_a_class_without_images_is_refused(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    with pytest.raises(DataError, match="no image of the class 'burnt'"):
        load_samples(images, (*CLASSES, "burnt"))


def test_too_few_images_of_a_class_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"3 images of the class 'dark'.*at least 4"):
        load_samples(write_images(tmp_path / "images", per_class=3), CLASSES)


@pytest.mark.parametrize("name", ["absent", "absent.csv"])
def test_an_absent_source_is_an_error_that_names_it_and_the_form(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"data.path = .*{name} does not exist.*one sub-folder per class"):
        require_source(tmp_path / name, "data.path")


def test_a_manifest_without_a_column_names_the_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no column label"):
        load_samples(_manifest(tmp_path, ["a.png,dark"], header="path,class"), CLASSES)


def test_an_empty_cell_of_a_manifest_names_its_line(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    manifest = _manifest(tmp_path, ["images/dark/000.png,dark", "images/dark/001.png,"])
    with pytest.raises(DataError, match="line 3"):
        load_samples(manifest, CLASSES)


def test_the_split_holds_out_every_class_alike_whatever_the_paths(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    samples = load_samples(images, CLASSES)
    training, held = samples.split(0.25, seed=1)
    assert sorted([*training, *held]) == list(range(32))
    assert np.bincount(samples.labels[held]).tolist() == [4, 4]
    moved = load_samples(images.rename(tmp_path / "elsewhere"), CLASSES)
    assert moved.split(0.25, seed=1)[1].tolist() == held.tolist()
    assert samples.split(0.25, seed=2)[1].tolist() != held.tolist()


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

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedsparse.config import require_source
from fedsparse.errors import DataError
from fedsparse.training.loading import load_samples, load_texts

from .data_samples import CLASSES, encoded, write_csv, write_images, write_jsonl

datasets = pytest.importorskip("datasets")
datasets.disable_progress_bars()

ROWS = [("seal leaks", "seal"), ("seal worn", "seal"), ("motor hums", "motor"), ("motor hot", "motor")]


def _listed(images: Path) -> list[tuple[str, str]]:
    root = images.parent
    return [(str(p.relative_to(root)), p.parent.name) for p in sorted(images.rglob("*.png"), reverse=True)]


def _saved(folder: Path, images: list[object], labels: list[object], kind: object) -> Path:
    features = datasets.Features({"picture": datasets.Image(), "kind": kind})
    datasets.Dataset.from_dict({"picture": images, "kind": labels}, features=features).save_to_disk(folder)
    return folder


def _saved_images(folder: Path, images: Path) -> Path:
    files = [images.parent / path for path, _ in _listed(images)]
    embedded: list[object] = [{"bytes": file.read_bytes(), "path": None} for file in files]
    labels: list[object] = [CLASSES.index(file.parent.name) for file in files]
    return _saved(folder, embedded, labels, datasets.ClassLabel(names=list(CLASSES)))


def test_every_kind_of_source_of_the_same_images_gives_the_same_samples(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    listed = _listed(images)
    folder = load_samples(images, CLASSES)
    others = [
        load_samples(write_csv(tmp_path / "a.csv", listed, ("path", "label")), CLASSES),
        load_samples(
            write_jsonl(tmp_path / "a.jsonl", [{"file": p, "class": c} for p, c in listed]),
            CLASSES,
            image="file",
            label="class",
        ),
        load_samples(_saved_images(tmp_path / "saved", images), CLASSES, image="picture", label="kind"),
    ]
    assert len(folder) == 32
    for other in others:
        assert other.digests == folder.digests
        assert other.labels.tolist() == folder.labels.tolist()
        assert [other.read(i) for i in range(32)] == [folder.read(i) for i in range(32)]
    assert others[0].paths == folder.paths
    assert set(others[2].paths) == {tmp_path / "saved"}


def test_a_copied_image_counts_once(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    (images / "dark" / "copy.png").write_bytes((images / "dark" / "000.png").read_bytes())
    assert len(load_samples(images, CLASSES)) == 32


def test_one_image_with_two_labels_is_refused_naming_both_files(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    (images / "light" / "copy.png").write_bytes((images / "dark" / "000.png").read_bytes())
    with pytest.raises(DataError, match=r"000\.png.*copy\.png"):
        load_samples(images, CLASSES)


def _damage(images: Path) -> None:
    whole = (images / "dark" / "001.png").read_bytes()
    (images / "dark" / "001.png").write_bytes(whole[: len(whole) // 2])
    (images / "light" / "002.png").write_bytes(b"no image at all")


def test_corrupt_images_are_counted_and_named_with_the_limit_and_its_setting(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    _damage(images)
    with pytest.raises(
        DataError, match=r"(?s)2 images cannot be decoded, but data.max_corrupt is 1:.*001\.png.*002\.png"
    ):
        load_samples(images, CLASSES, max_corrupt=1)


def test_up_to_the_limit_corrupt_images_are_skipped_and_told(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    _damage(images)
    samples = load_samples(images, CLASSES, max_corrupt=2)
    assert len(samples) == 30
    assert samples.skipped == (
        f"{images / 'dark' / '001.png'} (OSError)",
        f"{images / 'light' / '002.png'} (not recognised as BMP, JPEG, PNG, PPM, TIFF, WEBP)",
    )


def test_at_most_ten_corrupt_images_are_named(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    for path in (images / "dark").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"(?s)16 images.*009\.png \(not recognised as [^)]*\)\n  and 6 more\."):
        load_samples(images, CLASSES)


def test_missing_files_and_wrong_rows_of_a_manifest_count_as_corrupt(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", per_class=4)
    rows = [*_listed(images), ("images/dark/absent.png", "dark"), ("images/dark/000.png", ""), ("a", "b", "c")]
    manifest = write_csv(tmp_path / "a.csv", rows, ("path", "label"))
    samples = load_samples(manifest, CLASSES, max_corrupt=3)
    assert len(samples) == 8
    assert [told.rpartition("/")[2] for told in sorted(samples.skipped)] == [
        "a.csv, line 11 (the column 'label' is empty)",
        "a.csv, line 12 (more cells than columns)",
        "absent.png (FileNotFoundError)",
    ]
    with pytest.raises(DataError, match=r"(?s)3 images cannot be decoded.*line 11.*line 12"):
        load_samples(manifest, CLASSES)


def test_lines_of_a_jsonl_file_that_are_no_objects_count_as_corrupt(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": text, "label": label} for text, label in ROWS])
    path.write_text(path.read_text() + '\n[1]\n{"text": 5, "label": "seal"}\n{"text": "x"}\n{broken\n')
    texts = load_texts(path, minimum=2, max_corrupt=4)
    assert [told.rpartition("/")[2] for told in texts.skipped] == [
        "a.jsonl, line 6 (no JSON object)",
        "a.jsonl, line 7 (the column 'text' holds no text)",
        "a.jsonl, line 8 (the column 'label' is empty)",
        "a.jsonl, line 9 (no JSON object)",
    ]


def test_a_label_that_the_federation_does_not_know_is_refused(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    (images / "light").rename(images / "lite")
    with pytest.raises(DataError, match=r"'lite'.*dark, light"):
        load_samples(images, CLASSES)


@pytest.mark.parametrize("classes", [None, ()])
def test_without_classes_the_labels_found_are_the_classes(tmp_path: Path, classes: tuple[str, ...] | None) -> None:
    assert load_samples(write_images(tmp_path / "images"), classes).classes == CLASSES


def test_a_source_without_any_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no images"):
        load_samples(tmp_path)


def test_images_directly_in_the_folder_are_told_with_the_layout_that_is_wanted(tmp_path: Path) -> None:
    for path in write_images(tmp_path / "images", per_class=2).rglob("*.png"):
        path.rename(tmp_path / f"{path.parent.name}{path.name}")
    (tmp_path / ".hidden.png").touch()
    layout = rf"{tmp_path}/CLASS/image\.png.*columns file,kind"
    with pytest.raises(DataError, match=rf"the images of {tmp_path} \(4\) lie directly in it.*{layout}"):
        load_samples(tmp_path, image="file", label="kind")


def test_loose_images_beside_sub_folders_with_images_are_passed_over(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    (images / "overview.png").write_bytes((images / "dark" / "000.png").read_bytes())
    assert len(load_samples(images, CLASSES)) == 32


@pytest.mark.parametrize("kind", ["BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_an_image_of_every_format_that_is_named_is_read(tmp_path: Path, kind: str) -> None:
    rows = []
    for number in range(4):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(encoded(Image.fromarray(np.full((8, 8), 60 * number, np.uint8)).convert("RGB"), kind))
        rows.append((path.name, "dark"))
    assert len(load_samples(write_csv(tmp_path / "a.csv", rows, ("path", "label")))) == 4


@pytest.mark.parametrize("kind", ["EPS", "PCX", "TGA", "ICO", "GIF"])
def test_an_image_of_another_format_is_refused_unseen_by_its_parser(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = write_images(tmp_path / "images")
    disguised = images / "dark" / "000.png"
    disguised.write_bytes(encoded(Image.fromarray(np.zeros((32, 32, 3), np.uint8)), kind))
    seen: list[object] = []
    monkeypatch.setitem(Image.OPEN, kind, (lambda *given: seen.append(given), None))
    samples = load_samples(images, CLASSES, max_corrupt=1)
    assert samples.skipped == (f"{disguised} (not recognised as BMP, JPEG, PNG, PPM, TIFF, WEBP)",)
    assert seen == []


def test_a_class_without_images_is_refused(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images")
    with pytest.raises(DataError, match="no image of the class 'burnt'"):
        load_samples(images, (*CLASSES, "burnt"))
    assert load_samples(images, (*CLASSES, "burnt"), minimum=0).counts().tolist() == [16, 16, 0]


def test_too_few_images_of_a_class_are_refused(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", per_class=3)
    with pytest.raises(DataError, match=r"3 images of the class 'dark'.*at least 4"):
        load_samples(images, CLASSES)
    assert len(load_samples(images, CLASSES, minimum=3)) == 6


@pytest.mark.parametrize("name", ["absent", "absent.csv", "absent.jsonl"])
def test_an_absent_source_is_an_error_that_names_it_and_the_form(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"data.path = .*{name} does not exist.*one sub-folder per class"):
        require_source(tmp_path / name, "data.path")


def test_a_file_of_another_kind_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "data.xlsx").touch()
    with pytest.raises(DataError, match=r"data\.xlsx is neither a folder nor a \.csv, \.jsonl or \.txt file"):
        require_source(tmp_path / "data.xlsx", "data.path")


def test_a_manifest_without_a_column_names_the_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no column label.*path,label"):
        load_samples(write_csv(tmp_path / "a.csv", [("a.png", "dark")], ("path", "class")), CLASSES)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.txt"])
def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"text,label\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"cannot be read as .*Save it as UTF-8"):
        load_texts(tmp_path / name, label=None if name == "a.txt" else "label")


def test_a_text_file_lists_no_images(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\n")
    with pytest.raises(DataError, match="lists no images"):
        load_samples(tmp_path / "a.txt")


# --- datasets on disk


def test_images_that_a_dataset_names_by_path_start_at_its_folder(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", per_class=4)
    features = datasets.Features({"path": datasets.Value("string"), "label": datasets.Value("string")})
    listed = _listed(images)
    rows = {"path": [f"../{path}" for path, _ in listed], "label": [label for _, label in listed]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    assert load_samples(tmp_path / "saved", CLASSES).digests == load_samples(images, CLASSES).digests


def test_rows_of_a_dataset_without_image_or_label_are_told(tmp_path: Path) -> None:
    good: list[object] = [
        {"bytes": encoded(Image.fromarray(np.full((8, 8), i, np.uint8))), "path": None} for i in range(4)
    ]
    kind = datasets.ClassLabel(names=["dark"])
    bad: list[object] = [None, good[0], {"bytes": b"damaged", "path": None}]
    saved = _saved(tmp_path / "saved", good + bad, [0, 0, 0, 0, 0, None, 0], kind)
    samples = load_samples(saved, image="picture", label="kind", max_corrupt=3)
    assert len(samples) == 4
    assert sorted(samples.skipped) == [
        f"{saved}, row 4 (the column 'picture' is empty)",
        f"{saved}, row 5 (the column 'kind' is empty)",
        f"{saved}, row 6 (not recognised as BMP, JPEG, PNG, PPM, TIFF, WEBP)",
    ]


def test_an_embedded_image_that_changes_after_the_check_is_an_error(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", per_class=4)
    saved = _saved_images(tmp_path / "saved", images)
    samples = load_samples(saved, CLASSES, image="picture", label="kind")
    samples.read(0)
    (saved / "state.json").unlink()
    with pytest.raises(DataError, match=r"saved, row \d has changed or gone"):
        samples.read(0)


def test_of_several_splits_train_is_read_and_without_it_they_are_named(tmp_path: Path) -> None:
    one = datasets.Dataset.from_dict({"text": [text for text, _ in ROWS], "label": [label for _, label in ROWS]})
    two = datasets.Dataset.from_dict({"text": ["other"], "label": ["seal"]})
    datasets.DatasetDict({"test": two, "train": one}).save_to_disk(tmp_path / "with")
    assert sorted(load_texts(tmp_path / "with", minimum=2).texts) == sorted(text for text, _ in ROWS)
    datasets.DatasetDict({"test": two, "validation": one}).save_to_disk(tmp_path / "without")
    with pytest.raises(DataError, match="has the splits test, validation"):
        load_texts(tmp_path / "without")
    assert len(load_texts(tmp_path / "without" / "validation", minimum=2)) == 4


def test_a_dataset_without_a_column_names_the_columns_it_has(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"words": ["a"], "label": ["b"]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match="no column 'text', but words, label"):
        load_texts(tmp_path / "saved")


def test_a_damaged_dataset_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["a"], "label": ["b"]}).save_to_disk(tmp_path / "saved")
    next((tmp_path / "saved").glob("*.arrow")).write_bytes(b"damaged")
    with pytest.raises(DataError, match="cannot be read as a Hugging Face dataset"):
        load_texts(tmp_path / "saved")
    (tmp_path / "saved" / "dataset_dict.json").write_text(json.dumps([]))
    with pytest.raises(DataError, match="cannot be read as a Hugging Face dataset"):
        load_texts(tmp_path / "saved")


def test_without_the_package_a_dataset_is_an_error_that_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets.Dataset.from_dict({"text": ["a"], "label": ["b"]}).save_to_disk(tmp_path / "saved")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'fedsparse\[interchange\]'"):
        load_texts(tmp_path / "saved")


def test_a_folder_of_files_is_no_source_of_texts(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no Hugging Face dataset"):
        load_texts(tmp_path)


# --- texts


def test_texts_from_csv_and_jsonl_are_the_same(tmp_path: Path) -> None:
    one = load_texts(write_csv(tmp_path / "a.csv", ROWS, ("text", "label")), minimum=2)
    rows = [{"label": label, "text": text} for text, label in reversed(ROWS)]
    two = load_texts(write_jsonl(tmp_path / "a.jsonl", rows), ("motor", "seal"), minimum=2)
    assert one.texts == two.texts
    assert one.classes == two.classes == ("motor", "seal")
    assert {text: one.classes[label] for text, label in zip(one.texts, one.labels, strict=True)} == dict(ROWS)


def test_whole_numbers_are_labels(tmp_path: Path) -> None:
    rows = [{"text": f"text {i}", "label": i % 2} for i in range(8)]
    assert load_texts(write_jsonl(tmp_path / "a.jsonl", rows)).classes == ("0", "1")


def test_a_text_file_is_a_corpus_of_one_class(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n\nthree\nfour\none\n", encoding="utf-8")
    texts = load_texts(tmp_path / "a.txt", ("seal", "motor"), label=None)
    assert sorted(texts.texts) == ["four", "one", "three", "two"]
    assert texts.classes == ("text",)
    assert texts.labels.tolist() == [0, 0, 0, 0]
    assert texts.skipped == ()


def test_a_corpus_of_fewer_than_four_texts_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    with pytest.raises(DataError, match="3 texts of the class 'text', but at least 4"):
        load_texts(tmp_path / "a.txt", label=None)


def test_a_text_file_has_no_labels(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n")
    with pytest.raises(DataError, match="has no labels"):
        load_texts(tmp_path / "a.txt")


def test_empty_texts_and_half_characters_count_as_corrupt(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", [{"text": text, "label": label} for text, label in ROWS])
    path.write_text(path.read_text() + '{"text": " \\t", "label": "seal"}\n{"text": "\\ud800", "label": "seal"}\n')
    with pytest.raises(DataError, match=r"(?s)2 texts cannot be used, but data.max_corrupt is 0:.*line 5.*line 6"):
        load_texts(path, minimum=2)
    assert len(load_texts(path, minimum=2, max_corrupt=2)) == 4


def test_one_text_with_two_labels_is_refused_quoting_its_beginning(tmp_path: Path) -> None:
    rows = [*ROWS, ("x" * 200, "seal"), ("x" * 200, "motor")]
    path = write_csv(tmp_path / "a.csv", rows, ("text", "label"))
    with pytest.raises(DataError, match=rf"line 6 labels '{'x' * 59}…' 'seal', but .*line 7 labels it 'motor'"):
        load_texts(path, minimum=2)

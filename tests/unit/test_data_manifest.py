"""Which files a site's data consists of, under which fingerprint, and what is noticed when they change."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from fedsparse.config import DataSettings, SiteDataSettings
from fedsparse.errors import DataError
from fedsparse.training.manifest import (
    DataFile,
    DataManifest,
    SourceFile,
    compare,
    list_files,
    read_manifest,
    take,
    verify_data,
    write_manifest,
)
from fedsparse.training.manifest.hashing import hash_file

from .data_samples import write_csv, write_images, write_jsonl

CONTENT = hashlib.sha256(b"content").hexdigest()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images", per_class=3)


def names(path: Path, **columns: str) -> list[str]:
    return [file.name for file in list_files(DataSettings(path=path, **columns)).files]  # type: ignore[arg-type]


def pinned(path: Path, manifest: Path | None = None, fingerprint: str | None = None) -> SiteDataSettings:
    return SiteDataSettings(path=path, manifest=manifest, fingerprint=fingerprint)


@pytest.fixture
def manifest(images: Path, tmp_path: Path) -> Path:
    """Write the manifest of the images."""
    write_manifest(take(DataSettings(path=images)).manifest, tmp_path / "manifest.json")
    return tmp_path / "manifest.json"


def test_the_fingerprint_is_what_the_documentation_says(images: Path) -> None:
    told = b"fedsparse data manifest 1\0"
    files = sorted(images.rglob("*.png"), key=lambda path: os.fsencode(path.relative_to(images)))
    for file in files:
        name, data = os.fsencode(file.relative_to(images)), file.read_bytes()
        told += struct.pack(">Q", len(name)) + name + struct.pack(">Q", len(data)) + hashlib.sha256(data).digest()
    assert len(files) == 6
    assert take(DataSettings(path=images)).manifest.fingerprint == hashlib.sha256(told).hexdigest()


def test_a_fingerprint_once_given_does_not_change() -> None:
    files = DataFile("a/b.png", 7, CONTENT), DataFile("現場/c.png", 0, hashlib.sha256().hexdigest())
    expected = "31e1a7f18b31f3d923728f635dc6676e55c7f3127f1777837361eb6e93368aab"
    assert DataManifest(files).fingerprint == expected


def test_where_the_folder_lies_and_when_it_was_written_do_not_matter(images: Path, tmp_path: Path) -> None:
    other = write_images(tmp_path / "copied" / "elsewhere", per_class=3)
    assert take(DataSettings(path=other)).manifest == take(DataSettings(path=images)).manifest


def test_a_folder_consists_of_the_images_that_training_reads_and_of_nothing_else(images: Path) -> None:
    (images / "notes.txt").write_text("who labelled what")
    (images / "loose.png").write_bytes(b"in no class")
    (images / "dark" / "Thumbs.db").write_bytes(b"")
    (images / "dark" / ".hidden.png").write_bytes(b"")
    (images / ".trash").mkdir()
    (images / ".trash" / "old.png").write_bytes(b"")
    assert names(images) == [f"{label}/{number:03d}.png" for label in ("dark", "light") for number in range(3)]


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_table_consists_of_itself_and_of_what_it_names(images: Path, tmp_path: Path, kind: str) -> None:
    elsewhere = tmp_path / "elsewhere.png"
    elsewhere.write_bytes(b"named by its absolute path")
    (tmp_path / "tables").mkdir()
    rows = [("../images/dark/000.png", "dark"), (str(elsewhere), "dark"), ("own.png", "light")]
    rows += [("own.png", "light"), ("gone.png", "light"), ("", "light"), ("nul\0.png", "light")]
    (tmp_path / "tables" / "own.png").write_bytes(b"beside it")
    table = tmp_path / "tables" / f"data.{kind}"
    if kind == "csv":
        write_csv(table, rows, ("file", "label"))
    else:
        write_jsonl(table, [{"file": file, "label": label} for file, label in rows])
    listing = list_files(DataSettings(path=table, image="file"))
    found = [file.name for file in listing.files]
    assert found == ["../images/dark/000.png", str(elsewhere), f"data.{kind}", "own.png"]
    assert listing.absent == ("gone.png", "nul\0.png")
    assert names(table, image="another") == [f"data.{kind}"]


def test_texts_consist_of_their_file(tmp_path: Path) -> None:
    write_csv(tmp_path / "orders.csv", [("pump leaks", "leak")], ("text", "label"))
    (tmp_path / "corpus.txt").write_text("pump leaks\n")
    assert names(tmp_path / "orders.csv") == ["orders.csv"]
    assert names(tmp_path / "corpus.txt") == ["corpus.txt"]


def test_a_dataset_consists_of_its_split_and_not_of_caches_beside_it(images: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    told = {"path": [str(images / "dark" / "000.png"), None], "label": ["dark", "light"]}
    table = datasets.Dataset.from_dict(told)
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "train" / "cache-1.arrow").write_bytes(b"")
    own = ["data-00000-of-00001.arrow", "dataset_info.json", "state.json"]
    everything = [str(images / "dark" / "000.png"), "dataset_dict.json", *(f"train/{name}" for name in own)]
    assert names(tmp_path / "saved") == everything
    assert names(tmp_path / "saved" / "test", image="none") == own


@pytest.mark.parametrize("told", ["", "[]", '{"_data_files": 3}', '{"_data_files": [{}]}', "[" * 100_000])
def test_a_dataset_whose_state_tells_no_files_is_refused(tmp_path: Path, told: str) -> None:
    (tmp_path / "state.json").write_text(told)
    with pytest.raises(DataError, match=r"state\.json does not tell which files the dataset has"):
        list_files(DataSettings(path=tmp_path))


def test_progress_goes_from_nothing_to_everything(images: Path) -> None:
    told: list[tuple[int, int]] = []
    size = take(DataSettings(path=images), lambda done, total: told.append((done, total))).manifest.size
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (size, size)


def test_names_that_are_odd_survive_the_file_and_are_shown_on_one_line(images: Path, tmp_path: Path) -> None:
    odd = [b"a\nb.png", b"\xff\xfe.png", "亀裂 \u202e.png".encode(), b'"\\.png', b" spaced .png"]
    for name in odd:
        Path(os.fsdecode(os.fsencode(images / "dark") + b"/" + name)).write_bytes(name)
    found = take(DataSettings(path=images)).manifest
    assert {file.key for file in found.files} >= {b"dark/" + name for name in odd}
    write_manifest(found, tmp_path / "manifest.json")
    assert read_manifest(tmp_path / "manifest.json") == found
    assert read_manifest(tmp_path / "manifest.json").fingerprint == found.fingerprint
    lines = compare(DataManifest(()), found).lines()
    assert len(lines) == len(found.files) == 11
    assert all(line.isprintable() for line in lines)
    assert any(r"'dark/a\nb.png'" in line for line in lines)


def test_an_empty_folder_and_one_without_classes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="has no file that training would read"):
        list_files(DataSettings(path=tmp_path / "images"))
    (tmp_path / "images" / "loose.png").write_bytes(b"")
    with pytest.raises(DataError, match="not in sub-folders that name their classes"):
        list_files(DataSettings(path=tmp_path / "images"))


def _file(images: Path, outside: Path) -> None:
    (images / "dark" / "link.png").symlink_to(outside / "secret.png")


def _folder(images: Path, outside: Path) -> None:
    (images / "light2").symlink_to(outside)


@pytest.mark.parametrize("link", [_file, _folder])
def test_a_link_that_leaves_the_folder_is_refused(
    images: Path, tmp_path: Path, link: Callable[[Path, Path], None]
) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.png").write_bytes(b"somebody else's")
    link(images, tmp_path / "outside")
    with pytest.raises(DataError, match=r"is, or lies below, a link to \S+secret\.png, outside \S+images"):
        take(DataSettings(path=images))


def test_links_that_stay_inside_and_a_linked_root_are_followed(images: Path, tmp_path: Path) -> None:
    (images / "dark" / "link.png").symlink_to("000.png")
    (tmp_path / "data").symlink_to(images)
    found = take(DataSettings(path=tmp_path / "data")).manifest
    hashes = {file.name: file.sha256 for file in found.files}
    assert hashes["dark/link.png"] == hashes["dark/000.png"]


@pytest.mark.parametrize(
    ("target", "told"), [("nowhere.png", "link that leads nowhere"), ("loop.png", "cannot be (read|listed)")]
)
def test_links_that_lead_nowhere_are_refused(images: Path, target: str, told: str) -> None:
    (images / "dark" / "loop.png").symlink_to(target)
    with pytest.raises(DataError, match=told):
        take(DataSettings(path=images))


def test_pipes_and_folders_that_look_like_images_are_refused_and_not_waited_for(images: Path) -> None:
    os.mkfifo(images / "dark" / "pipe.png")
    with pytest.raises(DataError, match=r"dark/pipe\.png is no regular file"):
        take(DataSettings(path=images))
    (images / "dark" / "pipe.png").unlink()
    (images / "dark" / "folder.png").mkdir()
    with pytest.raises(DataError, match=r"dark/folder\.png"):
        take(DataSettings(path=images))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
@pytest.mark.parametrize("name", ["dark/000.png", "dark"])
def test_what_this_user_may_not_read_is_named(images: Path, name: str) -> None:
    (images / name).chmod(0)
    try:
        with pytest.raises(DataError, match=r"dark.*Permission denied|Permission denied.*dark"):
            take(DataSettings(path=images))
    finally:
        (images / name).chmod(0o700)


def test_an_unreadable_file_is_named(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, flags: int) -> int:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("fedsparse.training.manifest.hashing._without_waiting", refuse)
    with pytest.raises(DataError, match=r"dark/000\.png cannot be read: Permission denied\. Let this"):
        take(DataSettings(path=images))


def _append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def _replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.replace(path)


@pytest.mark.parametrize("meddle", [_append, _replace])
def test_a_file_that_changes_while_it_is_read_is_noticed(images: Path, meddle: Callable[[Path], None]) -> None:
    path = images / "dark" / "000.png"
    size = path.stat().st_size
    done: list[int] = []

    def once(read: int) -> None:
        if not done:
            done.append(read)
            meddle(path)

    with pytest.raises(DataError, match=r"dark/000\.png changed while it was read\. Wait until nobody writes"):
        hash_file(SourceFile("dark/000.png", path, size), once)


def test_what_was_added_removed_and_changed_is_told_in_canonical_order(images: Path) -> None:
    before = take(DataSettings(path=images)).manifest
    (images / "dark" / "001.png").unlink()
    (images / "dark" / "000.png").write_bytes(b"another")
    (images / "dark" / "0005.png").write_bytes(b"new")
    difference = compare(before, take(DataSettings(path=images)).manifest)
    assert len(difference) == 3
    assert [line.split(" (")[0] for line in difference.lines()] == [
        "~ dark/000.png",
        "+ dark/0005.png",
        "- dark/001.png",
    ]
    assert difference.first().startswith("dark/000.png was changed (7 bytes instead of ")
    assert not len(compare(before, before))


GARBAGE = [
    b"",
    b"\xff\xfe\x00",
    b"[" * 100_000,
    b"[]",
    b"null",
    b"{}",
    b'{"format": "fedsparse data manifest 2", "fingerprint": "", "files": []}',
    b'{"format": "fedsparse data manifest 1", "files": []}',
    b'{"format": "fedsparse data manifest 1", "fingerprint": "", "files": {}}',
    b'{"format": "fedsparse data manifest 1", "fingerprint": "", "files": [], "more": 1}',
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_a_file_that_is_no_manifest_is_an_error_of_ours(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "manifest.json"
    path.write_bytes(garbage)
    with pytest.raises(DataError, match=r"manifest\.json is no data manifest: .*write it anew"):
        read_manifest(path)


@pytest.mark.parametrize(
    "change",
    [
        {"path": ""},
        {"path": 3},
        {"path": "a\0b"},
        {"path": "\ud800.png"},
        {"path": "zzz"},
        {"path": "dark/001.png"},
        {"size": -1},
        {"size": 1.0},
        {"size": True},
        {"size": 1 << 63},
        {"sha256": "AB" * 32},
        {"sha256": "ab"},
        {"sha256": None},
        {"more": 1},
    ],
    ids=str,
)
def test_an_entry_that_cannot_be_makes_no_manifest(manifest: Path, change: dict[str, object]) -> None:
    raw = json.loads(manifest.read_text())
    raw["files"][0] |= change
    manifest.write_text(json.dumps(raw))
    with pytest.raises(DataError, match="is no data manifest"):
        read_manifest(manifest)


def test_a_manifest_that_was_altered_does_not_give_its_fingerprint(manifest: Path) -> None:
    raw = json.loads(manifest.read_text())
    raw["files"][0]["sha256"] = CONTENT
    manifest.write_text(json.dumps(raw))
    with pytest.raises(DataError, match=r"manifest\.json was altered: it says the fingerprint [0-9a-f]{64}, its"):
        read_manifest(manifest)


def test_an_absent_manifest_is_named_with_what_to_do(images: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.json cannot be read: No such file.*client data manifest"):
        verify_data(pinned(images, tmp_path / "absent.json"))


def test_nothing_is_verified_where_nothing_is_pinned(images: Path) -> None:
    assert verify_data(pinned(images)) is None


def test_the_first_file_that_differs_both_fingerprints_and_the_remedy_are_told(
    images: Path, manifest: Path
) -> None:
    expected = read_manifest(manifest).fingerprint
    assert verify_data(pinned(images, manifest, expected)) is not None
    (images / "light" / "001.png").unlink()
    (images / "light" / "002.png").write_bytes(b"another")
    found = take(DataSettings(path=images)).manifest.fingerprint
    with pytest.raises(DataError) as caught:
        verify_data(pinned(images, manifest))
    told = str(caught.value)
    assert "light/001.png is missing, and 1 more differs" in told
    assert f"expected the fingerprint {expected}, found {found}" in told
    assert "Restore the data, or, if the change is meant" in told
    with pytest.raises(DataError, match=f"which file differs tells data.manifest.*{expected}.*{found}"):
        verify_data(pinned(images, None, expected))


def test_a_manifest_that_was_written_anew_does_not_replace_the_pinned_fingerprint(
    images: Path, manifest: Path
) -> None:
    before = read_manifest(manifest).fingerprint
    (images / "light" / "002.png").write_bytes(b"another")
    write_manifest(take(DataSettings(path=images)).manifest, manifest)
    with pytest.raises(DataError, match=rf"data\.fingerprint = {before}, but data\.manifest = "):
        verify_data(pinned(images, manifest, before))


def test_data_that_change_after_they_were_verified_are_noticed(images: Path, manifest: Path) -> None:
    data = verify_data(pinned(images, manifest))
    assert data is not None
    path = images / "dark" / "001.png"
    content = path.read_bytes()
    data.require_same_files()
    path.write_bytes(content)  # as a restored backup: another time, the same content
    data.require_unchanged()
    status = path.stat()
    path.write_bytes(content[:-1] + b"!")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # who puts the time back is noticed too
    with pytest.raises(DataError, match=r"dark/001\.png was changed since it was verified: expected 1,\d+ bytes"):
        data.require_unchanged()
    path.unlink()
    with pytest.raises(DataError, match=r"dark/001\.png cannot be read any more"):
        data.require_unchanged()
    with pytest.raises(DataError, match=r"dark/001\.png was removed while they were read"):
        data.require_same_files()
    path.write_bytes(content)
    (images / "dark" / "zzz.png").write_bytes(content)
    data.require_unchanged()  # what nothing reads before the next start
    with pytest.raises(DataError, match=r"dark/zzz\.png was added while they were read"):
        data.require_same_files()

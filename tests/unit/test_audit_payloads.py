from __future__ import annotations

import os
import stat
from hashlib import sha256
from pathlib import Path

import pytest

from fedsparse.audit.payloads import Payloads, check_digest, is_mark, read_payload_key
from fedsparse.errors import LedgerError

KEY = bytes(range(32))
DATA = b"what left the plant"
DIGEST = sha256(DATA).digest()


@pytest.fixture(params=[None, KEY], ids=["plain", "sealed"])
def key(request: pytest.FixtureRequest) -> bytes | None:
    found: bytes | None = request.param
    return found


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def file_in(folder: Path) -> Path:
    return folder / DIGEST.hex()


def test_what_is_kept_comes_back_by_its_digest(tmp_path: Path, key: bytes | None) -> None:
    payloads = Payloads(tmp_path, key)
    assert payloads.put(DATA) == DIGEST
    assert payloads.get(DIGEST) == DATA
    assert payloads.has(DIGEST)
    assert Payloads(tmp_path, key).get(DIGEST) == DATA
    assert names_in(tmp_path) == [f".pending-{DIGEST.hex()}", DIGEST.hex()]
    assert file_in(tmp_path).with_name(f".pending-{DIGEST.hex()}").read_bytes() == b""


def test_only_the_owner_may_read_it(tmp_path: Path, key: bytes | None) -> None:
    Payloads(tmp_path, key).put(DATA)
    assert stat.S_IMODE(file_in(tmp_path).stat().st_mode) == 0o600


def test_without_a_key_it_is_the_bytes_themselves(tmp_path: Path) -> None:
    Payloads(tmp_path).put(DATA)
    assert file_in(tmp_path).read_bytes() == DATA


def test_sealed_it_shows_nothing_but_its_length(tmp_path: Path) -> None:
    Payloads(tmp_path, KEY).put(DATA)
    sealed = file_in(tmp_path).read_bytes()
    assert len(sealed) == 12 + len(DATA) + 16  # nonce and tag
    assert not any(DATA[at : at + 4] in sealed for at in range(len(DATA) - 3))


@pytest.mark.parametrize("other", [None, bytes(32)])
def test_what_is_sealed_opens_with_its_own_key_alone(tmp_path: Path, other: bytes | None) -> None:
    Payloads(tmp_path, KEY).put(DATA)
    with pytest.raises(LedgerError, match="was altered"):
        Payloads(tmp_path, other).get(DIGEST)


def test_what_was_kept_before_there_was_a_key_is_not_taken_for_sealed(tmp_path: Path) -> None:
    Payloads(tmp_path).put(DATA)
    with pytest.raises(LedgerError, match="was altered, or sealed under another key"):
        Payloads(tmp_path, KEY).get(DIGEST)


def test_any_altered_byte_is_found(tmp_path: Path, key: bytes | None) -> None:
    payloads = Payloads(tmp_path, key)
    payloads.put(DATA)
    honest = file_in(tmp_path).read_bytes()
    for at in range(len(honest)):
        changed = bytearray(honest)
        changed[at] ^= 1 << at % 8
        file_in(tmp_path).write_bytes(changed)
        with pytest.raises(LedgerError, match="was altered"):
            payloads.get(DIGEST)


def test_what_is_cut_short_or_longer_is_found(tmp_path: Path, key: bytes | None) -> None:
    payloads = Payloads(tmp_path, key)
    payloads.put(DATA)
    honest = file_in(tmp_path).read_bytes()
    for altered in (*(honest[:size] for size in range(len(honest))), honest + b"\0"):
        file_in(tmp_path).write_bytes(altered)
        with pytest.raises(LedgerError, match="was altered"):
            payloads.get(DIGEST)


def test_one_payload_cannot_take_anothers_place(tmp_path: Path, key: bytes | None) -> None:
    """Sealed with the right key, too: the digest is sealed with it."""
    payloads = Payloads(tmp_path, key)
    payloads.put(DATA)
    other = payloads.put(b"another payload")
    file_in(tmp_path).write_bytes((tmp_path / other.hex()).read_bytes())
    with pytest.raises(LedgerError, match="was altered"):
        payloads.get(DIGEST)


def test_kept_again_a_damaged_one_is_whole(tmp_path: Path, key: bytes | None) -> None:
    payloads = Payloads(tmp_path, key)
    payloads.put(DATA)
    file_in(tmp_path).write_bytes(b"damaged")
    payloads.put(DATA)
    assert payloads.get(DIGEST) == DATA


def test_what_is_removed_is_gone_and_others_stay(tmp_path: Path, key: bytes | None) -> None:
    payloads = Payloads(tmp_path, key)
    payloads.put(DATA)
    other = payloads.put(b"another payload")
    for _ in range(2):  # the second time there is nothing left to remove
        payloads.remove(DIGEST)
        assert not payloads.has(DIGEST)
        with pytest.raises(LedgerError, match="is gone"):
            payloads.get(DIGEST)
    assert payloads.get(other) == b"another payload"


def test_what_cannot_be_removed_is_told(tmp_path: Path) -> None:
    file_in(tmp_path).mkdir()
    with pytest.raises(LedgerError, match=f"the payload {DIGEST.hex()[:16]} cannot be deleted"):
        Payloads(tmp_path).remove(DIGEST)


def test_what_cannot_be_kept_is_told_and_leaves_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", no_space)
        with pytest.raises(LedgerError, match=r"the ledger cannot keep .*No space left"):
            Payloads(tmp_path).put(DATA)
    assert names_in(tmp_path) == [f".pending-{DIGEST.hex()}"]
    Payloads(tmp_path).recover(set())
    assert names_in(tmp_path) == []


def test_only_the_last_payload_is_marked(tmp_path: Path) -> None:
    payloads = Payloads(tmp_path)
    payloads.put(b"before")
    payloads.put(DATA)
    payloads.put(DATA)
    assert [name for name in names_in(tmp_path) if is_mark(name)] == [f".pending-{DIGEST.hex()}"]


def test_recovering_deletes_what_was_to_be_recorded_and_was_not(tmp_path: Path, key: bytes | None) -> None:
    """Only that: what has no mark may be of entries that somebody lost, and puts back."""
    foreign = tmp_path / ("ab" * 32)
    foreign.write_bytes(b"of a newer ledger.db")
    (tmp_path / f".{DIGEST.hex()[:40]}.xyz").write_bytes(b"half")
    Payloads(tmp_path, key).put(DATA)
    for _ in range(2):  # the second time there is nothing left to do
        Payloads(tmp_path, key).recover(set())
        assert names_in(tmp_path) == [foreign.name]


def test_recovering_keeps_what_an_entry_names_and_the_next_takes_its_mark(tmp_path: Path) -> None:
    Payloads(tmp_path).put(DATA)
    payloads = Payloads(tmp_path)
    payloads.recover({DIGEST})
    assert payloads.get(DIGEST) == DATA
    other = payloads.put(b"another payload")
    assert names_in(tmp_path) == sorted([f".pending-{other.hex()}", other.hex(), DIGEST.hex()])


def test_a_recovery_that_is_cut_off_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more(path: Path) -> None:
        raise OSError(5, "Input/output error")

    Payloads(tmp_path).put(DATA)
    with monkeypatch.context() as patched:
        patched.setattr("fedsparse.audit.payloads.sync_folder", no_more)
        with pytest.raises(LedgerError, match=r"cannot be deleted: .*Input/output") as caught:
            Payloads(tmp_path).recover(set())
    assert caught.value.remedy
    assert names_in(tmp_path) == [f".pending-{DIGEST.hex()}"]  # the mark goes last
    file_in(tmp_path).write_bytes(DATA)  # a power cut brings back what was not synced
    Payloads(tmp_path).recover(set())
    assert names_in(tmp_path) == []


def test_a_digest_is_checked() -> None:
    assert check_digest(DATA, DIGEST) == DATA
    with pytest.raises(LedgerError, match="was altered"):
        check_digest(DATA, bytes(32))


@pytest.mark.parametrize("text", [KEY.hex(), KEY.hex().upper(), KEY.hex() + "\n"])
def test_a_key_is_read_as_openssl_writes_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "key").write_text(text)
    (tmp_path / "key").chmod(0o600)
    assert read_payload_key(tmp_path / "key") == KEY


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "has 0 bytes, 32 are needed"),
        ("00" * 31, "has 31 bytes, 32 are needed"),
        ("00" * 33, "has 33 bytes, 32 are needed"),
        ("0" * 63, "cannot be used"),
        ("zz" * 32, "cannot be used"),
    ],
)
def test_a_key_that_is_none_is_refused(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "key").write_text(text)
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(LedgerError, match=why):
        read_payload_key(tmp_path / "key")


def test_a_key_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=r"cannot be used: .*No such file"):
        read_payload_key(tmp_path / "key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "key").write_text(KEY.hex())
    (tmp_path / "key").chmod(mode)
    with pytest.raises(LedgerError, match="others may read the key") as caught:
        read_payload_key(tmp_path / "key")
    assert caught.value.remedy == f"Run chmod 600 {tmp_path / 'key'}"


def test_a_key_in_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff" * 32)
    (tmp_path / "key").chmod(0o600)
    with pytest.raises(LedgerError, match="cannot be used"):
        read_payload_key(tmp_path / "key")

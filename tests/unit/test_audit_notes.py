from __future__ import annotations

import base64
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedsparse.audit import Checkpoint, check_cosignature, check_note, cosign, public_bytes
from fedsparse.audit.notes import (
    MAX_NOTE_BYTES,
    SignatureType,
    key_id,
    open_note,
    require_name,
    sign_checkpoint,
)
from fedsparse.errors import LedgerError

KEY, OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32)), Ed25519PrivateKey.from_private_bytes(b"o" * 32)
WHOLE = Checkpoint("fedsparse/kiso/0123456789abcdef", 7, sha256(b"root").digest())
NOTE = sign_checkpoint(WHOLE, KEY)


def test_a_note_is_as_c2sp_says() -> None:
    """Put together here from the specification, byte by byte."""
    body = f"{WHOLE.origin}\n7\n{base64.b64encode(WHOLE.root).decode()}\n"
    identifier = sha256(WHOLE.origin.encode() + b"\n\x01" + public_bytes(KEY)).digest()[:4]
    blob = base64.b64encode(identifier + KEY.sign(body.encode())).decode()
    assert NOTE.decode() == f"{body}\n— {WHOLE.origin} {blob}\n"
    assert check_note(NOTE, public_bytes(KEY)) == WHOLE


def test_a_cosignature_is_as_c2sp_says() -> None:
    line = cosign(WHOLE, "fedsparse/hub", KEY, 1_700_000_000)
    said = f"cosignature/v1\ntime 1700000000\n{WHOLE.text}".encode()
    identifier = sha256(b"fedsparse/hub\n\x04" + public_bytes(KEY)).digest()[:4]
    blob = base64.b64encode(identifier + (1_700_000_000).to_bytes(8, "big") + KEY.sign(said)).decode()
    assert line.decode() == f"— fedsparse/hub {blob}\n"
    assert check_cosignature(line, WHOLE, public_bytes(KEY)) == ("fedsparse/hub", 1_700_000_000)


@pytest.mark.parametrize(
    ("note", "why"),
    [
        (b"", "not a signed note"),
        (b"\xff" + NOTE, "not a signed note"),
        (NOTE[:-1], "not a signed note"),
        (NOTE + bytes(MAX_NOTE_BYTES), "not a signed note"),
        (NOTE.replace(b"\n7\n", b"\n07\n"), "not in canonical form"),
        (NOTE.replace(b"\n7\n", b"\n+7\n"), "not in canonical form"),
        (NOTE.replace(b"\n7\n", b"\n-7\n"), "not in canonical form"),
        (NOTE.replace(b"\n7\n", b"\n 7\n"), "not in canonical form"),
        (NOTE.replace(b"\n7\n", b"\n0_7\n"), "not in canonical form"),
        (NOTE.replace(b"\n7\n", "\n\u0667\n".encode()), "not in canonical form"),  # seven in another script
        (NOTE.replace(b"\n7\n", b"\n9223372036854775808\n"), "not in canonical form"),
        (NOTE.replace(b"\n7\n", b"\n" + b"9" * 3000 + b"\n"), "not in canonical form"),
        (NOTE.replace(b"\n7\n", b"\nseven\n"), "not a checkpoint of three lines"),
        (NOTE.replace(b"\n7\n", b"\n7\r\n"), "not in canonical form"),
        (NOTE.replace(b"\n7\n", b"\n\n7\n"), "a line that is no signature|not a checkpoint of three lines"),
        (NOTE.replace(b"\n7\n", b"\n7\nextra\n"), "not a checkpoint of three lines"),
        (NOTE.replace(b"\n7\n", b"\n8\n"), "the signature of the checkpoint does not match"),
        (NOTE.replace("—".encode(), b"-"), "a line that is no signature"),
        (NOTE.replace(b" fedsparse/kiso", b"  fedsparse/kiso"), "a line that is no signature"),
        (NOTE.replace("\n— ".encode(), "\n\n— ".encode()), "not a checkpoint of three lines"),
        (NOTE[:-1] + b"\n\n", "not a signed note|a line that is no signature"),
        (NOTE[:-1] + b" \n", "a line that is no signature"),
        (NOTE + NOTE.splitlines(keepends=True)[-1], "has 2 signatures"),
        (NOTE + cosign(WHOLE, "fedsparse/hub", OTHER, 1), "has 2 signatures"),
        (cosign(WHOLE, "fedsparse/hub", OTHER, 1) + NOTE, "not a checkpoint of three lines"),
        (NOTE.replace(b"kiso", b"otto", 1), "another key than the log's"),
    ],
)
def test_a_note_that_is_none_is_refused(note: bytes, why: str) -> None:
    with pytest.raises(LedgerError, match=why):
        check_note(note, public_bytes(KEY))


def test_a_signature_by_another_key_is_refused_however_it_is_called() -> None:
    with pytest.raises(LedgerError, match="another key than the log's"):
        check_note(NOTE, public_bytes(OTHER))
    identifier = sha256(WHOLE.origin.encode() + b"\n\x01" + public_bytes(KEY)).digest()[:4]
    blob = base64.b64encode(identifier + OTHER.sign(WHOLE.text.encode())).decode()
    forged = f"{WHOLE.text}\n— {WHOLE.origin} {blob}\n".encode()
    with pytest.raises(LedgerError, match="does not match"):
        check_note(forged, public_bytes(KEY))


def signed(name: str, blob: bytes) -> bytes:
    return f"{WHOLE.text}\n— {name} {base64.b64encode(blob).decode()}\n".encode()


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_key_of_another_length_signs_for_nothing(length: int) -> None:
    public = bytes(length)
    identifier = key_id(WHOLE.origin, public, SignatureType.LOG)
    with pytest.raises(LedgerError, match="the signature of the checkpoint does not match"):
        check_note(signed(WHOLE.origin, identifier + bytes(64)), public)


@pytest.mark.parametrize("length", [1, 63, 65])
def test_a_signature_of_another_length_is_refused(length: int) -> None:
    identifier = key_id(WHOLE.origin, public_bytes(KEY), SignatureType.LOG)
    signature = (KEY.sign(WHOLE.text.encode()) + b"\0")[:length]
    with pytest.raises(LedgerError, match="the signature of the checkpoint does not match"):
        check_note(signed(WHOLE.origin, identifier + signature), public_bytes(KEY))


def test_a_signature_is_in_one_form_alone() -> None:
    """Whoever adds the group's order to s has the same signature in other bytes; RFC 8032 refuses it."""
    order = 2**252 + 27742317777372353535851937790883648493
    signature = KEY.sign(WHOLE.text.encode())
    other = signature[:32] + (int.from_bytes(signature[32:], "little") + order).to_bytes(32, "little")
    identifier = key_id(WHOLE.origin, public_bytes(KEY), SignatureType.LOG)
    with pytest.raises(LedgerError, match="the signature of the checkpoint does not match"):
        check_note(signed(WHOLE.origin, identifier + other), public_bytes(KEY))


def test_a_signature_of_one_kind_is_none_of_the_other() -> None:
    """What a witness signs says when, and has another key identifier: neither passes for the other."""
    cosigned = cosign(WHOLE, WHOLE.origin, KEY, 1)
    with pytest.raises(LedgerError, match="another key than the log's"):
        check_note(f"{WHOLE.text}\n".encode() + cosigned, public_bytes(KEY))
    with pytest.raises(LedgerError, match="another key than the witness's"):
        check_cosignature(NOTE.splitlines(keepends=True)[-1], WHOLE, public_bytes(KEY))


def test_a_cosignature_is_of_one_moment() -> None:
    name, blob = open_note(f"{WHOLE.text}\n".encode() + cosign(WHOLE, "fedsparse/hub", KEY, 1)).lines[0]
    later = blob[:4] + (2).to_bytes(8, "big") + blob[12:]
    line = f"— {name} {base64.b64encode(later).decode()}\n".encode()
    with pytest.raises(LedgerError, match="the signature of the cosignature does not match"):
        check_cosignature(line, WHOLE, public_bytes(KEY))


def test_an_empty_log_and_the_largest_have_checkpoints() -> None:
    for size in (0, 2**63 - 1):
        whole = Checkpoint(WHOLE.origin, size, WHOLE.root)
        assert check_note(sign_checkpoint(whole, KEY), public_bytes(KEY)) == whole


def test_base64_with_slack_bits_is_refused() -> None:
    """The last symbol of such a string has bits that decode to nothing: something could be hidden there."""
    root = base64.b64encode(WHOLE.root)
    assert root.endswith(b"=")
    other = chr(root[-2] + 1).encode()  # differs in bits that are thrown away
    assert base64.b64decode(root[:-2] + other + b"=") == WHOLE.root
    with pytest.raises(LedgerError, match="canonical"):
        check_note(NOTE.replace(root, root[:-2] + other + b"="), public_bytes(KEY))


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line[:-1],
        lambda line: line + b"\n",
        lambda line: line + line,
        lambda line: line[:-1] + b" \n",
        lambda line: line.replace("—".encode(), b"--"),
        lambda line: line + b"x" * MAX_NOTE_BYTES + b"\n",
        lambda line: "— fedsparse/hub AAAA\n".encode(),
        lambda line: b"\xff" + line,
        lambda line: line.replace(b"hub", b"bub"),
        lambda line: line[:-9] + b"AAAAAAAA\n",
        lambda line: b"",
    ],
)
def test_a_cosignature_that_was_changed_is_refused(change: object) -> None:
    line = cosign(WHOLE, "fedsparse/hub", KEY, 1)
    with pytest.raises(LedgerError):
        check_cosignature(change(line), WHOLE, public_bytes(KEY))  # type: ignore[operator]


def test_a_cosignature_is_of_one_checkpoint_and_key() -> None:
    line = cosign(WHOLE, "fedsparse/hub", KEY, 1)
    for size, root, key in ((8, WHOLE.root, KEY), (7, bytes(32), KEY), (7, WHOLE.root, OTHER)):
        with pytest.raises(LedgerError):
            check_cosignature(line, Checkpoint(WHOLE.origin, size, root), public_bytes(key))


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a" * 201])
def test_a_key_is_not_called_so(name: str) -> None:
    with pytest.raises(LedgerError, match="cannot name a key"):
        require_name(name)

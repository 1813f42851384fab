from __future__ import annotations

import base64
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedsparse.audit import Checkpoint, check_cosignature, check_note, cosign, public_bytes
from fedsparse.audit.notes import MAX_NOTE_BYTES, require_name, sign_checkpoint
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
        (NOTE.replace(b"\n7\n", b"\nseven\n"), "not a checkpoint of three lines"),
        (NOTE.replace(b"\n7\n", b"\n7\nextra\n"), "not a checkpoint of three lines"),
        (NOTE.replace(b"\n7\n", b"\n8\n"), "the signature of the checkpoint does not match"),
        (NOTE.replace("—".encode(), b"-"), "a line that is no signature"),
        (NOTE + NOTE.splitlines(keepends=True)[-1], "has 2 signatures"),
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

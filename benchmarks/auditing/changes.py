"""Ways to alter evidence, by what whoever does it has: an editor, patience, another key, or the plant's own."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from benchmarks.auditing.evidence import Parts
from benchmarks.auditing.federation import Federation
from fedsparse.audit import EntryKind, cosign, public_bytes, statement
from fedsparse.audit.notes import Checkpoint
from fedsparse.delta import AdapterSpace, TensorSpec
from fedsparse.security import read_der_chain, sign, to_der_chain
from fedsparse.v1 import ledger_pb2, link_pb2

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256's group
_ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")  # AlgorithmIdentifier (RFC 5758)


@dataclass(frozen=True)
class Stage:
    """What mutations are made of.

    Attributes:
        bundle: honest evidence.
        other: honest evidence of another ledger of the same plant.
        key: of the ledger; only what says so uses it.
        origin: of the ledger.
        federation: whose certificates are used where a thief has them.
        earlier: the bundle's checkpoint when it had fewer entries, by size.
        erased: the payload that was deleted at the end, by its file's name.
    """

    bundle: bytes
    other: bytes
    key: Ed25519PrivateKey
    origin: str
    federation: Federation
    earlier: dict[int, bytes]
    erased: dict[str, bytes]


Change = Callable[[Stage, random.Random], tuple[bytes, int | None]]
"""Returns altered evidence, and the entry that must be named, where there is one."""


def flipped_bit(stage: Stage, draw: random.Random) -> tuple[bytes, int | None]:
    """Flip a bit anywhere in the file."""
    data = bytearray(stage.bundle)
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return bytes(data), None


def overwritten(stage: Stage, draw: random.Random) -> tuple[bytes, int | None]:
    """Overwrite up to 64 bytes anywhere."""
    data, size = bytearray(stage.bundle), draw.randint(1, 64)
    at = draw.randrange(len(data) - size)
    data[at : at + size] = draw.randbytes(size)
    return bytes(data), None


def cut(stage: Stage, draw: random.Random) -> tuple[bytes, int | None]:
    """Cut the file short, or take bytes out of its middle."""
    at = draw.randrange(len(stage.bundle))
    if draw.random() < 0.5:
        return stage.bundle[:at], None
    return stage.bundle[:at] + stage.bundle[at + draw.randint(1, 600) :], None


def rearranged(stage: Stage, draw: random.Random) -> tuple[bytes, int | None]:
    """Drop, repeat, swap or move entries."""
    parts = Parts.of(stage.bundle)
    entries, how = parts.entries, draw.randrange(4)
    at, to = sorted(draw.sample(range(len(entries)), 2))
    if how == 0:
        del entries[at]
    elif how == 1:
        entries.insert(at, entries[to])
    elif how == 2:
        entries[at], entries[to] = entries[to], entries[at]
    else:
        entries.insert(to, entries.pop(at))
    return parts.bundle(), at + 1


def reworded(stage: Stage, draw: random.Random) -> tuple[bytes, int | None]:
    """Change a field of an entry."""
    parts = Parts.of(stage.bundle)
    number = draw.randint(1, len(parts.entries))
    parts.edit(number, lambda entry: _reword(entry, draw))
    return parts.bundle(), number


def forged(stage: Stage, draw: random.Random) -> tuple[bytes, int | None]:
    """Change, drop or insert an entry, and rewrite all numbers and hashes after it, but the signed checkpoint."""
    parts = Parts.of(stage.bundle)
    number = draw.randint(1, len(parts.entries))
    _rewrite(parts, number, draw)
    return parts.bundle(), None


def swapped_payload(stage: Stage, draw: random.Random) -> tuple[bytes, int | None]:
    """Alter a payload, take it away, or put another's bytes in its place."""
    parts = Parts.of(stage.bundle)
    names, how = parts.payloads(), draw.randrange(4)
    name = draw.choice(names)
    if how == 0:
        del parts.files[name]
    elif how == 1:
        parts.files[name] = parts.files[draw.choice([one for one in names if one != name])]
    elif how == 2:
        data = bytearray(parts.files[name])
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        parts.files[name] = bytes(data)
    else:
        parts.files[name] += draw.randbytes(draw.randint(1, 9))
    numbers = [number for number, entry in enumerate(parts.entries, 1) if bytes.fromhex(name[9:]) in entry]
    return parts.bundle(), numbers[0]


def moved_receipt(stage: Stage, draw: random.Random) -> tuple[bytes, int | None]:
    """Move a receipt, repeat it, or change a field of it."""
    parts = Parts.of(stage.bundle)
    receipts, how = parts.receipts, draw.randrange(4)
    at = draw.randrange(len(receipts))
    number, data = receipts[at]
    if how == 0:
        to = draw.choice([n for n in range(1, len(parts.entries) + 1) if n not in {m for m, _ in receipts}])
        receipts[at] = (to, data)
        receipts.sort()
        return parts.bundle(), to
    if how == 1:
        other = draw.choice([n for n in range(len(receipts)) if n != at])
        receipts[at] = (number, receipts[other][1])
        return parts.bundle(), number
    receipt = link_pb2.Receipt.FromString(data)
    if how == 2:
        name = draw.choice(
            [
                "task_id",
                "payload_sha256",
                "ledger_hash",
                "origin",
                "checkpoint_root",
                "witness_key",
                "certificate_sha256",
            ]
        )
        setattr(receipt.body, name, "x" if name in ("task_id", "origin") else draw.randbytes(32))
    else:
        name = draw.choice(["sequence", "received_unix_ms", "checkpoint_size"])
        setattr(receipt.body, name, getattr(receipt.body, name) + draw.choice([-1, 1, 1000]))
    receipts[at] = (number, receipt.SerializeToString(deterministic=True))
    return parts.bundle(), number


def other_signature(stage: Stage, draw: random.Random) -> tuple[bytes, int | None]:
    """Sign checkpoint, receipt, cosignature or opening with another key, or with none."""
    parts, how, key = Parts.of(stage.bundle), draw.randrange(5), Ed25519PrivateKey.generate()
    if how == 0:
        parts.sign(key, stage.origin)
        return parts.bundle(), len(parts.entries)
    if how == 4:
        return _other_opening(parts, stage, draw, key)
    at = draw.randrange(len(parts.receipts))
    number, data = parts.receipts[at]
    receipt = link_pb2.Receipt.FromString(data)
    body = receipt.body
    if how == 1:  # a plant's certificate is at hand; a hub's is not
        receipt.signature = sign(stage.federation.plant.key, body.SerializeToString(deterministic=True))
    elif how == 2:
        receipt.signature = bytes(len(receipt.signature))
    else:
        witnessed = Checkpoint(body.origin, body.checkpoint_size, body.checkpoint_root)
        receipt.cosignature = cosign(witnessed, "fedsparse/hub", key, 1)
    parts.receipts[at] = (number, receipt.SerializeToString(deterministic=True))
    return parts.bundle(), number


def rolled_back(stage: Stage, draw: random.Random) -> tuple[bytes, int | None]:
    """Put an older checkpoint in place, one that the ledger itself has signed."""
    parts = Parts.of(stage.bundle)
    parts.checkpoint = draw.choice(list(stage.earlier.values()))
    return parts.bundle(), len(parts.entries)


def spliced(stage: Stage, draw: random.Random) -> tuple[bytes, int | None]:
    """Continue a ledger with the entries, payloads and perhaps the checkpoint of another."""
    parts, other = Parts.of(stage.bundle), Parts.of(stage.other)
    at = draw.randint(1, min(len(parts.entries), len(other.entries)) - 1)
    parts.entries[at:] = other.entries[at:]
    parts.receipts = [one for one in parts.receipts if one[0] <= at] + [
        one for one in other.receipts if one[0] > at
    ]
    parts.files |= other.files
    if draw.random() < 0.5:
        parts.checkpoint = other.checkpoint
    if draw.random() < 0.5:
        parts.rechain(at + 1)
    return parts.bundle(), None


def rewritten(stage: Stage, draw: random.Random) -> tuple[bytes, int | None]:
    """Rewrite the history from some entry on, and sign it with the plant's own key; the receipts stay."""
    parts = Parts.of(stage.bundle)
    last = parts.receipts[-1][0]
    number = draw.randint(1, last)
    _rewrite(parts, number, draw)
    parts.sign(stage.key, stage.origin)
    return parts.bundle(), None


def smuggled(stage: Stage, draw: random.Random) -> tuple[bytes, int | None]:
    """Put something in that says nothing false: files of no entry, what was deleted, what no signature covers."""
    parts, how = Parts.of(stage.bundle), draw.randrange(8)
    if how == 0:
        parts.put(draw.randbytes(draw.randint(1, 600)))
    elif how == 1:
        space = AdapterSpace(draw.randbytes(32), (TensorSpec(draw.randbytes(20).hex(), (3,)),))
        parts.files[f"spaces/{space.fingerprint.hex()}.json"] = space.to_json()
    elif how == 2:
        parts.files[f"{draw.choice(['payloads', 'spaces', 'notes'])}/{draw.randrange(1000)}"] = draw.randbytes(9)
    elif how == 3:
        parts.files |= stage.erased
        return parts.bundle(), len(parts.entries)  # the last one says that it was deleted
    elif how == 4:
        name = draw.choice([name for name in parts.files if name.startswith("spaces/")])
        parts.files[name] = _in_capitals(parts.files[name])
    else:
        return _other_words(parts, draw, (_more_certificates, _other_witness, _other_form)[how - 5], stage)
    return parts.bundle(), None


def recertified(stage: Stage, draw: random.Random) -> tuple[bytes, int | None]:
    """Write a hub's certificate in other bytes, which verify as well and say the same."""
    return _other_words(Parts.of(stage.bundle), draw, draw.choice((_other_certificate, _other_padding)), stage)


def unreceipted(stage: Stage, draw: random.Random) -> tuple[bytes, int | None]:
    """Take receipts away: nothing that is left contradicts anything."""
    parts = Parts.of(stage.bundle)
    count = draw.randint(1, len(parts.receipts))
    gone = draw.sample(parts.receipts, count)
    parts.receipts = [one for one in parts.receipts if one not in gone]
    return parts.bundle(), None


def truncated(stage: Stage, draw: random.Random) -> tuple[bytes, int | None]:
    """Cut entries off the end, with their receipts, and sign what is left with the plant's own key."""
    parts = Parts.of(stage.bundle)
    size = draw.randint(2, parts.receipts[-1][0] - 1)
    del parts.entries[size:]
    parts.receipts = [one for one in parts.receipts if one[0] <= size]
    parts.files |= stage.erased  # which is known to have been there
    named = b"".join(parts.entries)
    for name in parts.payloads():
        if bytes.fromhex(name[9:]) not in named:
            del parts.files[name]
    if not any(_kind(one) in (EntryKind.UPDATE, EntryKind.REFUSED) for one in parts.entries):
        parts.files = {name: data for name, data in parts.files.items() if not name.startswith("spaces/")}
    parts.sign(stage.key, stage.origin)
    return parts.bundle(), None


def _in_capitals(space: bytes) -> bytes:
    """Return the same adapter space, its base fingerprint in capital letters."""
    base = json.loads(space)["base_fingerprint"].encode()
    return space.replace(base, base.upper(), 1)


def _other_words(
    parts: Parts, draw: random.Random, change: Callable[[link_pb2.Receipt, Stage], None], stage: Stage
) -> tuple[bytes, int | None]:
    at = draw.randrange(len(parts.receipts))
    number, data = parts.receipts[at]
    receipt = link_pb2.Receipt.FromString(data)
    change(receipt, stage)
    parts.receipts[at] = (number, receipt.SerializeToString(deterministic=True))
    return parts.bundle(), number


def _more_certificates(receipt: link_pb2.Receipt, stage: Stage) -> None:
    root = x509.load_pem_x509_certificates(stage.federation.authority)[0]
    receipt.hub_certificate += root.public_bytes(Encoding.DER)


def _other_witness(receipt: link_pb2.Receipt, stage: Stage) -> None:
    """Rename the witness: its signature does not cover its name."""
    blob = base64.b64decode(receipt.cosignature.split(b" ")[2])
    told = sha256(b"fedsparse/other\n\x04" + receipt.body.witness_key).digest()[:4] + blob[4:]
    receipt.cosignature = f"— fedsparse/other {base64.b64encode(told).decode()}\n".encode()


def _other_form(receipt: link_pb2.Receipt, stage: Stage) -> None:
    receipt.signature = _mirrored(receipt.signature)


def _other_certificate(receipt: link_pb2.Receipt, stage: Stage) -> None:
    """Put n − s in the place of s in the CA's signature."""
    leaf = read_der_chain(receipt.hub_certificate, "the hub's certificate")[0]
    _resign(receipt, b"\0" + _mirrored(leaf.signature))


def _other_padding(receipt: link_pb2.Receipt, stage: Stage) -> None:
    """Say that the last bit of the CA's signature is padding; where it is set, its mirror image must do."""
    signature = read_der_chain(receipt.hub_certificate, "the hub's certificate")[0].signature
    _resign(receipt, b"\1" + signature if signature[-1] % 2 == 0 else b"\0" + _mirrored(signature))


def _resign(receipt: link_pb2.Receipt, bits: bytes) -> None:
    leaf, *above = read_der_chain(receipt.hub_certificate, "the hub's certificate")
    signed = leaf.tbs_certificate_bytes + _ECDSA_SHA256 + _der(0x03, bits)
    receipt.hub_certificate = _der(0x30, signed) + to_der_chain(above)


def _mirrored(signature: bytes) -> bytes:
    r, s = decode_dss_signature(signature)
    return encode_dss_signature(r, _ORDER - s)


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    return bytes([tag, 0x82]) + size.to_bytes(2, "big") + content


def _rewrite(parts: Parts, number: int, draw: random.Random) -> None:
    how = draw.randrange(3)
    if how == 0:
        before = parts.entries[number - 1]
        while parts.entries[number - 1] == before:
            parts.edit(number, lambda entry: _reword(entry, draw))
    elif how == 1:
        del parts.entries[number - 1]
    else:
        parts.entries.insert(number - 1, parts.entries[draw.randrange(len(parts.entries))])
    parts.rechain(number)


def _reword(entry: ledger_pb2.LedgerEntry, draw: random.Random) -> None:
    name = draw.choice(["time_unix_ms", "peer", "round", "version", "samples", "rule", "payload_bytes", "kind"])
    if name in ("peer", "rule"):
        setattr(entry, name, getattr(entry, name) + draw.choice("abc"))
    elif name == "kind":
        entry.kind = draw.choice([kind for kind in ledger_pb2.EntryKind.values() if kind not in (0, entry.kind)])
    else:
        setattr(entry, name, getattr(entry, name) + draw.randint(1, 99))


def _other_opening(
    parts: Parts, stage: Stage, draw: random.Random, key: Ed25519PrivateKey
) -> tuple[bytes, int | None]:
    """Claim another ledger key in an opening, with a hub's certificate or the plant's old signature."""
    numbers = [number for number, one in enumerate(parts.entries, 1) if _kind(one) == EntryKind.OPENED]
    number = draw.choice(numbers)
    entry = ledger_pb2.LedgerEntry.FromString(parts.entries[number - 1])
    opening = ledger_pb2.Opening.FromString(parts.files[f"payloads/{entry.payload_sha256.hex()}"])
    opening.ledger_key = public_bytes(key)
    if draw.random() < 0.5:
        opening.signature = sign(stage.federation.hub.key, statement(opening.origin, opening.ledger_key))
        opening.certificate = stage.federation.hub.der
    data = opening.SerializeToString(deterministic=True)
    digest = parts.put(data)

    def change(entry: ledger_pb2.LedgerEntry) -> None:
        entry.payload_sha256, entry.payload_bytes = digest, len(data)

    parts.edit(number, change)
    parts.rechain(number + 1)
    return parts.bundle(), None


def _kind(data: bytes) -> int:
    return int(ledger_pb2.LedgerEntry.FromString(data).kind)

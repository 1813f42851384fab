"""A small adapter space, deltas in it, and a hub with real certificates, as tests need them."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from fedsparse.aggregation import Admitted, admit
from fedsparse.audit import (
    CLOCK_UNKNOWN,
    Checkpoint,
    EntryDraft,
    EntryKind,
    Ledger,
    Recorded,
    cosign,
    describe_delta,
    make_opening,
    public_bytes,
)
from fedsparse.config import IdentitySettings
from fedsparse.delta import (
    AdapterSpace,
    Operation,
    Reason,
    RoundUpdate,
    SparseDelta,
    TensorDelta,
    TensorSpec,
    ValueCoding,
    decode_update,
    encode,
    encode_update,
)
from fedsparse.delta.codec import decode
from fedsparse.security import Credentials, Identity, Role, create_authority, issue, load_credentials, sign
from fedsparse.v1 import link_pb2

SPACE = AdapterSpace(
    bytes(range(32)),
    (
        TensorSpec("conv.weight", (4, 5)),
        TensorSpec("head.weight", (2, 3)),
        TensorSpec("wide.weight", (40, 50)),
    ),
)
OTHER_SPACE = AdapterSpace(bytes(32), SPACE.tensors)
LIMIT = 1 << 20  # bytes, more than any message of a test has
NOTHING = SparseDelta.empty(SPACE.fingerprint, Operation.SET)

Parts = Mapping[int, Mapping[int, float]]
"""Values by tensor position and flat index."""


def delta(parts: Parts, operation: Operation = Operation.ADD, space: bytes = SPACE.fingerprint) -> SparseDelta:
    return SparseDelta(
        space,
        operation,
        tuple(
            TensorDelta(position, np.array([*values], np.int64), np.array([*values.values()], np.float32))
            for position, values in parts.items()
        ),
    )


def state(parts: Parts) -> SparseDelta:
    return delta(parts, Operation.SET)


def update(
    change: SparseDelta | None = None,
    *,
    round: int = 3,
    version: int = 2,
    samples: int = 40,
    space: AdapterSpace = SPACE,
    metrics: Mapping[str, float] | None = None,
) -> bytes:
    """Return the bytes of a plant's answer to round 3, training from version 2."""
    change = delta({0: {1: 0.5, 7: -2.0}, 2: {1999: 0.125}}) if change is None else change
    payload = encode(change, space, ValueCoding.FP32)
    return encode_update(RoundUpdate(round, version, samples, payload, Reason.NONE, metrics or {"loss": 0.25}))


def admitted(change: SparseDelta, samples: int = 1) -> Admitted:
    return admit(update(change, samples=samples), SPACE, round=3, version=2, max_bytes=LIMIT, max_density=1.0)


@dataclass(frozen=True)
class Hub:
    """A hub that signs receipts.

    Attributes:
        authority: the CA certificate, PEM.
        certificate: the hub's and its issuer's, DER.
        key: the hub's, PEM.
        witness: signs checkpoints.
        plant: one that the same CA knows.
    """

    authority: bytes
    certificate: bytes
    key: bytes
    witness: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    plant: Credentials | None = None

    @classmethod
    def create(cls, folder: Path, role: Role = Role.HUB) -> Hub:
        authority = create_authority(folder, "test")
        for identity in (Identity(role, "hub"), Identity(Role.PLANT, "ise")):
            issue(authority, identity, folder)
        files = {name: folder / f"ise.{name}" for name in ("pem", "key")}
        plant = IdentitySettings(certificate=files["pem"], key=files["key"], authority=folder / "ca.pem")
        chain = x509.load_pem_x509_certificates((folder / "hub.pem").read_bytes())
        return cls(
            (folder / "ca.pem").read_bytes(),
            b"".join(certificate.public_bytes(Encoding.DER) for certificate in chain),
            (folder / "hub.key").read_bytes(),
            plant=load_credentials(plant, Role.PLANT),
        )

    def sign(self, data: bytes) -> bytes:
        return sign(self.key, data)

    def receipt(
        self,
        ledger: Ledger,
        recorded: Recorded,
        number: int,
        age: timedelta = timedelta(),
    ) -> bytes:
        """Return the receipt ``number`` for what ``ledger`` recorded last, serialised."""
        checkpoint = Checkpoint(ledger.origin, ledger.size, ledger.root(ledger.size) or b"")
        now = time.time_ns() // 1_000_000 - age // timedelta(milliseconds=1)
        body = link_pb2.ReceiptBody(
            plant="ise",
            task_id=recorded.task_id,
            payload_sha256=sha256(recorded.payload).digest(),
            ledger_hash=recorded.entry_hash,
            sequence=number,
            received_unix_ms=now,
            origin=checkpoint.origin,
            ledger_key=ledger.key,
            checkpoint_size=checkpoint.size,
            checkpoint_root=checkpoint.root,
            witness_key=public_bytes(self.witness),
            certificate_sha256=sha256(self.certificate).digest(),
        )
        return link_pb2.Receipt(
            body=body,
            signature=self.sign(body.SerializeToString(deterministic=True)),
            hub_certificate=self.certificate,
            cosignature=cosign(checkpoint, "fedsparse/hub", self.witness, now // 1000),
        ).SerializeToString(deterministic=True)


def draft_of(payload: bytes, task_id: str, kind: EntryKind = EntryKind.UPDATE, rule: str = "") -> EntryDraft:
    """Return what the gate would say of ``payload``."""
    said = decode_update(payload, max_bytes=LIMIT)
    change = decode(said.delta, SPACE, max_bytes=LIMIT) if said.delta else None
    return EntryDraft(
        kind=kind,
        peer="hub.example:9443",
        policy_sha256=sha256(b"policy").digest(),
        task_id=task_id,
        round=said.round,
        version=said.version,
        samples=said.samples,
        reason=said.reason,
        rule=rule,
        tensors=describe_delta(change, SPACE) if change else (),
        metrics=said.metrics,
    )


def call_draft(kind: EntryKind = EntryKind.DESCRIBE) -> EntryDraft:
    return EntryDraft(kind=kind, peer="hub.example:9443", policy_sha256=sha256(b"policy").digest())


REFUSED_PAYLOAD = update(delta({1: {0: 9.0}}))
REASON_PAYLOAD = encode_update(RoundUpdate.refusal(4, 2, Reason.REFUSED_BY_GATE))
OWNERLESS = "entry 1: no entry says whose ledger this is, and which key signs for it"
"""What verifying says of a ledger that no gateway has opened."""
LEFT = {2: "task-a", 4: "task-b", 5: "task-c"}
"""What left in :func:`fill_ledger`: task ids by sequence."""


def open_as(ledger: Ledger, hub: Hub) -> None:
    """Record that the plant, whom the hub's CA knows, writes this ledger."""
    assert hub.plant is not None
    opening = make_opening(ledger.origin, ledger.key, hub.plant, "0", "00" * 32, CLOCK_UNKNOWN)
    ledger.append_note(EntryKind.OPENED, opening)


def fill_ledger(folder: Path, hub: Hub) -> None:
    """Record a call, an update, a refusal with its reason, another update, and whose ledger it is.

    All that left has a receipt.
    """
    with Ledger(folder, sha256(hub.authority).digest(), "ise") as ledger:
        ledger.set_space(SPACE)
        ledger.append(call_draft(), b"")
        for payload, task_id, kind in (
            (update(), "task-a", EntryKind.UPDATE),
            (REFUSED_PAYLOAD, "task-b", EntryKind.REFUSED),
            (REASON_PAYLOAD, "task-b", EntryKind.REASON),
            (update(delta({0: {3: 1.5}}), round=5), "task-c", EntryKind.UPDATE),
        ):
            rule = "density" if kind is EntryKind.REFUSED else ""
            recorded = ledger.append(draft_of(payload, task_id, kind, rule), payload)
            if recorded.sequence in LEFT:
                number = [*LEFT].index(recorded.sequence) + 1
                ledger.file_receipt(recorded.sequence, hub.receipt(ledger, recorded, number))
        open_as(ledger, hub)


def tamper(folder: Path, statement: str, *values: object) -> None:
    """Do to a ledger what somebody with a SQLite tool and no scruples can do."""
    with closing(sqlite3.connect(folder / "ledger.db")) as database, database:
        database.execute("PRAGMA synchronous=OFF")  # it need not survive a power cut
        for table in ("entries", "nodes", "receipts"):
            for trigger in ("keep", "stay"):
                database.execute(f"DROP TRIGGER IF EXISTS {table}_{trigger}")
        database.execute(statement, values)


def cell(folder: Path, table: str, column: str, sequence: int) -> bytes:
    with closing(sqlite3.connect(folder / "ledger.db")) as database:
        query = f"SELECT {column} FROM {table} WHERE sequence = ?"  # noqa: S608
        found: bytes = database.execute(query, (sequence,)).fetchone()[0]
        return found


def copied(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to)
    return to

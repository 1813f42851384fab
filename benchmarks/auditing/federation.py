"""An honest plant and hub without a network: a real CA, a real ledger, the hub's own book of receipts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from fedsparse_server.receipts import ReceiptBook

from fedsparse.audit import (
    CLOCK_UNKNOWN,
    EntryDraft,
    EntryKind,
    Ledger,
    describe_delta,
    make_opening,
    read_folder,
    statement,
    write_bundle,
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
    decode,
    decode_update,
    encode,
    encode_update,
)
from fedsparse.security import Credentials, Identity, Role, create_authority, issue, load_credentials, sign
from fedsparse.v1 import ledger_pb2, link_pb2

PLANT = "kiso"
SPACE = AdapterSpace(bytes(range(32)), (TensorSpec("conv.weight", (10, 10)), TensorSpec("head.weight", (2, 10))))
_PEER = "hub.example:9443"
_POLICY = b"[egress]\nmax_density = 0.05\n"


@dataclass(frozen=True)
class Federation:
    """Certificates of a hub and a plant.

    Attributes:
        authority: the CA certificate, PEM.
    """

    authority: bytes
    hub: Credentials
    plant: Credentials

    @classmethod
    def create(cls, folder: Path) -> Federation:
        """Make a CA and both certificates in ``folder``."""
        authority = create_authority(folder, "audited")
        found = {}
        for role, name in ((Role.HUB, "hub"), (Role.PLANT, PLANT)):
            issue(authority, Identity(role, name), folder)
            files = IdentitySettings(
                certificate=folder / f"{name}.pem", key=folder / f"{name}.key", authority=folder / "ca.pem"
            )
            found[name] = load_credentials(files, role)
        return cls((folder / "ca.pem").read_bytes(), found["hub"], found[PLANT])

    def run(self, folder: Path, rounds: int, seed: int) -> None:
        """Fill ``folder`` with a ledger, its bundle, and the hub's record, of so many rounds."""
        book = ReceiptBook(folder / "receipts", lambda: self.hub)
        draw = np.random.default_rng(seed)
        with Ledger(folder / "ledger", sha256(self.authority).digest(), PLANT) as ledger:
            ledger.set_space(SPACE)
            for number in range(1, rounds + 1):
                if number in (1, rounds // 2):  # the gateway is started twice
                    self._open(ledger)
                self._round(ledger, book, number, draw)
            first = next(entry for entry in ledger.entries() if int(entry.kind) == EntryKind.UPDATE)
            ledger.erase(first.payload_sha256, first.payload_bytes, "retention")
        write_bundle(folder / "kiso.tar", read_folder(folder / "ledger"))

    def _open(self, ledger: Ledger) -> None:
        opening = make_opening(ledger.origin, ledger.key, self.plant, "0.1.0", "ab" * 32, CLOCK_UNKNOWN)
        ledger.append_note(EntryKind.OPENED, opening)
        ledger.append_note(EntryKind.POLICY, _POLICY, sha256(_POLICY).digest())
        for kind in (EntryKind.DESCRIBE, EntryKind.ATTEND):
            ledger.append(EntryDraft(kind, _PEER, sha256(_POLICY).digest()), b"")

    def _round(self, ledger: Ledger, book: ReceiptBook, number: int, draw: np.random.Generator) -> None:
        task_id = sha256(number.to_bytes(8, "big") + ledger.key).hexdigest()
        if number % 5 == 3:
            refused = update(number, draw, samples=1)
            ledger.append(draft(EntryKind.REFUSED, task_id, number, refused, rule="min-samples"), refused)
            payload = encode_update(RoundUpdate.refusal(number, 0, Reason.REFUSED_BY_GATE))
            self.deliver(ledger, book, draft(EntryKind.REASON, task_id, number, payload), payload)
        else:
            payload = update(number, draw)
            self.deliver(ledger, book, draft(EntryKind.UPDATE, task_id, number, payload), payload)
        if number % 3 == 0:
            count = ledger_pb2.RouteCount(route="interface eth1", since="boot", sent_bytes=number * 5000)
            ledger.append_note(EntryKind.ROUTE, count)

    def deliver(self, ledger: Ledger, book: ReceiptBook, said: EntryDraft, payload: bytes) -> None:
        """Record something, have the hub witness it, and file its receipt."""
        recorded = ledger.append(said, payload)
        shown = ledger.prove(recorded, ledger.witnessed)
        shown.key_signature = sign(self.plant.key, statement(ledger.origin, ledger.key))
        request = link_pb2.Update(
            task_id=recorded.task_id, round_update=payload, ledger_hash=recorded.entry_hash, checkpoint=shown
        )
        receipt = book.issue(PLANT, request, sha256(payload).digest(), book.check(PLANT, request))
        ledger.file_receipt(recorded.sequence, receipt.SerializeToString(deterministic=True))


def update(number: int, draw: np.random.Generator, samples: int = 120) -> bytes:
    """Return an update of a few values."""
    indices = np.sort(draw.choice(100, 6, replace=False)).astype(np.int64)
    values = draw.standard_normal(6).astype(np.float32)
    delta = SparseDelta(SPACE.fingerprint, Operation.ADD, (TensorDelta(0, indices, values),))
    encoded = encode(delta, SPACE, ValueCoding.FP32)
    return encode_update(RoundUpdate(number, 0, samples, encoded, Reason.NONE, metrics(number)))


def metrics(number: int) -> Mapping[str, float]:
    """Return what an update says of itself."""
    return {"holdout_balanced_accuracy": 0.5 + number / 1000, "train_loss": 1 / number}


def draft(kind: EntryKind, task_id: str, number: int, payload: bytes, rule: str = "") -> EntryDraft:
    """Return what a gate would say of ``payload``."""
    said = decode_update(payload, max_bytes=1 << 20)
    told = (
        ()
        if kind is EntryKind.REFUSED or not said.delta
        else describe_delta(decode(said.delta, SPACE, max_bytes=1 << 20), SPACE)
    )
    return EntryDraft(
        kind=kind,
        peer=_PEER,
        policy_sha256=sha256(_POLICY).digest(),
        task_id=task_id,
        round=number,
        samples=0 if kind is EntryKind.REFUSED else said.samples,
        reason=Reason.NONE if kind is EntryKind.REFUSED else said.reason,
        rule=rule,
        tensors=told,
        metrics={} if kind is EntryKind.REFUSED else said.metrics,
    )

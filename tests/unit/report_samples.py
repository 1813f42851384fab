"""A plant's ledger with everything that a report speaks of, under real certificates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from fedsparse.audit import (
    Checkpoint,
    EntryDraft,
    EntryKind,
    Evidence,
    Ledger,
    Recorded,
    TensorFacts,
    cosign,
    describe_delta,
    make_opening,
    public_bytes,
    read_folder,
)
from fedsparse.audit.policy import canonical_bytes
from fedsparse.audit.report import Gathered, SiteFacts, Sources, gather
from fedsparse.config import EgressSettings, IdentitySettings
from fedsparse.delta import (
    AdapterSpace,
    Operation,
    Reason,
    RoundUpdate,
    SparseDelta,
    TensorDelta,
    TensorSpec,
    ValueCoding,
    encode,
    encode_update,
)
from fedsparse.security import Credentials, Identity, Role, create_authority, issue, load_credentials, sign
from fedsparse.v1 import ledger_pb2, link_pb2

PEER = "hub.example:9443"
POLICY = canonical_bytes(EgressSettings(max_density=0.05))
POLICY_SHA256 = sha256(POLICY).digest()
BOOT = "a7d1c0de"
FACTS = SiteFacts(
    controller="Kiso Seimitsu K.K., 1-2-3 Chuo, Kiso; privacy@kiso.example",
    site="Kiso, line 3",
    purpose="A common detector of defects in solar cells",
    personal_data="none: images show parts, no people",
)


def space(name: str = "blocks.1.conv.weight") -> AdapterSpace:
    return AdapterSpace(bytes(range(32)), (TensorSpec(name, (200, 50)), TensorSpec("head.weight", (6, 40))))


@dataclass
class Site:
    """A plant that sends, and a hub that gives receipts.

    Attributes:
        folder: of the ledger.
        authority: the CA certificate, PEM.
        ledger: open for writing.
        plant: its certificate and key.
        hub: certificate chain of the hub, DER.
        hub_key: PEM.
        witness: the hub's key for cosignatures.
        kept: the hub's own record.
        sent_bytes: the counter of the route.
    """

    folder: Path
    authority: bytes
    ledger: Ledger
    plant: Credentials
    hub: bytes
    hub_key: bytes
    space: AdapterSpace
    witness: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    kept: list[link_pb2.Receipt] = field(default_factory=list)
    sent_bytes: int = 40_000
    received_bytes: int = 9_000

    @classmethod
    def create(cls, root: Path, tensor: str = "blocks.1.conv.weight") -> Site:
        pki = root / "pki"
        authority = create_authority(pki, "solar-cells")
        for identity in (Identity(Role.HUB, "hub"), Identity(Role.PLANT, "kiso")):
            issue(authority, identity, pki)
        names = {name: pki / f"kiso.{name}" for name in ("pem", "key")}
        settings = IdentitySettings(certificate=names["pem"], key=names["key"], authority=pki / "ca.pem")
        chain = x509.load_pem_x509_certificates((pki / "hub.pem").read_bytes())
        pem = (pki / "ca.pem").read_bytes()
        ledger = Ledger(root / "ledger", sha256(pem).digest(), "kiso")
        site = cls(
            root / "ledger",
            pem,
            ledger,
            load_credentials(settings, Role.PLANT),
            b"".join(one.public_bytes(Encoding.DER) for one in chain),
            (pki / "hub.key").read_bytes(),
            space(tensor),
        )
        ledger.set_space(site.space)
        return site

    def open(self, clock_error_us: int = 1200) -> None:
        opening = make_opening(self.ledger.origin, self.ledger.key, self.plant, "0.1.0", "5a" * 32, clock_error_us)
        self.ledger.append_note(EntryKind.OPENED, opening)

    def policy(self, text: bytes = POLICY) -> None:
        self.ledger.append_note(EntryKind.POLICY, text, sha256(text).digest())

    def call(self, kind: EntryKind) -> None:
        self.ledger.append(EntryDraft(kind=kind, peer=PEER, policy_sha256=POLICY_SHA256), b"")

    def count(self, sent: int = 0, received: int = 0, since: str = BOOT) -> None:
        self.sent_bytes += sent
        self.received_bytes += received
        counted = ledger_pb2.RouteCount(
            route="interface eth0",
            since=since,
            sent_bytes=self.sent_bytes,
            sent_packets=self.sent_bytes // 900,
            received_bytes=self.received_bytes,
            received_packets=self.received_bytes // 900,
        )
        self.ledger.append_note(EntryKind.ROUTE, counted)

    def update(
        self,
        round: int,
        nnz: int = 400,
        samples: int = 120,
        metrics: Mapping[str, float] | None = None,
        *,
        receipt: bool = True,
        task: str = "",
    ) -> Recorded:
        """Record an update that leaves, and file its receipt."""
        values = np.linspace(-0.5, 0.5, nnz, dtype=np.float32) + np.float32(0.001)
        change = SparseDelta(
            self.space.fingerprint,
            Operation.ADD,
            (TensorDelta(0, np.arange(nnz, dtype=np.int64) * 3, values),),
        )
        said = RoundUpdate(
            round,
            round - 1,
            samples,
            encode(change, self.space, ValueCoding.FP32),
            Reason.NONE,
            metrics or {"holdout_balanced_accuracy": 0.7 + round / 100, "train_loss": 0.9 / round},
        )
        payload = encode_update(said)
        draft = self._draft(EntryKind.UPDATE, said, change, task or f"{round:064x}")
        return self._send(draft, payload, receipt=receipt)

    def reason(self, round: int, reason: Reason = Reason.REFUSED_BY_GATE) -> Recorded:
        said = RoundUpdate.refusal(round, round - 1, reason)
        draft = self._draft(EntryKind.REASON, said, None, f"{round:064x}")
        return self._send(draft, encode_update(said), receipt=True)

    def refuse(self, round: int, rule: str, payload: bytes = b"something else" * 40) -> None:
        draft = EntryDraft(kind=EntryKind.REFUSED, peer=PEER, policy_sha256=POLICY_SHA256, round=round, rule=rule)
        self.ledger.append(draft, payload)

    def claim(self, text: str) -> None:
        """Record what no gate would: an entry that has ``text`` wherever an entry has room for any."""
        tensors = (TensorFacts(text, 3, -1.0, 1.0, 1.5),)
        draft = EntryDraft(
            EntryKind.UPDATE, text, POLICY_SHA256, text, samples=5, rule=text, tensors=tensors, metrics={text: 1.0}
        )
        self.ledger.append(draft, b"no update at all")

    def _draft(self, kind: EntryKind, said: RoundUpdate, change: SparseDelta | None, task: str) -> EntryDraft:
        return EntryDraft(
            kind=kind,
            peer=PEER,
            policy_sha256=POLICY_SHA256,
            task_id=task,
            round=said.round,
            version=said.version,
            samples=said.samples,
            reason=said.reason,
            tensors=() if change is None else describe_delta(change, self.space),
            metrics=said.metrics,
        )

    def _send(self, draft: EntryDraft, payload: bytes, *, receipt: bool) -> Recorded:
        recorded = self.ledger.append(draft, payload)
        if receipt:
            given = self.receipt(recorded)
            self.ledger.file_receipt(recorded.sequence, given.SerializeToString(deterministic=True))
        return recorded

    def receipt(self, recorded: Recorded) -> link_pb2.Receipt:
        """Return the hub's receipt for what was recorded last, and keep it."""
        entry = next(self.ledger.entries(recorded.sequence))
        checkpoint = Checkpoint(self.ledger.origin, self.ledger.size, self.ledger.root(self.ledger.size) or b"")
        body = link_pb2.ReceiptBody(
            plant="kiso",
            task_id=recorded.task_id,
            payload_sha256=sha256(recorded.payload).digest(),
            ledger_hash=recorded.entry_hash,
            sequence=len(self.kept) + 1,
            received_unix_ms=entry.time_unix_ms + 300,
            origin=checkpoint.origin,
            ledger_key=self.ledger.key,
            checkpoint_size=checkpoint.size,
            checkpoint_root=checkpoint.root,
            witness_key=public_bytes(self.witness),
            certificate_sha256=sha256(self.hub).digest(),
        )
        receipt = link_pb2.Receipt(
            body=body,
            signature=sign(self.hub_key, body.SerializeToString(deterministic=True)),
            hub_certificate=self.hub,
            cosignature=cosign(checkpoint, "fedsparse/hub", self.witness, entry.time_unix_ms // 1000),
        )
        self.kept.append(receipt)
        return receipt

    def evidence(self) -> Evidence:
        return read_folder(self.folder)

    def gather(self, *, authority: bool = True, hub: bool = True, facts: SiteFacts | None = FACTS) -> Gathered:
        return gather(
            self.evidence(),
            Sources("kiso.evidence.tar", "ca.pem", "kiso.jsonl" if hub else ""),
            self.authority if authority else None,
            self.kept if hub else None,
            facts,
        )


def usual_site(root: Path, rounds: int = 8) -> Site:
    """Return a site after some rounds, one of them refused, none of it out of the ordinary."""
    site = Site.create(root)
    site.open()
    site.policy()
    site.count()
    site.call(EntryKind.DESCRIBE)
    site.call(EntryKind.ATTEND)
    for number in range(1, rounds + 1):
        if number == 3:
            site.refuse(number, "density")
            left = len(site.reason(number).payload)
        else:
            left = len(site.update(number, nnz=300 + 60 * (number % 4), samples=112 + number).payload)
        site.count(int(left * 1.04) + 2900 + (9000 if number == 1 else 0), 21_000)
    return site

"""Attacks on a plant's gateway from the hub's side: who answers there, and what it sends."""

from __future__ import annotations

import os
import queue
import re
import ssl
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from benchmarks.attacking import certificates
from benchmarks.attacking.attack import GATEWAY, Attack, in_words
from benchmarks.attacking.bare_hub import BareHub
from benchmarks.attacking.certificates import HOUR, SERVER, Form
from benchmarks.attacking.federation import Federation, Watched
from benchmarks.attacking.hostile_hub import HostileHub, Receipts
from benchmarks.attacking.messages import round_task
from benchmarks.attacking.site import Site
from fedsparse.audit import Checkpoint
from fedsparse.bundle import bundle_sha256
from fedsparse.delta import Reason, decode_update
from fedsparse.parts import PART_BYTES
from fedsparse.security import Credentials, Role
from fedsparse.v1 import link_pb2

_DIALLED = "a hub that a plant dials"
_TOLD = "what a hostile hub sends"
_HUB_URI = ("urn:fedsparse:hub:hub",)
_SECONDS = 8.0
_QUIET_SECONDS = 1.5
_END_SECONDS = 20.0  # for all gateways start at once


class _Serving(Protocol):
    port: int

    def stop(self) -> None:
        """End it."""


@dataclass(frozen=True)
class Dialled:
    """One gateway that dials one impostor.

    Attributes:
        attack: how it must end.
        watched: the gateway.
    """

    attack: Attack
    watched: Watched


def dial_impostors(federation: Federation, stack: ExitStack) -> list[Dialled]:
    """Start a gateway against every impostor, all at once."""
    found = []
    for number, (does, check, make, host) in enumerate(_impostors(federation)):
        hub = make()
        stack.callback(hub.stop)
        site = Site(federation, f"dialling-{number}", hub.port, host)
        refused = f"the gateway ends with status {os.EX_NOPERM}: {in_words(check)}"
        attack = Attack(
            _DIALLED, does, refused, "the gateway has ended", f"error: the hub at .*{check}",
            partial(_wait, site.watched), GATEWAY, 2 * _END_SECONDS, os.EX_NOPERM,
        )  # fmt: skip
        found.append(Dialled(attack, site.watched))
    return found


def _wait(watched: Watched, federation: Federation) -> str:
    try:
        federation.wait(lambda: watched.exit_code is not None, "its end", _END_SECONDS)
    except TimeoutError:
        return "the gateway goes on with this hub"
    return "the gateway has ended"


def _impostors(federation: Federation) -> list[tuple[str, str, Callable[[], _Serving], str]]:
    pki, local = federation.pki, "127.0.0.1"

    def gone() -> Credentials:
        found = pki.credentials(Role.HUB, "gone-hub", local)
        pki.revoke("gone-hub")
        federation.copy_revoked()
        return found

    def forged(form: Form) -> Credentials:
        return pki.forge(form)

    def serve(make: Callable[[], Credentials]) -> Callable[[], _Serving]:
        return lambda: HostileHub(make(), "kiso")

    old = Form(_HUB_URI, ("localhost",), (SERVER,), -2 * HOUR, -HOUR)
    young = Form(_HUB_URI, ("localhost",), (SERVER,), HOUR, 2 * HOUR)
    stranger = "its certificate is not accepted here: unable to get"
    return [
        ("a hub of another CA", stranger,
         serve(lambda: federation.other.credentials(Role.HUB, "hub", local)), local),
        ("a certificate that vouches for itself", "its certificate is not accepted here: self.signed",
         serve(lambda: certificates.self_signed(pki)), local),
        ("an expired hub's certificate", "certificate has expired", serve(lambda: forged(old)), "localhost"),
        ("a hub's certificate that is not valid yet", "not yet valid", serve(lambda: forged(young)), "localhost"),
        ("a hub's certificate for another host name", "is not valid for '127.0.0.1'|IP address mismatch",
         serve(lambda: pki.credentials(Role.HUB, "elsewhere", "hub.example")), local),
        ("a plant's certificate instead of a hub's", "(unsuitable|unsupported) certificate purpose",
         serve(lambda: pki.credentials(Role.PLANT, "posing", local)), local),
        ("a revoked hub's certificate", "is revoked", serve(gone), local),
        ("a plant's name with the usage of a server and the hub's address", "a hub's is needed",
         serve(lambda: forged(Form(("urn:fedsparse:plant:posing",), ("localhost",), (SERVER,)))), "localhost"),
        ("a hub that speaks TLS 1.2 at most", "does not speak TLS 1.3|protocol version",
         lambda: BareHub(pki.credentials(Role.HUB, "old", local), ssl.TLSVersion.TLSv1_2), local),
    ]  # fmt: skip


class Stage:
    """A gateway that is present at a hostile hub with a good certificate.

    Args:
        federation: whose CA all trust.
    """

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.credentials = federation.pki.credentials(Role.HUB, "turned", "127.0.0.1")
        self.hub = HostileHub(self.credentials, "mill")
        self.site = Site(federation, "mill", self.hub.port)
        self.bare = BareHub(federation.pki.credentials(Role.HUB, "bare", "127.0.0.1"))
        self.claiming = Site(federation, "claiming", self.bare.port)
        self._numbers = 0

    def begin(self) -> None:
        """Wait until both gateways are present."""
        for site in (self.site, self.claiming):
            site.begin()
        self.federation.wait(lambda: self.hub.attended, "the gateway", 30.0)
        self.site.watched.fresh = False

    def close(self) -> None:
        """End both hubs."""
        self.hub.stop()
        self.bare.stop()

    def task(self, bundle: str | None = None, payload: bytes | None = None) -> link_pb2.Task:
        """Return a new task."""
        self._numbers += 1
        return link_pb2.Task(
            task_id=f"{self._numbers:064x}",
            run_id=7,
            bundle_sha256=bundle or bundle_sha256(),
            round_task=round_task() if payload is None else payload,
        )

    def answer(self) -> str:
        """Return the reason that the gateway gives, or that it sent a delta."""
        try:
            pushed = self.hub.pushed.get(timeout=_SECONDS)
        except queue.Empty:
            return "no answer"
        update = decode_update(pushed.round_update, max_bytes=1 << 20)
        return f"reason {update.reason.name}" if update.reason is not Reason.NONE else "a delta"


def attacks() -> list[Attack]:
    """Return them in the order in which they are run; the last is on the gateway ``claiming``."""
    return [*_tasks(), *_receipts(), *_stale()]


def _tasks() -> list[Attack]:
    def strange_code(stage: Stage) -> str:
        before = stage.site.filed()
        stage.hub.send(stage.task(bundle="0" * 64))
        told = stage.answer()
        stage.federation.wait(lambda: stage.site.filed() > before, "the receipt in the ledger")
        return told

    def announcing(*messages: link_pb2.Task) -> Callable[[Stage], str]:
        """Send what begins a task in parts and does not go on as it must; wait for the next dial."""

        def run(stage: Stage) -> str:
            attended, since = stage.hub.attended, stage.site.watched.size()
            for message in messages:
                stage.hub.send(message)
            stage.federation.wait(lambda: "hanging up" in stage.site.watched.told(since), "the refusal", 8.0)
            stage.federation.wait(lambda: stage.hub.attended > attended, "the next dial", 8.0)
            return "hung up and dialled again"

        return run

    def in_parts(does: str, log: str, *messages: link_pb2.Task) -> Attack:
        refused_how = "the gateway hangs up, keeps nothing, and dials again"
        run = announcing(*messages)
        return Attack(
            _TOLD, does, refused_how, "^hung up and dialled again$", f"hanging up: .*{log}", run, GATEWAY
        )

    head = link_pb2.Task(task_id="e" * 64, size=PART_BYTES + 1)
    return [
        in_parts("a task that announces 2^40 bytes in parts", f"announces a task of {1 << 40} bytes",
                 link_pb2.Task(task_id="f" * 64, size=1 << 40)),
        in_parts("a part of a task that was not announced", "a part of no task",
                 link_pb2.Task(round_task=bytes(PART_BYTES))),
        in_parts("a task that begins at a byte that the plant does not have", f"at its byte {PART_BYTES}",
                 link_pb2.Task(task_id="d" * 64, size=PART_BYTES + 1, offset=PART_BYTES)),
        in_parts("a part of a single byte", "a part of 1 bytes after 0", head, link_pb2.Task(round_task=b"x")),
        Attack(_TOLD, "a task of another app bundle (code that the site did not install)",
               "never run; answered by the reason APP_NOT_APPROVED", "^reason APP_NOT_APPROVED$",
               "bundle|approved|APP_NOT_APPROVED", strange_code, GATEWAY),
    ]  # fmt: skip


def claiming() -> Attack:
    """Return the attack on the gateway ``claiming``."""

    def claims(stage: Stage) -> str:
        stage.federation.wait(lambda: stage.bare.claimed >= 1, "the claim", 30.0)
        stage.federation.wait(lambda: "larger than max" in stage.claiming.watched.told(0), "the refusal", 10.0)
        return "the stream is cancelled before the task has arrived"

    return Attack(
        _TOLD, "a task that claims two gigabytes",
        "RESOURCE_EXHAUSTED before it is received; the gateway dials again", "cancelled before",
        "connection to the hub lost .*resource exhausted: .*larger than max", claims, GATEWAY, 45.0,
    )  # fmt: skip


def _receipts() -> list[Attack]:
    def with_receipt(make: Callable[[Stage], Receipts]) -> Callable[[Stage], str]:
        def run(stage: Stage) -> str:
            stage.hub.receipts = make(stage)
            before, since = stage.site.filed(), stage.site.watched.size()
            stage.hub.send(stage.task(bundle="0" * 64))
            stage.answer()
            stage.federation.wait(lambda: "gave a receipt" in stage.site.watched.told(since), "the refusal", 8.0)
            stage.hub.receipts = stage.hub.receipt
            return f"{stage.site.filed() - before} receipts filed"

        return run

    def signed(make: Callable[[Stage], Credentials], own_key: bool = False) -> Callable[[Stage], Receipts]:
        def receipts(stage: Stage) -> Receipts:
            who = make(stage)
            if own_key:
                return lambda update: stage.hub.receipt(update, key=who.key)
            return lambda update: stage.hub.receipt(update, signer=who)

        return receipts

    def saying(**said: Any) -> Callable[[Stage], Receipts]:
        return lambda stage: lambda update: stage.hub.receipt(update, **said)

    def replayed(stage: Stage) -> Receipts:
        """Keep the receipt of an honest answer, once the gateway has filed it."""
        before = stage.site.filed()
        given: list[link_pb2.Receipt] = []

        def honest(update: link_pb2.Update) -> link_pb2.Receipt:
            given.append(stage.hub.receipt(update))
            return given[0]

        stage.hub.receipts = honest
        stage.hub.send(stage.task(bundle="0" * 64))
        stage.federation.wait(lambda: stage.site.filed() > before, "the honest receipt in the ledger")
        return lambda update: given[0]

    def attack(does: str, log: str, make: Callable[[Stage], Receipts]) -> Attack:
        return Attack(_TOLD, does, "not filed in the ledger", "^0 receipts filed$", f"gave a receipt that .*{log}",
                      with_receipt(make), GATEWAY)  # fmt: skip

    other = "speaks of another payload, entry or task"
    return [
        attack("a receipt signed by another key", "is not the hub's: the signature",
               signed(lambda stage: stage.federation.credentials("posing"), own_key=True)),
        attack("a receipt signed by a plant", "is not the hub's: .* is a plant's certificate",
               signed(lambda stage: stage.federation.credentials("posing"))),
        attack("a receipt signed by a hub of another CA", "is not the hub's: .*was not issued by the given CA",
               signed(lambda stage: stage.federation.other.credentials(Role.HUB, "hub", "127.0.0.1"))),
        attack("a receipt for other bytes", other, saying(payload_sha256=bytes(32))),
        attack("a receipt for another ledger entry", other, saying(ledger_hash=bytes(32))),
        attack("a receipt that witnesses another history", "witnesses another history",
               saying(checkpoint_root=bytes(32))),
        attack("a receipt that witnesses more than there is", "witnesses another history",
               saying(checkpoint_size=10**6)),
        attack("a receipt that witnesses another ledger", "witnesses another ledger",
               saying(ledger_key=bytes(32))),
        attack("a cosignature of another checkpoint", "has a cosignature that does not count",
               saying(cosigned=Checkpoint("fedsparse/kiso/0", 1, bytes(32)))),
        attack("a receipt for another plant", "is for the plant 'kiso'", saying(plant="kiso")),
        attack("a receipt that it gave before, replayed", other, replayed),
        attack("a cosignature by another key than the receipt names", "has a cosignature that does not count",
               saying(witness_key=bytes(32))),
    ]  # fmt: skip


def _stale() -> list[Attack]:
    """Have the hub demand proofs from other sizes: a gateway must neither go on for ever nor end."""

    def demanding(size: Callable[[int], str], log: str) -> Callable[[Stage], str]:
        def run(stage: Stage) -> str:
            since, before = stage.site.watched.size(), stage.site.filed()
            stage.hub.tries, stage.hub.stale = 0, size
            stage.hub.send(stage.task(bundle="0" * 64))
            try:
                stage.federation.wait(lambda: re.search(log, stage.site.watched.told(since)), "its end", _SECONDS)
                time.sleep(_QUIET_SECONDS)  # in which a gateway that goes on would be seen
            finally:
                stage.hub.stale = None
            return f"{stage.hub.tries} tries, {stage.site.filed() - before} receipts filed"

        return run

    def attack(does: str, refused: str, tries: int, log: str, size: Callable[[int], str]) -> Attack:
        return Attack(
            _TOLD, does, refused, f"^{tries} tries, 0 receipts filed$", log, demanding(size, log), GATEWAY
        )

    once = "tried once more, then not delivered; the entry stays"
    gone = "was not delivered: .*aborted"
    return [
        attack("a proof demanded from another size at every try, for ever", once, 2, gone,
               lambda number: str(number % 2 + 1)),
        attack("a proof demanded from the same wrong size for ever", once, 2, gone, lambda _: "1"),
        attack("a proof demanded from more entries than there are", "not delivered; the operator is told", 1,
               "the hub has seen this ledger with 999999999 entries", lambda _: "999999999"),
        attack("a size of 6,000 digits", "not delivered; the entry stays", 1, gone, lambda _: "9" * 6000),
        attack("a size that is no number", "not delivered; the entry stays", 1, gone, lambda _: "-1"),
    ]  # fmt: skip

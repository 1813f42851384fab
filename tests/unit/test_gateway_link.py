"""The plant's end of the link, against a hub that behaves as each test says, over real mutual TLS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fedsparse_client.gateway import link as link_module
from fedsparse_client.gateway.link import Link

from fedsparse.audit import (
    STALE_SIZE,
    Checkpoint,
    EntryDraft,
    EntryKind,
    Ledger,
    Recorded,
    check_checkpoint,
    cosign,
    public_bytes,
    statement,
)
from fedsparse.audit import Seen as Witnessed
from fedsparse.errors import HubUnreachableError, LedgerError, LinkError, ReceiptError
from fedsparse.processes import free_port
from fedsparse.security import Credentials, Role, server_credentials, sign, signed_by
from fedsparse.v1 import link_pb2, link_pb2_grpc
from tests.unit.federation_samples import Fixed, Pki, federation, link_task, nobody_revoked


@dataclass(frozen=True)
class Stale:
    """The hub has witnessed this ledger with so many entries, and needs a proof from there on."""

    size: str
    code: grpc.StatusCode = grpc.StatusCode.ABORTED


Step = grpc.StatusCode | Stale | link_pb2.Task | link_pb2.Receipt | link_pb2.Federation


class ScriptedHub(link_pb2_grpc.LinkServicer):
    """Answers the n-th call of any kind with the n-th step, and the last one for ever."""

    def __init__(self, *steps: Step) -> None:
        self._steps = list(steps)
        self.heard: list[object] = []

    def _next(self, request: object, context: grpc.ServicerContext) -> Step:
        self.heard.append(request)
        step = self._steps.pop(0) if len(self._steps) > 1 else self._steps[0]
        if isinstance(step, Stale):
            context.set_trailing_metadata(((STALE_SIZE, step.size),))
            context.abort(step.code, "the proof begins elsewhere")
        if isinstance(step, grpc.StatusCode):
            context.abort(step, "the hub's own words")
        return step

    def Describe(self, request: object, context: grpc.ServicerContext) -> Step:  # type: ignore[override]  # noqa: N802
        return self._next(request, context)

    def Attend(self, request: object, context: grpc.ServicerContext) -> Iterator[Step]:  # type: ignore[override]  # noqa: N802
        yield self._next(request, context)

    def Push(self, request: object, context: grpc.ServicerContext) -> Step:  # type: ignore[override]  # noqa: N802
        return self._next(request, context)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def kiso(pki: Pki) -> Credentials:
    return pki.credentials(Role.PLANT, "kiso")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "_FIRST_BACKOFF_SECONDS", 0.01)


Dial = Callable[[ScriptedHub], Link]


@dataclass
class Seen:
    """Notes how the presence comes and goes."""

    told: list[str]

    def dialling(self) -> None:
        self.told.append("dialling")

    def accepted(self) -> None:
        self.told.append("accepted")

    def lost(self) -> list[str]:
        self.told.append("lost")
        return []


@pytest.fixture
def dial(pki: Pki, kiso: Credentials) -> Iterator[Dial]:
    @contextmanager
    def served(hub: ScriptedHub) -> Iterator[Link]:
        server = grpc.server(ThreadPoolExecutor(4))
        link_pb2_grpc.add_LinkServicer_to_server(hub, server)
        certificate = server_credentials(Fixed(pki.credentials(Role.HUB, "hub", "127.0.0.1")))
        port = server.add_secure_port("127.0.0.1:0", certificate)
        server.start()
        with Link(f"127.0.0.1:{port}", Fixed(kiso), 1 << 20, nobody_revoked()) as link:
            yield link
        server.stop(0).wait()

    open_links = []

    def start(hub: ScriptedHub) -> Link:
        manager = served(hub)
        open_links.append(manager)
        return manager.__enter__()

    yield start
    for manager in open_links:
        manager.__exit__(None, None, None)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger", bytes(32), "kiso") as ledger:
        yield ledger


@pytest.fixture
def recorded(ledger: Ledger) -> Recorded:
    return ledger.append(EntryDraft(EntryKind.REASON, "hub:1", b"", task_id="task"), b"payload")


def test_the_handshake_can_be_checked_by_itself(dial: Dial) -> None:
    hub = ScriptedHub(federation())
    dial(hub).check()
    assert hub.heard == []


def test_the_plant_asks_with_its_protocol_and_hears_what_is_trained(dial: Dial) -> None:
    hub = ScriptedHub(federation())
    assert dial(hub).describe() == federation()
    assert hub.heard == [link_pb2.DescribeRequest(protocol=3)]


def test_a_refusal_is_told_in_the_hubs_own_words(dial: Dial) -> None:
    with pytest.raises(LinkError, match="permission denied: the hub's own words") as caught:
        dial(ScriptedHub(grpc.StatusCode.PERMISSION_DENIED)).describe()
    assert not isinstance(caught.value, HubUnreachableError)


def test_a_hub_that_cannot_answer_now_is_out_of_reach_and_not_refusing(dial: Dial) -> None:
    with pytest.raises(HubUnreachableError):
        dial(ScriptedHub(grpc.StatusCode.UNAVAILABLE)).describe()


def test_a_hub_that_is_not_there_is_out_of_reach(kiso: Credentials) -> None:
    with Link(f"127.0.0.1:{free_port()}", Fixed(kiso), 1 << 20, nobody_revoked()) as link:
        with pytest.raises(HubUnreachableError):
            link.check()
        with pytest.raises(HubUnreachableError):
            link.describe()


@pytest.mark.parametrize("loss", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN])
def test_presence_survives_a_lost_connection_and_each_loss_is_told(dial: Dial, loss: grpc.StatusCode) -> None:
    hub = ScriptedHub(loss, link_task("1" * 64), loss, link_task("2" * 64))
    losses: list[str] = []
    tasks = dial(hub).attend(b"s" * 32, Seen(losses))
    assert [next(tasks).task_id for _ in range(2)] == ["1" * 64, "2" * 64]
    assert losses.count("lost") == 3  # twice with an error, once because the hub ended the stream
    assert losses.count("dialling") == 4
    requests = [one for one in hub.heard if isinstance(one, link_pb2.AttendRequest)]
    assert {(one.protocol, one.space) for one in requests} == {(3, b"s" * 32)}
    assert len({one.session for one in requests}) == 1  # the hub may know it again
    assert len(requests[0].session) == 16
    assert [list(one.held) for one in requests] == [[], [], ["1" * 64], ["1" * 64]]


@pytest.mark.parametrize("code", [grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNAUTHENTICATED])
def test_presence_ends_when_the_hub_refuses_this_plant_for_good(dial: Dial, code: grpc.StatusCode) -> None:
    with pytest.raises(LinkError, match="the hub's own words"):
        next(dial(ScriptedHub(code)).attend(bytes(32), Seen([])))


def test_presence_ends_quietly_when_the_plant_hangs_up(dial: Dial) -> None:
    link = dial(ScriptedHub(link_task()))
    tasks = link.attend(bytes(32), Seen([]))
    next(tasks)
    link.close()
    assert list(tasks) == []


Sign = Callable[..., link_pb2.Receipt]


@pytest.fixture
def signed(pki: Pki, recorded: Recorded, ledger: Ledger) -> Sign:
    """Return a function that gives the hub's receipt for ``recorded``, with some of its facts changed."""
    hub, witness = pki.credentials(Role.HUB, "hub"), Ed25519PrivateKey.generate()
    whole = Checkpoint(ledger.origin, ledger.size, ledger.root(ledger.size) or b"")

    def receipt(signer: Credentials = hub, **changes: object) -> link_pb2.Receipt:
        facts = {
            "plant": "kiso",
            "task_id": "task",
            "payload_sha256": sha256(recorded.payload).digest(),
            "ledger_hash": recorded.entry_hash,
            "sequence": 1,
            "received_unix_ms": time.time_ns() // 1_000_000,
            "origin": whole.origin,
            "ledger_key": ledger.key,
            "checkpoint_size": whole.size,
            "checkpoint_root": whole.root,
            "witness_key": public_bytes(witness),
            "certificate_sha256": sha256(signer.der).digest(),
        }
        body = link_pb2.ReceiptBody(**(facts | changes))  # type: ignore[arg-type]
        return link_pb2.Receipt(
            body=body,
            signature=sign(signer.key, body.SerializeToString(deterministic=True)),
            hub_certificate=signer.der,
            cosignature=cosign(whole, "fedsparse/hub", witness, 1),
        )

    return receipt


@pytest.mark.parametrize(
    "changes",
    [
        {"plant": "ise"},
        {"task_id": "other"},
        {"payload_sha256": bytes(32)},
        {"ledger_hash": bytes(32)},
        {"origin": "fedsparse/ise/0"},
        {"ledger_key": bytes(32)},
        {"checkpoint_root": bytes(32)},
        {"checkpoint_size": 2},
        {"witness_key": bytes(32)},
        {"certificate_sha256": bytes(32)},
    ],
)
def test_a_receipt_for_something_else_is_refused(
    dial: Dial, recorded: Recorded, signed: Sign, changes: dict[str, object], ledger: Ledger
) -> None:
    why = r"receipt that (speaks of|is for the plant|witnesses another|has a cosignature that|names another)"
    with pytest.raises(LinkError, match=why):
        dial(ScriptedHub(signed(**changes))).push(recorded, ledger)


def test_a_receipt_that_a_plant_signed_is_refused(
    dial: Dial, recorded: Recorded, signed: Sign, kiso: Credentials, ledger: Ledger
) -> None:
    with pytest.raises(LinkError, match="receipt that is not the hub's"):
        dial(ScriptedHub(signed(kiso))).push(recorded, ledger)


def test_what_is_pushed_is_what_was_recorded_and_the_receipt_comes_back(
    dial: Dial, recorded: Recorded, signed: Sign, ledger: Ledger, kiso: Credentials
) -> None:
    hub = ScriptedHub(receipt := signed())
    assert dial(hub).push(recorded, ledger) == receipt
    (heard,) = hub.heard
    assert isinstance(heard, link_pb2.Update)
    assert (heard.task_id, heard.round_update, heard.ledger_hash) == ("task", b"payload", recorded.entry_hash)
    checkpoint = check_checkpoint(heard.checkpoint, "kiso", recorded.entry_hash, None)
    assert (checkpoint.size, checkpoint.root) == (ledger.size, ledger.root(ledger.size))
    said = statement(ledger.origin, ledger.key)
    assert signed_by(kiso.der, said, heard.checkpoint.key_signature)


def test_a_push_is_tried_again_with_the_same_bytes_while_the_hub_is_away(
    dial: Dial, recorded: Recorded, signed: Sign, ledger: Ledger
) -> None:
    away = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE)
    hub = ScriptedHub(*away, receipt := signed())
    assert dial(hub).push(recorded, ledger) == receipt
    assert len(hub.heard) == 4
    updates = [heard for heard in hub.heard if isinstance(heard, link_pb2.Update)]
    assert {(one.task_id, one.round_update, one.ledger_hash) for one in updates} == {
        ("task", b"payload", recorded.entry_hash)
    }


def test_what_was_not_recorded_to_leave_is_never_sent(dial: Dial, ledger: Ledger) -> None:
    hub = ScriptedHub()
    refused = ledger.append(EntryDraft(EntryKind.REFUSED, "hub:1", b"", task_id="task", rule="norm"), b"payload")
    with pytest.raises(LinkError, match="entry 1 is REFUSED: it must not leave"):
        dial(hub).push(refused, ledger)
    assert hub.heard == []


def updates(hub: ScriptedHub) -> list[link_pb2.Update]:
    return [heard for heard in hub.heard if isinstance(heard, link_pb2.Update)]


def test_where_a_receipt_got_lost_the_plant_proves_from_where_the_hub_says(
    dial: Dial, recorded: Recorded, signed: Sign, ledger: Ledger
) -> None:
    """The hub has witnessed the first entry in a receipt that never arrived."""
    assert (ledger.size, ledger.witnessed) == (1, 0)
    hub = ScriptedHub(Stale("1"), receipt := signed())
    assert dial(hub).push(recorded, ledger) == receipt
    first, second = updates(hub)
    assert (first.checkpoint.old_size, second.checkpoint.old_size) == (0, 1)
    seen = Witnessed(Checkpoint(ledger.origin, 1, ledger.root(1) or b""), ledger.key)
    assert check_checkpoint(second.checkpoint, "kiso", recorded.entry_hash, seen) == seen.checkpoint
    assert first.ledger_hash == second.ledger_hash


def test_a_hub_that_has_lost_what_it_witnessed_is_given_a_proof_from_the_beginning(
    dial: Dial, recorded: Recorded, signed: Sign, ledger: Ledger
) -> None:
    receipt = signed()
    ledger.file_receipt(recorded.sequence, receipt.SerializeToString(deterministic=True))
    assert ledger.witnessed == 1
    hub = ScriptedHub(Stale("0"), receipt)
    assert dial(hub).push(recorded, ledger) == receipt
    assert [update.checkpoint.old_size for update in updates(hub)] == [1, 0]


def test_what_a_filed_receipt_witnessed_is_where_the_next_proof_begins(
    dial: Dial, recorded: Recorded, signed: Sign, ledger: Ledger
) -> None:
    ledger.file_receipt(recorded.sequence, signed().SerializeToString(deterministic=True))
    later = ledger.append(EntryDraft(EntryKind.REASON, "hub:1", b"", task_id="next"), b"payload")
    hub = ScriptedHub(grpc.StatusCode.NOT_FOUND)
    with pytest.raises(LinkError):
        dial(hub).push(later, ledger)
    (update,) = updates(hub)
    seen = Witnessed(Checkpoint(ledger.origin, 1, ledger.root(1) or b""), ledger.key)
    assert check_checkpoint(update.checkpoint, "kiso", later.entry_hash, seen).size == 2


def test_a_hub_that_says_another_size_every_time_is_not_answered_for_ever(
    dial: Dial, recorded: Recorded, ledger: Ledger
) -> None:
    hub = ScriptedHub(Stale("1"), Stale("0"), Stale("1"))
    with pytest.raises(LinkError, match="aborted: the proof begins elsewhere"):
        dial(hub).push(recorded, ledger)
    assert [update.checkpoint.old_size for update in updates(hub)] == [0, 1]


@pytest.mark.parametrize(
    "step",
    [
        Stale("0"),  # just where the proof did begin
        Stale("one"),
        Stale("-1"),
        Stale("9" * 5000),  # Python refuses to read it
        Stale(""),
        Stale("1", grpc.StatusCode.FAILED_PRECONDITION),
        grpc.StatusCode.ABORTED,
    ],
)
def test_a_hub_that_names_no_other_size_is_not_asked_again(
    dial: Dial, recorded: Recorded, ledger: Ledger, step: Step
) -> None:
    hub = ScriptedHub(step)
    with pytest.raises(LinkError, match=r"aborted|failed precondition"):
        dial(hub).push(recorded, ledger)
    assert len(updates(hub)) == 1


def test_a_ledger_that_is_shorter_than_the_hub_has_seen_it_is_not_shown(
    dial: Dial, recorded: Recorded, ledger: Ledger
) -> None:
    hub = ScriptedHub(Stale("2"))
    with pytest.raises(LedgerError, match="has seen this ledger with 2 entries, it has 1 now"):
        dial(hub).push(recorded, ledger)
    assert len(updates(hub)) == 1


def test_a_receipt_that_witnesses_another_history_is_refused(
    dial: Dial, recorded: Recorded, signed: Sign, ledger: Ledger, pki: Pki
) -> None:
    """Rightly cosigned and signed, but by a hub that was shown something else under this ledger's name."""
    witness = Ed25519PrivateKey.generate()
    for other in (Checkpoint(ledger.origin, 1, bytes(32)), Checkpoint(ledger.origin, 2, bytes(32))):
        receipt = signed(checkpoint_size=other.size, checkpoint_root=other.root, witness_key=public_bytes(witness))
        receipt.cosignature = cosign(other, "fedsparse/hub", witness, 1)
        with pytest.raises(ReceiptError, match="witnesses another history than this ledger's"):
            dial(ScriptedHub(receipt)).push(recorded, ledger)


@pytest.mark.parametrize("code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.RESOURCE_EXHAUSTED])
def test_a_push_that_the_hub_refuses_is_not_tried_again(
    dial: Dial, recorded: Recorded, code: grpc.StatusCode, ledger: Ledger
) -> None:
    hub = ScriptedHub(code)
    with pytest.raises(LinkError, match="the hub's own words"):
        dial(hub).push(recorded, ledger)
    assert len(hub.heard) == 1


def test_a_push_on_a_link_that_was_closed_says_so(dial: Dial, recorded: Recorded, ledger: Ledger) -> None:
    link = dial(ScriptedHub(link_pb2.Receipt()))
    link.close()
    with pytest.raises(LinkError, match="the gateway is stopping"):
        link.push(recorded, ledger)


def test_nothing_can_be_pushed_that_no_ledger_recorded() -> None:
    with pytest.raises(TypeError, match="only a Ledger records"):
        Recorded(b"payload", EntryKind.UPDATE, "task", 1, bytes(32), object())

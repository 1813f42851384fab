"""A hostile plant's ledger: rewritten, rolled back, forged, another's, or none at all."""

from __future__ import annotations

import base64
from collections.abc import Callable

from benchmarks.attacking.attack import Attack
from benchmarks.attacking.insider import Insider, Stage, refused
from benchmarks.attacking.messages import update
from fedsparse.audit import Checkpoint, merkle, public_bytes
from fedsparse.audit.notes import SignatureType, key_id, open_note, sign_checkpoint
from fedsparse.v1 import link_pb2
from tests.unit.federation_samples import PlantLog

_GROUP = "ledgers of a hostile plant"
_FIRST, _SECOND = b"1" * 32, b"2" * 32
_Forge = Callable[[Insider, link_pb2.Update], None]


def attacks() -> list[Attack]:
    """Return them in the order in which they are run."""
    return [*_rewritten(), *_forged(), *_shapeless()]


def _attack(code: str, said: str, does: str, forge: _Forge) -> Attack:
    def run(stage: Stage) -> str:
        """Answer one task honestly, so that the ledger is witnessed; forge the checkpoint of the next."""
        with Insider(stage.federation, "thief") as thief:
            first = thief.push(thief.task(), update(), _FIRST)
            if not first.startswith("OK"):
                return f"the honest answer failed: {first}"
            request = thief.update(thief.task(), update(), _SECOND)
            forge(thief, request)
            return thief.send(request)

    return refused(code, said, does, run, group=_GROUP)


def _renewed(thief: Insider, request: link_pb2.Update) -> None:
    request.checkpoint.CopyFrom(thief.update(request.task_id, request.round_update, _SECOND).checkpoint)


def _rewritten() -> list[Attack]:
    rewritten = "its history was rewritten"

    def other_past(thief: Insider, request: link_pb2.Update) -> None:
        thief.log.leaves[0] = b"x" * 32
        _renewed(thief, request)

    def inserted(thief: Insider, request: link_pb2.Update) -> None:
        thief.log.leaves.insert(0, b"x" * 32)
        _renewed(thief, request)

    def rolled_back(thief: Insider, request: link_pb2.Update) -> None:
        thief.log.leaves[:] = [_SECOND]
        _renewed(thief, request)

    def from_nothing(thief: Insider, request: link_pb2.Update) -> None:
        thief.log.leaves[:] = [b"x" * 32, b"y" * 32]
        thief.log.witnessed = 0
        _renewed(thief, request)

    def shorter(thief: Insider, request: link_pb2.Update) -> None:
        del thief.log.leaves[:]
        thief.log.witnessed = 0
        _renewed(thief, request)
        request.checkpoint.old_size = 5

    return [
        _attack("FAILED_PRECONDITION", rewritten, "a history rewritten with the plant's own key", other_past),
        _attack("FAILED_PRECONDITION", rewritten, "an entry inserted before what was witnessed", inserted),
        _attack("FAILED_PRECONDITION", rewritten, "a ledger rolled back and signed anew", rolled_back),
        _attack("ABORTED", "the last checkpoint witnessed has 1", "a proof that begins at nothing", from_nothing),
        _attack("ABORTED", "the last checkpoint witnessed has 1", "a proof that begins in the future", shorter),
    ]


def _forged() -> list[Attack]:
    def other_signature(thief: Insider, request: link_pb2.Update) -> None:
        forged = PlantLog("thief")
        forged.leaves[:] = thief.log.leaves
        note = forged.checkpoint(_SECOND, thief.credentials.key).note
        body, _, line = request.checkpoint.note.rpartition(b" ")
        request.checkpoint.note = body + b" " + line[:6] + note.rpartition(b" ")[2][6:]

    def another_plant(thief: Insider, request: link_pb2.Update) -> None:
        thief.log.plant = "kiso"
        _renewed(thief, request)
        request.checkpoint.key_signature = (
            PlantLog("thief").checkpoint(_SECOND, thief.credentials.key).key_signature
        )

    def anothers_word(thief: Insider, request: link_pb2.Update) -> None:
        other = thief.federation.credentials("posing")
        request.checkpoint.key_signature = thief.log.checkpoint(_SECOND, other.key).key_signature

    def other_entry(thief: Insider, request: link_pb2.Update) -> None:
        request.checkpoint.entry = 1

    def no_inclusion(thief: Insider, request: link_pb2.Update) -> None:
        del request.checkpoint.inclusion[:]

    def no_consistency(thief: Insider, request: link_pb2.Update) -> None:
        del request.checkpoint.consistency[:]

    def old_note(thief: Insider, request: link_pb2.Update) -> None:
        earlier = PlantLog("thief")
        earlier.key, earlier.leaves = thief.log.key, thief.log.leaves[:1]
        request.checkpoint.note = earlier.checkpoint(_FIRST, thief.credentials.key).note

    mine = "did not sign for the key of its ledger"
    return [
        _attack("FAILED_PRECONDITION", "signature of the checkpoint", "a forged signature", other_signature),
        _attack("INVALID_ARGUMENT", mine, "the ledger of another plant", another_plant),
        _attack("INVALID_ARGUMENT", mine, "a ledger key that another plant signed for", anothers_word),
        _attack("FAILED_PRECONDITION", "does not include", "the proof of another entry", other_entry),
        _attack("FAILED_PRECONDITION", "does not include", "no proof that the entry is there", no_inclusion),
        _attack("FAILED_PRECONDITION", "rewritten", "no proof that the ledger goes on", no_consistency),
        _attack("FAILED_PRECONDITION", "does not include", "an older checkpoint, replayed", old_note),
    ]


def _shapeless() -> list[Attack]:
    def set_note(note: bytes) -> _Forge:
        def forge(thief: Insider, request: link_pb2.Update) -> None:
            request.checkpoint.note = note

        return forge

    def twice(thief: Insider, request: link_pb2.Update) -> None:
        request.checkpoint.note += request.checkpoint.note.rpartition(b"\n\n")[2]

    def spelled(thief: Insider, request: link_pb2.Update) -> None:
        body = open_note(request.checkpoint.note).body.replace("\n", "\n+", 1)
        origin = body.partition("\n")[0]
        line = key_id(origin, request.checkpoint.ledger_key, SignatureType.LOG) + thief.log.key.sign(body.encode())
        request.checkpoint.note = f"{body}\n— {origin} {base64.b64encode(line).decode()}\n".encode()

    def nothing(thief: Insider, request: link_pb2.Update) -> None:
        request.ClearField("checkpoint")

    def long_proof(thief: Insider, request: link_pb2.Update) -> None:
        request.checkpoint.inclusion.extend([merkle.EMPTY_ROOT] * 100)

    def endless(thief: Insider, request: link_pb2.Update) -> None:
        """Sign for 2^70 entries with right proofs: a tree of which only the path to its first leaf is there."""
        fresh = PlantLog("thief")
        public, proof, root = public_bytes(fresh.key), [merkle.EMPTY_ROOT] * 70, _SECOND
        for other in proof:
            root = merkle.node_hash(root, other)
        whole = Checkpoint(fresh.origin, 1 << 70, root)
        request.checkpoint.CopyFrom(fresh.checkpoint(_SECOND, thief.credentials.key))
        request.checkpoint.note = sign_checkpoint(whole, fresh.key)
        request.checkpoint.ledger_key = public
        request.checkpoint.inclusion.extend(proof)

    def far_entry(thief: Insider, request: link_pb2.Update) -> None:
        request.checkpoint.entry = (1 << 64) - 1

    return [
        _attack("INVALID_ARGUMENT", "did not sign", "an update without a checkpoint", nothing),
        _attack("FAILED_PRECONDITION", "not a signed note", "a checkpoint of no bytes", set_note(b"")),
        _attack(
            "FAILED_PRECONDITION", "not a signed note", "a checkpoint that is not text", set_note(b"\xff" * 200)
        ),
        _attack("FAILED_PRECONDITION", "does not include", "a proof of a hundred hashes too many", long_proof),
        _attack("FAILED_PRECONDITION", "does not include", "entry number 2^64 − 1", far_entry),
        _attack(
            "FAILED_PRECONDITION", "cannot be witnessed", "a tree of 2^70 entries, with right proofs", endless
        ),
        _attack(
            "FAILED_PRECONDITION", "not a signed note", "a checkpoint of 5,000 bytes", set_note(b"x\n" * 2500)
        ),
        _attack("FAILED_PRECONDITION", "signatures, not one", "a checkpoint with two signatures", twice),
        _attack("FAILED_PRECONDITION", "not in canonical form", "a size with a plus sign, signed", spelled),
    ]

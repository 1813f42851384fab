"""What a witness checks before it puts its name to a plant's checkpoint (C2SP tlog-witness)."""

from __future__ import annotations

from dataclasses import dataclass

from fedsparse.audit import merkle
from fedsparse.audit.keys import origin_of
from fedsparse.audit.notes import Checkpoint, check_note
from fedsparse.errors import LedgerError
from fedsparse.v1 import link_pb2

STALE_SIZE = "fedsparse-witnessed-size"
"""Key of the trailing metadata in which the hub says from which size on it needs a proof."""


class StaleCheckpointError(LedgerError):
    """The proof begins elsewhere than at what the witness has seen last; one from there may still convince it.

    Attributes:
        size: of the checkpoint that it has seen last.
    """

    def __init__(self, old_size: int, size: int) -> None:
        super().__init__(f"the proof begins at {old_size} entries, the last checkpoint witnessed has {size}")
        self.size = size


@dataclass(frozen=True)
class Seen:
    """The last checkpoint of a log that a witness has put its name to."""

    checkpoint: Checkpoint
    key: bytes


def check_checkpoint(shown: link_pb2.Checkpoint, plant: str, entry_hash: bytes, seen: Seen | None) -> Checkpoint:
    """Return the checkpoint that a plant shows, if it may be cosigned.

    Args:
        shown: with proofs that it includes the entry and continues what was seen last.
        plant: who shows it.
        entry_hash: of the entry, 32 bytes.
        seen: None where this plant or this key has shown none before.

    Raises:
        StaleCheckpointError: see there.
        LedgerError: signature or proofs are wrong; where a proof of consistency is, history was rewritten.
    """
    checkpoint = check_note(shown.note, shown.ledger_key)
    if checkpoint.origin != origin_of(plant, shown.ledger_key):
        raise LedgerError(f"the checkpoint is of {checkpoint.origin!r}, not of a ledger of {plant}")
    if not merkle.includes(entry_hash, shown.entry - 1, checkpoint.size, shown.inclusion, checkpoint.root):
        raise LedgerError(
            f"the checkpoint does not include the entry {shown.entry} that the update was recorded in"
        )
    old = Checkpoint(checkpoint.origin, 0, merkle.EMPTY_ROOT) if seen is None else seen.checkpoint
    if shown.old_size != old.size:
        raise StaleCheckpointError(shown.old_size, old.size)
    if not merkle.continues(old.size, checkpoint.size, old.root, checkpoint.root, shown.consistency):
        raise LedgerError(
            f"the ledger of {plant} with {checkpoint.size} entries does not continue the one with {old.size} "
            "that was witnessed: its history was rewritten"
        )
    return checkpoint

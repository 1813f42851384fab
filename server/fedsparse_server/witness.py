"""The hub as the witness of every plant's ledger: it takes no update from one whose history was rewritten."""

from __future__ import annotations

import logging

import grpc

from fedsparse.audit import STALE_SIZE, Checkpoint, StaleCheckpointError, origin_of, statement
from fedsparse.errors import LedgerError
from fedsparse.events import EventLog
from fedsparse.security import signed_by, to_der_chain
from fedsparse.v1 import link_pb2
from fedsparse_server.calls import refuse
from fedsparse_server.peers import Peer
from fedsparse_server.receipts import ReceiptBook

_log = logging.getLogger("hub")


class Witness:
    """Looks at the checkpoint that an update comes with.

    Args:
        receipts: holds what was witnessed before.
        events: told of a ledger that contradicts it, and of one that takes another's place.
    """

    def __init__(self, receipts: ReceiptBook, events: EventLog) -> None:
        self._receipts = receipts
        self._events = events

    def check(self, peer: Peer, update: link_pb2.Update, context: grpc.ServicerContext) -> Checkpoint:
        """Return the checkpoint if it includes this update and continues what was seen; otherwise end the call."""
        shown, plant = update.checkpoint, peer.name
        said = statement(origin_of(plant, shown.ledger_key), shown.ledger_key)
        if not signed_by(to_der_chain(peer.chain), said, shown.key_signature):
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"{plant} did not sign for the key of its ledger")
        try:
            checkpoint = self._receipts.check(plant, update)
        except StaleCheckpointError as stale:
            context.set_trailing_metadata(((STALE_SIZE, str(stale.size)),))
            refuse(context, grpc.StatusCode.ABORTED, f"{plant}: {stale}")
        except LedgerError as error:
            self._events.emit("ledger_contradicted", plant=plant, problem=error.what)
            refuse(
                context, grpc.StatusCode.FAILED_PRECONDITION, f"the ledger of {plant} cannot be witnessed: {error}"
            )
        if (known := self._receipts.ledgers(plant)) and shown.ledger_key not in known:
            _log.warning("%s begins another ledger, with the key %s", plant, shown.ledger_key.hex()[:16])
            self._events.emit("ledger_replaced", plant=plant, ledger_key=shown.ledger_key.hex())
        return checkpoint

"""A hub in the wrong hands: any certificate, any task, any receipt."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import grpc
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from benchmarks.attacking.certificates import Fixed
from benchmarks.attacking.messages import federation
from fedsparse.audit import STALE_SIZE, Checkpoint, cosign, public_bytes
from fedsparse.audit.notes import open_note
from fedsparse.security import Credentials, server_credentials, sign
from fedsparse.v1 import link_pb2, link_pb2_grpc

Receipts = Callable[[link_pb2.Update], link_pb2.Receipt]


class HostileHub(link_pb2_grpc.LinkServicer):
    """Serves the link to whoever comes.

    Args:
        credentials: what it shows, and signs honest receipts with.
        plant: whose receipts it gives.
        port: where it listens; 0: anywhere.
    """

    def __init__(self, credentials: Credentials, plant: str) -> None:
        self._credentials = credentials
        self._plant = plant
        self._tasks: queue.Queue[link_pb2.Task] = queue.Queue()
        self.pushed: queue.Queue[link_pb2.Update] = queue.Queue()
        self.attended = 0
        self.receipts: Receipts = self.receipt
        self.stale: Callable[[int], str] | None = None  # from the number of the try to the size that it demands
        self.tries = 0
        self._server = grpc.server(
            ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
        )
        self.witness = Ed25519PrivateKey.generate()
        link_pb2_grpc.add_LinkServicer_to_server(self, self._server)
        self.port = self._server.add_secure_port("127.0.0.1:0", server_credentials(Fixed(credentials)))
        self._server.start()

    def stop(self) -> None:
        """End it."""
        self._server.stop(0)

    def send(self, task: link_pb2.Task) -> None:
        """Send a task, and forget what was pushed before."""
        while not self.pushed.empty():
            self.pushed.get()
        self._tasks.put(task)

    def Describe(  # noqa: N802
        self, request: link_pb2.DescribeRequest, context: grpc.ServicerContext
    ) -> link_pb2.Federation:
        """See the link."""
        return federation()

    def Attend(  # noqa: N802
        self, request: link_pb2.AttendRequest, context: grpc.ServicerContext
    ) -> Iterator[link_pb2.Task]:
        """See the link."""
        context.send_initial_metadata(())
        self.attended += 1
        while context.is_active():
            try:
                yield self._tasks.get(timeout=0.1)
            except queue.Empty:
                continue

    def Push(self, request: link_pb2.Update, context: grpc.ServicerContext) -> link_pb2.Receipt:  # noqa: N802
        """See the link."""
        self.pushed.put(request)
        if self.stale is not None:
            self.tries += 1
            context.set_trailing_metadata(((STALE_SIZE, self.stale(self.tries)),))
            context.abort(grpc.StatusCode.ABORTED, "the proof begins elsewhere")
        return self.receipts(request)

    def receipt(
        self,
        update: link_pb2.Update,
        signer: Credentials | None = None,
        key: bytes | None = None,
        cosigned: Checkpoint | None = None,
        **said: object,
    ) -> link_pb2.Receipt:
        """Return a receipt, right but for what is given.

        Args:
            signer: whose certificate it shows.
            key: what it is signed with, if not that one's.
            cosigned: the checkpoint that it cosigns, if not the one that it names.
            said: fields that differ.
        """
        who = signer or self._credentials
        whole = Checkpoint.parse(open_note(update.checkpoint.note).body)
        fields: dict[str, object] = {
            "plant": self._plant,
            "task_id": update.task_id,
            "payload_sha256": sha256(update.round_update).digest(),
            "ledger_hash": update.ledger_hash,
            "sequence": 1,
            "received_unix_ms": time.time_ns() // 1_000_000,
            "origin": whole.origin,
            "ledger_key": update.checkpoint.ledger_key,
            "checkpoint_size": whole.size,
            "checkpoint_root": whole.root,
            "witness_key": public_bytes(self.witness),
            "certificate_sha256": sha256(who.der).digest(),
        }
        body = link_pb2.ReceiptBody(**{**fields, **said})  # type: ignore[arg-type]
        named = Checkpoint(body.origin, body.checkpoint_size, body.checkpoint_root)
        signature = sign(key or who.key, body.SerializeToString(deterministic=True))
        line = cosign(
            cosigned or named, f"fedsparse/{who.identity.name}", self.witness, time.time_ns() // 1_000_000_000
        )
        return link_pb2.Receipt(body=body, signature=signature, hub_certificate=who.der, cosignature=line)

"""A trainer that trains nothing: it answers every task at once with an update of two values."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from benchmarks.linking.messages import SPACE, update
from fedsparse.files import write_atomic
from fedsparse.processes import die_with_parent
from fedsparse.v1 import trainer_pb2, trainer_pb2_grpc

SOCKET = "trainer.sock"


class _Trainer(trainer_pb2_grpc.TrainerServicer):
    def __init__(self) -> None:
        self._reply = trainer_pb2.TrainReply(round_update=update())

    def Train(  # noqa: N802 - gRPC's naming
        self, request: trainer_pb2.TrainRequest, context: grpc.ServicerContext
    ) -> trainer_pb2.TrainReply:
        return self._reply


def main() -> None:
    """Serve in the state folder of a plant until killed."""
    die_with_parent()
    state = Path(sys.argv[1])
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    trainer_pb2_grpc.add_TrainerServicer_to_server(_Trainer(), server)
    server.add_insecure_port(f"unix:{state / SOCKET}")
    server.start()
    write_atomic(state / "trainer.ready", SPACE.fingerprint.hex().encode())
    server.wait_for_termination()


if __name__ == "__main__":
    main()

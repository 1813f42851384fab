"""The plant's Flower ClientApp: carries a task to the warm trainer and its answer back, and knows no more."""

from __future__ import annotations

import os

import grpc
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedsparse.delta import Reason, RoundUpdate, decode_task, encode_update
from fedsparse.envelope import unwrap, wrap
from fedsparse.errors import FedsparseError
from fedsparse.v1 import trainer_pb2, trainer_pb2_grpc

SOCKET_VARIABLE = "FEDSPARSE_TRAINER_SOCKET"
MAX_TASK_BYTES = 1 << 30

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Answer one task; whatever goes wrong becomes a reason code, never text."""
    return Message(wrap(_answer(unwrap(message))), reply_to=message)


def _answer(payload: bytes) -> bytes:
    try:
        task = decode_task(payload, max_bytes=MAX_TASK_BYTES)
    except FedsparseError:
        return encode_update(RoundUpdate.refusal(1, 0, Reason.TASK_MALFORMED))
    address = f"unix:{os.environ[SOCKET_VARIABLE]}"
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    try:
        with grpc.insecure_channel(address, options=options) as channel:
            reply = trainer_pb2_grpc.TrainerStub(channel).Train(trainer_pb2.TrainRequest(round_task=payload))
    except grpc.RpcError:
        return encode_update(RoundUpdate.refusal(task.round, task.version, Reason.TRAINER_UNREACHABLE))
    return bytes(reply.round_update)

"""What travels: sparse deltas of an adapter, their canonical bytes, and the messages of one round."""

from fedsparse.delta.codec import Header, decode, decode_stream, encode, encode_stream, header_of
from fedsparse.delta.feedback import compensate
from fedsparse.delta.rounds import (
    Reason,
    RoundTask,
    RoundUpdate,
    decode_task,
    decode_update,
    encode_task,
    encode_update,
)
from fedsparse.delta.settings import Allocation, Mask, Structure, TrainingSettings
from fedsparse.delta.shared import SharedSupport
from fedsparse.delta.space import AdapterSpace, TensorSpec
from fedsparse.delta.state import apply, difference, digest
from fedsparse.delta.value import Operation, SparseDelta, TensorDelta, ValueCoding
from fedsparse.delta.values import quantise

__all__ = [
    "AdapterSpace",
    "Allocation",
    "Header",
    "Mask",
    "Operation",
    "Reason",
    "RoundTask",
    "RoundUpdate",
    "SharedSupport",
    "SparseDelta",
    "Structure",
    "TensorDelta",
    "TensorSpec",
    "TrainingSettings",
    "ValueCoding",
    "apply",
    "compensate",
    "decode",
    "decode_stream",
    "decode_task",
    "decode_update",
    "difference",
    "digest",
    "encode",
    "encode_stream",
    "encode_task",
    "encode_update",
    "header_of",
    "quantise",
]

"""What travels: sparse deltas of an adapter, their canonical bytes, and the messages of one round."""

from fedsparse.delta.codec import decode, encode, quantise, space_of
from fedsparse.delta.feedback import compensate
from fedsparse.delta.rounds import (
    Reason,
    RoundTask,
    RoundUpdate,
    TrainingSettings,
    decode_task,
    decode_update,
    encode_task,
    encode_update,
)
from fedsparse.delta.space import AdapterSpace, TensorSpec
from fedsparse.delta.state import apply, difference, digest
from fedsparse.delta.value import Operation, SparseDelta, TensorDelta, ValueCoding

__all__ = [
    "AdapterSpace",
    "Operation",
    "Reason",
    "RoundTask",
    "RoundUpdate",
    "SparseDelta",
    "TensorDelta",
    "TensorSpec",
    "TrainingSettings",
    "ValueCoding",
    "apply",
    "compensate",
    "decode",
    "decode_task",
    "decode_update",
    "difference",
    "digest",
    "encode",
    "encode_task",
    "encode_update",
    "quantise",
    "space_of",
]

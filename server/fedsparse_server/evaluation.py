"""The operator's evaluator: the base model kept warm beside the federation's held-out test set.

Run as a process it derives the adapter space from the base model, which the hub and the strategy need without
having torch; then, where the settings name a test set, it serves evaluations on a Unix-domain socket.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

import grpc

from fedsparse import config
from fedsparse.delta import SparseDelta, ValueCoding, decode, encode
from fedsparse.errors import FedsparseError
from fedsparse.files import write_atomic
from fedsparse.v1 import link_pb2, space_pb2, trainer_pb2, trainer_pb2_grpc

if TYPE_CHECKING:
    from fedsparse.adapters import BaseModel
    from fedsparse.delta import AdapterSpace
    from fedsparse.training import Evaluator

Evaluate = Callable[[SparseDelta], Mapping[str, float]]
_UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
_log = logging.getLogger("evaluator")


def socket_path(settings: config.FederationConfig) -> Path:
    """Return where the evaluator listens."""
    return settings.state / "evaluator.sock"


def connect(settings: config.FederationConfig, space: AdapterSpace) -> Evaluate:
    """Return a function that asks the evaluator process for a state's quality."""
    channel = grpc.insecure_channel(f"unix:{socket_path(settings)}", options=_UNLIMITED)
    stub = trainer_pb2_grpc.EvaluatorStub(channel)

    def evaluate(state: SparseDelta) -> Mapping[str, float]:
        request = trainer_pb2.EvaluateRequest(delta=encode(state, space, ValueCoding.FP32))
        reply = stub.Evaluate(request, wait_for_ready=True)
        return {
            "balanced_accuracy": round(reply.balanced_accuracy, 6),
            "accuracy": round(reply.accuracy, 6),
        }

    return evaluate


class _Service(trainer_pb2_grpc.EvaluatorServicer):
    def __init__(self, evaluator: Evaluator, space: AdapterSpace) -> None:
        self._evaluator = evaluator
        self._space = space

    def Evaluate(  # noqa: N802 - gRPC's naming
        self, request: trainer_pb2.EvaluateRequest, context: grpc.ServicerContext
    ) -> trainer_pb2.EvaluateReply:
        state = decode(request.delta, self._space, max_bytes=len(request.delta))
        quality = self._evaluator.evaluate(state)
        return trainer_pb2.EvaluateReply(
            balanced_accuracy=quality.balanced_accuracy, accuracy=quality.accuracy, samples=quality.samples
        )


def serve(settings: config.FederationConfig) -> None:
    """Derive the adapter space, check what depends on it, and serve evaluations until killed.

    Raises:
        FedsparseError: base model, adapter, density or test set are not right; says which.
    """
    from fedsparse.adapters import build_adapter, load_base  # torch: seconds
    from fedsparse.training import Evaluator, load_labelled, prepare, require_feasible, round_stage

    task = settings.federation.task
    base = load_base(settings.base, settings.adapter, settings.federation.classes, task)
    adapter = build_adapter(base, settings.adapter)
    space = adapter.space
    stage = round_stage(settings.training.of_round(1, settings.rounds.count))
    require_feasible(space, adapter.dense, [stage])
    federation = _describe(settings, base, space)
    write_atomic(settings.state / "federation.pb", federation.SerializeToString(deterministic=True))
    if settings.evaluation is None:
        return
    samples = load_labelled(settings.evaluation, task, settings.federation.classes)
    inputs = prepare(base, samples, settings.state / "features", None)
    evaluator = Evaluator(adapter, samples.labels, inputs)
    socket = socket_path(settings)
    socket.unlink(missing_ok=True)
    os.umask(0o077)
    server = grpc.server(ThreadPoolExecutor(max_workers=1), options=_UNLIMITED)
    trainer_pb2_grpc.add_EvaluatorServicer_to_server(_Service(evaluator, space), server)
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    _log.info("ready: %d test samples", len(samples))
    write_atomic(settings.state / "evaluator.ready", str(os.getpid()).encode())
    Event().wait()


def _describe(settings: config.FederationConfig, base: BaseModel, space: AdapterSpace) -> link_pb2.Federation:
    """Say what every plant has to agree with; sizes as they are, not as the settings leave them open."""
    adapter = settings.adapter
    return link_pb2.Federation(
        protocol=3,
        name=settings.federation.name,
        base_model=settings.base.model,
        base_fingerprint=base.fingerprint,
        adapter=space_pb2.AdapterSpec(
            kind=adapter.kind,
            include=adapter.include,
            dense=adapter.dense,
            cut=base.cut,
            image_size=getattr(base.reader, "size", 0),
            max_tokens=getattr(base.reader, "max_tokens", 0),
            rank=adapter.rank,
            alpha=adapter.alpha,
            width=adapter.width,
            factors=adapter.factors,
        ),
        space=space.to_proto(),
        classes=settings.federation.classes,
        task=settings.federation.task,
    )


def main() -> None:
    """Run as a process of the supervisor's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        serve(config.load(options.config, config.FederationConfig))
    except FedsparseError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

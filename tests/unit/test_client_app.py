from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from fedsparse_client.app import SOCKET_VARIABLE, train
from flwr.app import ConfigRecord, Message, RecordDict

from fedsparse.delta import Reason, RoundTask, RoundUpdate, encode_task, encode_update
from fedsparse.envelope import unwrap, wrap
from fedsparse.errors import DeltaError
from fedsparse.v1 import trainer_pb2, trainer_pb2_grpc
from tests.unit.federation_samples import SPACE, TRAINING, pulled_task, round_task


class Trainer(trainer_pb2_grpc.TrainerServicer):
    """Answers what it was asked, so that a test sees both ways."""

    def Train(  # noqa: N802
        self, request: trainer_pb2.TrainRequest, context: grpc.ServicerContext
    ) -> trainer_pb2.TrainReply:
        if request.round_task == round_task(round=99):
            raise RuntimeError("secret: row 7")
        return trainer_pb2.TrainReply(round_update=b"trained " + request.round_task)


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(SOCKET_VARIABLE, str(tmp_path / "trainer.sock"))
    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.max_receive_message_length", -1)])
    trainer_pb2_grpc.add_TrainerServicer_to_server(Trainer(), server)
    server.add_insecure_port(f"unix:{tmp_path / 'trainer.sock'}")
    server.start()
    yield
    server.stop(0).wait()


def answer(payload: bytes) -> bytes:
    message = pulled_task().message
    message.content = wrap(payload)
    return unwrap(train(message, None))  # type: ignore[arg-type]


@pytest.mark.usefixtures("trainer")
def test_a_task_goes_to_the_trainer_and_its_bytes_come_back_untouched() -> None:
    assert answer(round_task()) == b"trained " + round_task()


@pytest.mark.usefixtures("trainer")
def test_a_task_larger_than_grpcs_default_goes_through() -> None:
    large = encode_task(RoundTask(1, SPACE.fingerprint, 1, 0, (bytes(5 << 20),), b"manifest", b"", b"", TRAINING))
    assert answer(large) == b"trained " + large


@pytest.mark.usefixtures("trainer")
def test_a_malformed_task_becomes_a_reason() -> None:
    assert answer(b"junk") == encode_update(RoundUpdate.refusal(1, 0, Reason.TASK_MALFORMED))


@pytest.mark.usefixtures("trainer")
def test_a_trainer_that_breaks_becomes_a_reason_without_its_text() -> None:
    expected = encode_update(RoundUpdate.refusal(99, 0, Reason.TRAINER_UNREACHABLE))
    assert answer(round_task(round=99)) == expected


def test_a_trainer_that_is_not_there_becomes_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SOCKET_VARIABLE, str(tmp_path / "nothing.sock"))
    expected = encode_update(RoundUpdate.refusal(5, 2, Reason.TRAINER_UNREACHABLE))
    task = encode_task(RoundTask(5, SPACE.fingerprint, 2, 2, (), b"manifest", b"", b"", TRAINING))
    assert answer(task) == expected


def test_a_message_with_more_than_a_task_is_not_trained() -> None:
    message: Message = pulled_task().message
    message.content = RecordDict({"fedsparse": ConfigRecord({"payload": round_task(), "code": b"x"})})
    with pytest.raises(DeltaError, match="may hold only"):
        train(message, None)  # type: ignore[arg-type]

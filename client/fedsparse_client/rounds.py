"""A plant's part in one round: from the task to the update, with whatever goes wrong as a reason code."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from fedsparse.delta import (
    Operation,
    Reason,
    RoundTask,
    RoundUpdate,
    SparseDelta,
    ValueCoding,
    compensate,
    decode,
    encode,
)
from fedsparse.errors import CertificateError, DataError, FedsparseError, RegistryError, SpaceMismatchError
from fedsparse.files import write_atomic
from fedsparse_client.versions import HeldVersion, VersionNotHeldError

if TYPE_CHECKING:
    from fedsparse.training import LocalTrainer

_MAX_RESIDUAL_BYTES = 1 << 40  # our own file
_REASONS: tuple[tuple[type[Exception], Reason], ...] = (
    (VersionNotHeldError, Reason.VERSION_NOT_HELD),
    (SpaceMismatchError, Reason.SPACE_MISMATCH),
    (RegistryError, Reason.VERSION_UNVERIFIED),
    (CertificateError, Reason.VERSION_UNVERIFIED),
    (DataError, Reason.DATA_UNAVAILABLE),
)
_log = logging.getLogger("trainer")


class RoundRunner:
    """Answers tasks with updates, one at a time.

    Args:
        trainer: the warm local trainer.
        held: the adapter version that this plant holds.
        folder: where the error-feedback residual lies.
        metrics: names of those that this site lets out; no other is offered.
    """

    def __init__(self, trainer: LocalTrainer, held: HeldVersion, folder: Path, metrics: Collection[str]) -> None:
        self._trainer = trainer
        self._held = held
        self._space = trainer.space
        self._residual_path = folder / "residual"
        self._metrics = metrics

    def answer(self, task: RoundTask) -> RoundUpdate:
        """Return the update for ``task``; an exception's text stays in this process's log, a code leaves."""
        started = time.monotonic()
        try:
            update = self._run(task)
        except Exception as error:  # whatever it is, its text may quote data
            _log.exception("round %d failed", task.round)
            update = RoundUpdate.refusal(task.round, task.version, reason_of(error))
        _log.info(
            "round %d from version %d: %s in %.1f s",
            task.round,
            task.version,
            f"{len(update.delta)} bytes" if update.delta else update.reason.name,
            time.monotonic() - started,
        )
        return update

    def _run(self, task: RoundTask) -> RoundUpdate:
        if task.space != self._space.fingerprint:
            raise SpaceMismatchError(
                f"the task is of the adapter space {task.space.hex()[:16]}, "
                f"here the space is {self._space.fingerprint.hex()[:16]}"
            )
        state = self._held.accept(task)
        started = time.monotonic()
        trained = self._trainer.train(state, task.training, task.round)
        seconds = time.monotonic() - started
        coding = task.training.value_coding
        most = max(1, int(task.training.upload_density * self._space.size))
        sent, residual = compensate(trained.delta, self._residual(), coding, most=most)
        data = encode(sent, self._space, coding)
        self._keep(residual)
        metrics = {
            "holdout_balanced_accuracy": trained.received.balanced_accuracy,
            "train_loss": trained.loss,
            "train_seconds": seconds,
        }
        offered = {name: value for name, value in metrics.items() if name in self._metrics}
        return RoundUpdate(task.round, task.version, trained.samples, data, Reason.NONE, offered)

    def _residual(self) -> SparseDelta:
        try:
            return decode(self._residual_path.read_bytes(), self._space, max_bytes=_MAX_RESIDUAL_BYTES)
        except FileNotFoundError:
            pass
        except FedsparseError as error:  # of another space, or cut short: rounding errors are no great loss
            _log.warning("the error-feedback residual is unusable and starts anew: %s", error)
        return SparseDelta.empty(self._space.fingerprint, Operation.ADD)

    def _keep(self, residual: SparseDelta) -> None:
        write_atomic(self._residual_path, encode(residual, self._space, ValueCoding.FP32), 0o600)


def reason_of(error: Exception) -> Reason:
    """Return the code that stands for ``error``."""
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), Reason.TRAINING_FAILED)

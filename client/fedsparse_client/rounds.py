"""A plant's part in one round: from the task to the update, with whatever goes wrong as a reason code."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fedsparse.config import EgressSettings
from fedsparse.delta import (
    Reason,
    RoundTask,
    RoundUpdate,
    Structure,
    compensate,
    decode,
    encode,
)
from fedsparse.errors import (
    CertificateError,
    DataError,
    DeltaError,
    EgressRefusedError,
    RegistryError,
    SpaceMismatchError,
)
from fedsparse_client.leakage import LeakageGuard
from fedsparse_client.residual import Residual
from fedsparse_client.versions import HeldVersion, VersionNotHeldError

if TYPE_CHECKING:
    from fedsparse.sparsity import Support
    from fedsparse.training import LocalTrainer
    from fedsparse.training.manifest import PinnedData

_REASONS: tuple[tuple[type[Exception], Reason], ...] = (
    (VersionNotHeldError, Reason.VERSION_NOT_HELD),
    (SpaceMismatchError, Reason.SPACE_MISMATCH),
    (RegistryError, Reason.VERSION_UNVERIFIED),
    (CertificateError, Reason.VERSION_UNVERIFIED),
    (DataError, Reason.DATA_UNAVAILABLE),
    (EgressRefusedError, Reason.REFUSED_BY_GATE),
)
_log = logging.getLogger("trainer")


class RoundRunner:
    """Answers tasks with updates, one at a time.

    Args:
        trainer: the warm local trainer.
        held: the adapter version that this plant holds.
        folder: where the error-feedback residual lies, see :class:`Residual`.
        egress: what this site lets out: no other metric is offered, and none to more digits; the number of samples
            in its steps. The gate judges on its own.
        guard: probes updates before they are handed over, where the site wants that.
        pinned: refuses to train once the data are others than were verified, where the site has pinned them.
    """

    def __init__(
        self,
        trainer: LocalTrainer,
        held: HeldVersion,
        folder: Path,
        egress: EgressSettings,
        guard: LeakageGuard | None = None,
        pinned: PinnedData | None = None,
    ) -> None:
        self._trainer = trainer
        self._held = held
        self._space = trainer.space
        self._residual = Residual(folder, trainer.space)
        self._egress = egress
        self._guard = guard
        self._pinned = pinned

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
        before = self._residual.settle(self._held.number, self._held.manifest)  # before anything can fail
        if self._pinned is not None:
            self._pinned.require_unchanged()
        started = time.monotonic()
        trained = self._trainer.train(state, task.training, task.round, self._agreed(task))
        seconds = time.monotonic() - started
        coding = task.training.value_coding
        most = max(1, int(task.training.upload_density * self._space.size))
        rows = self._space if task.training.structure is Structure.ROW else None
        sent, residual = compensate(trained.delta, before, coding, most=most, rows=rows)
        data = encode(sent, self._space, coding)
        if self._guard is not None:
            self._guard.check(task.round, state, data)
        metrics = {
            "holdout_balanced_accuracy": trained.received.balanced_accuracy,
            "train_loss": trained.loss,
            "train_seconds": seconds,
        }
        limits = self._egress.metrics
        offered = {name: limits[name].rounded(value) for name, value in metrics.items() if name in limits}
        samples = trained.samples - trained.samples % self._egress.samples_step
        update = RoundUpdate(task.round, task.version, samples, data, Reason.NONE, offered)
        self._residual.leave(residual, update)
        return update

    def _agreed(self, task: RoundTask) -> Support | None:
        """Return the coordinates that the task asks for, if it does.

        Raises:
            DeltaError: they are not coordinates of the space, or more than the task's own density allows.
        """
        if not task.support:
            return None
        from fedsparse.sparsity import support_of  # torch is loaded by now

        agreed = decode(task.support, self._space, max_bytes=len(task.support))
        if agreed.nnz > task.training.density * self._space.size:
            raise DeltaError(f"{agreed.nnz} coordinates are asked for, the density is {task.training.density:.2%}")
        return support_of(agreed, self._space)


def reason_of(error: Exception) -> Reason:
    """Return the code that stands for ``error``."""
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), Reason.TRAINING_FAILED)

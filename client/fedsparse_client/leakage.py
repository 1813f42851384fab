"""The leakage probe in the trainer: an update is measured on the site's own samples before it is handed over.

Its figures never leave the site; a refusal is told with the code of the gate's, whose rule it might be. That an
update was refused is itself one bit about it.
"""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsparse.config import ProbeSettings
from fedsparse.delta import SparseDelta, decode
from fedsparse.errors import EgressRefusedError, FedsparseError

if TYPE_CHECKING:
    from fedsparse.training import LocalTrainer

RECORD = "probe.jsonl"
RULE = "max_membership_advantage"
_log = logging.getLogger("trainer")


class LeakageGuard:
    """Probes what is about to be sent.

    Args:
        settings: how often and how closely, and the limit.
        trainer: whose samples the update comes from.
        folder: where the figures are kept.
    """

    def __init__(self, settings: ProbeSettings, trainer: LocalTrainer, folder: Path) -> None:
        self._settings = settings
        self._trainer = trainer
        self._record = folder / RECORD

    def check(self, round: int, state: SparseDelta, data: bytes) -> None:
        """Probe the update of one round, if it is that round's turn.

        Args:
            round: its number.
            state: that the update starts from.
            data: the very bytes of the delta that would be sent.

        Raises:
            EgressRefusedError: the limit is passed, or nothing can be told and there is a limit.
        """
        if round % self._settings.every_rounds:
            return
        from fedsparse.leakage import probe_membership  # torch is loaded by now

        limit = self._settings.max_membership_advantage
        started = time.monotonic()
        update = decode(data, self._trainer.space, max_bytes=len(data))
        try:
            probe = probe_membership(self._trainer, state, update, self._settings.samples, seed=round)
        except FedsparseError as error:
            self._note(round, {"cannot_tell": str(error)})
            if limit is not None:
                raise EgressRefusedError(
                    RULE, f"what the update tells of members cannot be told: {error}"
                ) from None
            return
        self._note(round, {**probe.to_json(), "seconds": time.monotonic() - started})
        if limit is not None and probe.highest > limit:
            raise EgressRefusedError(
                RULE,
                f"the update's membership advantage may be {probe.highest:.3f}, the limit is {limit}",
                "Train with less on more samples, or raise probe.max_membership_advantage",
            )

    def _note(self, round: int, found: dict[str, Any]) -> None:
        told = {"time": time.time(), "round": round, **found}
        with self._record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")


def build_guard(settings: ProbeSettings, trainer: LocalTrainer, folder: Path) -> LeakageGuard | None:
    """Return the probe, if the site wants one."""
    return LeakageGuard(settings, trainer, folder) if settings.enabled else None

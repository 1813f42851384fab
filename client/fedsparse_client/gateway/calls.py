"""Calls to the hub that carry nothing of the site's: each is asked of the site's own policy first."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from fedsparse.audit import EntryKind
from fedsparse.config import EgressSettings
from fedsparse.errors import EgressRefusedError
from fedsparse.files import write_atomic
from fedsparse_client.gateway.gate import INTERNAL, Gate

HELD_FILE = "held"  # in the state folder: why the policy keeps the plant from calling now; read by the agent
_AGAIN_SECONDS = 600.0  # every refusal is an entry in the ledger
_BUDGET = "day-calls"
_log = logging.getLogger("gateway")


class Calls:
    """Has each call judged and recorded before it is made; waits where the policy forbids it for now alone.

    Args:
        gate: asked, and writes into the ledger.
        limits: what it judges by.
        state: folder in which ``HELD_FILE`` tells the agent why the plant waits.
        sleep: waits so many seconds.
    """

    def __init__(
        self, gate: Gate, limits: EgressSettings, state: Path, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._gate = gate
        self._most = limits.per_day.calls
        self._held = state / HELD_FILE
        self._sleep = sleep
        self._held.unlink(missing_ok=True)

    def record(self, kind: EntryKind) -> None:
        """Return once the policy lets the plant make a call and the ledger has it.

        Raises:
            EgressRefusedError: the policy never lets it.
            LedgerError: it cannot be recorded.
        """
        while True:
            try:
                self._gate.record_call(kind)
            except EgressRefusedError as error:
                if error.rule != _BUDGET or self._most == 0:
                    raise _explained(kind, error) from error
                self._hold(kind, error)
            else:
                self._held.unlink(missing_ok=True)
                return

    def _hold(self, kind: EntryKind, error: EgressRefusedError) -> None:
        why = str(_explained(kind, error))
        _log.error("%s; next try in %.0f s", why, _AGAIN_SECONDS)
        write_atomic(self._held, why.encode())
        self._sleep(_AGAIN_SECONDS)


def _explained(kind: EntryKind, error: EgressRefusedError) -> EgressRefusedError:
    """Return a refusal with what the plant's engineer can do about it."""
    call = kind.name.lower()
    remedies = {
        "kind": f'Add "{call}" to messages of the policy, and start the plant again',
        _BUDGET: "Raise per_day.calls of the policy and start the plant again, or wait: calls count for a day",
        INTERNAL: "Read above in the log why",
    }
    what = f"this site's own policy does not let the plant {call} at the hub (rule {error.rule}): {error.what}"
    return EgressRefusedError(error.rule, what, remedies.get(error.rule, ""))

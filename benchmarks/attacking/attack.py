"""What an attack is, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

HUB, GATEWAY, TRAINER = "hub", "gateway", "trainer, in process"
DIALLED = "refused ipv4:127.0.0.1:{port}: "
"""How the hub's log begins a line on a connection of :func:`raw.tcp`."""
QUIET = "ipv4:127.0.0.1:{port} made no call within"
"""How the hub's log tells of a connection that gRPC has ended by itself."""


@dataclass(frozen=True)
class Attack:
    """One attack.

    Attributes:
        group: where it stands in the table.
        does: what the attacker does.
        refused: how that must be refused, in words.
        answer: pattern of what the attacker must be told.
        log: pattern that the attacked process's log must gain, ``{port}`` for any port that the attacker dialled
            from; None where nothing is refused, which ``why_no_log`` explains.
        run: does it; returns what the attacker was told.
        side: who is attacked.
        limit: seconds after which it is given up.
        ends: status with which the attacked process must end, where it must.
    """

    group: str
    does: str
    refused: str
    answer: str
    log: str | None
    run: Callable[[Any], str]
    side: str = HUB
    limit: float = 15.0
    ends: int | None = None
    why_no_log: str = ""


def in_words(pattern: str) -> str:
    """Return a pattern as people read it."""
    return pattern.replace(DIALLED, "…").replace(".*", "…").replace("|", " or ").replace("\\", "")


@dataclass(frozen=True)
class Outcome:
    """What became of an attack.

    Attributes:
        told: what the attacker was told.
        refused: whether that is as it must be.
        logged: whether the attacked process's log has its line; None where none is due.
        alive: whether the attacked process is the same as before, or ended as it must.
        served: whether both honest plants were present all the time, and a call was answered quickly after.
        answer_seconds: of that call.
        seconds: of the attack.
    """

    attack: Attack
    told: str
    refused: bool
    logged: bool | None
    alive: bool
    served: bool
    answer_seconds: float
    seconds: float

    @property
    def holds(self) -> bool:
        """Whether everything is as it must be."""
        return self.refused and self.logged is not False and self.alive and self.served

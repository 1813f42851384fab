"""What the strategy notes of the round under way, and of the tasks that plants still work on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from fedsparse.aggregation import Accumulator, Asked, Lateness, Standing
from fedsparse.errors import DeltaError
from fedsparse.registry import Contribution

BUSY = "busy"
"""Why a plant that still works on an earlier round's task has no update in this one."""


@dataclass
class PlantRound:
    """What one plant did in one round, for people to see.

    Attributes:
        bytes_down: of the task; 0 where the plant still works on an earlier one.
        staleness: rounds that its update is late.
        weight: what its update's values are multiplied by; None where none is merged.
    """

    bytes_down: int
    bytes_up: int = 0
    samples: int = 0
    reason: str | None = "no answer"
    metrics: dict[str, float] = field(default_factory=dict)
    digest: bytes = b""
    standing: Standing | None = None
    staleness: int = 0
    weight: float | None = None

    @property
    def train_seconds(self) -> float:
        """Seconds the plant trained, by its own count; 0 where its policy keeps that to itself."""
        return max(0.0, self.metrics.get("train_seconds", 0.0))

    def told(self, name: str, seconds: float) -> dict[str, object]:
        """Return all of it for the event log.

        Args:
            name: the plant's.
            seconds: that the round took.
        """
        return {
            "plant": name,
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "train_seconds": self.train_seconds,
            "wait_seconds": round(max(0.0, seconds - self.train_seconds), 3),
            "samples": self.samples,
            "reason": self.reason,
            "metrics": self.metrics,
            "norm": None if self.standing is None else round(self.standing.norm, 3),
            "cosine": None if self.standing is None else round(self.standing.cosine, 3),
            "staleness": self.staleness,
            "weight": self.weight,
        }


@dataclass
class Round:
    """The round under way.

    Attributes:
        asked: its number, its version, and whose coordinates are trained.
        accumulator: what has arrived.
        votes: plants chose their coordinates, and a consensus is to be found.
        started: on the monotonic clock, seconds.
        plants: by Flower node.
        contributions: by the update's digest.
    """

    asked: Asked
    accumulator: Accumulator
    votes: bool = False
    started: float = field(default_factory=time.monotonic)
    plants: dict[int, PlantRound] = field(default_factory=dict)
    contributions: dict[bytes, Contribution] = field(default_factory=dict)

    @property
    def number(self) -> int:
        """The round's number, from 1."""
        return self.asked.round

    @property
    def version(self) -> int:
        """The adapter version that it starts from."""
        return self.asked.version

    def slowest(self, seconds: float) -> float:
        """Return the longest training of a plant that answers this round's task, at most ``seconds``."""
        punctual = [plant.train_seconds for plant in self.plants.values() if not plant.staleness]
        return min(seconds, max(punctual, default=0.0))


class OpenTasks:
    """Which task each plant works on, by Flower node.

    With the next task a plant learns whether its last update was merged, and adds what that one left behind to the
    next one. So a plant whose late update may still be merged gets no other task: whatever the version that it is
    given next says, or no longer can say, is then final, and nothing is added twice.

    Args:
        lateness: which late updates are merged; None drops them all.
    """

    def __init__(self, lateness: Lateness | None) -> None:
        self._lateness = lateness
        self._asked: dict[int, Asked] = {}

    def __contains__(self, node: int) -> bool:
        """Return whether a plant works on a task whose answer may still count."""
        return node in self._asked

    def __len__(self) -> int:
        """Return how many plants do."""
        return len(self._asked)

    def __iter__(self) -> Iterator[int]:
        """Return the nodes of those that do."""
        return iter(self._asked)

    def give(self, node: int, asked: Asked) -> None:
        """Note a task that is given to a plant."""
        self._asked[node] = asked

    def take(self, node: int) -> Asked | None:
        """Return what a plant was asked that has answered now; None where no answer was waited for."""
        return self._asked.pop(node, None)

    def give_up(self, now: Asked) -> dict[int, str]:
        """Forget tasks whose answers count no longer in the round ``now``; return of which plants, and why."""
        if self._lateness is None:
            self._asked.clear()
            return {}
        given_up = {}
        for node, asked in list(self._asked.items()):
            try:
                self._lateness.staleness(asked, now)
            except DeltaError as error:
                given_up[node] = str(error)
                del self._asked[node]
        return given_up

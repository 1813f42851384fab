"""The federation's Flower strategy: sparse deltas down, mask-aware merging, an immutable version per round."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedsparse.aggregation import Accumulator, Policy, admit
from fedsparse.config import FederationConfig
from fedsparse.delta import (
    AdapterSpace,
    Reason,
    RoundTask,
    RoundUpdate,
    TrainingSettings,
    ValueCoding,
    apply,
    decode_update,
    encode,
    encode_task,
)
from fedsparse.envelope import unwrap, wrap
from fedsparse.errors import FedsparseError, ProcessError
from fedsparse.events import EventLog
from fedsparse.registry import Contribution, Registry
from fedsparse_server.evaluation import Evaluate

_log = logging.getLogger("strategy")


@dataclass
class _PlantRound:
    """What one plant did in one round, for people to see."""

    bytes_down: int
    bytes_up: int = 0
    samples: int = 0
    reason: str | None = "no answer"
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def train_seconds(self) -> float:
        """Seconds the plant trained, by its own count; 0 where its policy keeps that to itself."""
        return max(0.0, self.metrics.get("train_seconds", 0.0))


@dataclass
class _Round:
    """The round under way."""

    number: int
    version: int
    started: float
    accumulator: Accumulator
    plants: dict[int, _PlantRound] = field(default_factory=dict)
    contributions: list[Contribution] = field(default_factory=list)


@dataclass(frozen=True)
class Operator:
    """What the strategy uses of the operator's machine.

    Attributes:
        sign: signs bytes with the key of the hub's certificate.
        certificate: the hub's certificate, DER.
        name_of: the plant a Flower node speaks for, for people to see.
        evaluate: quality of a state on the federation's held-out set, or None without one.
    """

    sign: Callable[[bytes], bytes]
    certificate: bytes
    name_of: Callable[[int], str]
    evaluate: Evaluate | None


class SparseDeltaStrategy(Strategy):
    """Merges sparse updates as they arrive and commits every round to the registry.

    Args:
        settings: the federation's settings.
        space: the adapter space.
        registry: where versions are kept.
        policy: how updates merge.
        events: told of every step.
        operator: keys, names and evaluation.
    """

    def __init__(
        self,
        settings: FederationConfig,
        space: AdapterSpace,
        registry: Registry,
        policy: Policy,
        events: EventLog,
        operator: Operator,
    ) -> None:
        self._settings = settings
        self._space = space
        self._registry = registry
        self._policy = policy
        self._events = events
        self._operator = operator
        self._held: dict[int, int] = {}  # Flower node -> adapter version it is known to hold
        self._round: _Round | None = None

    def rounds_left(self) -> int:
        """Return how many rounds the registry's newest version leaves to do."""
        return max(0, self._settings.rounds.count - self._last_round())

    def summary(self) -> None:
        """Log what is merged, and how."""
        _log.info(
            "%s, %d coordinates, from version %d",
            self._settings.aggregation.rule,
            self._space.size,
            self._registry.head(),
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Address every plant that is present with the newest version, against the one it holds."""
        nodes = self._gather(grid, first=server_round == 1)
        version = self._registry.head()
        number = self._last_round() + 1
        self._round = _Round(
            number, version, time.monotonic(), Accumulator(self._space, folder=self._settings.state)
        )
        messages = []
        for node in nodes:
            # A plant that fails to answer may or may not hold the new version: then it gets the next one whole.
            payload = encode_task(self._task(number, version, self._held.pop(node, 0)))
            self._round.plants[node] = _PlantRound(bytes_down=len(payload))
            ttl = self._settings.rounds.deadline_seconds + 60
            messages.append(Message(wrap(payload), node, "train", ttl=ttl, group_id=str(number)))
        self._events.emit(
            "round_started", round=number, version=version, plants=[self._operator.name_of(n) for n in nodes]
        )
        return messages

    def receive(self, reply: Message) -> None:
        """Merge one answer the moment it arrives."""
        current = self._round
        node = reply.metadata.src_node_id
        if current is None or node not in current.plants:
            return
        plant = current.plants[node]
        if reply.has_error():  # Flower's word that the plant's connection has ended
            plant.reason = "left"
        else:
            self._take(current, node, plant, reply)
        self._events.emit(
            "update_received",
            round=current.number,
            plant=self._operator.name_of(node),
            bytes_up=plant.bytes_up,
            seconds=round(time.monotonic() - current.started, 3),
            reason=plant.reason,
        )

    def _take(self, current: _Round, node: int, plant: _PlantRound, reply: Message) -> None:
        try:
            payload = unwrap(reply)
            plant.bytes_up = len(payload)
            self._merge(current, node, plant, payload)
        except FedsparseError as error:
            plant.reason = "invalid"
            _log.warning("answer of node %d: %s", node, error)

    def _merge(self, current: _Round, node: int, plant: _PlantRound, payload: bytes) -> None:
        limit = self._settings.hub.max_update_bytes
        update: RoundUpdate = decode_update(payload, max_bytes=limit)
        plant.metrics = dict(update.metrics)
        if update.reason is not Reason.NONE:
            plant.reason = update.reason.name.lower()
            return
        admitted = admit(
            payload,
            self._space,
            round=current.number,
            version=current.version,
            max_bytes=limit,
            max_density=self._settings.training.density,
        )
        contribution = Contribution(admitted.digest.hex(), samples=update.samples, nnz=admitted.nnz)
        current.accumulator.add(admitted)
        current.contributions.append(contribution)
        self._held[node] = current.version
        plant.samples = update.samples
        plant.reason = None

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Turn the accumulated pairs into a step and commit the next version, if enough plants answered."""
        current = self._round
        self._round = None
        if current is None:
            return None, None
        needed = self._settings.rounds.min_plants
        if len(current.contributions) < needed:
            reason = f"{len(current.contributions)} of at least {needed} updates arrived"
            self._events.emit("round_failed", round=current.number, reason=reason)
            _log.warning("round %d: %s", current.number, reason)
            return None, None
        self._commit(current)
        return None, None

    def _commit(self, current: _Round) -> None:
        state = apply(self._registry.state(current.version), current.accumulator.result(self._policy))
        quality = self._operator.evaluate(state) if self._operator.evaluate else None
        version = self._registry.commit(
            state,
            round=current.number,
            rule=self._settings.aggregation.told,
            contributions=tuple(sorted(current.contributions, key=lambda c: c.update_sha256)),
            metrics=quality or {},
            sign=self._operator.sign,
            certificate=self._operator.certificate,
        )
        seconds = time.monotonic() - current.started
        slowest = min(seconds, max(plant.train_seconds for plant in current.plants.values()))
        self._events.emit(
            "round_committed",
            round=current.number,
            version=version.number,
            seconds=round(seconds, 3),
            overhead_seconds=round(seconds - slowest, 3),
            balanced_accuracy=quality and quality["balanced_accuracy"],
            accuracy=quality and quality["accuracy"],
            union_density=state.nnz / self._space.size,
            plants=[self._describe(node, plant, seconds) for node, plant in current.plants.items()],
        )

    def _describe(self, node: int, plant: _PlantRound, seconds: float) -> dict[str, object]:
        return {
            "plant": self._operator.name_of(node),
            "bytes_up": plant.bytes_up,
            "bytes_down": plant.bytes_down,
            "train_seconds": plant.train_seconds,
            "wait_seconds": round(seconds - plant.train_seconds, 3),
            "samples": plant.samples,
            "reason": plant.reason,
            "metrics": plant.metrics,
        }

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask nothing: plants report the received version's quality with their next update."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Nothing was asked."""
        return None

    def _last_round(self) -> int:
        head = self._registry.head()
        return self._registry.load(head)[0].round if head else 0

    def _gather(self, grid: Grid, *, first: bool) -> list[int]:
        """Wait until enough plants are present; the first round waits a little for all of them."""
        rounds = self._settings.rounds
        everybody = len(self._settings.hub.plants)
        start = time.monotonic()
        enough_since: float | None = None
        while True:
            nodes = list(grid.get_node_ids())
            now = time.monotonic()
            if len(nodes) >= everybody or (len(nodes) >= rounds.min_plants and not first):
                return nodes
            if len(nodes) >= rounds.min_plants:
                enough_since = enough_since or now
                if now - enough_since > rounds.gather_seconds:
                    return nodes
            elif now - start > rounds.start_timeout_seconds:
                raise ProcessError(
                    f"plants present after {rounds.start_timeout_seconds:.0f} s: {len(nodes)}; "
                    f"rounds.min_plants is {rounds.min_plants}"
                )
            time.sleep(0.2)

    def _task(self, number: int, version: int, held: int) -> RoundTask:
        """Return the task of round ``number`` for a plant that holds version ``held``.

        The version comes as its difference to the held one, or whole where that is shorter.
        """
        delta = b""
        if held != version:
            change, whole = (
                encode(self._registry.delta(known, version), self._space, ValueCoding.FP32) for known in (held, 0)
            )
            held, delta = (held, change) if len(change) < len(whole) else (0, whole)
        return RoundTask(
            round=number,
            space=self._space.fingerprint,
            version=version,
            held_version=held,
            delta=delta,
            manifest=self._registry.manifest(version) if version else b"",
            manifest_signature=self._registry.signature(version) if version else b"",
            hub_certificate=self._registry.certificate(version) if version else b"",
            training=TrainingSettings.named(**self._settings.training.model_dump()),
        )

"""The federation's Flower strategy: sparse deltas down, mask-aware merging, an immutable version per round."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedsparse.aggregation import Accumulator, Memory, Policy, Server, Standing, admit, voted
from fedsparse.config import FederationConfig
from fedsparse.delta import (
    AdapterSpace,
    Mask,
    Reason,
    RoundTask,
    RoundUpdate,
    SparseDelta,
    ValueCoding,
    apply,
    decode_update,
    encode,
    encode_task,
)
from fedsparse.envelope import unwrap, wrap
from fedsparse.errors import DeltaError, FedsparseError, ProcessError
from fedsparse.events import EventLog
from fedsparse.registry import Contribution, Registry
from fedsparse.security import Credentials, sign
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
    digest: bytes = b""
    standing: Standing | None = None

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
    votes: bool = False  # plants chose their coordinates, and a consensus is to be found
    plants: dict[int, _PlantRound] = field(default_factory=dict)
    contributions: dict[bytes, Contribution] = field(default_factory=dict)  # by the update's digest


@dataclass(frozen=True)
class Operator:
    """What the strategy uses of the operator's machine.

    Attributes:
        signer: returns the hub's credentials as they are now.
        name_of: the plant a Flower node speaks for, for people to see.
        evaluate: quality of a state on the federation's held-out set, or None without one.
    """

    signer: Callable[[], Credentials]
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
        self._dense = space.matching(settings.adapter.dense)
        self._server = Server(space, settings.server, dense=self._dense, rows=settings.training.structure == "row")
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
        training = self._settings.training.of_round(number, self._settings.rounds.count)
        agreed = voted(training, number, self._memory(), self._space)
        support = b"" if agreed is None else encode(agreed, self._space, ValueCoding.TERNARY)
        self._round.votes = training.mask is Mask.CONSENSUS and agreed is None
        messages = []
        for node in nodes:
            # A plant that fails to answer may or may not hold the new version: then it gets the next one whole.
            payload = encode_task(self._task(number, version, self._held.pop(node, 0), support))
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
        if admitted.digest in current.contributions:
            raise DeltaError("another plant has sent the very same bytes")
        contribution = Contribution(admitted.digest.hex(), samples=update.samples, nnz=admitted.nnz)
        current.accumulator.add(admitted)
        current.contributions[admitted.digest] = contribution
        plant.digest = admitted.digest
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
            self._fail(current, f"{len(current.contributions)} of at least {needed} updates arrived")
            return None, None
        accumulator, standings = current.accumulator.reviewed(self._policy.limits)
        self._note(current, standings)
        merged = accumulator.result(self._policy)
        if merged.nnz:
            self._commit(current, accumulator, merged)
        else:
            self._fail(
                current, f"of {len(accumulator)} updates no {self._policy.min_holders} hold the same coordinate"
            )
        return None, None

    def _fail(self, current: _Round, reason: str) -> None:
        self._events.emit("round_failed", round=current.number, reason=reason)
        _log.warning("round %d: %s", current.number, reason)

    def _commit(self, current: _Round, accumulator: Accumulator, merged: SparseDelta) -> None:
        before = self._registry.state(current.version)
        step = self._server.step(before, merged, self._memory())
        state = apply(before, step.delta)
        memory = step.memory
        if current.votes:
            most = int(self._settings.training.density * self._space.size)
            memory = replace(memory, agreed=accumulator.agreed(self._policy, most, self._dense))
        quality = self._operator.evaluate(state) if self._operator.evaluate else None
        signer = self._operator.signer()
        version = self._registry.commit(
            state,
            round=current.number,
            rule=f"{self._settings.aggregation.told}; {self._settings.server.told}",
            contributions=tuple(
                current.contributions[digest] for digest in sorted(current.contributions) if digest in accumulator
            ),
            metrics=quality or {},
            sign=partial(sign, signer.key),
            certificate=signer.der,
            step=step.data,
            memory=memory.to_bytes(self._space),
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

    def _note(self, current: _Round, standings: Iterable[Standing]) -> None:
        """Keep with each plant how its update looked beside the others, and why it is left out, if it is."""
        by_digest = {one.digest: one for one in standings}
        for node, plant in current.plants.items():
            plant.standing = by_digest.get(plant.digest)
            if plant.standing is not None and plant.standing.reason is not None:
                plant.reason = f"quarantined: {plant.standing.reason}"
                _log.warning(
                    "update of %s is left out: its norm is %.1f medians, its cosine to the others %.2f",
                    self._operator.name_of(node),
                    plant.standing.norm,
                    plant.standing.cosine,
                )

    def _memory(self) -> Memory:
        """Return what the newest version's round left to this one."""
        data = self._registry.memory()
        try:
            return Memory.from_bytes(data, self._space) if data else Memory.empty(self._space)
        except FedsparseError as error:  # moments and rounding errors are no great loss
            _log.warning("what the server noted with the newest version is unusable and starts anew: %s", error)
            return Memory.empty(self._space)

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
            "norm": None if plant.standing is None else round(plant.standing.norm, 3),
            "cosine": None if plant.standing is None else round(plant.standing.cosine, 3),
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

    def _change(self, held: int, version: int) -> bytes:
        return encode(self._registry.delta(held, version), self._space, ValueCoding.FP32)

    def _task(self, number: int, version: int, held: int, support: bytes) -> RoundTask:
        """Return the task of round ``number`` for a plant that holds version ``held``.

        The version comes as the steps or the difference from the held one, or whole, whichever is shortest.
        """
        deltas: tuple[bytes, ...] = ()
        if held != version:
            known = {(start, self._change(start, version)) for start in (held, 0)}
            steps = self._registry.steps(held, version)
            ways = [(start, (change,)) for start, change in known] + [(held, steps)] * bool(steps)
            held, deltas = min(ways, key=lambda way: (sum(map(len, way[1])), -way[0]))
        return RoundTask(
            round=number,
            space=self._space.fingerprint,
            version=version,
            held_version=held,
            deltas=deltas,
            manifest=self._registry.manifest(version) if version else b"",
            manifest_signature=self._registry.signature(version) if version else b"",
            hub_certificate=self._registry.certificate(version) if version else b"",
            training=self._settings.training.of_round(number, self._settings.rounds.count),
            support=support,
        )

"""The federation's Flower strategy: sparse deltas down, mask-aware merging, an immutable version per round."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedsparse.aggregation import Accumulator, Asked, Memory, Policy, Server, Standing, admit_update, voted
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
from fedsparse.registry import AdapterVersion, Contribution, Registry
from fedsparse.security import Credentials, sign
from fedsparse_server.evaluation import Evaluate
from fedsparse_server.rounds import BUSY, OpenTasks, PlantRound, Round

_log = logging.getLogger("strategy")


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
        self._open = OpenTasks(policy.late)
        self._round: Round | None = None

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
        """Address every plant that is present, and not busy, with the newest version, against the one it holds."""
        nodes = self._gather(grid, first=server_round == 1)
        version = self._registry.head()
        number = self._last_round() + 1
        training = self._settings.training.of_round(number, self._settings.rounds.count)
        agreed = voted(training, number, self._memory(), self._space)
        support = b"" if agreed is None else encode(agreed, self._space, ValueCoding.TERNARY)
        asked = Asked.of(training, number, version, support)
        accumulator = Accumulator(self._space, folder=self._settings.state)
        self._round = Round(asked, accumulator, votes=training.mask is Mask.CONSENSUS and agreed is None)
        self._give_up(asked, nodes)
        self._round.plants |= {node: PlantRound(bytes_down=0, reason=BUSY) for node in self._open}
        nodes = [node for node in nodes if node not in self._open]
        messages = []
        tasks: dict[int, bytes] = {}  # by the version that a plant holds: many hold the same
        for node in nodes:
            # A plant that fails to answer may or may not hold the new version: then it gets the next one whole.
            held = self._held.pop(node, 0)
            if held not in tasks:
                tasks[held] = encode_task(self._task(number, version, held, support))
            payload = tasks[held]
            self._round.plants[node] = PlantRound(bytes_down=len(payload))
            self._open.give(node, asked)
            messages.append(Message(wrap(payload), node, "train", ttl=self._ttl(), group_id=str(number)))
        self._events.emit(
            "round_started", round=number, version=version, plants=[self._operator.name_of(n) for n in nodes]
        )
        return messages

    def _give_up(self, now: Asked, present: Iterable[int]) -> None:
        """Wait no longer for answers that do not count now, nor for those of plants that can be asked anew."""
        given_up = self._open.give_up(now)
        if self._open:
            back = {self._operator.name_of(node) for node in present if node not in self._open}
            for node in [node for node in self._open if self._operator.name_of(node) in back]:
                self._open.take(node)
                given_up[node] = "it has connected anew"
        for node, why in given_up.items():
            name = self._operator.name_of(node)
            self._events.emit("update_given_up", round=now.round, plant=name, reason=why)
            _log.warning("%s is no longer waited for: %s", name, why)

    def _ttl(self) -> float:
        """Return for how many seconds Flower takes the answer to a task."""
        rounds = 1 if self._policy.late is None else 1 + self._policy.late.max_staleness
        return rounds * (self._settings.rounds.deadline_seconds + 60)

    def wants_late(self) -> bool:
        """Return whether the round under way has too few updates without late ones."""
        if self._round is None or self._policy.late is None:
            return False
        return len(self._round.contributions) < self._settings.rounds.min_plants

    def not_sent(self, node: int) -> None:
        """Note that Flower has not taken the task of a plant, which can be asked again in the next round."""
        self._open.take(node)
        if self._round is not None and node in self._round.plants:
            self._round.plants[node].reason = "not sent"
            _log.warning("Flower has not taken the task of %s", self._operator.name_of(node))

    def receive(self, reply: Message) -> None:
        """Merge one answer the moment it arrives: to this round's task or, where that counts, an earlier one's."""
        current = self._round
        node = reply.metadata.src_node_id
        asked = self._open.take(node)
        if current is None or asked is None or node not in current.plants:
            return
        plant = current.plants[node]
        if reply.has_error():  # Flower's word that the plant's connection has ended
            plant.reason = "left"
        else:
            plant.staleness = current.number - asked.round
            self._take(current, asked, node, plant, reply)
        self._events.emit(
            "update_received",
            round=current.number,
            plant=self._operator.name_of(node),
            bytes_up=plant.bytes_up,
            seconds=round(time.monotonic() - current.started, 3),
            reason=plant.reason,
            staleness=plant.staleness,
        )

    def _take(self, current: Round, asked: Asked, node: int, plant: PlantRound, reply: Message) -> None:
        try:
            payload = unwrap(reply)
            plant.bytes_up = len(payload)
            self._merge(current, asked, node, plant, payload)
        except FedsparseError as error:
            plant.reason = "invalid"
            _log.warning("answer of node %d: %s", node, error)

    def _merge(self, current: Round, asked: Asked, node: int, plant: PlantRound, payload: bytes) -> None:
        limit = self._settings.hub.max_update_bytes
        update: RoundUpdate = decode_update(payload, max_bytes=limit)
        plant.metrics = dict(update.metrics)
        if update.reason is not Reason.NONE:
            plant.reason = update.reason.name.lower()
            return
        admitted = admit_update(
            update,
            sha256(payload).digest(),
            self._space,
            round=asked.round,
            version=asked.version,
            max_density=self._settings.training.density,
        )
        if admitted.digest in current.contributions or self._merged_since(asked.version, admitted.digest):
            raise DeltaError("another plant has sent the very same bytes")
        late = self._policy.late
        weight = 1.0 if late is None else late.weight(late.staleness(asked, current.asked))
        contribution = Contribution(admitted.digest.hex(), samples=update.samples, nnz=admitted.nnz)
        current.accumulator.add(admitted, weight)
        current.contributions[admitted.digest] = contribution
        plant.digest = admitted.digest
        self._held[node] = asked.version
        plant.samples = update.samples
        plant.weight = weight
        plant.reason = None

    def _merged_since(self, version: int, digest: bytes) -> bool:
        """Return whether a version after ``version`` has an update already."""
        manifests = (self._registry.manifest(n) for n in range(version + 1, self._registry.head() + 1))
        merged = (one.update_sha256 for data in manifests for one in AdapterVersion.from_bytes(data).contributions)
        return digest.hex() in merged

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

    def _fail(self, current: Round, reason: str) -> None:
        self._events.emit("round_failed", round=current.number, reason=reason)
        _log.warning("round %d: %s", current.number, reason)

    def _commit(self, current: Round, accumulator: Accumulator, merged: SparseDelta) -> None:
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
        self._events.emit(
            "round_committed",
            round=current.number,
            version=version.number,
            seconds=round(seconds, 3),
            overhead_seconds=round(seconds - current.slowest(seconds), 3),
            balanced_accuracy=quality and quality["balanced_accuracy"],
            accuracy=quality and quality["accuracy"],
            union_density=state.nnz / self._space.size,
            plants=[plant.told(self._operator.name_of(node), seconds) for node, plant in current.plants.items()],
        )

    def _note(self, current: Round, standings: Iterable[Standing]) -> None:
        """Keep with each plant how its update looked beside the others, and why it is left out, if it is."""
        by_digest = {one.digest: one for one in standings}
        for node, plant in current.plants.items():
            plant.standing = by_digest.get(plant.digest)
            if plant.standing is not None and plant.standing.reason is not None:
                plant.reason, plant.weight = f"quarantined: {plant.standing.reason}", None
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

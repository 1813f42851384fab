"""The gate: nothing reaches the link that it has not decoded, judged and had recorded."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from fedsparse.audit import EgressPolicy, EntryDraft, EntryKind, Ledger, Recorded
from fedsparse.audit.policy import Outgoing, Usage, outgoing_update
from fedsparse.delta import (
    AdapterSpace,
    Reason,
    RoundTask,
    RoundUpdate,
    decode,
    decode_task,
    decode_update,
    encode_update,
)
from fedsparse.errors import EgressRefusedError, FedsparseError, LedgerError
from fedsparse.v1 import link_pb2
from fedsparse_client.gateway.desk import Answer

_MAX_TASK_BYTES = 1 << 30
_log = logging.getLogger("gate")
INTERNAL = "internal"
"""The rule that refuses where judging itself failed."""
_Judged = TypeVar("_Judged")


class Gate:
    """Judges what the site answers; deny by default, and whatever goes wrong in judging is a refusal.

    Args:
        policy: what may leave; recorded at once, unless the ledger's last policy is the same.
        ledger: where every decision is recorded before anything leaves, and what has left is read from.
        peer: "host:port" of the hub.
        clock: seconds since 1970.

    Raises:
        LedgerError: the policy cannot be recorded; then there is no gate.
    """

    def __init__(
        self, policy: EgressPolicy, ledger: Ledger, peer: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._policy = policy
        self._ledger = ledger
        self._peer = peer
        self._clock = clock
        self._usage = Usage()
        self._guard = threading.Lock()  # budgets are judged and spent by one thread at a time
        last = b""
        for entry in ledger.entries():
            self._usage.add(entry)
            if int(entry.kind) == EntryKind.POLICY:
                last = entry.payload_sha256
        if last != policy.sha256:
            ledger.append_note(EntryKind.POLICY, policy.canonical_bytes(), policy.sha256)

    def record_call(self, kind: EntryKind) -> None:
        """Record that the plant asks or announces something, with no payload of the site's.

        Raises:
            EgressRefusedError: the policy does not let it; that is recorded, and the call must not happen.
            LedgerError: it cannot be recorded; then it must not happen.
        """
        with self._guard:
            draft = self._draft(kind)
            try:
                self._judged(lambda: self._evaluate(Outgoing(kind, self._now())))
            except EgressRefusedError as error:
                self._record_refused(draft, b"", error)
                raise
            self._ledger.append(draft, b"")

    def decide(self, answer: Answer, space: AdapterSpace) -> Recorded:
        """Return what may leave in answer to a task: the update as it is, or a reason code.

        Raises:
            EgressRefusedError: not even a reason code may leave; that is recorded.
            LedgerError: it cannot be recorded; then nothing may leave.
        """
        with self._guard:
            about = self._draft(EntryKind.REFUSED, task_id=answer.task.task_id)
            try:
                task = self._judged(lambda: decode_task(answer.task.round_task, max_bytes=_MAX_TASK_BYTES))
            except EgressRefusedError as error:  # the hub's fault, most likely: no round to name
                if error.rule == INTERNAL:
                    self._record_refused(about, answer.payload, error)
                else:
                    _log.warning("refused the task %s: %s", answer.task.task_id[:12], error)
                return self._record_reason(about, RoundUpdate.refusal(1, 0, Reason.TASK_MALFORMED))
            about = replace(about, round=task.round, version=task.version)
            if answer.reason is Reason.REFUSED_BY_GATE:  # the desk stopped it before it was whole
                self._record_refused(about, b"", EgressRefusedError("bytes", "more bytes than the desk takes in"))
            if answer.reason is not Reason.NONE:
                return self._record_reason(about, RoundUpdate.refusal(task.round, task.version, answer.reason))
            recorded = self._ledger.append_judged(
                answer.payload, lambda: self._verdict(answer, task, space, about)
            )
            if recorded.kind is EntryKind.REFUSED:
                refusal = RoundUpdate.refusal(task.round, task.version, Reason.REFUSED_BY_GATE)
                return self._record_reason(about, refusal)
            _log.info("round %d: %s of %d bytes may leave", task.round, recorded.kind.name, len(answer.payload))
            return recorded

    def file_receipt(self, recorded: Recorded, receipt: link_pb2.Receipt) -> None:
        """File the hub's signed word beside the ledger entry it is for."""
        self._ledger.file_receipt(recorded.sequence, receipt.SerializeToString(deterministic=True))

    def _judged(self, judge: Callable[[], _Judged]) -> _Judged:
        """Return what judging gives; fail closed, with one kind of error, on everything that goes wrong in it.

        Raises:
            EgressRefusedError: by the policy's rule; by "malformed" where bytes are not what they should be; by
                "internal" where judging itself failed.
            LedgerError: what has left so far cannot be read.
        """
        try:
            return judge()
        except (EgressRefusedError, LedgerError):
            raise
        except FedsparseError as error:
            raise EgressRefusedError("malformed", str(error)) from error
        except Exception as error:
            _log.exception("judging failed on an error that nobody foresaw")
            raise EgressRefusedError(INTERNAL, "the gate could not judge it") from error

    def _verdict(self, answer: Answer, task: RoundTask, space: AdapterSpace, about: EntryDraft) -> EntryDraft:
        """Return what the ledger says of an answer: what leaves, or that it is refused."""
        try:
            return self._judged(lambda: self._inspect(answer, task, space))
        except EgressRefusedError as error:
            return self._refused(about, error)

    def _inspect(self, answer: Answer, task: RoundTask, space: AdapterSpace) -> EntryDraft:
        """Decode strictly, check that it answers this very task, ask the policy, and say what leaves.

        Raises:
            FedsparseError: it may not leave.
        """
        limit = self._policy.max_update_bytes
        if len(answer.payload) > limit:  # known before a byte is decoded
            raise EgressRefusedError("bytes", f"{len(answer.payload)} bytes, the limit is {limit}")
        update = decode_update(answer.payload, max_bytes=limit)
        if (update.round, update.version) != (task.round, task.version):
            raise EgressRefusedError(
                "wrong-task",
                f"the update is for round {update.round} and version {update.version}, "
                f"the task for {task.round} and {task.version}",
            )
        delta = decode(update.delta, space, max_bytes=limit) if update.delta else None
        message = outgoing_update(
            update,
            answer.payload,
            delta,
            space,
            bundle_sha256=answer.task.bundle_sha256,
            time_unix_ms=self._now(),
        )
        self._evaluate(message)
        return self._draft(
            message.kind,
            task_id=answer.task.task_id,
            round=update.round,
            version=update.version,
            samples=update.samples,
            reason=update.reason,
            tensors=message.delta.tensors if message.delta else (),
            metrics=update.metrics,
        )

    def _evaluate(self, message: Outgoing) -> None:
        self._usage.catch_up(self._ledger)
        self._policy.evaluate(message, self._usage)

    def _record_reason(self, about: EntryDraft, update: RoundUpdate) -> Recorded:
        """Let a reason code leave, if the policy does.

        Raises:
            EgressRefusedError: it does not; that is recorded.
        """
        payload = encode_update(update)
        message = Outgoing(EntryKind.REASON, self._now(), len(payload), update.round, update.version)
        draft = replace(
            about, kind=EntryKind.REASON, round=update.round, version=update.version, reason=update.reason
        )
        try:
            self._judged(lambda: self._evaluate(message))
        except EgressRefusedError as error:
            self._record_refused(draft, payload, error)
            raise
        return self._ledger.append(draft, payload)

    def _record_refused(self, about: EntryDraft, payload: bytes, error: EgressRefusedError) -> None:
        self._ledger.append(self._refused(about, error), payload)

    def _refused(self, about: EntryDraft, error: EgressRefusedError) -> EntryDraft:
        _log.warning("refused by rule %s: %s", error.rule, error)
        return replace(about, kind=EntryKind.REFUSED, rule=error.rule)

    def _draft(self, kind: EntryKind, **facts: Any) -> EntryDraft:
        return EntryDraft(kind=kind, peer=self._peer, policy_sha256=self._policy.sha256, **facts)

    def _now(self) -> int:
        return int(self._clock() * 1000)

"""The gate: nothing reaches the link that it has not decoded, judged and had recorded."""

from __future__ import annotations

import logging

from fedsparse.audit import EgressPolicy, EntryDraft, EntryKind, Ledger, Recorded, describe_delta
from fedsparse.delta import (
    AdapterSpace,
    Reason,
    RoundTask,
    RoundUpdate,
    SparseDelta,
    decode,
    decode_task,
    decode_update,
    encode_update,
)
from fedsparse.errors import EgressRefusedError, FedsparseError
from fedsparse.v1 import link_pb2
from fedsparse_client.gateway.desk import Answer

_MAX_TASK_BYTES = 1 << 30
_log = logging.getLogger("gate")


class Gate:
    """Judges what the site answers; deny by default.

    Args:
        policy: what may leave.
        ledger: where every decision is recorded before anything leaves.
        peer: "host:port" of the hub.
    """

    def __init__(self, policy: EgressPolicy, ledger: Ledger, peer: str) -> None:
        self._policy = policy
        self._ledger = ledger
        self._peer = peer

    def record_call(self, kind: EntryKind) -> None:
        """Record that the plant asked or announced something, with no payload of the site's.

        Raises:
            LedgerError: it cannot be recorded; then it must not happen.
        """
        self._ledger.append(EntryDraft(kind=kind, peer=self._peer, policy_sha256=self._policy.sha256), b"")

    def decide(self, answer: Answer, space: AdapterSpace) -> Recorded:
        """Return what may leave in answer to a task: the update as it is, or a reason code.

        Raises:
            LedgerError: it cannot be recorded; then nothing may leave.
        """
        task_id = answer.task.task_id
        try:
            task = decode_task(answer.task.round_task, max_bytes=_MAX_TASK_BYTES)
        except FedsparseError as error:  # the hub's fault: no round to name
            _log.warning("refused the task %s of the hub: %s", task_id[:12], error)
            return self._record_reason(task_id, RoundUpdate.refusal(1, 0, Reason.TASK_MALFORMED))
        if answer.reason is Reason.REFUSED_BY_GATE:  # the desk stopped it before it was whole
            self._record_refused(task_id, task, b"", "bytes")
        if answer.reason is not Reason.NONE:
            return self._record_reason(task_id, RoundUpdate.refusal(task.round, task.version, answer.reason))
        try:
            update, delta = self._inspect(answer.payload, task, space)
        except FedsparseError as error:
            rule = error.rule if isinstance(error, EgressRefusedError) else "malformed"
            _log.warning("refused by rule %s: %s", rule, error)
            self._record_refused(task_id, task, answer.payload, rule)
            refusal = RoundUpdate.refusal(task.round, task.version, Reason.REFUSED_BY_GATE)
            return self._record_reason(task_id, refusal)
        if delta is None:
            return self._record_reason(task_id, update)
        _log.info("round %d: %d values in %d bytes may leave", task.round, delta.nnz, len(answer.payload))
        return self._record_update(task_id, update, delta, space, answer.payload)

    def file_receipt(self, recorded: Recorded, receipt: link_pb2.Receipt) -> None:
        """File the hub's signed word beside the ledger entry it is for."""
        self._ledger.file_receipt(recorded.sequence, receipt.SerializeToString(deterministic=True))

    def _inspect(
        self, payload: bytes, task: RoundTask, space: AdapterSpace
    ) -> tuple[RoundUpdate, SparseDelta | None]:
        """Decode strictly, check that it answers this very task, and ask the policy."""
        limit = self._policy.max_update_bytes
        update = decode_update(payload, max_bytes=limit)
        if (update.round, update.version) != (task.round, task.version):
            raise EgressRefusedError(
                "wrong-task",
                f"the update is for round {update.round} and version {update.version}, "
                f"the task for {task.round} and {task.version}",
            )
        delta = decode(update.delta, space, max_bytes=limit) if update.delta else None
        self._policy.evaluate(update, payload, delta, space)
        return update, delta

    def _record_reason(self, task_id: str, update: RoundUpdate) -> Recorded:
        payload = encode_update(update)
        draft = EntryDraft(
            kind=EntryKind.REASON,
            peer=self._peer,
            task_id=task_id,
            round=update.round,
            version=update.version,
            reason=update.reason,
            policy_sha256=self._policy.sha256,
        )
        return self._ledger.append(draft, payload)

    def _record_refused(self, task_id: str, task: RoundTask, payload: bytes, rule: str) -> None:
        draft = EntryDraft(
            kind=EntryKind.REFUSED,
            peer=self._peer,
            task_id=task_id,
            round=task.round,
            version=task.version,
            rule=rule,
            policy_sha256=self._policy.sha256,
        )
        self._ledger.append(draft, payload)

    def _record_update(
        self, task_id: str, update: RoundUpdate, delta: SparseDelta, space: AdapterSpace, payload: bytes
    ) -> Recorded:
        draft = EntryDraft(
            kind=EntryKind.UPDATE,
            peer=self._peer,
            task_id=task_id,
            round=update.round,
            version=update.version,
            samples=update.samples,
            tensors=describe_delta(delta, space),
            metrics=update.metrics,
            policy_sha256=self._policy.sha256,
        )
        return self._ledger.append(draft, payload)

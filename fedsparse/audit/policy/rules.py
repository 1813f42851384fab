"""The rules, each a function that yields what it refuses; none knows of another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase

from fedsparse.audit.entry import EntryKind
from fedsparse.audit.policy.outgoing import DeltaFacts, Outgoing
from fedsparse.audit.policy.usage import Usage
from fedsparse.audit.policy.windows import local_time, minute_of_week, minutes_of
from fedsparse.config import EgressSettings
from fedsparse.delta import Operation

RULES = (
    "kind",
    "window",
    "bytes",
    "round-messages",
    "round-bytes",
    "day-messages",
    "day-bytes",
    "day-calls",
    "bundle",
    "metric-name",
    "metric-range",
    "metric-precision",
    "operation",
    "base",
    "space",
    "coding",
    "min-samples",
    "samples-step",
    "nnz",
    "density",
    "tensor",
    "tensor-glob",
    "norm",
    "range",
)
"""Identifiers of the policy's own rules; the gate adds "malformed", "wrong-task" and "internal"."""


@dataclass(frozen=True)
class Refusal:
    """One rule that refuses.

    Attributes:
        rule: its identifier, one of :data:`RULES`.
        what: the value, and the limit.
    """

    rule: str
    what: str


def message_rules(limits: EgressSettings, message: Outgoing) -> Iterator[Refusal]:
    """Judge kind, hour and size."""
    kind = message.kind.name.lower()
    if kind not in limits.messages:
        yield Refusal("kind", f"a message of the kind {kind}, allowed are: {_list(limits.messages)}")
    if message.kind not in (EntryKind.UPDATE, EntryKind.REASON):
        return
    if limits.windows is not None:
        now = local_time(limits, message.time_unix_ms)
        if minute_of_week(now) not in minutes_of(limits.windows):
            yield Refusal("window", f"it is {now:%a %H:%M} in {limits.timezone}, outside the allowed windows")
    if message.bytes > limits.max_update_bytes:
        yield Refusal("bytes", f"{message.bytes} bytes, the limit is {limits.max_update_bytes}")


def budget_rules(limits: EgressSettings, message: Outgoing, usage: Usage) -> Iterator[Refusal]:
    """Sum up what has left before and this message, by round and by day."""
    day = usage.in_day(message.time_unix_ms)
    if message.kind not in (EntryKind.UPDATE, EntryKind.REASON):
        yield from _over("day-calls", day.calls + 1, limits.per_day.calls, "calls in 24 hours")
        return
    spent = usage.in_round(message.round, message.version)
    yield from _over("round-messages", spent.messages + 1, limits.per_round.messages, "messages in this round")
    yield from _over("round-bytes", spent.bytes + message.bytes, limits.per_round.bytes, "bytes in this round")
    yield from _over("day-messages", day.messages + 1, limits.per_day.messages, "messages in 24 hours")
    yield from _over("day-bytes", day.bytes + message.bytes, limits.per_day.bytes, "bytes in 24 hours")


def _over(rule: str, value: int, limit: int | None, of: str) -> Iterator[Refusal]:
    if limit is not None and value > limit:
        yield Refusal(rule, f"this would make {value} {of}, the limit is {limit}")


def metric_rules(limits: EgressSettings, message: Outgoing) -> Iterator[Refusal]:
    """Judge names, ranges and digits: low bits of a mantissa carry data as well as any other."""
    for name, value in message.metrics.items():
        limit = limits.metrics.get(name)
        if limit is None:
            yield Refusal("metric-name", f"the metric {name!r} is not on the list")
        elif not limit.minimum <= value <= limit.maximum:
            yield Refusal("metric-range", f"{name} = {value}, allowed are {limit.minimum} to {limit.maximum}")
        elif value.hex() != limit.rounded(value).hex():  # not ==, to which -0.0 is 0.0
            yield Refusal(
                "metric-precision",
                f"{name} = {value!r}, allowed are {limit.digits} significant digits and {limit.decimals} decimals",
            )


def source_rules(limits: EgressSettings, message: Outgoing, delta: DeltaFacts) -> Iterator[Refusal]:
    """Judge which code, which model and how many samples an update comes from."""
    yield from _unlisted("bundle", message.bundle_sha256, limits.bundles, "the app bundle")
    yield from _unlisted("base", delta.space.base_fingerprint.hex(), limits.bases, "the base model")
    yield from _unlisted("space", delta.space.fingerprint.hex(), limits.spaces, "the adapter space")
    if message.samples < limits.min_samples:
        yield Refusal("min-samples", f"{message.samples} samples are behind it, the least is {limits.min_samples}")
    if message.samples % limits.samples_step:
        yield Refusal(
            "samples-step", f"{message.samples} samples, the number must be a multiple of {limits.samples_step}"
        )


def _unlisted(rule: str, digest: str, allowed: tuple[str, ...] | None, of: str) -> Iterator[Refusal]:
    if allowed is not None and digest not in allowed:
        yield Refusal(rule, f"{of} {digest[:16]} is not on the list of {len(allowed)}")


def delta_rules(limits: EgressSettings, delta: DeltaFacts) -> Iterator[Refusal]:
    """Judge how much an update changes, and how it is written."""
    if delta.operation is not Operation.ADD:
        yield Refusal("operation", "only additions may leave")
    coding = delta.coding.name.lower()
    if coding not in limits.codings:
        yield Refusal("coding", f"values are written as {coding}, allowed are: {_list(limits.codings)}")
    nnz, size = delta.nnz, delta.space.size
    if limits.max_nnz is not None and nnz > limits.max_nnz:
        yield Refusal("nnz", f"{nnz} values, the limit is {limits.max_nnz}")
    if nnz / size > limits.max_density:
        yield Refusal("density", f"{nnz} of {size} coordinates, the limit is {limits.max_density:.2%}")
    norm = math.sqrt(math.fsum(tensor.l2**2 for tensor in delta.tensors))
    if limits.clip_norm is not None and not norm <= limits.clip_norm:
        yield Refusal("norm", f"its L2 norm is {norm}, it must be clipped to {limits.clip_norm}")
    largest = max((max(-tensor.minimum, tensor.maximum) for tensor in delta.tensors), default=0.0)
    if limits.max_abs_value is not None and not largest <= limits.max_abs_value:
        yield Refusal("range", f"a value of magnitude {largest}, the limit is {limits.max_abs_value}")


def tensor_rules(limits: EgressSettings, delta: DeltaFacts) -> Iterator[Refusal]:
    """Judge which tensors an update changes."""
    for tensor in delta.tensors:
        name = tensor.name
        if not _matches(name, limits.tensors) or _matches(name, limits.tensors_denied):
            yield Refusal("tensor", f"it changes {name}, which is not among the allowed tensors")
    for glob in limits.tensors_denied:
        if not delta.space.matching((glob,)):
            yield Refusal(
                "tensor-glob", f"{glob!r} is denied, but the adapter has no such tensor; is it misspelt?"
            )


def _matches(name: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"

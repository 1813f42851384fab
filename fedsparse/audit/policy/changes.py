"""What a new policy changes about an old one: which keys, and whether more or less may leave."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fedsparse.audit.policy.windows import minutes_of
from fedsparse.config import EgressSettings, MetricLimits


class Effect(StrEnum):
    """Whether a change lets more leave, less, some of both, or the same."""

    LOOSER = "looser"
    TIGHTER = "tighter"
    BOTH = "both"
    SAME = "same"


@dataclass(frozen=True)
class Change:
    """One key that differs.

    Attributes:
        key: as in egress.toml, e.g. "per_day.messages"; of a metric that both have, e.g. "maximum"; "metrics" of
            one that only one of them has.
        old: value before; None where there was none; a :class:`ByteLimit` under keys of bytes.
        new: value now, likewise.
        effect: of the change.
        metric: that it is about; empty where it is about none.
    """

    key: str
    old: object
    new: object
    effect: Effect
    metric: str = ""


@dataclass(frozen=True)
class ByteLimit:
    """A limit of bytes, beside what the same policy's messages can have together, which bounds them as well.

    Attributes:
        limit: as in egress.toml; None where it has none.
        most: what the messages can have.
    """

    limit: int | None
    most: int

    def under(self, most: int) -> int:
        """Return what may leave under this limit where messages can have so much."""
        return most if self.limit is None else min(self.limit, most)


_Judge = Callable[[Any, Any], Effect]


def _same(_old: object, _new: object) -> Effect:
    return Effect.SAME


def _most(old: float | None, new: float | None) -> Effect:
    """Judge an upper limit; None is no limit."""
    if old is None or (new is not None and new < old):
        return Effect.TIGHTER
    return Effect.LOOSER


def _bytes(old: ByteLimit, new: ByteLimit) -> Effect:
    """Judge the limit by itself: what the messages change about the bytes is told under their own keys."""
    for most in (old.most, new.most):
        before, after = old.under(most), new.under(most)
        if before != after:
            return _most(before, after)
    return Effect.SAME


def _least(old: float, new: float) -> Effect:
    return Effect.TIGHTER if new > old else Effect.LOOSER


def _step(old: int, new: int) -> Effect:
    """Judge a step: only multiples of the old one are at the new one's places too."""
    if new % old == 0:
        return Effect.TIGHTER
    return Effect.LOOSER if old % new == 0 else Effect.BOTH


def _allowed(old: Collection[object] | None, new: Collection[object] | None) -> Effect:
    """Judge a list of what is allowed; None is everything."""
    if old is None or new is None:
        return Effect.TIGHTER if old is None else Effect.LOOSER
    before, after = set(old), set(new)
    if before <= after:
        return Effect.LOOSER if before < after else Effect.SAME
    return Effect.TIGHTER if after < before else Effect.BOTH


def _globs(old: Collection[str], new: Collection[str]) -> Effect:
    """Judge allowed globs by their text: which tensors they match, only an adapter could tell."""
    everything = [None if "*" in globs else globs for globs in (old, new)]
    return Effect.SAME if everything == [None, None] else _allowed(*everything)


def _denied(old: Collection[str], new: Collection[str]) -> Effect:
    return _allowed(new, old)


_JUDGES: Mapping[str, _Judge] = {
    "version": _same,
    "name": _same,
    "revision": _same,
    "messages": _allowed,
    "bundles": _allowed,
    "bases": _allowed,
    "spaces": _allowed,
    "tensors": _globs,
    "tensors_denied": _denied,
    "codings": _allowed,
    "max_update_bytes": _most,
    "max_nnz": _most,
    "max_density": _most,
    "clip_norm": _most,
    "max_abs_value": _most,
    "min_samples": _least,
    "samples_step": _step,
    "per_round.messages": _most,
    "per_round.bytes": _bytes,
    "per_day.messages": _most,
    "per_day.bytes": _bytes,
    "per_day.calls": _most,
}
_METRIC_JUDGES: Mapping[str, _Judge] = {"minimum": _least, "maximum": _most, "digits": _most, "decimals": _most}


def changes_between(old: EgressSettings, new: EgressSettings) -> tuple[Change, ...]:
    """Return every key that differs, in the order of egress.toml; empty where both let the same leave."""
    return (
        *_differing(_JUDGES, old, new),
        *_metric_changes(old.metrics, new.metrics),
        *_window_changes(old, new),
    )


def _differing(judges: Mapping[str, _Judge], old: object, new: object, metric: str = "") -> Iterator[Change]:
    for key, judge in judges.items():
        if _value(old, key) != _value(new, key):
            before, after = _told(old, key), _told(new, key)
            yield Change(key, before, after, judge(before, after), metric)


def _told(settings: object, key: str) -> Any:
    """Return a value; a limit of bytes with what bounds them where it does not."""
    value, (scope, _, name) = _value(settings, key), key.partition(".")
    if name != "bytes":
        return value
    return ByteLimit(value, _value(settings, f"{scope}.messages") * _value(settings, "max_update_bytes"))


def _value(settings: object, key: str) -> Any:
    for part in key.split("."):
        settings = getattr(settings, part)
    return settings


def _metric_changes(old: Mapping[str, MetricLimits], new: Mapping[str, MetricLimits]) -> Iterator[Change]:
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before is None or after is None:
            yield Change("metrics", before, after, Effect.LOOSER if before is None else Effect.TIGHTER, name)
        else:
            yield from _differing(_METRIC_JUDGES, before, after, name)


def _window_changes(old: EgressSettings, new: EgressSettings) -> Iterator[Change]:
    before, after = minutes_of(old.windows), minutes_of(new.windows)
    if old.timezone != new.timezone:
        always = old.windows is None or new.windows is None  # then the windows alone make the difference
        yield Change("timezone", old.timezone, new.timezone, Effect.SAME if always else Effect.BOTH)
    if old.windows != new.windows:
        yield Change("windows", old.windows, new.windows, _allowed(before, after))

"""egress.toml: what may leave a site. Whatever it does not name is refused."""

from __future__ import annotations

from datetime import UTC, tzinfo
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field, model_validator

from fedsparse.config.names import Settings, check_distinct

POLICY_VERSION: Literal[1] = 1
_WIRE_NAME = 64  # characters of a metric's name that a message can carry


def zone_of(name: str) -> tzinfo:
    """Return a time zone by its name in the IANA database, e.g. "Asia/Tokyo"; "UTC" needs no database.

    Raises:
        ValueError: this machine knows none of that name.
    """
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ValueError, KeyError, OSError):
        raise ValueError('use "UTC" or a name such as "Asia/Tokyo"; if that is right, install tzdata') from None


def _known_zone(name: str) -> str:
    zone_of(name)
    return name


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("use printable characters only")
    return text


def _in_order(values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(check_distinct(values)))  # so that the order in a file changes no digest


def _hex_digest(value: str) -> str:
    if len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise ValueError("use the 64 hex digits, in lower case, of a SHA-256")
    return value


MessageKind = Literal["update", "reason", "describe", "attend"]
CodingName = Literal["fp32", "bf16", "int8", "int4", "ternary"]
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
MESSAGE_KINDS: tuple[MessageKind, ...] = ("attend", "describe", "reason", "update")
CODING_NAMES: tuple[CodingName, ...] = ("bf16", "fp32", "int4", "int8", "ternary")
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

Title = Annotated[str, Field(max_length=200), AfterValidator(_printable)]
Glob = Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(_printable)]
MetricName = Annotated[str, Field(min_length=1, max_length=_WIRE_NAME), AfterValidator(_printable)]
Globs = Annotated[tuple[Glob, ...], AfterValidator(_in_order)]
Digests = Annotated[tuple[Annotated[str, AfterValidator(_hex_digest)], ...], AfterValidator(_in_order)]
Count = Annotated[int, Field(ge=0, le=1 << 53)]


class MetricLimits(Settings):
    """In which range and to which precision a metric may leave the site.

    Attributes:
        minimum: smallest value.
        maximum: largest value.
        digits: significant decimal digits.
        decimals: digits behind the decimal point.
    """

    minimum: float = 0.0
    maximum: float = 1.0
    digits: Annotated[int, Field(ge=1, le=15)] = 4
    decimals: Annotated[int, Field(ge=0, le=15)] = 6

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError(f"minimum {self.minimum} is above maximum {self.maximum}; swap them")
        return self

    def rounded(self, value: float) -> float:
        """Return what may leave of ``value``: one float per decimal number, and zero without a sign.

        The trainer rounds with this, and the gate compares with it: what is left of the mantissa carries nothing.
        """
        return round(float(f"{value:.{self.digits - 1}e}"), self.decimals) + 0.0


class RoundLimits(Settings):
    """What may leave in one round: under one number of round and version.

    Attributes:
        messages: updates and reason codes together.
        bytes: of their content; None: only what ``messages`` and ``max_update_bytes`` make of it.
    """

    messages: Count = 64
    bytes: Count | None = None


class DayLimits(Settings):
    """What may leave in any 24 hours.

    Attributes:
        messages: updates and reason codes together.
        bytes: of their content; None as in :class:`RoundLimits`.
        calls: describe and attend together; a plant that dials every 2 s stays below the default.
    """

    messages: Count = 10_000
    bytes: Count | None = None
    calls: Count = 50_000


class Window(Settings):
    """A time of the week in which updates and reason codes may leave.

    Attributes:
        days: on which it begins.
        start: "HH:MM", inclusive.
        end: "HH:MM", exclusive, up to "24:00"; one before ``start`` is on the next day.
    """

    days: Annotated[tuple[Day, ...], AfterValidator(check_distinct)] = DAYS
    start: Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")] = "00:00"
    end: Annotated[str, Field(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")] = "24:00"

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if self.start == self.end:
            raise ValueError(f"start and end are both {self.start}; the whole day is 00:00 to 24:00")
        return self


def _usual_metrics() -> dict[str, MetricLimits]:
    return {
        "holdout_balanced_accuracy": MetricLimits(),
        "train_loss": MetricLimits(maximum=1e6),
        "train_seconds": MetricLimits(maximum=1e6),
    }


class EgressSettings(Settings):
    """What may leave; lists that are None allow any, and empty ones allow none.

    Attributes:
        version: of this format.
        name: of the policy, for people.
        revision: of the policy, for people.
        messages: kinds of messages.
        bundles: SHA-256 of the Flower app bundles whose tasks may be answered with an update; also None runs none
            but the one installed.
        bases: fingerprints of the base models that updates may be for.
        spaces: fingerprints of the adapter spaces that updates may be for.
        tensors: globs of the tensors that may be changed.
        tensors_denied: globs of those that may not, whatever ``tensors`` says. One that matches no tensor of the
            adapter refuses every update, since it may be misspelt.
        codings: ways to write values; each has its bits.
        max_update_bytes: of one message.
        max_nnz: values in one update.
        max_density: values in one update, as a share of the adapter space.
        clip_norm: L2 norm that an update must have been clipped to.
        max_abs_value: largest magnitude of a value.
        min_samples: training samples behind an update.
        samples_step: the number of samples is told as a multiple of this.
        metrics: by name.
        per_round: limits of one round.
        per_day: limits of 24 hours.
        timezone: of the windows.
        windows: when updates and reason codes may leave.
    """

    version: Literal[1] = POLICY_VERSION
    name: Title = ""
    revision: Count = 0
    messages: Annotated[tuple[MessageKind, ...], AfterValidator(_in_order)] = MESSAGE_KINDS
    bundles: Digests | None = None
    bases: Digests | None = None
    spaces: Digests | None = None
    tensors: Globs = ("*",)
    tensors_denied: Globs = ()
    codings: Annotated[tuple[CodingName, ...], AfterValidator(_in_order)] = CODING_NAMES
    max_update_bytes: Annotated[int, Field(ge=1, le=1 << 30)] = 8 << 20
    max_nnz: Annotated[int, Field(ge=1, le=1 << 40)] | None = None
    max_density: Annotated[float, Field(gt=0, le=1)] = 0.05
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    max_abs_value: Annotated[float, Field(gt=0)] | None = None
    min_samples: Annotated[int, Field(ge=1)] = 16
    samples_step: Annotated[int, Field(ge=1, le=1 << 32)] = 1
    metrics: dict[MetricName, MetricLimits] = Field(default_factory=_usual_metrics)
    per_round: RoundLimits = RoundLimits()
    per_day: DayLimits = DayLimits()
    timezone: Annotated[str, AfterValidator(_known_zone)] = "UTC"
    windows: tuple[Window, ...] | None = None

"""What is said of an adapter version, in bytes that can be signed: canonical JSON."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from fedsparse.errors import RegistryError

FORMAT = 1
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Contribution:
    """One update behind a version; it names bytes, never a plant.

    Attributes:
        update_sha256: of the serialised RoundUpdate, hex.
        samples: local samples behind it.
        nnz: coordinates it named.
    """

    update_sha256: str
    samples: int
    nnz: int

    def __post_init__(self) -> None:
        _require(bool(_HEX.fullmatch(self.update_sha256)), "update_sha256", self.update_sha256)
        _require(_whole(self.samples, self.nnz), "samples and nnz", (self.samples, self.nnz))
        _require(self.samples > 0 and self.nnz > 0, "samples and nnz", (self.samples, self.nnz))


@dataclass(frozen=True)
class AdapterVersion:
    """The manifest of one immutable adapter version.

    Attributes:
        number: from 1; 0 is the untouched base and has no manifest.
        parents: versions it was made from; empty for the first.
        state_sha256: digest of the whole state, see :func:`fedsparse.delta.digest`; hex, like the fingerprints.
        round: the round that made it.
        rule: merging rule.
        contributions: the updates merged.
        metrics: quality by name.
        created_unix_ms: milliseconds since 1970.
    """

    number: int
    parents: tuple[int, ...]
    base_fingerprint: str
    space_fingerprint: str
    state_sha256: str
    round: int
    rule: str
    contributions: tuple[Contribution, ...]
    metrics: Mapping[str, float]
    created_unix_ms: int

    def __post_init__(self) -> None:
        numbers = (self.number, self.round, self.created_unix_ms, *self.parents)
        _require(_whole(*numbers) and isinstance(self.rule, str), "numbers and rule", (*numbers, self.rule))
        _require(self.number >= 1 and self.round >= 1, "number and round", (self.number, self.round))
        _require(all(0 < parent < self.number for parent in self.parents), "parents", self.parents)
        for value in (self.base_fingerprint, self.space_fingerprint, self.state_sha256):
            _require(bool(_HEX.fullmatch(value)), "digest", value)
        _require(all(math.isfinite(value) for value in self.metrics.values()), "metrics", dict(self.metrics))
        object.__setattr__(self, "metrics", MappingProxyType(dict(self.metrics)))

    def to_bytes(self) -> bytes:
        """Return the canonical form: sorted keys, no spaces, UTF-8."""
        fields = {
            "format": FORMAT,
            "number": self.number,
            "parents": list(self.parents),
            "base_fingerprint": self.base_fingerprint,
            "space_fingerprint": self.space_fingerprint,
            "state_sha256": self.state_sha256,
            "round": self.round,
            "rule": self.rule,
            "contributions": [
                {"update_sha256": c.update_sha256, "samples": c.samples, "nnz": c.nnz} for c in self.contributions
            ],
            "metrics": dict(self.metrics),
            "created_unix_ms": self.created_unix_ms,
        }
        return json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> AdapterVersion:
        """Read a manifest.

        Raises:
            RegistryError: it is not exactly what :meth:`to_bytes` writes.
        """
        try:
            fields: dict[str, Any] = json.loads(data)
            if (found := fields.pop("format")) != FORMAT:
                raise RegistryError(
                    f"the manifest has format {found}, this release reads format {FORMAT}",
                    "Install the same release of fedsparse on both sides",
                )
            fields["parents"] = tuple(fields["parents"])
            fields["contributions"] = tuple(Contribution(**c) for c in fields["contributions"])
            version = cls(**fields)
            if version.to_bytes() != data:
                raise RegistryError("the manifest is not in canonical form")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise RegistryError(f"the bytes are no adapter manifest: {error}") from None
        return version


def _whole(*values: object) -> bool:
    return all(type(value) is int for value in values)


def _require(holds: bool, key: str, value: object) -> None:
    if not holds:
        raise RegistryError(f"manifest: {key} = {value!r} is not possible")

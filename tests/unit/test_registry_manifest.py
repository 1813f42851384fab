from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fedsparse.errors import RegistryError
from fedsparse.registry import AdapterVersion, Contribution
from tests.unit.test_delta_golden import MANIFEST

DATA = MANIFEST.to_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"number": 0},
        {"number": 2.0},
        {"round": 0},
        {"round": "3"},
        {"parents": (0,)},
        {"parents": (2,)},
        {"parents": (1.0,)},
        {"base_fingerprint": "0" * 63},
        {"space_fingerprint": "B" * 64},
        {"state_sha256": "c" * 65},
        {"rule": 3},
        {"metrics": {"accuracy": float("nan")}},
        {"metrics": {"accuracy": float("inf")}},
        {"created_unix_ms": "now"},
    ],
)
def test_an_impossible_manifest_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(RegistryError, match=r"manifest: .* is not possible"):
        replace(MANIFEST, **changes)


@pytest.mark.parametrize(
    "changes",
    [{"update_sha256": "a"}, {"samples": 0}, {"nnz": 0}, {"samples": 1.5}, {"nnz": True}],
)
def test_an_impossible_contribution_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(RegistryError, match="is not possible"):
        replace(Contribution("a" * 64, samples=1, nnz=1), **changes)


def test_a_newer_format_is_refused_naming_both() -> None:
    with pytest.raises(RegistryError, match="has format 2, this release reads format 1"):
        AdapterVersion.from_bytes(DATA.replace(b'"format":1', b'"format":2'))


@pytest.mark.parametrize(
    "data",
    [
        DATA + b"\n",
        DATA.replace(b'"round":3', b'"round": 3'),
        DATA.replace(b'"round":3', b'"round":3,"round":3'),
        DATA.replace(b'"round":3,', b"").replace(b'"rule"', b'"round":3,"rule"').replace(b"0.75", b"0.750"),
        DATA.decode().encode("utf-16"),
    ],
)
def test_other_bytes_that_say_the_same_are_refused(data: bytes) -> None:
    with pytest.raises(RegistryError, match="not in canonical form"):
        AdapterVersion.from_bytes(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"3",
        b"\xff",
        b"[" * 100_000,
        DATA.replace(b'"format":1,', b""),
        DATA.replace(b'"round":3,', b""),
        DATA.replace(b'"round":3', b'"more":0,"round":3'),
        DATA.replace(b"0.75", b"NaN"),
        DATA.replace(b"0.75", b"1" + b"0" * 400),
        DATA.replace(b'{"accuracy":0.75}', b"[]"),
        DATA.replace(b'"parents":[1]', b'"parents":1'),
        DATA.replace(b'"shrunk"', b'"\\ud800"'),
    ],
)
def test_bytes_that_are_no_manifest_are_refused(data: bytes) -> None:
    with pytest.raises(RegistryError):
        AdapterVersion.from_bytes(data)


def test_metrics_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        MANIFEST.metrics["accuracy"] = 1.0  # type: ignore[index]

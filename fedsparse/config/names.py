"""What the settings of every role are made of: names, addresses, columns, and the base of all of them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_ADDRESS = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):([0-9]{1,5})")


def _check_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("use 1 to 63 lower-case letters, digits and hyphens")
    return value


def _check_address(value: str) -> str:
    found = _ADDRESS.fullmatch(value)
    if found is None or int(found[2]) > 65535:
        raise ValueError('use "HOST:PORT" with a port up to 65535, e.g. "hub.example:8443"')
    return value


Name = Annotated[str, AfterValidator(_check_name)]
Column = Annotated[str, Field(min_length=1, max_length=200)]
Address = Annotated[str, AfterValidator(_check_address)]


def check_distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``values``, in which nothing may stand twice.

    Raises:
        ValueError: something does; names it.
    """
    if twice := {value for value in values if values.count(value) > 1}:
        raise ValueError(f"{', '.join(sorted(twice))} stands there more than once; name each one once")
    return values


class Settings(BaseModel):
    """Settings are values: no unknown keys, no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

"""What the settings of every role are made of: names, addresses, columns, and the base of all of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_NUMBER = re.compile(r"\s*[-+]?(\.?[0-9].*|inf.*|nan)", re.IGNORECASE | re.DOTALL)
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


def _kinds(annotation: Any) -> frozenset[Any]:
    """Return the types that values of a field may have, and the words that stand for one; of a list its items'."""
    if get_origin(annotation) is Literal:
        return frozenset(value if isinstance(value, str) else type(value) for value in get_args(annotation))
    inner = [one for one in get_args(annotation) if one is not Ellipsis]
    if get_origin(annotation) is Annotated:
        inner = inner[:1]
    return frozenset().union(*map(_kinds, inner)) if inner else frozenset({annotation})


def _is_list(annotation: Any) -> bool:
    return get_origin(annotation) is tuple or any(map(_is_list, get_args(annotation)))


def _check_kind(value: Any, kinds: frozenset[Any]) -> None:
    """Refuse what pydantic would read as another type than it is.

    Raises:
        ValueError: says what to write.
    """
    number, switch = kinds & {int, float}, bool in kinds
    if isinstance(value, bool):
        if number and not switch:
            raise ValueError("true and false are no numbers; write a number")
    elif isinstance(value, str):
        words = any(isinstance(kind, str) for kind in kinds)  # then the field itself says which there are
        if (number or switch) and not kinds & {str, Path} and (not words or _NUMBER.fullmatch(value)):
            wanted = "a number" if number else "true or false"
            raise ValueError(f"text stands where {wanted} belongs; write that without quotes")
    elif isinstance(value, int | float) and switch and not number:
        raise ValueError("a number is neither true nor false; write one of these")
    elif isinstance(value, float) and number == {int} and value.is_integer():
        raise ValueError("the number must be whole; write it without a point or an exponent")


class Settings(BaseModel):
    """Settings are values: no unknown keys, no change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _of_its_type(cls, value: Any, info: ValidationInfo) -> Any:
        """Tell types apart as TOML does: true is not 1, and "20" is not 20. A whole number is a share as well."""
        annotation = cls.model_fields[str(info.field_name)].annotation
        kinds = _kinds(annotation)
        items = isinstance(value, list | tuple)
        if items or not _is_list(annotation):
            for one in value if items else (value,):
                _check_kind(one, kinds)
        return value

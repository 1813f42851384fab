"""Reading settings, from a file or from options, and saying all that is wrong with them."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from pydantic import BaseModel, ValidationError

from fedsparse.config.egress import EgressSettings
from fedsparse.config.federation import FederationConfig
from fedsparse.config.names import Settings
from fedsparse.config.simulate import SimulateConfig
from fedsparse.config.site import SiteConfig
from fedsparse.config.solo import TrainConfig
from fedsparse.errors import ConfigError
from fedsparse.files import read_at_most

Config = TypeVar("Config", EgressSettings, FederationConfig, SimulateConfig, SiteConfig, TrainConfig)
_MOST_BYTES = 4 << 20


def load(path: Path, kind: type[Config], overrides: Mapping[str, Any] | None = None) -> Config:
    """Read and validate one settings file; relative paths in it start at its own folder.

    Where a site.toml names a file with its egress policy, that is read as well.

    Args:
        overrides: tables and keys that take the place of those in the file.

    Raises:
        ConfigError: the file is absent, is not TOML, or a key or value is wrong; names each of them.
    """
    try:
        raw = tomllib.loads(read_at_most(path, _MOST_BYTES).decode())
    except FileNotFoundError:
        remedy = (
            "Name an existing egress.toml" if kind is EgressSettings else "Name an existing file with --config"
        )
        raise ConfigError(f"no settings file at {path}", remedy) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error.strerror}") from None
    except RecursionError:
        raise ConfigError(f"{path} cannot be read as TOML: it is nested too deep") from None
    loaded = _validated(_overridden(raw, overrides or {}), kind, path.resolve().parent, str(path))
    if isinstance(loaded, SiteConfig) and loaded.site.policy is not None:
        policy = load(loaded.site.policy, EgressSettings)
        return loaded.model_copy(update={"egress": policy})
    return loaded


def from_options(kind: type[Config], options: Mapping[str, Any], what: str = "what the options say") -> Config:
    """Validate settings that no file of their kind holds; relative paths start at the current folder.

    Args:
        what: where they come from, for the message.

    Raises:
        ConfigError: a key or value is wrong; names each of them.
    """
    return _validated(options, kind, Path.cwd(), what)


def _overridden(raw: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(raw)
    for key, value in overrides.items():
        below = merged.get(key)
        both = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = _overridden(below, value) if both else value  # type: ignore[arg-type] # both are mappings
    return merged


def _validated(raw: Mapping[str, Any], kind: type[Config], folder: Path, what: str) -> Config:
    try:
        return cast(Config, _rooted(kind.model_validate(raw), folder))
    except ValidationError as error:
        problems = [_explain(problem, kind) for problem in error.errors()]
        raise ConfigError(f"{what} is not valid:\n  " + "\n  ".join(problems)) from None


def _rooted(settings: Any, folder: Path) -> Any:
    """Return ``settings`` with every relative path resolved against ``folder``."""
    changed: dict[str, Any] = {}
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, Path):
            changed[name] = folder / value
        elif isinstance(value, Settings):
            changed[name] = _rooted(value, folder)
    return settings.model_copy(update=changed)


_TOML_WORDS = {"model_type": "must be a table", "dict_type": "must be a table", "tuple_type": "must be a list"}


def _explain(problem: Any, kind: type[BaseModel]) -> str:
    """Say which key is wrong, what its value is, and what would be right."""
    key = ".".join(str(part) for part in problem["loc"]) or "the file"
    if problem["type"] == "extra_forbidden":
        known = _fields(kind, problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(sorted(known))}"
        return f"{key}: unknown key; {remedy}"
    if problem["type"] == "missing":
        return f"{key}: missing; add it"
    message = _TOML_WORDS.get(problem["type"], str(problem["msg"]).removeprefix("Value error, "))
    value = f" = {problem['input']!r}" if problem["loc"] else ""
    return f"{key}{value}: {message[0].lower()}{message[1:]}"


def _fields(kind: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Return the keys known at ``location`` below ``kind``."""
    for part in location:
        if (field := kind.model_fields.get(str(part))) is None:
            continue  # a name of the user's own in a table such as egress.metrics
        inner = next(_models(field.annotation), None)
        if inner is None:
            return []
        kind = inner
    return list(kind.model_fields)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the settings inside a type such as X | None, dict[str, X] or tuple[X, ...] | None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)

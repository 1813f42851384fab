"""From base model and adapter settings to the adapter space."""

from __future__ import annotations

from fnmatch import fnmatchcase

from fedsparse.adapters.base import AdapterSpec, BaseModel
from fedsparse.delta import AdapterSpace, TensorSpec
from fedsparse.errors import ConfigError


def build_space(base: BaseModel, spec: AdapterSpec) -> AdapterSpace:
    """Return the suffix weights that ``spec.include`` names, in the network's order.

    Raises:
        ConfigError: a glob matches no weight after the cut, or ``dense`` names a weight outside ``include``.
    """
    weights = dict(base.suffix.named_parameters())
    names = [name for name in weights if _matches(name, spec.include)]
    for key, globs, among in (("include", spec.include, list(weights)), ("dense", spec.dense, names)):
        idle = [glob for glob in globs if not any(fnmatchcase(name, glob) for name in among)]
        if idle:
            raise ConfigError(
                f"adapter.{key} = {idle[0]!r} matches no adapted weight after block {base.cut}",
                f"Choose among {', '.join(among)}",
            )
    if not names:
        raise ConfigError("adapter.include names no weight", "Name at least one, such as 'head.*'")
    return AdapterSpace(base.fingerprint, tuple(TensorSpec(name, tuple(weights[name].shape)) for name in names))


def dense_tensors(space: AdapterSpace, spec: AdapterSpec) -> frozenset[int]:
    """Return the positions in ``space`` of the tensors that every update carries whole."""
    return frozenset(i for i, tensor in enumerate(space.tensors) if _matches(tensor.name, spec.dense))


def _matches(name: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)

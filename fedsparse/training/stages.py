"""What a sequence of stages asks of an adapter: checked before training starts, and when densities change."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from fedsparse.config import StageSettings
from fedsparse.delta import AdapterSpace
from fedsparse.errors import ConfigError
from fedsparse.sparsity import cubic_density, sparse_budget
from fedsparse.sparsity.structure import Tiling

_CHANGES = 10  # in a stage whose density goes along a schedule


def require_feasible(space: AdapterSpace, dense: Collection[int], stages: Sequence[StageSettings]) -> None:
    """Check what can be told of ``stages`` without data, so that a run does not fail in its last one.

    Raises:
        ConfigError: there is no stage, a density is too small for the dense tensors or for one unit besides them,
            or a stage does not fit what earlier ones train.
    """
    if not stages:
        raise ConfigError("there is no stage to train", "Name at least one")
    before = 0.0
    for number, stage in enumerate(stages):
        for density in (first_density(stage), stage.density):
            _require_room(space, dense, stage, density)
        if first_density(stage) < before:
            raise ConfigError(
                f"stage {stage.name!r} begins at density {first_density(stage)}, but earlier ones train {before}",
                f"Begin it at {before} or more; start_density = {before} prunes from there",
            )
        if stage.source == "seeded" and any(_is_local(earlier) for earlier in stages[:number]):
            raise ConfigError(
                f"stage {stage.name!r} draws its coordinates, but an earlier one has chosen some by scores",
                'Let all stages have source = "seeded", or none after the first that has not',
            )
        if any(_cuts_otherwise(earlier, stage) for earlier in stages[:number]):
            raise ConfigError(
                f"stage {stage.name!r} exchanges whole {stage.structure}s, but an earlier one trains other units",
                "Use the same structure and block in both, or leave out regrow",
            )
        before = stage.density


def first_density(stage: StageSettings) -> float:
    """Return the density that the stage begins at."""
    return stage.density if stage.start_density is None else stage.start_density


def coordinates(space: AdapterSpace, dense: Collection[int], density: float) -> int:
    """Return how many coordinates ``density`` allows; the dense tensors are always among them."""
    return max(int(density * space.size), sum(space.tensors[position].size for position in dense))


def density_changes(stage: StageSettings, steps: int) -> Mapping[int, float]:
    """Return by the number of steps done the densities that a stage of ``steps`` goes through.

    The last is the stage's own, after nine tenths of the steps, so that the rest trains at it, but not before the
    first step.
    """
    if stage.start_density is None:
        return {}
    last = max(1, steps * 9 // 10)
    return {
        step: cubic_density(step, start_density=stage.start_density, end_density=stage.density, first=0, last=last)
        for step in sorted({-(-last * part // _CHANGES) for part in range(1, _CHANGES + 1)})
    }


def _require_room(space: AdapterSpace, dense: Collection[int], stage: StageSettings, density: float) -> None:
    if density:
        room = sparse_budget(space, density, dense)
        sparse = [tensor.shape for position, tensor in enumerate(space.tensors) if position not in dense]
        units = [Tiling.of(shape, stage.structure, stage.block).smallest for shape in sparse]
        if units and room < min(units) and (room or not dense):
            raise no_unit_fits(stage, density, room)
    elif not dense:
        raise ConfigError(
            f"stage {stage.name!r} of density 0 trains the dense tensors alone, but there are none",
            "Remove the stage, or name tensors in adapter.dense",
        )


def no_unit_fits(stage: StageSettings, density: float, room: int) -> ConfigError:
    """Return the error of a density that leaves ``room`` coordinates besides the dense tensors."""
    return ConfigError(
        f"in stage {stage.name!r} density {density} leaves {room} coordinates besides the dense tensors, "
        f"which is less than one unit of structure {stage.structure!r}",
        'Raise it, or use structure = "unstructured"',
    )


def _is_local(stage: StageSettings) -> bool:
    return stage.source == "local" and stage.density > 0


def _cuts_otherwise(earlier: StageSettings, stage: StageSettings) -> bool:
    """Return whether ``stage`` exchanges units that what an earlier one trains may not consist of."""
    if not (stage.regrow and stage.density and earlier.density) or stage.structure == "unstructured":
        return False
    return earlier.structure != stage.structure or (stage.structure == "block" and earlier.block != stage.block)

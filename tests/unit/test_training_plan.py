"""The default stages: what they lead to, and what they leave out."""

from __future__ import annotations

import pytest

from fedsparse.config import StageSettings, TrainSettings
from fedsparse.delta import AdapterSpace, TensorSpec
from fedsparse.errors import ConfigError
from fedsparse.sparsity import sparse_budget
from fedsparse.training.plan import default_stages, dense_share
from fedsparse.training.stages import require_feasible

SPACE = AdapterSpace(bytes(32), (TensorSpec("body", (90, 11)), TensorSpec("head", (3, 3))))


def test_the_head_comes_first_then_few_coordinates_then_all_that_were_asked_for() -> None:
    stages = default_stages(TrainSettings(density=0.1), "delta", "image-classification", 0.01)
    assert [(stage.name, stage.density) for stage in stages] == [
        ("head", 0.0),
        ("few", pytest.approx(0.037)),
        ("final", 0.1),
    ]
    assert all(stage.start_density is None for stage in stages)


def test_without_dense_tensors_there_is_no_head_to_train_alone() -> None:
    assert [stage.name for stage in default_stages(TrainSettings(), "delta", "image-classification", 0.0)] == [
        "few",
        "final",
    ]


@pytest.mark.parametrize(("kind", "density"), [("delta", 0.01), ("lora", 0.25), ("bottleneck", 0.25)])
def test_without_a_density_the_kind_decides(kind: str, density: float) -> None:
    assert default_stages(TrainSettings(), kind, "image-classification", 0.001)[-1].density == density


def test_few_coordinates_are_a_share_of_what_the_dense_tensors_leave() -> None:
    needed = dense_share(SPACE, (1,))
    few, final = default_stages(TrainSettings(density=0.2), "delta", "image-classification", needed)[1:]
    left = (sparse_budget(SPACE, stage.density, (1,)) for stage in (few, final))
    assert tuple(left) == (57, 190)


def test_photographs_change_in_the_first_layers_and_texts_in_all() -> None:
    images, texts = (
        default_stages(TrainSettings(), "delta", task, 0.001)[-1]
        for task in ("image-classification", "text-classification")
    )
    assert (images.structure, images.allocation) == ("row", "early")
    assert (texts.structure, texts.allocation) == ("unstructured", "uniform")
    assert default_stages(TrainSettings(), "lora", "image-classification", 0.001)[-1].structure == "unstructured"


@pytest.mark.parametrize("size", [7, 990, 1_000_003])
@pytest.mark.parametrize("whole", [1, 2, 5])
def test_the_dense_share_holds_the_dense_tensors_and_nothing_else(size: int, whole: int) -> None:
    space = AdapterSpace(bytes(32), (TensorSpec("body", (size,)), TensorSpec("head", (whole,))))
    assert sparse_budget(space, dense_share(space, (1,)), (1,)) == 0
    assert dense_share(space, ()) == 0.0


def test_default_stages_are_what_the_engine_accepts() -> None:
    require_feasible(
        SPACE,
        (1,),
        default_stages(TrainSettings(density=0.06), "delta", "image-classification", dense_share(SPACE, (1,))),
    )


def test_a_density_below_that_of_the_dense_tensors_is_not_raised_in_silence() -> None:
    stages = default_stages(
        TrainSettings(density=0.001), "delta", "image-classification", dense_share(SPACE, (1,))
    )
    assert stages[-1].density == 0.001
    with pytest.raises(ConfigError, match=r"Raise training\.density to at least 0\.009"):
        require_feasible(SPACE, (1,), stages)


def test_stages_of_ones_own_are_taken_as_they_are() -> None:
    own = (StageSettings(name="all", epochs=1, density=0.5),)
    assert default_stages(TrainSettings(stages=own), "lora", "image-classification", 0.1) == own


def test_a_density_that_is_still_to_be_chosen_has_no_stages() -> None:
    with pytest.raises(ConfigError, match="no density yet"):
        default_stages(TrainSettings(density="auto"), "delta", "image-classification", 0.1)

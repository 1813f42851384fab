from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image

from fedsparse import config
from fedsparse.adapters import Adapter, ImageReader, build_adapter, fingerprint, load_base
from fedsparse.adapters.bases.efficientnet import read_tensors
from fedsparse.delta import Operation, SparseDelta, TensorDelta
from fedsparse.errors import ConfigError, DeltaError, ModelError, SpaceMismatchError

from .training_samples import ADAPTER, CLASSES, adapter, base, space

LITE0 = config.BaseModelSettings()
IMAGES: Literal["image-classification"] = "image-classification"


@pytest.mark.parametrize("cut", [0, 10, 16])
def test_prefix_and_suffix_compute_what_the_reference_implementation_computes(cut: int) -> None:
    from efficientnet_lite_pytorch import EfficientNet

    tensors = read_tensors()
    reference = EfficientNet.from_name("efficientnet-lite0").eval()
    reference.load_state_dict(tensors, strict=False)
    model = load_base(LITE0, ADAPTER.model_copy(update={"cut": cut}), CLASSES, IMAGES)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = reference.extract_features(images)
        found = model.network.top(_blocks(model, model.prefix(images)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def _blocks(model: object, x: torch.Tensor) -> torch.Tensor:
    for block in model.network.blocks.values():  # type: ignore[attr-defined]
        x = block(x)
    return x


def test_before_training_every_class_is_equally_likely() -> None:
    model = base()
    with torch.inference_mode():
        logits = model.network(model.prefix(torch.randn(3, 3, 32, 32)))
    assert torch.equal(logits, torch.zeros(3, 2))


def test_one_flipped_bit_changes_the_fingerprint() -> None:
    tensors = {"a": torch.zeros(3), "b": torch.ones(2)}
    changed = {"a": torch.zeros(3), "b": torch.ones(2)}
    changed["b"].view(torch.int32)[1] ^= 1
    assert fingerprint(tensors) != fingerprint(changed)
    assert fingerprint(tensors) == fingerprint(dict(reversed(tensors.items())))


def test_a_tensor_moved_to_another_name_changes_the_fingerprint() -> None:
    assert fingerprint({"a": torch.zeros(3)}) != fingerprint({"b": torch.zeros(3)})


def test_the_models_bytes_leave_the_replaced_classifier_out() -> None:
    tensors = read_tensors()
    assert not any(name.startswith("_fc") for name in tensors)
    weights = sum(tensor.numel() for name, tensor in tensors.items() if tensor.ndim == 4)
    assert base().parameter_bytes == 4 * (weights + 1280 * 2 + 2)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "I;16", "1", "P"])
def test_images_of_every_mode_become_one_shape(mode: str) -> None:
    assert ImageReader(32).pixels(Image.new(mode, (40, 50))).shape == (3, 32, 32)


def test_the_space_holds_the_included_weights_after_the_cut() -> None:
    names = [tensor.name for tensor in space().tensors]
    assert names[-2:] == ["head.weight", "head.bias"]
    assert all(name.startswith(("blocks.15.", "head.")) for name in names)
    assert {names[i] for i in adapter().dense} == {"head.weight", "head.bias"}


def test_a_glob_that_matches_nothing_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match=r"adapter.include = 'bocks\.\*'"):
        build_adapter(base(), ADAPTER.model_copy(update={"include": ("bocks.*",)}))
    with pytest.raises(ConfigError, match=r"adapter.dense = 'stem\.\*'"):
        build_adapter(base(), ADAPTER.model_copy(update={"dense": ("stem.*",)}))


def _adapter() -> tuple[Adapter, list[torch.Tensor]]:
    fresh = adapter()
    return fresh, [p.detach().clone() for p in fresh.network.parameters()]


def _unchanged(adapter: Adapter, before: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(adapter.network.parameters(), before, strict=True))


def _state(value: float) -> SparseDelta:
    part = TensorDelta(0, np.array([0, 5], np.int64), np.array([value, -value], np.float32))
    return SparseDelta(space().fingerprint, Operation.SET, (part,))


def test_loading_the_empty_state_restores_the_base_bit_by_bit() -> None:
    adapter, before = _adapter()
    adapter.load(_state(0.1))
    assert not _unchanged(adapter, before)
    adapter.load(SparseDelta.empty(space().fingerprint, Operation.SET))
    assert _unchanged(adapter, before)


def test_a_state_replaces_the_one_before_instead_of_adding_to_it() -> None:
    adapter, _ = _adapter()
    once = adapter.load(_state(0.1)).network.get_parameter(space().tensors[0].name).clone()
    adapter.load(_state(3.0))
    twice = adapter.load(_state(0.1)).network.get_parameter(space().tensors[0].name)
    assert torch.equal(once, twice)


def test_a_state_of_another_space_is_refused_naming_both() -> None:
    adapter, _ = _adapter()
    with pytest.raises(SpaceMismatchError, match=f"{'00' * 8}.*{space().fingerprint.hex()[:16]}"):
        adapter.load(replace(_state(1.0), space=bytes(32)))


def test_detaching_restores_the_weights_bit_by_bit_and_returns_what_was_trained() -> None:
    adapter, before = _adapter()
    support = tuple(
        np.array([1, 3], np.int64) if i == 0 else np.empty(0, np.int64) for i in range(len(space().tensors))
    )
    attachment = adapter.attach(support)
    with torch.no_grad():
        attachment.sparse.copy_(torch.tensor([0.25, -0.5]))
    adapter.push()
    assert not _unchanged(adapter, before)
    delta = adapter.detach()
    assert _unchanged(adapter, before)
    assert not any(p.requires_grad for p in adapter.network.parameters())
    assert delta.operation is Operation.ADD
    assert [(t.tensor, t.indices.tolist(), t.values.tolist()) for t in delta.tensors] == [
        (0, [1, 3], [0.25, -0.5])
    ]


def test_training_that_diverged_is_an_error_after_which_the_adapter_is_as_new() -> None:
    adapter, before = _adapter()
    support = tuple(np.arange(2) for _ in space().tensors)
    attachment = adapter.attach(support)
    with torch.no_grad():
        attachment.sparse[2:4] = float("nan")
    adapter.push()
    with pytest.raises(DeltaError, match="NaN"):
        adapter.detach()
    assert _unchanged(adapter, before)
    adapter.load(_state(0.5))
    assert adapter.attach(support)


def test_nothing_is_loaded_or_attached_while_a_support_is_attached() -> None:
    adapter, _ = _adapter()
    support = tuple(np.arange(1) for _ in space().tensors)
    adapter.attach(support)
    with pytest.raises(ModelError, match="attached"):
        adapter.load(_state(1.0))
    with pytest.raises(ModelError, match="attached"):
        adapter.attach(support)


def test_settings_of_the_configuration_fit_the_default_base_model() -> None:
    spec = config.AdapterSettings()
    found = build_adapter(load_base(LITE0, spec, ("intact", "defective"), IMAGES), spec)
    assert found.space.size > 2_000_000
    assert found.dense


def test_sixteen_bit_images_keep_their_shades() -> None:
    ramp = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    wide = ImageReader(32).pixels(Image.fromarray(ramp))
    narrow = ImageReader(32).pixels(Image.fromarray((ramp >> 8).astype(np.uint8)))
    assert torch.equal(wide, narrow)
    assert len(wide.unique()) > 100

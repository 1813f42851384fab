from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fedsparse import config
from fedsparse.adapters import Adapter, ImageReader, build_adapter, fingerprint, load_base
from fedsparse.adapters.bases.efficientnet import read_tensors
from fedsparse.adapters.weights import StatefulWeights
from fedsparse.delta import Operation, SparseDelta, TensorDelta, apply
from fedsparse.errors import ConfigError, DeltaError, ModelError, SpaceMismatchError
from fedsparse.training.machine import Machine

from . import model_samples as models
from .model_samples import (
    KINDS,
    TASKS,
    Kind,
    adapted,
    batch,
    bits,
    empty_state,
    part_of_support,
    random_state,
    random_support,
    settings,
)
from .model_samples import one_thread as one_thread  # for every test here
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


# The state, the support, and every bit of the base


def _weights(adapter: Adapter) -> list[torch.Tensor]:
    return [adapter.current(position).clone() for position in range(len(adapter.space.tensors))]


def _train(adapter: Adapter, seed: int, scale: float = 0.01) -> None:
    """Set the values of the attached support to noise, as training would, and push them."""
    draw = torch.Generator().manual_seed(seed)
    attachment = adapter._require_attached()
    with torch.no_grad():
        for values in (attachment.sparse, attachment.whole):
            values.copy_(torch.randn(values.shape, generator=draw) * scale)
    adapter.push()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["bert", "qwen2-bf16"])
def test_states_are_swapped_in_place_and_the_empty_one_restores_every_bit(name: str, kind: Kind) -> None:
    task = TASKS[name.removesuffix("-bf16")]
    adapter = build_adapter(models.base(name, task=task), settings(kind))
    pointers = [adapter.current(position).data_ptr() for position in range(len(adapter.space.tensors))]
    untouched = bits(adapter.network)
    first, second = (random_state(adapter.space, seed, share=0.3) for seed in (1, 2))
    alone = bits(adapter.load(second).network)
    assert alone != untouched
    adapter.load(first)
    assert bits(adapter.network) not in (untouched, alone)
    assert bits(adapter.load(second).network) == alone
    assert bits(adapter.load(second).network) == alone
    assert bits(adapter.load(empty_state(adapter.space)).network) == untouched
    assert pointers == [adapter.current(position).data_ptr() for position in range(len(adapter.space.tensors))]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["bert", "qwen2-bf16"])
def test_rounds_of_training_add_up_in_full_precision_and_are_rounded_once(name: str, kind: Kind) -> None:
    task = TASKS[name.removesuffix("-bf16")]
    adapter = build_adapter(models.base(name, task=task), settings(kind))
    initial = [weight.float() for weight in _weights(adapter)]
    precision = adapter.current(0).dtype
    state, total = empty_state(adapter.space), [torch.zeros(tensor.size) for tensor in adapter.space.tensors]
    for round_number in range(4):
        adapter.load(state)
        adapter.attach(random_support(adapter, 0.3, seed=round_number))
        _train(adapter, round_number, scale=1e-3)  # less than bf16 resolves
        during, added = bits(adapter.network), adapter.detach()
        state = apply(state, added)
        for part in added.tensors:
            total[part.tensor][torch.tensor(part.indices)] += torch.tensor(part.values)
        assert bits(adapter.load(state).network) == during  # what was trained is what is loaded, to the bit
    for position, weight in enumerate(_weights(adapter)):
        changed = total[position] != 0
        expected = torch.where(changed, initial[position] + total[position], initial[position])
        assert torch.equal(weight, expected.to(weight.dtype))
    assert precision == (torch.bfloat16 if "bf16" in name else torch.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_detaching_moving_and_discarding_restore_the_loaded_state_bit_by_bit(kind: Kind) -> None:
    for name in ("bert", "qwen2-bf16"):
        adapter = build_adapter(models.base(name, task=TASKS[name.removesuffix("-bf16")]), settings(kind))
        adapter.load(random_state(adapter.space, share=0.5))
        before = bits(adapter.network)
        for end in (adapter.detach, adapter.discard):
            adapter.attach(random_support(adapter, 0.3, seed=1))
            assert bits(adapter.network) == before  # values start at 0
            _train(adapter, 1)
            adapter.move(random_support(adapter, 0.2, seed=2))
            _train(adapter, 2)
            assert bits(adapter.network) != before
            end()
            assert bits(adapter.network) == before
        assert adapter.support[0].size == 0


def test_the_sign_of_a_zero_survives_loading_training_and_unloading() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([[-0.0, -0.0], [-0.0, 1.0]]))
    adapter = adapted(network)
    before = bits(network)
    adapter.attach((np.arange(4),))
    adapter.push()
    assert bits(network) == before
    adapter.discard()
    part = TensorDelta(0, np.array([0, 3]), np.array([0.0, 2.0], np.float32))
    adapter.load(SparseDelta(adapter.space.fingerprint, Operation.SET, (part,)))
    adapter.attach((np.arange(4),))
    _train(adapter, 0)
    adapter.discard()
    adapter.load(empty_state(adapter.space))
    assert bits(network) == before


def _values(adapter: Adapter) -> dict[tuple[int, int], float]:
    """Return each value in training by its coordinate."""
    return {
        (position, int(at)): float(value)
        for position, (where, values) in enumerate(zip(adapter.support, adapter.values, strict=True))
        for at, value in zip(where, values, strict=True)
    }


@pytest.mark.parametrize("kind", KINDS)
def test_moving_keeps_what_stays_starts_the_rest_at_zero_and_says_what_came_from_where(kind: Kind) -> None:
    adapter = build_adapter(models.base("bert"), settings(kind))
    adapter.load(random_state(adapter.space, share=0.5))
    old = adapter.attach(random_support(adapter, 0.3, seed=1))
    _train(adapter, 1)
    before, old_values = _values(adapter), old.sparse.detach().clone()
    new, came_from = adapter.move(random_support(adapter, 0.3, seed=2))
    after = _values(adapter)
    stayed = before.keys() & after.keys()
    assert 0 < len(stayed) < len(after)
    assert after == {where: before.get(where, 0.0) for where in after}
    assert came_from.shape == new.sparse.shape
    stays = came_from >= 0
    assert 0 < int(stays.sum()) < len(stays)
    assert torch.equal(new.sparse[stays], old_values[came_from[stays]])
    assert torch.count_nonzero(new.sparse[~stays]) == 0
    scattered = {where for where in stayed if where[0] not in adapter.dense}
    assert int(stays.sum()) == len(scattered)
    assert torch.count_nonzero(new.whole) == len(new.whole)  # the dense tensors keep theirs
    trained = {  # and the network has them
        (part.tensor, int(at)): float(value)
        for part in adapter.trained().tensors
        for at, value in zip(part.indices, part.values, strict=True)
    }
    assert trained == {where: value for where, value in after.items() if value}


def test_moving_to_where_dense_tensors_come_or_go_keeps_what_stays() -> None:
    adapter = build_adapter(models.base("bert"), settings())
    everything = random_support(adapter, 0.1)
    without = tuple(where[:0] if i in adapter.dense else where for i, where in enumerate(everything))
    adapter.attach(everything)
    _train(adapter, 1)
    kept = {where: value for where, value in _values(adapter).items() if where[0] not in adapter.dense}
    attachment, _ = adapter.move(without)
    assert len(attachment.whole) == 0
    assert _values(adapter) == kept
    attachment, came_from = adapter.move(everything)
    assert len(attachment.whole) == 66
    assert torch.equal(came_from, torch.arange(len(attachment.sparse)))
    assert {where: value for where, value in _values(adapter).items() if value} == kept


def test_support_and_values_are_those_that_were_attached() -> None:
    adapter = build_adapter(models.base("gpt2"), settings())
    assert [len(where) for where in adapter.support] == [0] * 8
    support = part_of_support(
        adapter,
        {
            "backbone.transformer.h.0.attn.c_attn.weight": [0, 7, 95],
            "backbone.transformer.h.1.mlp.c_proj.weight": [5],
        },
    )
    adapter.attach(support)
    _train(adapter, 3)
    assert all(np.array_equal(one, other) for one, other in zip(adapter.support, support, strict=True))
    assert [len(values) for values in adapter.values] == [len(where) for where in support]
    delta = adapter.detach()
    assert [(part.tensor, part.indices.tolist()) for part in delta.tensors] == [
        (position, where.tolist()) for position, where in enumerate(support) if len(where)
    ]
    with pytest.raises(ModelError, match="no support is attached"):
        adapter.detach()
    adapter.discard()  # without effect


def test_values_that_stayed_zero_are_not_in_the_delta() -> None:
    adapter = adapted(torch.nn.Sequential(torch.nn.Linear(4, 4)))
    attachment = adapter.attach((np.array([1, 2, 5, 9]),))
    with torch.no_grad():
        attachment.sparse.copy_(torch.tensor([0.0, 0.5, -0.0, 1.5]))
    (part,) = adapter.detach().tensors
    assert (part.indices.tolist(), part.values.tolist()) == ([2, 9], [0.5, 1.5])


def test_what_is_no_state_of_the_space_is_refused_before_anything_changes() -> None:
    adapter = adapted(torch.nn.Sequential(torch.nn.Linear(4, 4)))
    before = bits(adapter.load(random_state(adapter.space)).network)
    inside = TensorDelta(0, np.array([0]), np.array([9.0], np.float32))
    for operation, parts, message in (
        (Operation.ADD, (inside,), "not an ADD"),
        (Operation.SET, (replace(inside, indices=np.array([16])),), "outside the adapter space"),
        (Operation.SET, (inside, replace(inside, tensor=1)), "outside the adapter space"),
    ):
        with pytest.raises(DeltaError, match=message):
            adapter.load(SparseDelta(adapter.space.fingerprint, operation, parts))
        assert bits(adapter.network) == before


def test_moving_pushing_and_asking_for_values_without_a_support_are_errors() -> None:
    adapter = adapted(torch.nn.Sequential(torch.nn.Linear(4, 4)))
    for call in (lambda: adapter.move((np.arange(4),)), adapter.push, adapter.trained):
        with pytest.raises(ModelError, match="no support is attached"):
            call()


def test_a_weight_that_does_not_lie_in_order_is_trained_where_it_should_be() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 2, bias=False))
    network[0].weight = torch.nn.Parameter(torch.arange(6.0).view(3, 2).t())
    expected = network[0].weight.detach().clone()
    adapter = adapted(network)
    adapter.load(
        SparseDelta(
            adapter.space.fingerprint,
            Operation.SET,
            (TensorDelta(0, np.array([1]), np.array([100.0], np.float32)),),
        )
    )
    expected[0, 1] += 100
    assert torch.equal(network[0].weight, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", ["delta", "lora"])
@pytest.mark.parametrize("lower", [None, torch.bfloat16])
def test_a_step_on_a_gpu_agrees_with_one_on_the_processor(kind: Kind, lower: torch.dtype | None) -> None:
    deltas = []
    for device in ("cpu", "cuda"):
        model = models.base("bert")
        model.network.to(device)
        adapter = build_adapter(model, settings(kind))
        before = {name: tensor.cpu() for name, tensor in model.network.state_dict().items()}
        adapter.load(random_state(adapter.space))
        attachment = adapter.attach(random_support(adapter, 0.3, "row"))
        optimiser = torch.optim.SGD([attachment.sparse, attachment.whole], lr=1e-3)
        outputs = Machine(torch.device(device), lower).run(model.network, batch("bert"))
        outputs.square().sum().backward()
        optimiser.step()
        adapter.push()
        deltas.append(adapter.detach())
        adapter.load(empty_state(adapter.space))
        after = model.network.state_dict()
        assert all(torch.equal(tensor, after[name].cpu()) for name, tensor in before.items())
    tolerance = 1e-3 if lower is None else 0.05
    assert deltas[0].tensors
    for one, other in zip(deltas[0].tensors, deltas[1].tensors, strict=True):
        scale = float(np.abs(one.values).max())
        assert np.array_equal(one.indices, other.indices)
        np.testing.assert_allclose(one.values, other.values, rtol=tolerance, atol=tolerance * scale)


def test_attaching_that_fails_in_the_middle_leaves_the_adapter_as_new(monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = adapted(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4)), dense=())
    support = random_support(adapter, 0.5)

    def fail(*arguments: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(StatefulWeights, "offsets", fail)
        with pytest.raises(MemoryError):
            adapter.attach(support)
    adapter.discard()
    assert not any(parameter.requires_grad for parameter in adapter.network.parameters())
    assert not any("forward" in vars(module) for module in adapter.network.modules())
    adapter.attach(support)
    assert adapter.detach().nnz == 0

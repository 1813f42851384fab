from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
import torch
from torch import nn

from fedsparse.adapters import build_adapter
from fedsparse.adapters.kinds.injection import initial
from fedsparse.delta import Operation, SparseDelta, TensorDelta
from fedsparse.errors import ConfigError, ModelError

from .model_samples import (
    KINDS,
    TASKS,
    Kind,
    adapted,
    base,
    batch,
    bits,
    empty_state,
    part_of_support,
    random_state,
    random_support,
    settings,
)
from .model_samples import one_thread as one_thread  # for every test here

EVERYWHERE = pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in TASKS for kind in KINDS])


def _hooks(network: nn.Module) -> list[str]:
    return [
        name
        for name, module in network.named_modules()
        if module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
    ]


@EVERYWHERE
def test_an_untrained_adapter_changes_no_bit_of_the_outputs(name: str, kind: Kind) -> None:
    model = base(name)
    generator = torch.Generator().manual_seed(1)
    if hasattr(model.network, "head"):  # zeros would hide everything
        model.network.head.weight.data = torch.randn(model.network.head.weight.shape, generator=generator)
    before = model.network(*batch(name))
    build_adapter(model, settings(kind))
    assert before.abs().sum() > 0
    assert torch.equal(before, model.network(*batch(name)))


@EVERYWHERE
def test_a_removed_adapter_leaves_keys_bits_types_and_hooks_of_before(name: str, kind: Kind) -> None:
    model = base(name)
    before = bits(model.network)
    types = [type(module) for module in model.network.modules()]
    adapter = build_adapter(model, settings(kind))
    adapter.load(random_state(adapter.space))
    adapter.attach(random_support(adapter, 0.3))
    model.network(*batch(name)).sum().backward()
    adapter.detach()
    assert bits(model.network) != before
    adapter.remove()
    after = bits(model.network)
    assert list(after) == list(before)
    assert after == before
    assert [type(module) for module in model.network.modules()] == types
    assert _hooks(model.network) == []
    assert not any(parameter.requires_grad for parameter in model.network.parameters())


def test_a_removed_adapter_leaves_the_space_of_the_next_one_as_it_would_have_been() -> None:
    network = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 1))
    delta = settings("delta", include=("*",))
    expected = adapted(network, include=("*",)).space
    adapted(network, "lora").remove()
    assert adapted(network, **delta.model_dump(include={"include"})).space == expected


@pytest.mark.parametrize("name", TASKS)
def test_merged_lora_answers_the_same_without_hooks_and_unmerges_bit_by_bit(name: str) -> None:
    model = base(name)
    adapter = build_adapter(model, settings("lora"))
    adapter.load(random_state(adapter.space))
    before, expected = bits(model.network), model.network(*batch(name))
    adapter.merge()
    assert _hooks(model.network) == []
    assert not any(nn.utils.parametrize.is_parametrized(module) for module in model.network.modules())
    torch.testing.assert_close(model.network(*batch(name)), expected, rtol=1e-4, atol=1e-5)
    adapter.merge()  # a second time changes nothing
    torch.testing.assert_close(model.network(*batch(name)), expected, rtol=1e-4, atol=1e-5)
    adapter.unmerge()
    assert bits(model.network) == before
    assert torch.equal(model.network(*batch(name)), expected)


def test_another_state_is_loaded_into_a_merged_adapter_which_stays_merged() -> None:
    model = base("gpt2")
    adapter = build_adapter(model, settings("lora"))
    first, second = random_state(adapter.space, seed=1), random_state(adapter.space, seed=2, share=0.5)
    expected = adapter.load(second).network(*batch("gpt2"))
    adapter.load(first).merge()
    found = adapter.load(second).network(*batch("gpt2"))
    assert _hooks(model.network) == []
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    adapter.unmerge()
    assert torch.equal(adapter.network(*batch("gpt2")), expected)


def test_a_merged_adapter_is_unmerged_for_training_and_comes_off_as_the_untouched_base() -> None:
    model = base("bert")
    before = bits(model.network)
    adapter = build_adapter(model, settings("lora"))
    adapter.load(random_state(adapter.space)).merge()
    attachment = adapter.attach(random_support(adapter, 0.5))
    model.network(*batch("bert")).square().sum().backward()
    assert attachment.sparse.grad is not None
    assert torch.count_nonzero(attachment.sparse.grad) > 0
    with pytest.raises(ModelError, match="a support is attached"):
        adapter.merge()
    with pytest.raises(ModelError, match="a support is attached"):
        adapter.remove()
    adapter.discard()
    adapter.merge()
    adapter.remove()
    assert bits(model.network) == before


def test_a_bottleneck_cannot_be_merged() -> None:
    adapter = build_adapter(base("bert"), settings("bottleneck"))
    with pytest.raises(ModelError, match="bottleneck cannot be merged"):
        adapter.merge()
    adapter.load(random_state(adapter.space))  # and is not half merged either
    assert len(_hooks(adapter.network)) == 2


def test_initial_values_are_the_same_everywhere_and_draw_nothing_from_torchs_own_generator() -> None:
    like = torch.zeros(1)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    values = initial("backbone.layer.0.lora.A", (4, 6), 0.5, like)
    assert torch.equal(torch.get_rng_state(), before)
    assert (
        sha256(values.numpy().tobytes()).hexdigest()
        == "a06d7fec537877692821ee5e278f7875f2435144cebf122539fec7626ada049c"
    )
    assert 0.3 < values.abs().max() <= 0.5
    assert not torch.equal(values, initial("backbone.layer.1.lora.A", (4, 6), 0.5, like))


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_two_sites_start_from_the_same_initial_values(kind: Kind) -> None:
    torch.manual_seed(1)
    first = build_adapter(base("bert"), settings(kind))
    torch.manual_seed(2)
    second = build_adapter(base("bert"), settings(kind))
    assert first.space == second.space
    assert bits(first.network) == bits(second.network)


def test_lora_adapts_what_its_factors_are_smaller_than() -> None:
    network = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 3), nn.Linear(3, 3))
    names = [tensor.name for tensor in adapted(network, "lora", rank=2).space.tensors]
    assert names == ["0.lora.A", "0.lora.B", "1.lora.A", "1.lora.B"]


@pytest.mark.parametrize(("factors", "is_exact"), [("b", True), ("both", False)])
def test_the_average_of_b_alone_is_the_average_of_the_products(factors: str, is_exact: bool) -> None:
    network = nn.Linear(40, 30)
    adapter = adapted(nn.Sequential(network), "lora", rank=2, factors=factors)
    original = network.weight.detach().clone()
    draw = np.random.default_rng(0)
    states = [
        SparseDelta(
            adapter.space.fingerprint,
            Operation.SET,
            tuple(
                TensorDelta(position, np.arange(tensor.size), draw.normal(size=tensor.size).astype(np.float32))
                for position, tensor in enumerate(adapter.space.tensors)
            ),
        )
        for _ in range(2)
    ]
    pairs = zip(states[0].tensors, states[1].tensors, strict=True)
    mean = replace(
        states[0],
        tensors=tuple(replace(one, values=(one.values + other.values) / 2) for one, other in pairs),
    )
    products = []
    for state in (*states, mean):
        adapter.load(state).merge()
        products.append(network.weight.detach() - original)
        adapter.unmerge()
    apart = float((products[2] - (products[0] + products[1]) / 2).abs().max())
    assert (apart < 1e-4) is is_exact


def test_of_b_alone_only_b_is_in_the_space() -> None:
    network = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 3))
    names = [tensor.name for tensor in adapted(network, "lora", rank=2, factors="b").space.tensors]
    assert names == ["0.lora.B", "1.lora.B"]


def test_a_rank_that_saves_nothing_is_an_error_that_names_the_layer() -> None:
    network = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 3))
    with pytest.raises(ConfigError, match=r"adapter.rank = 3 saves nothing at 1, whose weight is 3 × 64"):
        adapted(network, "lora", rank=3, include=("*.weight",))
    assert list(network.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    with pytest.raises(ConfigError, match="no layer of the base model takes a lora adapter"):
        adapted(network, "lora", rank=40)


def test_bottlenecks_follow_the_layers_that_lead_back_to_the_residual_stream() -> None:
    found = {tensor.name for tensor in build_adapter(base("qwen2"), settings("bottleneck")).space.tensors}
    assert found == {
        f"backbone.model.layers.{layer}.mlp.down_proj.bottleneck.{part}"
        for layer in (0, 1)
        for part in ("down", "up")
    }


def test_a_second_adapter_on_the_same_layers_is_refused_and_leaves_the_first_alone() -> None:
    for kind in ("lora", "bottleneck"):
        model = base("bert")
        first = build_adapter(model, settings(kind))
        before = bits(model.network)
        with pytest.raises(ModelError, match=f"has a '{kind}' already"):
            build_adapter(model, settings(kind))
        assert bits(model.network) == before
        first.remove()


class _Attention(nn.Module):
    """Torch's own encoder layer, whose attention never calls its output projection."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(x)
        return result


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_acts_in_torchs_encoder_layer_with_and_without_gradients(kind: Kind) -> None:
    torch.manual_seed(0)
    network = _Attention()
    x = torch.randn(2, 5, 16)
    adapter = adapted(network, kind)
    with torch.no_grad():
        base_answer = network(x)
    adapter.load(random_state(adapter.space, scale=0.3))
    with torch.no_grad():
        without = network(x)
    assert not torch.allclose(without, base_answer, atol=1e-3)
    torch.testing.assert_close(network(x.clone().requires_grad_()), without, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["delta", "lora"])
def test_an_output_projection_that_is_never_called_is_adapted_all_the_same(kind: Kind) -> None:
    torch.manual_seed(0)
    network = _Attention()
    adapter = adapted(network, kind, include=("layer.self_attn.out_proj.weight",))
    adapter.load(random_state(adapter.space))
    attachment = adapter.attach(random_support(adapter, 0.5))
    network(torch.randn(2, 5, 16)).square().sum().backward()
    assert attachment.sparse.grad is not None
    assert torch.count_nonzero(attachment.sparse.grad) == len(attachment.sparse)


def test_a_bottleneck_where_it_would_never_be_reached_is_an_error_that_names_the_layer() -> None:
    with pytest.raises(ModelError, match=r"no bottleneck fits after layer\.self_attn\.out_proj"):
        adapted(_Attention(), "bottleneck", include=("*.out_proj.weight",))


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_called_by_keyword_is_adapted(kind: Kind) -> None:
    class Keyword(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide = nn.Linear(8, 16)
            self.narrow = nn.Linear(16, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.narrow(input=self.wide(input=x))
            return result

    torch.manual_seed(0)
    adapter = adapted(Keyword(), kind)
    adapter.load(random_state(adapter.space))
    names = [tensor.name for tensor in adapter.space.tensors]
    attachment = adapter.attach(part_of_support(adapter, {name: list(range(16)) for name in names}))
    adapter.network(torch.randn(3, 8)).square().sum().backward()
    assert attachment.sparse.grad is not None
    assert torch.count_nonzero(attachment.sparse.grad) == len(attachment.sparse)


def test_an_embedding_and_its_padding_row_are_adapted_by_factors() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Embedding(50, 8, padding_idx=0), nn.Linear(8, 8))
    adapter = adapted(network, "lora", include=("0.weight",))
    ids = torch.tensor([[0, 3, 7]])
    before = network(ids)
    adapter.load(random_state(adapter.space))
    after = network(ids)
    assert not torch.allclose(before, after)
    adapter.merge()
    torch.testing.assert_close(network(ids), after)
    adapter.load(empty_state(adapter.space)).unmerge()
    assert torch.equal(network(ids), before)


def test_a_width_that_narrows_nothing_is_an_error_that_names_the_layer_and_leaves_the_network_alone() -> None:
    network = nn.Sequential(nn.Linear(64, 8), nn.Linear(8, 64))
    with pytest.raises(ConfigError, match=r"adapter\.width = 9 is no bottleneck after 0, which has 8 features"):
        adapted(network, "bottleneck", width=9, dense=())
    assert [tensor.shape for tensor in adapted(network, "bottleneck", width=8, dense=()).space.tensors] == [
        (8, 8)
    ] * 2

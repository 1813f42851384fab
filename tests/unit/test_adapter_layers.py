from __future__ import annotations

import pytest
import torch
from torch import nn

from fedsparse.adapters import build_adapter
from fedsparse.adapters.layers import LayerType, find_layers
from fedsparse.errors import ConfigError, ModelError

from .model_samples import KINDS, Kind, adapted, base, settings
from .model_samples import one_thread as one_thread  # for every test here


def _names(network: nn.Module, **changes: object) -> list[str]:
    return [tensor.name for tensor in adapted(network, **changes).space.tensors]


class _Everything(nn.Module):
    """One layer of each sort; never called."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 4)
        self.norm = nn.LayerNorm(4)
        self.linear = nn.Linear(4, 6)
        self.depthwise = nn.Conv2d(4, 4, 3, groups=4)
        self.batch = nn.BatchNorm2d(4)
        self.transposed = nn.ConvTranspose2d(4, 4, 3)
        self.scale = nn.Parameter(torch.ones(4))


def test_every_supported_layer_is_found_with_what_goes_in_and_out() -> None:
    found = find_layers(_Everything())
    assert {name: layer.type for name, layer in found.items()} == {
        "words": LayerType.EMBEDDING,
        "linear": LayerType.LINEAR,
        "depthwise": LayerType.CONVOLUTION,
    }
    assert {name: (layer.inputs, layer.outputs) for name, layer in found.items()} == {
        "words": (10, 4),
        "linear": (4, 6),
        "depthwise": (9, 4),
    }
    conv1d = find_layers(base("gpt2").network)["backbone.transformer.h.0.mlp.c_fc"]
    assert (conv1d.type, conv1d.inputs, conv1d.outputs) == (LayerType.CONV1D, 32, 128)


def test_by_default_the_weights_of_linear_and_convolutional_layers_are_adapted() -> None:
    assert _names(_Everything()) == ["linear.weight", "depthwise.weight"]
    assert _names(_Everything(), include=("words.weight", "linear.*")) == [
        "words.weight",
        "linear.weight",
        "linear.bias",
    ]
    assert _names(_Everything(), dense=("linear.bias",)) == ["linear.weight", "linear.bias", "depthwise.weight"]


@pytest.mark.parametrize(
    ("glob", "message"),
    [
        ("norm.weight", r"norm\.weight cannot be adapted: norm is a LayerNorm"),
        ("batch.*", r"batch\.weight cannot be adapted: batch is a BatchNorm2d"),
        ("transposed.weight", r"transposed\.weight cannot be adapted: transposed is a ConvTranspose2d"),
        ("scale", r"scale cannot be adapted: the network itself is a _Everything"),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_that_cannot_be_adapted_is_an_error_that_names_the_module(
    kind: Kind, glob: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        adapted(_Everything(), kind, include=(glob,))
    with pytest.raises(ModelError, match=message):
        adapted(_Everything(), kind, dense=(glob,))


def test_the_layer_norms_of_a_model_are_named_with_their_whole_path() -> None:
    spec = settings(include=("*attention.output.LayerNorm.weight",))
    with pytest.raises(
        ModelError, match=r"backbone\.encoder\.layer\.0\.attention\.output\.LayerNorm is a LayerNorm"
    ):
        build_adapter(base("bert"), spec)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tied_weight_is_an_error_that_names_both_modules_unless_it_is_left_out(kind: Kind) -> None:
    both = r"backbone\.model\.embed_tokens\.weight and backbone\.lm_head\.weight are one tied weight"
    for glob in ("backbone.lm_head.weight", "*embed_tokens*"):
        with pytest.raises(ModelError, match=both):
            build_adapter(base("qwen2-tied", task="causal-lm"), settings(kind, include=(glob,)))
    found = build_adapter(base("qwen2-tied", task="causal-lm"), settings(kind)).space
    assert not any("embed_tokens" in tensor.name or "lm_head" in tensor.name for tensor in found.tensors)
    untied = build_adapter(base("qwen2"), settings(kind, include=("backbone.lm_head.weight",))).space
    assert all(tensor.name.startswith("backbone.lm_head.") for tensor in untied.tensors)


def test_a_layer_under_two_names_counts_as_tied() -> None:
    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    network.append(network[0])
    assert _names(network) == ["1.weight"]
    with pytest.raises(ModelError, match=r"0\.weight and 2\.weight are one tied weight"):
        _names(network, include=("2.weight",))


@pytest.mark.parametrize("key", ["include", "dense"])
def test_a_glob_that_matches_nothing_is_an_error_that_lists_what_there_is(key: str) -> None:
    with pytest.raises(ConfigError, match=rf"adapter\.{key} = 'liner\.\*' matches no weight.*linear\.weight"):
        adapted(_Everything(), **{key: ("liner.*",)})


def test_the_default_head_may_be_absent_or_without_weights() -> None:
    assert _names(nn.ModuleDict({"body": nn.Linear(2, 2)})) == ["body.weight"]
    assert _names(nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Identity()})) == ["body.weight"]
    with_head = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    assert _names(with_head) == ["body.weight", "head.weight", "head.bias"]


def test_a_network_without_any_adaptable_weight_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no weight of the base model can be adapted"):
        adapted(nn.Sequential(nn.LayerNorm(4)))


def test_a_layer_whose_weight_is_computed_from_others_is_left_out() -> None:
    network = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 6)), nn.Linear(6, 4))
    assert _names(network) == ["1.weight"]
    with pytest.raises(ModelError, match=r"0\.parametrizations\.weight is a ParametrizationList"):
        _names(network, include=("0.parametrizations.weight.original1",))

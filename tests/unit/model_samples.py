"""Tiny models of the families that are supported, and a few torch networks with what those lack."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fedsparse import config
from fedsparse.adapters import Adapter, BaseModel, ImageReader, Task, build_adapter, load_base
from fedsparse.delta import AdapterSpace, Operation, SparseDelta, TensorDelta
from fedsparse.sparsity import Support, choose_support
from fedsparse.sparsity.structure import Structure

Kind = Literal["delta", "lora", "bottleneck"]
KINDS: tuple[Kind, ...] = ("delta", "lora", "bottleneck")
TASKS: dict[str, Task] = {
    "vit": "image-classification",
    "dinov2": "image-classification",
    "resnet": "image-classification",
    "bert": "text-classification",
    "qwen2": "causal-lm",
    "llama": "causal-lm",
    "gpt2": "causal-lm",
}
VOCABULARY = 100
_ROOT = tempfile.TemporaryDirectory(prefix="fedsparse-models-")  # removed when the process ends


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Compute on one thread: for tensors this small two would wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def settings(kind: Kind = "delta", **changes: object) -> config.AdapterSettings:
    return config.AdapterSettings.model_validate({"kind": kind, "rank": 2, "width": 4, **changes})


@cache
def folder(name: str) -> Path:
    """Return where a model is saved: one of :data:`TASKS`, or a variant of :func:`_variant`."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _built(name)
    path = Path(_ROOT.name) / name
    model.save_pretrained(path)
    if TASKS.get(name) != "image-classification":
        _tokenizer().save_pretrained(path)
    return path


def _built(name: str):  # type: ignore[no-untyped-def] # any model of transformers
    import transformers as t

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    text = {**small, "intermediate_size": 64, "vocab_size": VOCABULARY, "max_position_embeddings": 64}
    grouped = {**text, "num_key_value_heads": 2, "bos_token_id": 0, "eos_token_id": 1}
    builders = {
        "vit": lambda: t.ViTModel(t.ViTConfig(**small, intermediate_size=64, image_size=32, patch_size=8)),
        "dinov2": lambda: t.Dinov2Model(t.Dinov2Config(**small, mlp_ratio=2, image_size=28, patch_size=7)),
        "resnet": lambda: t.ResNetModel(t.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32], depths=[1, 1])),
        "bert": lambda: t.BertModel(t.BertConfig(**text)),
        "bert-masked-lm": lambda: t.BertForMaskedLM(t.BertConfig(**text)),
        "bert-bf16": lambda: t.BertModel(t.BertConfig(**text)).bfloat16(),
        "vit-bf16": lambda: _built("vit").bfloat16(),
        "roberta": lambda: t.RobertaModel(t.RobertaConfig(**text, pad_token_id=1)),
        "qwen2": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**grouped)),
        "qwen2-tied": lambda: t.Qwen2ForCausalLM(t.Qwen2Config(**grouped, tie_word_embeddings=True)),
        "qwen2-bf16": lambda: _built("qwen2").bfloat16(),
        "llama": lambda: t.LlamaForCausalLM(t.LlamaConfig(**grouped)),
        "llama-headless": lambda: t.LlamaModel(t.LlamaConfig(**grouped)),
        "llama-dropout": lambda: t.LlamaForCausalLM(t.LlamaConfig(**grouped, attention_dropout=0.5)),
        "gpt2": lambda: t.GPT2LMHeadModel(
            t.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=1)
        ),
    }
    return builders[name]()


def _tokenizer():  # type: ignore[no-untyped-def] # of transformers
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"[UNK]": 0, "[PAD]": 1, **{f"w{i}": i for i in range(2, VOCABULARY)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")


def base(name: str, spec: config.AdapterSettings | None = None, task: Task | None = None) -> BaseModel:
    """Return a base model of its own: an adapter changes it."""
    model = config.BaseModelSettings(model=name, folder=folder(name))
    return load_base(model, spec or settings(), ("a", "b"), task or TASKS[name])


def toy(network: nn.Module) -> BaseModel:
    """Return a base model around a torch network."""
    network.requires_grad_(False).eval()
    return BaseModel("toy", bytes(32), nn.Identity(), network, 0, ImageReader(32))


def adapted(network: nn.Module, kind: Kind = "delta", **changes: object) -> Adapter:
    """Return an adapter on a torch network."""
    return build_adapter(toy(network), settings(kind, **changes))


def batch(name: str, seed: int = 0) -> tuple[Tensor, ...]:
    """Return inputs of two samples; the second text is shorter."""
    draw = torch.Generator().manual_seed(seed)
    if TASKS[name.partition("-")[0]] == "image-classification":
        size = 28 if name == "dinov2" else 32
        return (torch.randn(2, 3, size, size, generator=draw),)
    mask = torch.ones(2, 7, dtype=torch.int64)
    mask[1, 4:] = 0
    return torch.randint(VOCABULARY, (2, 7), generator=draw), mask


def random_state(space: AdapterSpace, seed: int = 0, share: float = 1.0, scale: float = 0.05) -> SparseDelta:
    """Return a state at a random share of every tensor's coordinates."""
    draw = np.random.default_rng(seed)
    parts = []
    for position, tensor in enumerate(space.tensors):
        where = np.flatnonzero(draw.random(tensor.size) < share)
        values = (draw.standard_normal(len(where)) * scale).astype(np.float32)
        if len(where):
            parts.append(TensorDelta(position, where, values))
    return SparseDelta(space.fingerprint, Operation.SET, tuple(parts))


def empty_state(space: AdapterSpace) -> SparseDelta:
    return SparseDelta.empty(space.fingerprint, Operation.SET)


def random_support(
    adapter: Adapter, density: float, structure: Structure = "unstructured", seed: int = 0, block: int = 8
) -> Support:
    """Return the support of random scores: this share of the sparse tensors' coordinates, the dense ones whole."""
    draw = torch.Generator().manual_seed(seed)
    sizes = [tensor.size for tensor in adapter.space.tensors]
    scores = {i: torch.rand(size, generator=draw) for i, size in enumerate(sizes) if i not in adapter.dense}
    whole = sum(sizes[i] for i in adapter.dense)
    share = (whole + density * (adapter.space.size - whole)) / adapter.space.size
    return choose_support(adapter.space, scores, share, adapter.dense, structure=structure, block=block)


def part_of_support(adapter: Adapter, chosen: dict[str, list[int]]) -> Support:
    """Return the support of a few coordinates, by name of the tensor."""
    names = [tensor.name for tensor in adapter.space.tensors]
    assert chosen.keys() <= set(names)
    return tuple(np.array(chosen.get(name, []), np.int64) for name in names)


def bits(network: nn.Module) -> dict[str, bytes]:
    """Return every tensor's bytes by name, in the order of the network."""
    state = network.state_dict()
    return {
        name: tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for name, tensor in state.items()
    }

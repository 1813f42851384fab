from __future__ import annotations

import json
import shutil
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fedsparse.adapters import Adapter, BaseModel, build_adapter
from fedsparse.adapters.interchange import export_peft, import_peft
from fedsparse.adapters.saved import load_adapter
from fedsparse.cli.main import main
from fedsparse.delta import Operation, SparseDelta, TensorDelta
from fedsparse.errors import ConfigError, DataError, DeltaError, FedsparseError, ModelError

from .model_samples import TASKS, base, batch, bits, folder, random_state, random_support, settings, toy

LORA = {
    "bert": ("*.query.weight", "*.output.dense.weight", "*.word_embeddings.weight"),
    "qwen2": ("*.q_proj.weight", "*.down_proj.weight", "*.embed_tokens.weight", "*.lm_head.weight"),
    "gpt2": ("*.c_attn.weight", "*.mlp.c_proj.weight", "*.wpe.weight"),
    "vit": ("*.q_proj.weight", "*.patch_embeddings.projection.weight"),
}
SHIRA = {
    "bert": ("*.query.weight", "*.output.dense.weight"),
    "qwen2": ("*.k_proj.weight", "*.down_proj.weight", "*.lm_head.weight"),
    "vit": ("*.fc1.weight",),
}
KEY = "base_model.model.encoder.layer.0.attention.self.query"


def plain(name: str) -> Any:
    """Return the Hugging Face model as a user of PEFT loads it."""
    from transformers import AutoModel, AutoModelForCausalLM

    kind = AutoModelForCausalLM if TASKS[name] == "causal-lm" else AutoModel
    return kind.from_pretrained(folder(name)).eval()


@torch.inference_mode()
def answers(model: nn.Module, name: str) -> Tensor:
    """Return a Hugging Face model's logits, or its hidden states where it has no head."""
    inputs = batch(name)
    named = (
        {"pixel_values": inputs[0]} if len(inputs) == 1 else {"input_ids": inputs[0], "attention_mask": inputs[1]}
    )
    output = model(**named)
    found: Tensor = output.logits if TASKS[name] == "causal-lm" else output.last_hidden_state
    return found


def loaded(model: nn.Module, path: Path) -> nn.Module:
    """Return the model with a folder's adapter, as PEFT loads it, which must have no word to say about it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", FutureWarning)  # of transformers, about its own code
        found: nn.Module = peft.PeftModel.from_pretrained(model, path).eval()
    return found


def filled(model: BaseModel, share: float = 1.0, **spec: Any) -> Adapter:
    adapter = build_adapter(model, settings(**spec))
    return adapter.load(random_state(adapter.space, share=share))


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def parameters(network: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in network.named_parameters()}


@pytest.mark.parametrize("name", LORA)
def test_peft_computes_with_an_exported_lora_what_fedsparse_computes(name: str, tmp_path: Path) -> None:
    model = base(name)
    adapter = filled(model, kind="lora", include=LORA[name], rank=3, alpha=7.5)
    export_peft(adapter, model, tmp_path / "out")
    expected = answers(model.network.backbone, name)
    same(answers(loaded(plain(name), tmp_path / "out"), name), expected)
    assert not torch.allclose(expected, answers(plain(name), name), atol=1e-3)


@pytest.mark.parametrize("name", SHIRA)
def test_peft_computes_with_an_exported_delta_what_fedsparse_computes(name: str, tmp_path: Path) -> None:
    model = base(name)
    adapter = filled(model, share=0.05, kind="delta", include=SHIRA[name])
    export_peft(adapter, model, tmp_path / "out")
    expected = answers(model.network.backbone, name)
    same(answers(loaded(plain(name), tmp_path / "out"), name), expected)
    assert not torch.allclose(expected, answers(plain(name), name), atol=1e-3)


def from_peft(name: str, config: peft.PeftConfig, path: Path) -> Tensor:
    """Save an adapter that PEFT made, with random values; return what PEFT computes with it."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = peft.get_peft_model(plain(name), config).eval()
        for key, parameter in model.named_parameters():
            if "lora_" in key or "shira_" in key:
                nn.init.normal_(parameter, std=0.05)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT finds no config of a model that was built on the spot
        model.save_pretrained(path, save_embedding_layers=False)
    return answers(model, name)


@pytest.mark.parametrize(
    ("name", "targets"),
    [
        ("bert", ["query", "output.dense", "word_embeddings"]),
        ("qwen2", ["q_proj", "down_proj", "embed_tokens", "lm_head"]),
        ("gpt2", ["c_attn", "mlp.c_proj"]),
        ("vit", ".*(q_proj|projection)"),
    ],
)
def test_fedsparse_computes_with_a_lora_that_peft_made_what_peft_computes(
    name: str, targets: list[str] | str, tmp_path: Path
) -> None:
    made = peft.LoraConfig(r=3, lora_alpha=5, target_modules=targets, fan_in_fan_out=name == "gpt2")
    expected = from_peft(name, made, tmp_path)
    model = base(name)
    before = bits(model.network)
    spec, state = import_peft(tmp_path, model)
    assert (spec.kind, spec.rank, spec.alpha) == ("lora", 3, 5.0)
    assert bits(model.network) == before
    build_adapter(model, spec).load(state)
    same(answers(model.network.backbone, name), expected)


@pytest.mark.parametrize(("name", "targets"), [("bert", ["query", "key"]), ("qwen2", ["q_proj", "gate_proj"])])
def test_fedsparse_computes_with_a_shira_that_peft_made_what_peft_computes(
    name: str, targets: list[str], tmp_path: Path
) -> None:
    expected = from_peft(name, peft.ShiraConfig(r=2, target_modules=targets), tmp_path)
    model = base(name)
    spec, state = import_peft(tmp_path, model)
    assert spec.kind == "delta"
    build_adapter(model, spec).load(state)
    same(answers(model.network.backbone, name), expected)


def _round_trip(model: BaseModel, adapter: Adapter, path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    before = parameters(model.network)
    export_peft(adapter, model, path)
    adapter.remove()
    spec, state = import_peft(path, model)
    build_adapter(model, spec).load(state)
    return before, parameters(model.network)


@pytest.mark.parametrize("name", LORA)
def test_a_lora_comes_back_from_its_export_with_its_head(name: str, tmp_path: Path) -> None:
    model = base(name)
    adapter = filled(model, kind="lora", include=LORA[name], rank=2)
    before, after = _round_trip(model, adapter, tmp_path / "out")
    assert before.keys() == after.keys()
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, rtol=1e-6, atol=1e-7)
    if TASKS[name] != "causal-lm":
        assert torch.count_nonzero(after["head.weight"]) == after["head.weight"].numel()


@pytest.mark.parametrize("name", SHIRA)
def test_a_delta_comes_back_from_its_export_bit_by_bit_with_its_head(name: str, tmp_path: Path) -> None:
    model = base(name)
    adapter = filled(model, share=0.03, kind="delta", include=SHIRA[name])
    before, after = _round_trip(model, adapter, tmp_path / "out")
    assert all(torch.equal(after[key], value) for key, value in before.items())
    if TASKS[name] != "causal-lm":
        assert torch.count_nonzero(after["head.weight"]) > 0


def test_a_lora_round_trip_keeps_the_adapter_space(tmp_path: Path) -> None:
    model = base("bert")
    adapter = filled(model, kind="lora", include=LORA["bert"])
    export_peft(adapter, model, tmp_path / "out")
    adapter.remove()
    spec, _ = import_peft(tmp_path / "out", model)
    assert build_adapter(model, spec).space == adapter.space


def test_shira_takes_the_smallest_r_that_fits_and_fills_up_with_zeros(tmp_path: Path) -> None:
    model = base("bert")
    adapter = build_adapter(model, settings("delta", include=("*.0.*.query.weight", "*.1.*.query.weight")))
    parts = [TensorDelta(i, np.arange(5, 5 + n), np.full(n, 0.5, np.float32)) for i, n in ((0, 65), (1, 3))]
    adapter.load(SparseDelta(adapter.space.fingerprint, Operation.SET, tuple(parts)))
    export_peft(adapter, model, tmp_path / "out")
    assert json.loads((tmp_path / "out/adapter_config.json").read_text())["r"] == 2
    tensors = load_file(tmp_path / "out/adapter_model.safetensors")
    values, (rows, columns) = tensors[f"{KEY}.shira_weight"], tensors[f"{KEY}.shira_indices"]
    assert values.shape == (128,)
    assert torch.count_nonzero(values) == 65
    flat = rows * 32 + columns
    assert flat.tolist() == list(range(128))
    assert flat[values != 0].tolist() == list(range(5, 70))


def _patched(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((path / "adapter_config.json").read_text())
    change(config)
    (path / "adapter_config.json").write_text(json.dumps(config))


def _tampered(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(path / "adapter_model.safetensors")
    change(tensors)
    save_file(tensors, path / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("peft")
    from_peft("bert", peft.LoraConfig(r=3, target_modules=["query"]), path / "lora")
    from_peft("bert", peft.ShiraConfig(r=2, target_modules=["query"]), path / "shira")
    return path


@pytest.fixture
def lora(made: Path, tmp_path: Path) -> Path:
    """Return a fresh copy of a LoRA folder that PEFT made, to tamper with."""
    return Path(shutil.copytree(made / "lora", tmp_path / "lora"))


@pytest.fixture
def shira(made: Path, tmp_path: Path) -> Path:
    """Return the same of a SHiRA folder."""
    return Path(shutil.copytree(made / "shira", tmp_path / "shira"))


@cache
def untouched() -> BaseModel:
    """Return the one base model of the tests that only read a folder, or change it only if they fail."""
    return base("bert")


@pytest.mark.parametrize(
    "fields",
    [
        {"use_rslora": True},
        {"use_dora": True},
        {"rank_pattern": {"layer.0": 4}},
        {"alpha_pattern": {"layer.0": 4}},
        {"bias": "all"},
        {"lora_bias": True},
        {"init_lora_weights": "pissa"},
        {"trainable_token_indices": [1]},
        {"target_parameters": ["experts"]},
        {"invented_by_a_later_peft": {"a": 1}},
        {"r": 0},
        {"r": "3"},
        {"r": True},
        {"lora_alpha": float("nan")},
        {"lora_alpha": -1},
        {"lora_alpha": None},
        {"peft_type": "IA3"},
        {"peft_type": ["LORA"]},
        {"modules_to_save": "head"},
    ],
    ids=str,
)
def test_a_configuration_that_cannot_be_represented_is_refused_by_name(lora: Path, fields: dict[str, Any]) -> None:
    _patched(lora, lambda config: config.update(fields))
    with pytest.raises(DeltaError, match=next(iter(fields))):
        import_peft(lora, untouched())


@pytest.mark.parametrize(
    ("fields", "named"), [({"lora_alpha": 5000}, "alpha = 5000"), ({"r": 5000}, r"\(3, 32\).*\(5000, 32\)")]
)
def test_numbers_beyond_what_settings_allow_are_refused(lora: Path, fields: dict[str, Any], named: str) -> None:
    _patched(lora, lambda config: config.update(fields))
    with pytest.raises(DeltaError, match=named):
        import_peft(lora, untouched())


def test_patterns_that_repeat_the_common_rank_and_alpha_are_accepted(lora: Path) -> None:
    _, expected = import_peft(lora, untouched())
    _patched(lora, lambda config: config.update(rank_pattern={"query": 3}, alpha_pattern={"query": 8}))
    assert import_peft(lora, untouched())[1] == expected


@pytest.mark.parametrize(
    ("change", "error", "named"),
    [
        (lambda t: t.update({f"{KEY}.lora_A.weight": torch.zeros(4, 32)}), DeltaError, r"\(4, 32\).*\(3, 32\)"),
        (lambda t: t.update({f"{KEY}.lora_A.weight": torch.zeros(3, 1 << 20)}), DeltaError, "1048576"),
        (lambda t: t[f"{KEY}.lora_A.weight"].fill_(float("nan")), DeltaError, "query.lora_A.weight.*NaN"),
        (lambda t: t[f"{KEY}.lora_B.weight"][0, :1].fill_(float("inf")), DeltaError, "query.lora_B.weight.*NaN"),
        (lambda t: t.update({f"{KEY}.lora_A.weight": torch.zeros(3, 32, dtype=torch.int8)}), DeltaError, "I8"),
        (lambda t: t.pop(f"{KEY}.lora_A.weight"), DeltaError, "0.attention.self.query needs lora_A.weight"),
        (lambda t: t.update({f"{KEY}.lora_magnitude_vector": torch.zeros(32)}), DeltaError, "magnitude"),
        (lambda t: t.update({"query.lora_A.weight": torch.zeros(3, 32)}), DeltaError, "'query.lora_A.weight'"),
        (lambda t: t.update({"base_model.model.x.lora_A.weight": torch.zeros(3, 32)}), ModelError, "backbone.x"),
        (lambda t: t.clear(), DeltaError, "no tensor"),
    ],
)
def test_tensors_that_are_not_right_are_refused_by_name(
    lora: Path, change: Callable[[dict[str, Tensor]], object], error: type[FedsparseError], named: str
) -> None:
    _tampered(lora, change)
    with pytest.raises(error, match=named):
        import_peft(lora, untouched())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t[f"{KEY}.shira_indices"][0, :1].fill_(32), "outside backbone.*32 × 32"),
        (lambda t: t[f"{KEY}.shira_indices"][1, :1].fill_(-1), "outside"),
        (lambda t: t[f"{KEY}.shira_indices"].fill_(1), "twice"),
        (lambda t: t.pop(f"{KEY}.shira_indices"), "shira_indices"),
        (lambda t: t.update({f"{KEY}.shira_indices": torch.full((2, 128), 0.5)}), "no whole number"),
        (lambda t: t.update({f"{KEY}.shira_weight": torch.zeros(127)}), r"\(127,\).*\(128,\)"),
        (lambda t: t[f"{KEY}.shira_weight"].fill_(float("nan")), "NaN"),
    ],
)
def test_a_shira_that_is_not_right_is_refused_by_name(
    shira: Path, change: Callable[[dict[str, Tensor]], object], named: str
) -> None:
    _tampered(shira, change)
    with pytest.raises(DeltaError, match=named):
        import_peft(shira, untouched())


def test_an_r_that_no_layer_has_room_for_is_refused(shira: Path) -> None:
    _patched(shira, lambda config: config.update(r=17))
    with pytest.raises(DeltaError, match=r"at r = 17 it takes 1088 values.*has 1024"):
        import_peft(shira, untouched())


def test_the_base_is_untouched_after_a_refusal(lora: Path) -> None:
    model = base("bert")
    before = bits(model.network)
    _tampered(lora, lambda tensors: tensors.pop(f"{KEY}.lora_A.weight"))
    with pytest.raises(DeltaError):
        import_peft(lora, model)
    assert bits(model.network) == before


def test_a_folder_for_another_architecture_is_refused_by_name(lora: Path) -> None:
    with pytest.raises(ModelError, match=r"encoder\.layer\.0\.attention\.self\.query"):
        import_peft(lora, base("qwen2"))


def test_an_export_for_another_base_model_of_the_same_shape_is_refused(tmp_path: Path) -> None:
    model = base("bert")
    export_peft(filled(model, kind="lora", include=LORA["bert"]), model, tmp_path / "out")
    with pytest.raises(ModelError, match=model.fingerprint.hex()[:16]):
        import_peft(tmp_path / "out", base("bert-bf16", task="text-classification"))


def test_a_pickle_is_never_opened(lora: Path) -> None:
    (lora / "adapter_model.safetensors").rename(lora / "adapter_model.bin")
    with pytest.raises(DataError, match="could run code"):
        import_peft(lora, untouched())


@pytest.mark.parametrize("content", [b"", b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", b"PK\x03\x04 no tensors at all"])
def test_a_file_that_is_no_safetensors_file_is_refused(lora: Path, content: bytes) -> None:
    (lora / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(DeltaError, match="no safetensors file"):
        import_peft(lora, untouched())


@pytest.mark.parametrize("content", [b"[]", b"{", b"[" * 100_000, b"\xff", b" " * (2 << 20)])
def test_a_configuration_that_is_no_json_object_is_refused(lora: Path, content: bytes) -> None:
    (lora / "adapter_config.json").write_bytes(content)
    with pytest.raises(DeltaError, match=r"adapter_config\.json"):
        import_peft(lora, untouched())


def test_a_folder_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"adapter_config\.json"):
        import_peft(tmp_path, untouched())


def test_a_head_that_the_base_has_not_is_refused(tmp_path: Path) -> None:
    model = base("bert")
    export_peft(filled(model, kind="lora", include=LORA["bert"]), model, tmp_path / "out")
    save_file({"backbone.embeddings.word_embeddings.weight": torch.zeros(1)}, tmp_path / "out/head.safetensors")
    with pytest.raises(ModelError, match="no head"):
        import_peft(tmp_path / "out", untouched())


class Small(nn.Module):
    """Convolutions that PEFT adapts and some that it does not, and names that end like others."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.deep = nn.ModuleDict({"stem": nn.Conv2d(8, 8, 3, padding=1)})
        self.dilated = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.mix = nn.Linear(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.dilated(self.deep["stem"](self.stem(x).relu())))
        logits: Tensor = self.head(self.mix(x.mean((2, 3))))
        return logits


def small() -> BaseModel:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return toy(Small())


@pytest.mark.parametrize("include", [("stem.weight", "mix.weight"), ("stem.weight", "deep.stem.weight")])
def test_peft_computes_on_a_plain_torch_network_with_its_head_what_fedsparse_computes(
    include: tuple[str, ...], tmp_path: Path
) -> None:
    model = small()
    export_peft(filled(model, kind="lora", include=include, rank=2), model, tmp_path / "out")
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        same(loaded(small().network, tmp_path / "out")(images), model.network(images))
    assert not (tmp_path / "out/head.safetensors").exists()


def test_a_delta_on_a_plain_torch_network_takes_its_head_along(tmp_path: Path) -> None:
    model = small()
    adapter = filled(model, share=0.2, kind="delta", include=("mix.weight",))
    export_peft(adapter, model, tmp_path / "out")
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        same(loaded(small().network, tmp_path / "out")(images), model.network(images))
    adapter.remove()
    spec, _ = import_peft(tmp_path / "out", model)
    assert build_adapter(model, spec).space == adapter.space


@pytest.mark.parametrize(
    ("kind", "include", "named"),
    [
        ("lora", "dilated.weight", "dilated.*dilation"),
        ("lora", "grouped.weight", "grouped.*2 groups"),
        ("delta", "stem.weight", "stem.weight.*Conv2d"),
        ("delta", "mix.bias", "mix.bias.*the bias of a Linear"),
        ("bottleneck", "mix.weight", "bottleneck"),
    ],
)
def test_what_peft_has_no_format_for_is_refused_by_name(
    kind: Any, include: str, named: str, tmp_path: Path
) -> None:
    model = small()
    with pytest.raises(DeltaError, match=named):
        export_peft(filled(model, kind=kind, include=(include,)), model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_delta_on_gpt2s_transposed_layers_is_refused_by_name(tmp_path: Path) -> None:
    model = base("gpt2")
    with pytest.raises(DeltaError, match=r"h\.0\.attn\.c_attn\.weight.*Conv1D"):
        export_peft(filled(model, share=0.01, kind="delta", include=LORA["gpt2"][:1]), model, tmp_path / "out")


def test_a_delta_too_dense_for_shira_is_refused_by_name(tmp_path: Path) -> None:
    model = base("bert")
    with pytest.raises(DeltaError, match=r"layer\.0\.output\.dense\.weight: at r = 22 .*2112 .*2048"):
        export_peft(filled(model, kind="delta", include=("*.0.output.dense.weight",)), model, tmp_path / "out")


def test_an_untrained_delta_is_refused(tmp_path: Path) -> None:
    model = base("bert")
    with pytest.raises(DeltaError, match="changes no weight"):
        export_peft(build_adapter(model, settings()), model, tmp_path / "out")


def test_a_module_that_is_both_adapted_and_whole_is_refused(tmp_path: Path) -> None:
    model = small()
    adapter = filled(model, kind="lora", include=("mix.weight",), dense=("mix.bias",))
    with pytest.raises(DeltaError, match=r"mix.*not both"):
        export_peft(adapter, model, tmp_path / "out")


def test_a_head_whose_name_ends_another_module_is_refused(tmp_path: Path) -> None:
    network = Small()
    network.overhead = nn.Linear(2, 2)
    model = toy(network)
    with pytest.raises(DeltaError, match=r"overhead.*'head'"):
        export_peft(filled(model, kind="lora", include=("mix.weight",), rank=2), model, tmp_path / "out")


def test_an_adapted_head_of_a_hugging_face_model_is_refused(tmp_path: Path) -> None:
    model = base("bert")
    adapter = filled(model, share=0.05, kind="delta", include=("head.weight",), dense=())
    with pytest.raises(DeltaError, match=r"head\.weight.*no part"):
        export_peft(adapter, model, tmp_path / "out")


def test_an_adapter_in_training_is_not_exported(tmp_path: Path) -> None:
    model = base("bert")
    adapter = filled(model, share=0.01, kind="delta", include=SHIRA["bert"])
    adapter.attach(random_support(adapter, 0.1))
    with pytest.raises(ModelError, match="attached"):
        export_peft(adapter, model, tmp_path / "out")


def test_a_merged_adapter_is_exported_like_an_unmerged_one(tmp_path: Path) -> None:
    model = base("vit")
    adapter = filled(model, kind="lora", include=LORA["vit"])
    export_peft(adapter, model, tmp_path / "a")
    adapter.merge()
    export_peft(adapter, model, tmp_path / "b")
    assert (tmp_path / "a/adapter_config.json").read_text() == (tmp_path / "b/adapter_config.json").read_text()
    before, after = (load_file(tmp_path / name / "adapter_model.safetensors") for name in "ab")
    assert before.keys() == after.keys()
    assert all(torch.equal(after[key], tensor) for key, tensor in before.items())


def test_an_export_overwrites_nothing(lora: Path) -> None:
    model = base("bert")
    with pytest.raises(ConfigError, match="not empty"):
        export_peft(filled(model, kind="lora", include=LORA["bert"]), model, lora)


def test_the_readme_says_how_to_apply_the_head(tmp_path: Path) -> None:
    model = base("bert")
    export_peft(filled(model, kind="lora", include=LORA["bert"]), model, tmp_path / "out")
    told = (tmp_path / "out/README.md").read_text()
    assert "head.safetensors" in told
    assert "mean of" in told
    head = load_file(tmp_path / "out/head.safetensors")
    ids, mask = batch("bert")
    hidden = answers(loaded(plain("bert"), tmp_path / "out"), "bert")
    features = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    with torch.inference_mode():
        same(features @ head["head.weight"].T + head["head.bias"], model.network(ids, mask))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Return exit code and output of one command line."""
    monkeypatch.setenv("COLUMNS", "1000")

    def call(*arguments: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["fedsparse", "peft", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        return int(caught.value.code or 0), printed.out + printed.err

    return call


def test_the_command_saves_a_peft_folder_and_exports_it_again(
    lora: Path, tmp_path: Path, run: Callable[..., tuple[int, str]]
) -> None:
    classes = ("--class", "bad", "--class", "good")
    code, printed = run("import", lora, tmp_path / "saved", "--base", folder("bert"), *classes)
    assert code == 0, printed
    assert "a lora adapter" in printed
    assert "no head" in printed
    assert load_adapter(tmp_path / "saved").classes == ("bad", "good")
    code, printed = run("export", tmp_path / "saved", tmp_path / "again")
    assert code == 0, printed
    before, after = (load_file(path / "adapter_model.safetensors") for path in (lora, tmp_path / "again"))
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        torch.testing.assert_close(after[key], tensor, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--base", "nowhere", "--class", "a", "--class", "b"), "nowhere"),
        (("--base", "minilm"), "two classes or more"),
        (("--base", "minilm", "--class", "a", "--class", "a"), "each named once"),
        (("--base", "minilm", "--task", "poetry"), "'poetry'"),
        (("--base", "minilm", "--task", "causal-lm", "--class", "a"), "no classes"),
    ],
)
def test_the_command_refuses_what_it_cannot_import(
    tmp_path: Path, run: Callable[..., tuple[int, str]], options: tuple[str, ...], named: str
) -> None:
    code, printed = run("import", tmp_path, tmp_path / "saved", *options)
    assert code == 1
    assert named in printed
    assert not (tmp_path / "saved").exists()

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fedsparse import config
from fedsparse.adapters import Adapter, BaseModel, ImageReader, Task, TextReader, build_adapter, load_base
from fedsparse.adapters.bases.efficientnet import read_tensors
from fedsparse.adapters.bases.huggingface import _token_limit
from fedsparse.errors import ConfigError, FedsparseError, ModelError

from .model_samples import TASKS, Kind, base, batch, folder, random_support, settings
from .model_samples import one_thread as one_thread  # for every test here

IMAGES: Task = "image-classification"
TEXTS: Task = "text-classification"


def _load(spec: config.BaseModelSettings, task: Task, classes: int = 2, **changes: object) -> BaseModel:
    return load_base(spec, settings(**changes), [f"class {i}" for i in range(classes)], task)


def _folder(path: Path, task: Task, **changes: object) -> BaseModel:
    return _load(config.BaseModelSettings(model="ours", folder=path), task, **changes)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of a text model's folder, to damage."""
    return Path(shutil.copytree(folder("bert"), tmp_path / "model"))


# Hugging Face folders


@pytest.mark.parametrize("name", TASKS)
def test_a_folder_becomes_a_frozen_network_with_the_same_fingerprint_every_time(name: str) -> None:
    model = base(name)
    outputs = model.network(*batch(name))
    if TASKS[name] == "causal-lm":
        assert outputs.shape == (2, 7, 100)
    else:
        assert torch.equal(outputs, torch.zeros(2, 2))  # every class equally likely
    assert isinstance(model.reader, ImageReader if TASKS[name] == IMAGES else TextReader)
    assert not any(weight.requires_grad for weight in model.network.parameters())
    assert not any(module.training for module in model.network.modules())
    assert model.fingerprint == base(name).fingerprint


def test_padding_changes_no_answer_of_a_text_classifier() -> None:
    model = base("bert")
    torch.nn.init.normal_(model.network.head.weight, generator=torch.Generator().manual_seed(0))
    assert isinstance(model.reader, TextReader)
    alone = model.network(*model.reader.tokens(["w3 w4 w5"]))
    beside = model.network(*model.reader.tokens(["w3 w4 w5", " ".join(["w9"] * 20)]))
    torch.testing.assert_close(beside[:1], alone)


def test_a_checkpoint_without_a_pooler_is_the_same_base_at_every_site() -> None:
    models = [base("bert-masked-lm", task=TEXTS) for _ in range(2)]
    assert models[0].fingerprint == models[1].fingerprint
    assert not any("pooler" in name for name in models[0].network.state_dict())


def test_weights_that_transformers_would_draw_at_random_are_an_error() -> None:
    with pytest.raises(ModelError, match=r"lacks 1 weights, the first lm_head\.weight"):
        base("llama-headless", task="causal-lm")


@pytest.mark.parametrize(("name", "like"), [("bert-bf16", "bert"), ("vit-bf16", "vit")])
def test_a_checkpoint_in_bf16_answers_and_trains_with_a_head_in_full_precision(name: str, like: str) -> None:
    model = base(name, task=TASKS[like])
    assert {weight.dtype for weight in model.network.backbone.parameters()} == {torch.bfloat16}
    adapter = build_adapter(model, settings())
    assert model.network.head.weight.dtype == torch.float32
    attachment = adapter.attach(random_support(adapter, 0.1))
    outputs = model.network(*batch(like))
    assert outputs.dtype == torch.float32
    outputs.sum().backward()
    assert attachment.whole.grad is not None
    assert torch.count_nonzero(attachment.whole.grad) == 32 * 2 + 2


@pytest.mark.parametrize("task", [IMAGES, TEXTS, "causal-lm"])
def test_an_absent_folder_is_an_error_that_names_it(tmp_path: Path, task: Task) -> None:
    with pytest.raises(ModelError, match=r"nowhere holds no config\.json"):
        _folder(tmp_path / "nowhere", task)


def test_a_folder_without_weights_is_an_error(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(
        ModelError, match=r"the model in .* cannot be read.*It needs config\.json, model\.safetensors"
    ):
        _folder(copy, TEXTS)


def test_pickled_weights_are_never_read(copy: Path) -> None:
    weights = copy / "model.safetensors"
    from safetensors.torch import load_file

    torch.save(load_file(weights), copy / "pytorch_model.bin")
    weights.unlink()
    with pytest.raises(ModelError, match=r"cannot be read.*model\.safetensors"):
        _folder(copy, TEXTS)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "{"),
        ("config.json", '{"model_type": "no such model"}'),
        ("config.json", "{}"),
        ("model.safetensors", "no tensors"),
        ("tokenizer.json", "{"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_the_folder(copy: Path, file: str, content: str) -> None:
    (copy / file).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=f"the model in {copy} cannot be read"):
        _folder(copy, TEXTS)


def test_a_damaged_description_of_the_images_is_an_error(tmp_path: Path) -> None:
    path = Path(shutil.copytree(folder("vit"), tmp_path / "model"))
    (path / "preprocessor_config.json").write_text('{"image_mean": ', encoding="utf-8")
    with pytest.raises(ModelError, match=f"the model in {path} cannot be read"):
        _folder(path, IMAGES)
    (path / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3]}', encoding="utf-8")
    reader = _folder(path, IMAGES).reader
    assert isinstance(reader, ImageReader)
    assert (reader.mean, reader.deviation) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5))


@pytest.mark.parametrize("told", ["[]", '{"image_mean": 0.5}', '{"image_std": [1, 2]}', '{"image_mean": null}'])
def test_a_description_of_the_images_that_says_something_else_is_an_error(told: str, tmp_path: Path) -> None:
    path = Path(shutil.copytree(folder("vit"), tmp_path / "model"))
    (path / "preprocessor_config.json").write_text(told, encoding="utf-8")
    with pytest.raises(ModelError, match=f"the model in {path} cannot be read"):
        _folder(path, IMAGES)


def test_images_of_a_model_that_was_trained_on_plain_pixels_are_not_normalised(tmp_path: Path) -> None:
    path = Path(shutil.copytree(folder("vit"), tmp_path / "model"))
    told = {"do_normalize": False, "image_mean": [0.5, 0.5, 0.5]}
    (path / "preprocessor_config.json").write_text(json.dumps(told), encoding="utf-8")
    reader = _folder(path, IMAGES).reader
    assert isinstance(reader, ImageReader)
    pixels = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(reader.normalise(pixels), pixels)


def test_code_in_a_folder_is_never_run(copy: Path) -> None:
    (copy / "evil.py").write_text("raise SystemExit('ran')\nclass Config: ...\n", encoding="utf-8")
    fields = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    fields |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Config"}}
    (copy / "config.json").write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(ModelError, match="cannot be read"):
        _folder(copy, TEXTS)


@pytest.mark.parametrize(
    ("name", "task", "message"),
    [
        ("bert", IMAGES, "bert reads input_ids, but the task image-classification gives pixel_values"),
        ("vit", TEXTS, "vit reads pixel_values, but the task text-classification gives input_ids"),
        ("vit", "causal-lm", "cannot be read"),
    ],
)
def test_a_model_made_for_another_task_is_an_error(name: str, task: Task, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        base(name, task=task)


def test_a_tokenizer_that_cannot_pad_is_an_error(copy: Path) -> None:
    path = copy / "tokenizer_config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    del fields["pad_token"]
    path.write_text(json.dumps(fields), encoding="utf-8")
    with pytest.raises(ModelError, match="has no token to pad with"):
        _folder(copy, TEXTS)


def test_a_vision_transformer_takes_only_the_size_it_was_trained_on() -> None:
    with pytest.raises(ConfigError, match=r"adapter\.image_size = 64, but vit in .* was trained on 32 pixels"):
        _folder(folder("vit"), IMAGES, image_size=64)
    assert _folder(folder("vit"), IMAGES, image_size=32).reader == ImageReader(32, (0.5,) * 3, (0.5,) * 3)
    assert _folder(folder("dinov2"), IMAGES, image_size=56).reader == ImageReader(56, (0.5,) * 3, (0.5,) * 3)


def test_more_tokens_than_the_model_has_positions_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"adapter\.max_tokens = 65, but bert has 64 positions"):
        _folder(folder("bert"), TEXTS, max_tokens=65)
    reader = _folder(folder("bert"), TEXTS, max_tokens=64).reader
    assert isinstance(reader, TextReader)
    assert reader.tokens(["w2 " * 99])[0].shape == (1, 64)
    default = _folder(folder("bert"), TEXTS).reader
    assert isinstance(default, TextReader)
    assert default.max_tokens == 64  # not 128: the model has no more


@pytest.mark.parametrize(("asked", "limit"), [(None, 128), (16, 16), (512, 512)])
def test_a_model_without_a_limit_of_its_own_takes_as_many_tokens_as_asked(asked: int | None, limit: int) -> None:
    assert _token_limit(SimpleNamespace(model_type="bloom"), asked) == limit


def test_positions_that_a_model_keeps_for_itself_are_noticed_before_training() -> None:
    with pytest.raises(ModelError, match="cannot compute a text of 64 tokens"):  # RoBERTa counts from 2 on
        _folder(folder("roberta"), TEXTS, max_tokens=64)
    assert _folder(folder("roberta"), TEXTS, max_tokens=62).fingerprint


# Factories


def efficientnet(classes: int) -> nn.Module:
    """A real network with depthwise convolutions and batch normalisation, which base.factory names below."""
    from efficientnet_lite_pytorch import EfficientNet

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network: nn.Module = EfficientNet.from_name("efficientnet-lite0", num_classes=classes)
    network.load_state_dict(read_tensors(), strict=False)
    return network


def not_a_module(classes: int) -> str:
    return "logits"


def failing(classes: int) -> nn.Module:
    raise RuntimeError("no licence found")


def too_many_logits(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, classes + 1))


def another_size(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, classes))


def _factory(path: str, **changes: object) -> BaseModel:
    spec = config.BaseModelSettings(model="imported", factory=path)
    return _load(spec, IMAGES, **{"image_size": 32, **changes})


@pytest.mark.parametrize(("kind", "rate"), [("delta", 1e-3), ("lora", 1e-2)])
def test_an_imported_network_trains(kind: Kind, rate: float) -> None:
    model = _factory(f"{__name__}:efficientnet")
    assert model.fingerprint == _factory(f"{__name__}:efficientnet").fingerprint
    norms = {name: value.clone() for name, value in model.network.state_dict().items() if "running" in name}
    adapter = build_adapter(model, settings(kind, dense=("_fc.*",)))
    assert any("_depthwise_conv" in tensor.name for tensor in adapter.space.tensors)
    draw = torch.Generator().manual_seed(0)
    inputs, labels = torch.randn(4, 3, 32, 32, generator=draw), torch.tensor([0, 1, 0, 1])
    attachment = adapter.attach(random_support(adapter, 0.05))
    _loss(adapter, (inputs,), labels).backward()  # type: ignore[no-untyped-call]
    reached = {
        adapter.space.tensors[part.position].name
        for part in attachment.parts
        if torch.count_nonzero(part.gradient)
    }
    assert any("_depthwise_conv" in name for name in reached)
    assert any("_expand_conv" in name for name in reached)
    adapter.discard()
    before = float(_loss(adapter, (inputs,), labels))
    assert _trained_loss(adapter, (inputs,), labels, steps=5, rate=rate) < 0.9 * before
    assert norms
    assert all(torch.equal(value, model.network.state_dict()[name]) for name, value in norms.items())


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("json.loads", "has no colon"),
        ("no.such.module:build", "cannot be imported: No module named 'no'"),
        ("json:no_such_function", "cannot be imported: .*no_such_function"),
        (":build", "cannot be imported"),
        ("json:__name__", "is no function"),
        (f"{__name__}:not_a_module", "returned str, not a torch module"),
        (f"{__name__}:failing", "failed for 2 classes: RuntimeError: no licence found"),
        (f"{__name__}:too_many_logits", r"makes \(1, 3\) of an image of 32 pixels, not \(1, 2\)"),
        (f"{__name__}:another_size", "cannot compute an image of 32 pixels"),
        ("torch.nn:Identity", "makes .* of an image of 32 pixels"),
    ],
)
def test_a_factory_that_cannot_be_used_is_an_error_that_says_why(path: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        _factory(path)


def test_a_module_that_fails_while_it_is_imported_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_factory.py").write_text("def build(:\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=r"'broken_factory:build' cannot be imported"):
        _factory("broken_factory:build")


# Names


class _Spec:
    """Settings as no file can give them."""

    model = "resnet-9000"
    folder = None
    factory = None


def test_an_unknown_model_is_an_error() -> None:
    with pytest.raises(
        ConfigError, match=r"base\.model = 'resnet-9000' is unknown.*base\.folder or base\.factory"
    ):
        load_base(_Spec(), settings(), ("a", "b"), IMAGES)


@pytest.mark.parametrize(
    ("spec", "task", "changes", "message"),
    [
        (config.BaseModelSettings(), TEXTS, {}, "classifies images; the task is text-classification"),
        (config.BaseModelSettings(model="minilm"), TEXTS, {"cut": 3}, r"cannot be cut, but adapter\.cut = 3"),
        (config.BaseModelSettings(model="x", factory="json:loads"), TEXTS, {}, "has a factory, for images"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_an_error(
    spec: config.BaseModelSettings, task: Task, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(FedsparseError, match=message):
        _load(spec, task, **changes)


# MiniLM

TEXT_BATCH = ("hydraulic hose is leaking oil", "bearing runs hot", "oil leak below the pump", "gearbox is noisy")
TEXT_LABELS = torch.tensor([0, 1, 0, 1])
MINILM = config.BaseModelSettings(model="minilm")
LAYERS = 6 * (4 * 384 * 384 + 2 * 384 * 1536)


@pytest.mark.parametrize(
    ("kind", "coordinates"),
    [
        ("delta", LAYERS + 384 * 2 + 2),
        ("lora", 6 * 2 * (4 * (384 + 384) + 2 * (384 + 1536)) + 384 * 2 + 2),
        ("bottleneck", 6 * 2 * 4 * 384 + 384 * 2 + 2),
    ],
)
def test_one_step_on_minilm_lowers_the_loss_of_its_batch(kind: Kind, coordinates: int) -> None:
    model = _load(MINILM, TEXTS)
    adapter = build_adapter(model, settings(kind))
    assert adapter.space.size == coordinates
    assert isinstance(model.reader, TextReader)
    inputs = model.reader.tokens(TEXT_BATCH)
    with torch.inference_mode():
        assert torch.equal(model.network(*inputs), torch.zeros(4, 2))
    before = float(_loss(adapter, inputs, TEXT_LABELS))
    assert before == pytest.approx(0.6931, abs=1e-4)
    assert _trained_loss(adapter, inputs, TEXT_LABELS, steps=1, rate=1e-2) < 0.95 * before


def _loss(adapter: Adapter, inputs: tuple[torch.Tensor, ...], labels: torch.Tensor) -> torch.Tensor:
    return nn.functional.cross_entropy(adapter.network(*inputs), labels)


def _trained_loss(
    adapter: Adapter, inputs: tuple[torch.Tensor, ...], labels: torch.Tensor, *, steps: int, rate: float
) -> float:
    """Return the loss after a few steps on one batch; the adapter is as before then."""
    attachment = adapter.attach(random_support(adapter, 0.05))
    optimiser = torch.optim.Adam([attachment.sparse, attachment.whole], lr=rate)
    for _ in range(steps):
        _loss(adapter, inputs, labels).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        attachment.clear_gradients()
        adapter.push()
    with torch.no_grad():
        loss = float(_loss(adapter, inputs, labels))
    adapter.discard()
    return loss

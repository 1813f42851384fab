"""Adapters in a folder: what is written comes back, and nothing else is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fedsparse import config
from fedsparse.adapters import build_adapter, load_base
from fedsparse.adapters.saved import SavedAdapter, load_adapter, open_adapter, save_adapter, settled
from fedsparse.cli.exchange import base_settings
from fedsparse.delta import AdapterSpace, Operation, SparseDelta, TensorDelta, TensorSpec
from fedsparse.errors import DeltaError, FedsparseError, ModelError, SpaceMismatchError
from tests.unit import model_samples

BASE = config.BaseModelSettings(model="bert", folder=model_samples.folder("bert"))
SPACE = AdapterSpace(bytes(range(32)), (TensorSpec("a.weight", (3, 4)), TensorSpec("head.bias", (2,))))


def state(space: AdapterSpace, value: float = 0.5) -> SparseDelta:
    return SparseDelta(space.fingerprint, Operation.SET, (TensorDelta(1, [0], [value]),))  # type: ignore[arg-type]


def saved(space: AdapterSpace = SPACE, **changes: Any) -> SavedAdapter:
    fields: dict[str, Any] = {
        "base": BASE,
        "settings": config.AdapterSettings(),
        "task": "text-classification",
        "classes": ("no", "yes"),
        "space": space,
        "state": state(space),
        "figures": {"accuracy": 0.75},
        "created": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    }
    return SavedAdapter(**fields | changes)


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    save_adapter(tmp_path / "new" / "adapter", saved())
    assert load_adapter(tmp_path / "new" / "adapter") == saved()


def test_a_later_adapter_takes_the_place_of_the_earlier_one(tmp_path: Path) -> None:
    save_adapter(tmp_path, saved())
    save_adapter(tmp_path, saved(state=state(SPACE, 0.25)))
    assert load_adapter(tmp_path).state == state(SPACE, 0.25)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".delta", ".json"]


def test_a_crash_before_the_manifest_is_replaced_leaves_the_earlier_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedsparse.adapters import saved as module

    save_adapter(tmp_path, saved())
    write = module.write_atomic

    def crash(path: Path, data: bytes) -> None:
        if path.name == "adapter.json":
            raise KeyboardInterrupt
        write(path, data)

    monkeypatch.setattr(module, "write_atomic", crash)
    with pytest.raises(KeyboardInterrupt):
        save_adapter(tmp_path, saved(state=state(SPACE, 0.25)))
    assert load_adapter(tmp_path) == saved()


def edited(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        manifest = json.loads((folder / "adapter.json").read_text())
        change(manifest)
        (folder / "adapter.json").write_text(json.dumps(manifest))

    return edit


def flipped(folder: Path) -> None:
    [path] = folder.glob("state-*.delta")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "error", "told"),
    [
        (edited(lambda m: m.update(extra=1)), ModelError, "extra: unknown key"),
        (edited(lambda m: m["adapter"].update(rang=1)), ModelError, r"adapter\.rang: unknown key"),
        (edited(lambda m: m.update(format=2)), ModelError, "format: .*1"),
        (edited(lambda m: m.pop("classes")), ModelError, "classes: Field required"),
        (edited(lambda m: m.update(task="translation")), ModelError, "task: "),
        (edited(lambda m: m.update(task="causal-lm")), ModelError, "classes: causal-lm has none"),
        (edited(lambda m: m.update(classes=["a"])), ModelError, "classes: text-classification needs two or more"),
        (edited(lambda m: m.update(classes=["a", "a"])), ModelError, "each named once"),
        (
            edited(lambda m: m["tensors"][0].update(shape=[-1])),
            ModelError,
            r"adapter\.json is not valid: the shape",
        ),
        (edited(lambda m: m.update(base_fingerprint="ab")), ModelError, r"adapter\.json is not valid: .*32 bytes"),
        (edited(lambda m: m["state"].update(file="a\0b")), DeltaError, "cannot be read: embedded null byte"),
        (edited(lambda m: m["figures"].update(loss="NaN")), ModelError, r"figures\.loss: .*finite"),
        (edited(lambda m: m.update(space_fingerprint="zz")), ModelError, "'zz' is no fingerprint"),
        (edited(lambda m: m["tensors"][0].update(shape=[4, 3])), SpaceMismatchError, "its tensors make up"),
        (edited(lambda m: m.update(base_fingerprint="00" * 32)), SpaceMismatchError, "its tensors make up"),
        (edited(lambda m: m["state"].update(sha256="00" * 32)), DeltaError, "has the digest .* names 0000"),
        (edited(lambda m: m["state"].update(file="../../etc/passwd")), DeltaError, "cannot be read"),
        (flipped, DeltaError, "has the digest"),
        (lambda folder: next(folder.glob("state-*")).unlink(), DeltaError, "cannot be read"),
        (lambda folder: (folder / "adapter.json").write_text("{"), ModelError, r"adapter\.json is not valid"),
        (lambda folder: (folder / "adapter.json").unlink(), ModelError, r"holds no adapter\.json"),
    ],
)
def test_what_was_altered_is_refused_with_what_is_wrong(
    tmp_path: Path, spoil: Callable[[Path], object], error: type[FedsparseError], told: str
) -> None:
    save_adapter(tmp_path, saved())
    spoil(tmp_path)
    with pytest.raises(error, match=told):
        load_adapter(tmp_path)


def test_an_addition_or_a_state_of_another_space_is_no_adapter() -> None:
    with pytest.raises(DeltaError, match="not as an ADD"):
        saved(state=SparseDelta.empty(SPACE.fingerprint, Operation.ADD))
    with pytest.raises(SpaceMismatchError, match="the state's adapter space is 0000"):
        saved(state=SparseDelta.empty(bytes(32), Operation.SET))


@pytest.mark.parametrize("kind", model_samples.KINDS)
def test_an_opened_adapter_answers_as_the_trained_one_did(tmp_path: Path, kind: model_samples.Kind) -> None:
    settings = model_samples.settings(kind)
    model = load_base(BASE, settings, ("no", "yes"), "text-classification")
    adapter = build_adapter(model, settings)
    trained = model_samples.random_state(adapter.space, share=0.3)
    inputs = model_samples.batch("bert")
    with torch.no_grad():
        expected = adapter.load(trained).network(*inputs)
    save_adapter(tmp_path, saved(adapter.space, settings=settled(settings, model), state=trained))
    base, opened = open_adapter(tmp_path)
    with torch.no_grad():
        assert torch.equal(opened.network(*inputs), expected)
    assert base.fingerprint == model.fingerprint


def colour_network(classes: int) -> nn.Module:
    """Answer by an image's mean colour: the factory that an adapter names below."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, classes))
    for weight in network.parameters():
        nn.init.ones_(weight)
    return network


def test_a_file_does_not_decide_which_code_is_run(tmp_path: Path) -> None:
    base = config.BaseModelSettings(model="colour", factory=f"{__name__}:colour_network")
    settings = config.AdapterSettings(image_size=32, dense=())
    model = load_base(base, settings, ("no", "yes"), "image-classification")
    adapter = build_adapter(model, settings)
    untouched = SparseDelta.empty(adapter.space.fingerprint, Operation.SET)
    task = {"task": "image-classification", "base": base, "settings": settings}
    save_adapter(tmp_path, saved(adapter.space, state=untouched, **task))
    with pytest.raises(ModelError, match=r"built by '.*:colour_network', but a file does not decide"):
        open_adapter(tmp_path)
    _, opened = open_adapter(tmp_path, base_settings(f"{__name__}:colour_network"))
    assert opened.space == adapter.space


def test_the_folder_of_a_whole_run_is_answered_with_where_its_adapter_is(tmp_path: Path) -> None:
    save_adapter(tmp_path / "adapter", saved())
    with pytest.raises(ModelError, match=rf"holds no adapter\.json. Name {tmp_path / 'adapter'}"):
        load_adapter(tmp_path)


def test_another_base_model_is_refused_with_both_fingerprints(tmp_path: Path) -> None:
    adapter = build_adapter(model_samples.base("bert"), config.AdapterSettings())
    save_adapter(tmp_path, saved(adapter.space, state=state(adapter.space)))
    other = config.BaseModelSettings(model="other", folder=model_samples.folder("llama-headless"))
    own = adapter.space.base_fingerprint.hex()[:16]
    with pytest.raises(ModelError, match=f"the base model other here has the fingerprint .*{own}"):
        open_adapter(tmp_path, other)


def test_what_the_base_model_chose_is_written_down() -> None:
    settings = settled(config.AdapterSettings(), model_samples.base("bert"))
    assert (settings.cut, settings.max_tokens, settings.image_size) == (0, 64, None)
    settings = settled(config.AdapterSettings(), model_samples.base("vit"))
    assert (settings.cut, settings.max_tokens, settings.image_size) == (0, None, 32)

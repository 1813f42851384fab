"""What a plant builds from what the hub tells it: adapters on texts and images, and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fedsparse_client.trainer import build_runner, build_trainer, open_site
from fedsparse_server.evaluation import _describe as describe_federation

from fedsparse import config
from fedsparse.adapters import build_adapter, load_base
from fedsparse.delta import (
    AdapterSpace,
    Operation,
    Reason,
    RoundTask,
    RoundUpdate,
    SparseDelta,
    TrainingSettings,
    apply,
)
from fedsparse.errors import ConfigError, DataError, FedsparseError, ModelError, SpaceMismatchError
from fedsparse.training.manifest import take, write_manifest
from fedsparse.v1 import link_pb2

from .model_samples import KINDS, Kind, folder
from .model_samples import one_thread as one_thread  # for every test here
from .training_samples import write_images

TEXTS, IMAGES = "text-classification", "image-classification"
BERT = {"model": "tiny-bert", "folder": folder("bert")}
IDENTITY = {"certificate": "c.pem", "key": "c.key", "authority": "ca.pem"}
SIZES = {"rank": 2, "width": 4}


def federation(task: str, adapter: dict[str, object], base: dict[str, object]) -> link_pb2.Federation:
    """Return what the hub of such a federation tells its plants, as it comes off the wire."""
    settings = config.FederationConfig.model_validate(
        {
            "federation": {"name": "works", "task": task, "classes": ["dark", "light"]},
            "base": base,
            "adapter": {**SIZES, **adapter},
            "hub": {"listen": "127.0.0.1:1", "plants": ["kiso", "ina"], "identity": IDENTITY},
        }
    )
    model = load_base(settings.base, settings.adapter, settings.federation.classes, settings.federation.task)
    told = describe_federation(settings, model, build_adapter(model, settings.adapter).space)
    return link_pb2.Federation.FromString(told.SerializeToString())


def site(state: Path, data: Path, **changes: object) -> config.SiteConfig:
    """Return a plant's settings."""
    state.mkdir(exist_ok=True)
    told = {"site": {"name": "kiso", "hub": "127.0.0.1:1", "identity": IDENTITY}, "data": {"path": data}}
    return config.SiteConfig.model_validate({**told, "state": state, **changes})


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write texts that one word tells apart; each class is longer than the other in some."""
    path = tmp_path_factory.mktemp("texts") / "orders.csv"
    draw = np.random.default_rng(2)
    lines = {
        f"{' '.join(f'w{i}' for i in draw.integers(2, 20, draw.integers(3, 8)))} {word},{label}"
        for word, label in (("w50", "dark"), ("w51", "light"))
        for _ in range(20)
    }
    path.write_text("text,label\n" + "\n".join(sorted(lines)) + "\n")
    return path


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), per_class=6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plant_learns_texts_as_the_hub_tells_it(kind: Kind, texts: Path, tmp_path: Path) -> None:
    told = federation(TEXTS, {"kind": kind, "max_tokens": 6}, BERT)
    trainer = build_trainer(site(tmp_path / "state", texts, base=BERT), told)
    assert trainer.adapter.kind == kind
    settings = TrainingSettings(0.3, epochs=9, batch_size=8, learning_rate=1e-2, head_learning_rate=3e-2, seed=0)
    state, losses = SparseDelta.empty(trainer.space.fingerprint, Operation.SET), []
    for number in (1, 2, 3):
        trained = trainer.train(state, settings, number)
        assert 0 < trained.delta.nnz <= 0.3 * trainer.space.size
        state, losses = apply(state, trained.delta), [*losses, trained.loss]
    assert losses[2] < losses[0] / 2
    assert trainer.inputs.batch(np.arange(len(trainer.samples)))[0].shape[1] == 6  # the longest have 8


@pytest.mark.parametrize("kind", KINDS)
def test_a_plant_learns_images_as_the_hub_tells_it(kind: Kind, images: Path, tmp_path: Path) -> None:
    base = {"model": "efficientnet-lite0"}
    told = federation(IMAGES, {"kind": kind, "cut": 15, "image_size": 32}, base)
    trainer = build_trainer(site(tmp_path / "state", images), told)
    assert trainer.adapter.kind == kind
    settings = TrainingSettings(0.6, epochs=1, batch_size=8, learning_rate=1e-3, head_learning_rate=1e-2, seed=0)
    untouched = SparseDelta.empty(trainer.space.fingerprint, Operation.SET)
    first = trainer.train(untouched, settings, 1)
    assert 0 < first.delta.nnz <= 0.6 * trainer.space.size
    assert trainer.train(untouched, settings, 1).delta == first.delta  # the round before left nothing behind


@pytest.mark.parametrize("kind", KINDS)
def test_a_plant_derives_the_space_of_minilm_as_the_operator_does(kind: Kind, texts: Path, tmp_path: Path) -> None:
    told = federation(TEXTS, {"kind": kind}, {"model": "minilm"})
    assert (told.adapter.max_tokens, told.adapter.image_size, told.adapter.cut) == (128, 0, 0)
    trainer = build_trainer(site(tmp_path / "state", texts), told)
    assert trainer.space == AdapterSpace.from_proto(told.space)


HOSTILE = [
    {"kind": "pickle"},
    {"alpha": float("nan")},
    {"alpha": float("inf")},
    {"alpha": -1.0},
    {"rank": 0},
    {"rank": 1 << 31},
    {"width": 0},
    {"width": 1 << 31},
    {"cut": 17},
    {"max_tokens": 1 << 31},
    {"image_size": 1 << 31},
]


@pytest.mark.parametrize("hostile", HOSTILE, ids=str)
def test_sizes_that_cannot_be_are_refused_before_anything_is_built(
    hostile: dict[str, object], texts: Path, tmp_path: Path
) -> None:
    told = federation(TEXTS, {"kind": "lora"}, BERT)
    for name, value in hostile.items():
        setattr(told.adapter, name, value)
    with pytest.raises(ModelError, match="the hub asks for an adapter that cannot be"):
        build_trainer(site(tmp_path / "state", texts, base=BERT), told)


@pytest.mark.parametrize(
    ("kind", "size"), [("lora", {"rank": 1024}), ("bottleneck", {"width": 4096}), ("bottleneck", {"width": 33})]
)
def test_factors_and_bottlenecks_larger_than_their_layers_are_refused(
    kind: str, size: dict[str, int], texts: Path, tmp_path: Path
) -> None:
    told = federation(TEXTS, {"kind": kind}, BERT)
    for name, value in size.items():
        setattr(told.adapter, name, value)
    with pytest.raises(ConfigError, match=r"adapter\.width = \d+ is no bottleneck|takes a lora adapter"):
        build_trainer(site(tmp_path / "state", texts, base=BERT), told)


@pytest.mark.parametrize(
    ("field", "value"),
    [("task", "causal-lm"), ("task", ""), ("name", "../up"), ("classes", ["dark"]), ("classes", ["dark", "dark"])],
)
def test_a_federation_that_cannot_be_is_an_error_of_ours(
    field: str, value: object, texts: Path, tmp_path: Path
) -> None:
    told = federation(TEXTS, {}, BERT)
    told.ClearField(field)  # type: ignore[arg-type]
    told.MergeFrom(link_pb2.Federation(**{field: value}))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="the hub describes a federation that cannot be"):
        build_trainer(site(tmp_path / "state", texts, base=BERT), told)


@pytest.mark.parametrize("name", ["vit", "/etc", "../../models/evil", "os:abort", ""])
def test_the_hub_cannot_name_a_folder_or_code(name: str, texts: Path, tmp_path: Path) -> None:
    told = federation(TEXTS, {}, BERT)
    told.base_model = name
    for own in ({}, {"base": BERT}):
        with pytest.raises(ModelError, match="which this site does not have"):
            build_trainer(site(tmp_path / "state", texts, **own), told)


def test_another_base_and_another_space_are_refused(texts: Path, tmp_path: Path) -> None:
    settings = site(tmp_path / "state", texts, base=BERT)
    told = federation(TEXTS, {}, BERT)
    told.base_fingerprint = bytes(32)
    with pytest.raises(ModelError, match="the federation trains on 0000000000000000"):
        build_trainer(settings, told)
    told = federation(TEXTS, {}, BERT)
    told.adapter.include.append("backbone.encoder.layer.0.*.weight")
    with pytest.raises(FedsparseError):  # a norm's weight cannot be adapted
        build_trainer(settings, told)
    told.adapter.include[:] = ["backbone.encoder.layer.0.*.dense.weight"]
    with pytest.raises(SpaceMismatchError, match="this site derives the adapter space"):
        build_trainer(settings, told)


def test_mixing_of_texts_is_refused_before_the_first_round(texts: Path, tmp_path: Path) -> None:
    settings = site(tmp_path / "state", texts, base=BERT, augmentation={"mixup": 0.2})
    with pytest.raises(ConfigError, match=r"augmentation\.mixup and augmentation\.cutmix are for images"):
        build_trainer(settings, federation(TEXTS, {}, BERT))


def _pin(state: Path, data: Path) -> config.SiteConfig:
    """Return a plant's settings with its data pinned as they are now."""
    path = state.parent / "data-manifest.json"
    write_manifest(take(config.DataSettings(path=data)).manifest, path)
    settings = site(state, data, base=BERT)
    return settings.model_copy(update={"data": config.SiteDataSettings(path=data, manifest=path)})


def test_pinned_data_that_were_changed_are_refused_before_anything_is_trained(texts: Path, tmp_path: Path) -> None:
    data = Path(shutil.copy(texts, tmp_path))
    settings, told = _pin(tmp_path / "state", data), federation(TEXTS, {}, BERT)
    assert build_trainer(settings, told).samples
    data.write_text(data.read_text().replace("w50,dark", "w50,light", 1))  # one label
    with pytest.raises(DataError, match=r"orders\.csv was changed .*; expected the fingerprint [0-9a-f]{64}"):
        build_trainer(settings, told)


def test_pinned_data_that_change_while_they_are_loaded_are_refused(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fedsparse.training

    data = Path(shutil.copy(texts, tmp_path))
    load = fedsparse.training.load_labelled

    def meddled(*arguments: Any) -> Any:
        data.write_text(data.read_text().replace("w50,dark", "w50,light", 1))
        return load(*arguments)

    monkeypatch.setattr(fedsparse.training, "load_labelled", meddled)
    with pytest.raises(DataError, match=r"orders\.csv was changed since it was verified"):
        build_trainer(_pin(tmp_path / "state", data), federation(TEXTS, {}, BERT))


def test_pinned_data_that_change_between_rounds_are_told_to_the_federation_as_a_code_alone(
    texts: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = Path(shutil.copy(texts, tmp_path))
    settings = _pin(tmp_path / "state", data)
    opened = open_site(settings, federation(TEXTS, {}, BERT))
    runner = build_runner(settings, opened.trainer, opened.pinned)
    how = TrainingSettings(0.3, epochs=1, batch_size=8, learning_rate=1e-2, head_learning_rate=1e-2, seed=0)
    space = opened.trainer.space.fingerprint

    def answer(number: int) -> RoundUpdate:
        return runner.answer(RoundTask(number, space, 0, 0, (), b"", b"", b"", how))

    assert answer(1).reason is Reason.NONE
    before = data.read_text()
    data.write_text(before.replace("w50,dark", "w50,light", 1))
    assert answer(2) == RoundUpdate.refusal(2, 0, Reason.DATA_UNAVAILABLE)
    assert "orders.csv was changed since it was verified" in caplog.text
    data.write_text(before)
    assert answer(3).reason is Reason.NONE

"""`fedsparse train` and `fedsparse predict` from the command line to what they leave behind."""

from __future__ import annotations

import csv
import errno
import json
import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from fedsparse import config
from fedsparse.adapters import Task, build_adapter, load_base
from fedsparse.adapters.saved import SavedAdapter, load_adapter, open_adapter, save_adapter
from fedsparse.cli import train as command
from fedsparse.cli.main import app
from fedsparse.cli.train_plots import ticks
from fedsparse.cli.train_record import confusion, positive_text, reliability
from fedsparse.cli.train_report import verdict, verdict_japanese
from fedsparse.delta import AdapterSpace, Operation, SparseDelta, TensorDelta
from fedsparse.errors import ConfigError, DataError, FedsparseError
from fedsparse.training.outcome import Epoch
from tests.unit import model_samples
from tests.unit.data_samples import CLASSES, encoded, write_csv, write_images, write_jsonl

FAST = """
[adapter]
cut = 15
image_size = 32
[machine]
threads = 1
"""
LITE0 = config.BaseModelSettings()
STAGES = """
[[training.stages]]
name = "head"
epochs = 2
density = 0
head_learning_rate = 0.01
[[training.stages]]
name = "all"
epochs = 3
density = 0.02
"""


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_images(tmp_path / "images")


def written(folder: Path, text: str, data: str = 'path = "images"', more: str = "") -> Path:
    path = folder / "train.toml"
    path.write_text(f'output = "out"\n{more}[data]\n{data}\n{text}', encoding="utf-8")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "160"})


def trained(*arguments: object) -> str:
    result = run("train", *arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


def problem(*arguments: object) -> str:
    result = run(*arguments)
    assert isinstance(result.exception, FedsparseError), (result.output, result.exception)
    return str(result.exception)


def report(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return found


class _Page(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attributes]


@pytest.mark.parametrize(
    ("name", "taught"),
    [("train", "Ctrl-C keeps the best adapter so far"), ("predict", "Folder of a saved adapter.")],
)
def test_both_commands_teach_themselves(name: str, taught: str) -> None:
    told = run(name, "--help").output
    assert f"Usage: root {name} [OPTIONS]" in told
    assert taught in told


def test_images_become_an_adapter_and_a_report(tmp_path: Path, images: Path) -> None:
    told = trained("--config", written(tmp_path, FAST + STAGES))
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} >= {"adapter", "cache", "report.html", "report.json"}
    assert "32 samples: 28 to train on, 4 held out" in told
    assert len(re.findall(r"^(?:head|all) +\d+  loss ", told, re.MULTILINE)) == 5
    found = report(out)
    assert [epoch["stage"] for epoch in found["epochs"]] == ["head", "head", "all", "all", "all"]
    assert found["adapter"]["bytes_bf16"] < found["adapter"]["bytes_fp32"] < found["adapter"]["bytes_dense"]
    by_name = {figure["name"]: figure for figure in found["figures"]}
    assert len(by_name) == 7
    assert "positive     light, the second of the two classes, unless task.positive names the other" in told
    assert found["positive"] == "light, the second of the two classes, unless task.positive names the other"
    assert f"Positive class: <bdi>{found['positive']}</bdi>" in (out / "report.html").read_text(encoding="utf-8")
    assert by_name["balanced_accuracy"]["before"]["value"] == 0.5
    assert by_name["loss"]["after"]["value"] < by_name["loss"]["before"]["value"]
    assert by_name["loss"]["after"]["low"] <= by_name["loss"]["after"]["value"] <= by_name["loss"]["after"]["high"]
    assert sum(map(sum, found["confusion"])) == 4
    adapter = load_adapter(out / "adapter")
    assert adapter.classes == ("dark", "light")
    assert adapter.state.nnz == found["adapter"]["nnz"]
    assert adapter.figures["loss"] == by_name["loss"]["after"]["value"]
    assert (adapter.settings.cut, adapter.settings.image_size) == (15, 32)


def test_the_report_requests_nothing_and_runs_nothing_even_with_hostile_names(tmp_path: Path) -> None:
    hostile = '"><script>alert(1)</script>'
    rows = [(str(path), path.parent.name) for path in sorted(write_images(tmp_path / "x").rglob("*.png"))]
    rows = [(path, hostile if label == "dark" else label) for path, label in rows]
    write_csv(tmp_path / "images.csv", rows, ("path", "label"))
    trained("--config", written(tmp_path, FAST, 'path = "images.csv"'), "--density", "auto")
    html = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    page = _Page(html)
    assert not {"script", "link", "img", "iframe", "object", "use", "a"} & set(page.tags)
    assert not [name for name in page.attributes if name.startswith("on") or name in ("src", "href")]
    assert not re.search(r"https?:|url\(|@import", html)
    assert page.tags.count("figure") == 4
    assert report(tmp_path / "out")["automatic"]["cost"] <= 3


def test_data_alone_is_enough(tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    settings = command.read_settings(command.Options(data=Path("images")))
    assert settings.data.path == images
    assert settings.output == tmp_path / "runs" / "train"


def test_options_stand_above_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "[training]\nseed = 1\nbatch_size = 8\ndensity = 0.5\n")
    options = command.Options(None, None, Path("elsewhere"), "0.02", "lora", 7)
    settings = command.read_settings(options)
    assert settings.data.path == tmp_path / "images"
    assert settings.output == tmp_path / "elsewhere"
    assert (settings.training.seed, settings.training.batch_size, settings.training.density) == (7, 8, 0.02)
    assert settings.adapter.kind == "lora"
    assert command.read_settings(command.Options(density="auto")).training.density == "auto"


def test_the_same_seed_gives_the_same_figures_and_another_one_others(tmp_path: Path, images: Path) -> None:
    path = written(tmp_path, FAST + STAGES)
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        trained("--config", path, "--seed", seed, "--output", tmp_path / name)
    one, two, three = (report(tmp_path / name) for name in ("one", "two", "three"))
    assert one["figures"] == two["figures"] != three["figures"]
    assert [epoch["loss"] for epoch in one["epochs"]] == [epoch["loss"] for epoch in two["epochs"]]
    assert load_adapter(tmp_path / "one" / "adapter").state == load_adapter(tmp_path / "two" / "adapter").state
    assert one["data"] == three["data"]


def test_a_second_run_reads_no_image_again(tmp_path: Path, images: Path) -> None:
    path = written(tmp_path, FAST + STAGES)
    assert "training images 100% read" in trained("--config", path)
    assert "images 100% read" not in trained("--config", path)


def test_an_interrupted_run_keeps_the_best_epoch_and_says_so(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = command.TrainView.epoch

    def interrupt(view: command.TrainView, epoch: Epoch, best: bool) -> None:
        watch(view, epoch, best)
        if epoch.number == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(command.TrainView, "epoch", interrupt)
    result = run("train", "--config", written(tmp_path, FAST + STAGES))
    assert result.exit_code == 130
    kept = re.search(r"interrupted; .*out/adapter holds the adapter of epoch (\d)", result.output)
    assert kept is not None
    assert not (tmp_path / "out" / "report.json").exists()
    figures = dict(load_adapter(tmp_path / "out" / "adapter").figures)
    monkeypatch.undo()
    trained("--config", tmp_path / "train.toml")
    quality = report(tmp_path / "out")["epochs"][int(kept[1]) - 1]["quality"]
    assert quality == {name: value for name, value in figures.items() if name != "samples"}


def test_a_run_that_is_interrupted_at_once_says_what_there_is(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, FAST + STAGES)
    monkeypatch.setattr(command, "divide", lambda settings: (_ for _ in ()).throw(KeyboardInterrupt))
    assert "no epoch was finished, so there is no adapter" in run("train", "--config", path).output
    monkeypatch.undo()
    trained("--config", path)
    before = load_adapter(tmp_path / "out" / "adapter")
    monkeypatch.setattr(command, "divide", lambda settings: (_ for _ in ()).throw(KeyboardInterrupt))
    assert "out/adapter is still the earlier run's" in run("train", "--config", path).output
    assert load_adapter(tmp_path / "out" / "adapter") == before


def test_files_of_others_are_left_alone(tmp_path: Path, images: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    assert "holds files that are not an earlier run's. Name another folder with --output" in problem(
        "train", "--config", written(tmp_path, FAST)
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_a_hold_out_of_ones_own_is_not_trained_on_even_where_it_is_in_the_data_too(
    tmp_path: Path, images: Path
) -> None:
    files = sorted(images.rglob("*.png"))
    rows = [(str(path), path.parent.name) for path in files]
    write_csv(tmp_path / "train.csv", rows, ("path", "label"))
    write_csv(tmp_path / "test.csv", rows[::4], ("path", "label"))
    data = 'path = "train.csv"\n[holdout]\npath = "test.csv"'
    told = trained("--config", written(tmp_path, FAST + STAGES, data))
    assert "32 samples: 24 to train on, 8 held out" in told
    assert "warning: 8 held-out samples are in the training data too; not trained on" in told
    assert report(tmp_path / "out")["data"]["shared"] == 8


def test_a_label_that_differs_in_the_hold_out_is_an_error(tmp_path: Path, images: Path) -> None:
    first = sorted(images.rglob("*.png"))[0]
    write_csv(tmp_path / "test.csv", [(str(first), "light")], ("path", "label"))
    path = written(tmp_path, FAST, 'path = "images"\n[holdout]\npath = "test.csv"')
    assert "is labelled 'light' in the hold-out, but 'dark' in the training data" in problem("train", "-c", path)


def test_the_positive_class_is_told_with_where_it_comes_from_and_of_two_classes_alone() -> None:
    data = {"data": {"path": "images"}}
    assert positive_text(config.TrainConfig.model_validate(data), ("a", "b", "c")) is None
    named = config.TrainConfig.model_validate(data | {"task": {"positive": "dark"}})
    assert positive_text(named, CLASSES) == "dark, as task.positive says"


def test_texts_for_a_task_of_images_are_told_with_the_settings_that_suit_them(tmp_path: Path) -> None:
    path = texts(tmp_path / "texts.csv", labelled=True)
    told = problem("train", "--data", path, "--output", tmp_path / "out")
    assert "texts.csv has no column path but a column text, so it seems to list texts" in told
    assert 'write task.kind = "text-classification" and base.model = "minilm" into a settings file' in told


@pytest.mark.parametrize("name", ["images.csv", "images.jsonl"])
def test_images_for_a_task_of_texts_are_told_with_the_settings_that_suit_them(tmp_path: Path, name: str) -> None:
    rows = [(f"{number}.png", "dark") for number in range(4)]
    if name.endswith("csv"):
        write_csv(tmp_path / name, rows, ("picture", "label"))
    else:
        write_jsonl(tmp_path / name, [{"picture": path, "label": label} for path, label in rows])
    data = f'path = "{name}"\nimage = "picture"'
    told = problem("train", "-c", written(tmp_path, '[task]\nkind = "text-classification"\n', data))
    assert f"{name} has no column text but a column picture, so it seems to list images" in told
    assert 'For images set task.kind = "image-classification"' in told


@pytest.mark.parametrize("header", [("words", "label"), ("path", "class")])
def test_a_manifest_that_lacks_a_column_otherwise_is_told_as_before(
    tmp_path: Path, header: tuple[str, str]
) -> None:
    write_csv(tmp_path / "a.csv", [("x", "dark")], header)
    assert "Let its first line be: path,label" in problem("train", "-c", written(tmp_path, "", 'path = "a.csv"'))


def test_a_head_of_zeros_that_is_not_dense_is_an_error_before_anything_is_trained(
    tmp_path: Path, images: Path
) -> None:
    told = problem("train", "-c", written(tmp_path, FAST.replace("[adapter]", "[adapter]\ndense = []")))
    assert "has nothing to go by" in told
    assert "list it in adapter.dense" in told
    assert not (tmp_path / "out" / "adapter").exists()


def test_a_small_class_is_a_warning_and_a_lone_one_an_error(tmp_path: Path) -> None:
    files = sorted(write_images(tmp_path / "x").rglob("*.png"))
    rows = [(str(path), path.parent.name) for path in files if path.parent.name == "dark" or path.stem < "002"]
    write_csv(tmp_path / "few.csv", rows, ("path", "label"))
    told = trained("--config", written(tmp_path, FAST + STAGES, 'path = "few.csv"'))
    assert re.search(r"warning: too few samples .*\n +light \(2\)", told)
    write_csv(tmp_path / "few.csv", [row for row in rows if row[1] == "dark"], ("path", "label"))
    assert "has the class 'dark' alone" in problem("train", "--config", tmp_path / "train.toml")
    more = '[task]\nclasses = ["dark", "light"]\n'
    path = written(tmp_path, FAST + more, 'path = "few.csv"')
    assert "has no image of the class 'light'" in problem("train", "--config", path)


@pytest.mark.parametrize(
    ("settings", "options", "told"),
    [
        ("", ["--density", "much"], "training.density = 'much': use a share above 0, at most 1, or \"auto\""),
        ("", ["--density", "0.0001"], "Raise training.density to at least"),
        ("", ["--kind", "prefix"], "adapter.kind = 'prefix': input should be 'delta', 'lora' or 'bottleneck'"),
        ("", ["--seed", "-1"], "training.seed = -1: input should be greater than or equal to 0"),
        (STAGES, ["--density", "0.1"], "each of its stages says its own density"),
        ('[task]\npositive = "blue"\n', [], "task.positive = 'blue', but the classes are dark, light"),
        ("[automatic]\nmax_bytes = 2000\n", ["--density", "auto"], "automatic.max_bytes = 2000, but the values"),
        ("[training]\nholdout = 1.0\n", [], "training.holdout = 1.0: input should be less than 1"),
        ("[objective]\nproximal = 1e308\n", [], "objective.proximal = 1e+308: input should be less than or equal"),
    ],
)
def test_wrong_settings_are_told_before_anything_is_trained(
    tmp_path: Path, images: Path, settings: str, options: list[str], told: str
) -> None:
    assert told in problem("train", "--config", written(tmp_path, FAST + settings), *options)
    assert not (tmp_path / "out" / "adapter").exists()


def test_without_data_and_settings_there_is_nothing_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "there is nothing to train on. Name samples with --data" in problem("train")
    assert "data = " not in problem("train", "--config", "absent.toml")
    with pytest.raises(ConfigError, match=r"no settings file at .*absent\.toml"):
        command.read_settings(command.Options(config=Path("absent.toml")))
    assert "does not exist" in problem("train", "--data", tmp_path / "absent", "--output", tmp_path / "out")


def texts(path: Path, labelled: bool) -> Path:
    """Write sentences of the tiny models' words: low numbers in one class, high ones in the other."""
    draw = np.random.default_rng(2)
    rows = []
    for number in range(60):
        low = number % 2 == 0
        words = " ".join(f"w{i}" for i in draw.integers(*((2, 20) if low else (60, 99)), size=6))
        rows.append((words, "low" if low else "high"))
    if labelled:
        return write_csv(path, rows, ("text", "label"))
    path.write_text("".join(f"{words}\n" for words, _ in rows), encoding="utf-8")
    return path


def tiny_qwen2(folder: Path) -> Path:
    """Save a language model of one layer with a tokenizer of single bytes."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

    characters = sorted(ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate(characters)} | {"<|endoftext|>": 256}
    Qwen2Tokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=257,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=1,
            )
        )
    model.save_pretrained(folder)
    return folder


def language_settings(folder: Path, kind: str) -> str:
    return f"""
[task]
kind = "{kind}"
[base]
model = "tiny"
folder = "{folder}"
[machine]
threads = 1
[training]
batch_size = 8
"""


def test_texts_become_a_classifier_that_predicts(tmp_path: Path) -> None:
    texts(tmp_path / "texts.csv", labelled=True)
    settings = language_settings(model_samples.folder("bert"), "text-classification") + "density = 0.2\n"
    trained("--config", written(tmp_path, settings, 'path = "texts.csv"'))
    figures = {figure["name"]: figure["after"]["value"] for figure in report(tmp_path / "out")["figures"]}
    assert figures["balanced_accuracy"] > 0.8
    (tmp_path / "new.txt").write_text("w3 w5 w7 w9 w4\nw70 w80 w90 w65 w61\n")
    result = run("predict", tmp_path / "out" / "adapter", tmp_path / "new.txt")
    lines = list(csv.DictReader(result.stdout.splitlines()))
    assert [(line["text"], line["answer"]) for line in lines] == [
        ("w3 w5 w7 w9 w4", "low"),
        ("w70 w80 w90 w65 w61", "high"),
    ]
    assert all(float(line["low"]) + float(line["high"]) == pytest.approx(1, abs=2e-6) for line in lines)


def test_a_language_model_learns_from_plain_text(tmp_path: Path) -> None:
    texts(tmp_path / "corpus.txt", labelled=False)
    settings = language_settings(tiny_qwen2(tmp_path / "qwen2"), "causal-lm") + "density = 0.2\n"
    told = trained("--config", written(tmp_path, settings, 'path = "corpus.txt"'))
    assert not re.search(r"^head ", told, re.MULTILINE)
    found = report(tmp_path / "out")
    figures = {figure["name"]: figure for figure in found["figures"]}
    assert set(figures) == {"loss", "perplexity", "accuracy"}
    before, after = figures["loss"]["before"]["value"], figures["loss"]["after"]["value"]
    assert after < before - 0.1
    assert figures["perplexity"]["after"]["value"] == pytest.approx(np.exp(after))
    assert found["epochs"][-1]["loss"] < found["epochs"][0]["loss"]
    assert found["confusion"] is None
    _, adapter = open_adapter(tmp_path / "out" / "adapter")
    assert adapter.space.fingerprint.hex() == found["adapter"]["space_fingerprint"]
    assert "has no classes" in problem("predict", tmp_path / "out" / "adapter", tmp_path / "corpus.txt")


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_other_kinds_of_adapter_are_trained_and_opened_too(tmp_path: Path, images: Path, kind: str) -> None:
    trained("--config", written(tmp_path, FAST), "--kind", kind)
    found = report(tmp_path / "out")
    assert found["adapter"]["kind"] == kind
    assert found["adapter"]["density"] <= 0.25
    _, adapter = open_adapter(tmp_path / "out" / "adapter")
    assert adapter.kind == kind


def test_predictions_of_images_are_written_as_csv_with_what_cannot_be_read_left_empty(
    tmp_path: Path, images: Path
) -> None:
    trained("--config", written(tmp_path, FAST + STAGES))
    fresh = tmp_path / "fresh"
    (fresh / "deep" / "er").mkdir(parents=True)
    for number, path in enumerate(sorted(images.rglob("*.png"))[::16]):
        path.rename(fresh / "deep" / "er" / f"{number}.png")
    (fresh / "broken.png").write_bytes(b"no image")
    (fresh / "picture.gif").write_bytes(encoded(Image.new("L", (32, 32)), "GIF"))
    (fresh / "notes.txt").write_text("no image either")
    result = run("predict", tmp_path / "out" / "adapter", fresh, "--output", tmp_path / "answers.csv")
    assert result.exit_code == 0, result.exception
    assert "2 answers in" in result.stderr
    assert "2 samples cannot be read as BMP, JPEG, PNG, PPM, TIFF, WEBP" in result.stderr
    rows = list(csv.DictReader((tmp_path / "answers.csv").read_text().splitlines()))
    assert [Path(row["path"]).name for row in rows] == ["broken.png", "0.png", "1.png", "picture.gif"]
    assert [row["answer"] == "" for row in rows] == [True, False, False, True]
    for row in rows[1:3]:
        assert row["answer"] == max(("dark", "light"), key=lambda name: float(row[name]))


def test_predicting_from_nothing_is_an_error(tmp_path: Path, images: Path) -> None:
    assert "holds no adapter.json" in problem("predict", tmp_path, images)
    trained("--config", written(tmp_path, FAST + STAGES))
    adapter = tmp_path / "out" / "adapter"
    (tmp_path / "empty").mkdir()
    assert "has no images" in problem("predict", adapter, tmp_path / "empty")
    target = tmp_path / "absent" / "a.csv"
    assert "cannot be written" in problem("predict", adapter, images, "--output", target)
    result = run("predict", adapter, tmp_path / "nowhere")
    assert isinstance(result.exception, DataError)


def made(
    folder: Path,
    state: Callable[[AdapterSpace], SparseDelta],
    base: config.BaseModelSettings = LITE0,
) -> Path:
    """Save an adapter without training it."""
    task: Task = "text-classification" if base.folder else "image-classification"
    settings = config.AdapterSettings() if base.folder else config.AdapterSettings(cut=15, image_size=32)
    space = build_adapter(load_base(base, settings, CLASSES, task), settings).space
    save_adapter(folder, SavedAdapter(base, settings, task, CLASSES, space, state(space), {}, datetime.now(UTC)))
    return folder


def test_images_in_a_saved_dataset_and_in_a_manifest_are_predicted_too(tmp_path: Path, images: Path) -> None:
    datasets = pytest.importorskip("datasets")
    adapter = made(tmp_path / "adapter", model_samples.random_state)
    files = [str(path) for path in sorted(images.rglob("*.png"))[::8]]
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict({"image": files}, features=features).save_to_disk(tmp_path / "saved")
    write_csv(tmp_path / "new.csv", [(path,) for path in (*files, "absent.png", "a\0b.png")], ("path",))
    stored = run("predict", adapter, tmp_path / "saved", "--column", "image")
    listed = run("predict", adapter, tmp_path / "new.csv")
    one, other = ([row[1:] for row in csv.reader(result.stdout.splitlines())] for result in (stored, listed))
    assert one == other[:-2]
    assert other[-2:] == [["", "", ""]] * 2
    assert "2 samples cannot be read" in listed.stderr


def test_texts_that_are_none_are_left_empty(tmp_path: Path) -> None:
    base = config.BaseModelSettings(model="tiny", folder=model_samples.folder("bert"))
    made(tmp_path / "adapter", lambda space: SparseDelta.empty(space.fingerprint, Operation.SET), base)
    (tmp_path / "new.jsonl").write_text('{"text": "\\ud800"}\n{"text": "w3"}\n{"text": 3}\nno JSON\n')
    result = run("predict", tmp_path / "adapter", tmp_path / "new.jsonl")
    assert result.exit_code == 0, result.exception
    rows = list(csv.reader(result.stdout.splitlines()))[1:]
    assert [row[1:] for row in rows] == [
        ["", "", ""],
        ["dark", "0.500000", "0.500000"],
        ["", "", ""],
        ["", "", ""],
    ]
    assert "reads texts, but" in problem("predict", tmp_path / "adapter", tmp_path)


def test_an_adapter_that_answers_with_nan_is_an_error(tmp_path: Path) -> None:
    def huge(space: AdapterSpace) -> SparseDelta:
        [head] = [number for number, tensor in enumerate(space.tensors) if tensor.name == "head.weight"]
        size = space.tensors[head].size
        values = np.full(size, np.finfo(np.float32).max, np.float32)
        return SparseDelta(space.fingerprint, Operation.SET, (TensorDelta(head, np.arange(size), values),))

    images = write_images(tmp_path / "images", per_class=1)
    assert "answers with NaN" in problem("predict", made(tmp_path / "adapter", huge), images)


def test_names_that_are_no_text_are_told_without_harm_and_refused_as_classes(tmp_path: Path, images: Path) -> None:
    odd = os.fsdecode(b"\x8f\x9d")  # "傷" as a Japanese Windows writes it
    light = (images / "light").rename(images / "\x1b[31mlight")
    (light / f"{odd}.png").write_bytes(b"no image")
    told = trained("--config", written(tmp_path, FAST + STAGES, 'path = "images"\nmax_corrupt = 1'))
    assert "\N{REPLACEMENT CHARACTER}[31mlight: 14 + 2" in told
    assert "\x1b" not in told
    [skipped] = report(tmp_path / "out")["data"]["skipped"]
    assert f"{odd}.png" in skipped
    assert "\N{REPLACEMENT CHARACTER}.png" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    result = run("predict", tmp_path / "out" / "adapter", images)
    assert result.exit_code == 0, result.exception
    assert "\\udc8f\\udc9d.png,,," in result.stdout
    light.rename(images / odd)
    assert "the class name '\\udc8f\\udc9d' is not UTF-8 text" in problem("train", "-c", tmp_path / "train.toml")


@pytest.mark.parametrize("output", ["x" * 5000, "a\0b", "/proc/fedsparse"])
def test_an_output_that_cannot_be_used_is_one_line(tmp_path: Path, images: Path, output: str) -> None:
    path = written(tmp_path, FAST)
    path.write_text(path.read_text().replace('"out"', json.dumps(output)))
    assert re.search(r"^output = .* cannot be used: .* Name another folder", problem("train", "--config", path))


def test_a_path_of_data_that_is_too_long_is_one_line(tmp_path: Path) -> None:
    told = problem("train", "--data", tmp_path / ("x" * 5000), "--output", tmp_path / "out")
    assert told.endswith("cannot be read: File name too long. Name another")


def test_a_full_disk_is_told_with_what_is_kept(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = command.save_adapter

    def full(folder: Path, saved: SavedAdapter) -> None:
        if folder.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        save(folder, saved)

    monkeypatch.setattr(command, "save_adapter", full)
    result = run("train", "--config", written(tmp_path, FAST + STAGES))
    assert isinstance(result.exception, FedsparseError)
    assert "out: No space left on device. Free some space there" in str(result.exception)
    assert "holds the adapter of epoch 1" in result.output


def test_a_verdict_says_no_interval_without_width_and_is_told_in_japanese_too() -> None:
    figure = {"name": "balanced_accuracy", "label": "balanced accuracy", "before": {"value": 0.5}}
    told = {
        "metric": "balanced_accuracy",
        "figures": [figure | {"after": {"value": 1.0, "low": 1.0, "high": 1.0}}],
        "data": {"classes": [{"holdout": 3}, {"holdout": 3}]},
        "adapter": {"bytes_bf16": 1000},
        "base": {"bytes": 100_000},
    }
    assert verdict(told | {"figures": [*told["figures"], {"name": "loss"}]}) == (
        "Balanced accuracy 1.000 on 6 held-out samples, 0.500 before training; "
        "the adapter takes 1.00 kB, 100× smaller than the model"
    )
    figure |= {"after": {"value": 0.4, "low": 0.3, "high": 0.6}}
    assert verdict_japanese(told | {"figures": [figure, {"name": "loss"}]}) == (
        "学習前より改善していません。検証データ 6 件でのバランス精度は 0.400（95 % 区間 0.300～0.600）、"
        "学習前は 0.500。アダプターは 1.00 kB、モデルの 1 % です。"
    )


def test_a_figure_that_never_changes_has_ticks_that_can_be_told_apart() -> None:
    assert ticks([0.5, 0.5]) == [0.494, 0.496, 0.498, 0.5, 0.502, 0.504, 0.506]
    assert ticks([0.0, 0.0]) == [-0.006, -0.004, -0.002, 0.0, 0.002, 0.004, 0.006]
    assert ticks([0.5, 0.93]) == [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def test_confusion_and_reliability_count_every_sample_once() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.1, 0.9]])
    labels = np.array([0, 1, 1, 1])
    assert confusion(labels, probabilities) == [[1, 0], [1, 2]]
    assert reliability(labels, probabilities) == [
        {"samples": 1, "confidence": 0.6, "accuracy": 0.0},
        {"samples": 1, "confidence": 0.8, "accuracy": 1.0},
        {"samples": 2, "confidence": 0.9, "accuracy": 1.0},
    ]

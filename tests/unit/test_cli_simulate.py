"""`fedsparse simulate` from the command line to its table and file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fedsparse.cli.main import app
from fedsparse.cli.simulate import Options, read_settings
from fedsparse.errors import ConfigError, FedsparseError
from fedsparse.simulation import draw_plants
from tests.unit.data_samples import write_images

SETTINGS = """
output = "out"
[data]
path = "images"
[adapter]
cut = 15
image_size = 32
[training]
density = 0.02
batch_size = 8
head_learning_rate = 0.01
[plants]
count = 3
alpha = 100
min_samples = 8
rounds = 2
"""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    write_images(tmp_path / "images", per_class=24)
    path = tmp_path / "simulate.toml"
    path.write_text(SETTINGS, encoding="utf-8")
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["simulate", *map(str, arguments)], env={"COLUMNS": "160"})


def report(settings: Path) -> Any:
    return json.loads((settings.parent / "out" / "simulate.json").read_text(encoding="utf-8"))


def test_rules_and_plants_alone_are_compared_on_every_draw_and_a_second_run_only_reads(settings: Path) -> None:
    asked = ("-c", settings, "--rule", "shrunk", "--rule", "median", "--draws", 2)
    first = run(*asked)
    assert first.exit_code == 0, (first.output, first.exception)
    found = report(settings)
    assert [row["arm"] for row in found["rows"]] == ["each plant alone", "shrunk", "median"]
    assert {(one["arm"], one["draw"]) for one in found["runs"]} == {
        (arm, draw) for arm in ("each plant alone", "shrunk", "median") for draw in (0, 1)
    }
    for one in found["runs"]:
        assert sum(one["samples"]) == 36  # of 48, a quarter of each class is tested on
        assert 0.4 <= one["score"] <= 1
    federated = [one for one in found["runs"] if one["arm"] != "each plant alone"]
    assert all([entry["round"] for entry in one["history"]] == [1, 2] for one in federated)
    assert all(entry["bytes_up"] > 0 and entry["plants"] == 3 for one in federated for entry in one["history"])
    assert "the best plant alone" in first.output
    assert "median, round 2/2" in first.output
    second = run(*asked)
    assert second.output.count("from an earlier run") == 6
    assert report(settings) == found
    drawing = ElementTree.parse(settings.parent / "out" / "simulate.svg").getroot()  # noqa: S314 - our own
    told = " ".join("".join(text.itertext()) for text in drawing.iter("{http://www.w3.org/2000/svg}text"))
    assert "best alone" in told
    for one in found["rows"][1:]:
        assert f"{one['arm']} {one['balanced_accuracy']:.3f}" in told


def test_another_setting_is_another_run(settings: Path) -> None:
    assert run("-c", settings).exit_code == 0
    before = report(settings)["rows"]
    again = run("-c", settings, "--rounds", 1)
    assert "from an earlier run" not in again.output
    assert report(settings)["rows"] != before


def test_part_of_the_plants_is_asked_and_those_with_too_few_samples_take_no_part(settings: Path) -> None:
    text = (
        settings.read_text(encoding="utf-8")
        .replace("alpha = 100", "alpha = 0.3")
        .replace("count = 3", "count = 8")
    )
    more = "min_samples = 4\nparticipation = 0.5\nalone = false\n"
    settings.write_text(text.replace("min_samples = 8\n", more), encoding="utf-8")
    assert run("-c", settings).exit_code == 0
    (one,) = report(settings)["runs"]
    assert one["plants"] + one["left_out"] == 8
    assert one["left_out"] > 0
    assert {entry["plants"] for entry in one["history"]} == {max(1, round(one["plants"] / 2))}


def test_plants_too_many_for_the_samples_are_refused_with_the_remedy(settings: Path) -> None:
    result = run("-c", settings, "--plants", 1000)
    assert isinstance(result.exception, FedsparseError)
    assert "of 1000 plants, among which 36 samples are shared out, none gets" in str(result.exception)
    assert "Lower plants.count" in str(result.exception.remedy)


def test_an_output_that_cannot_be_written_is_told_with_the_remedy(settings: Path) -> None:
    (settings.parent / "out").write_text("a file")
    result = run("-c", settings)
    assert isinstance(result.exception, FedsparseError)
    assert "the system refused to read or write" in str(result.exception)
    assert "--output" in str(result.exception.remedy)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [((), "there are no samples to share out"), (("--data", "images", "--rule", "mean"), "plants.rules")],
)
def test_what_cannot_be_simulated_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert isinstance(result.exception, ConfigError)
    assert said in str(result.exception)


def test_settings_that_are_not_said_suit_the_task(tmp_path: Path) -> None:
    path = tmp_path / "simulate.toml"
    path.write_text('[data]\npath = "x.csv"\n[task]\nkind = "text-classification"\n', encoding="utf-8")
    found = read_settings(Options(config=path, plants=7))
    assert (found.training.allocation, found.training.epochs, found.plants.count) == ("uniform", 3, 7)
    assert found.rules == ("shrunk",)


def test_every_sample_goes_to_one_plant_and_a_small_alpha_makes_them_unlike() -> None:
    strata = ["good"] * 500 + ["bad"] * 500
    alike, unlike = (draw_plants(strata, 10, alpha, seed=1) for alpha in (1000.0, 0.1))
    for plants in (alike, unlike):
        assert sorted(position for plant in plants for position in plant.tolist()) == list(range(1000))
    assert max(map(len, alike)) < 130
    assert max(map(len, unlike)) > 250

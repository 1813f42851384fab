"""The README's walk-through on two machines: two network namespaces, joined by one cable, and nothing else."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsparse.audit import verify_ledger
from fedsparse.cli.demo_site import lay_out

pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2, for network namespaces"
    ),
]
HUB, PLANT = "10.231.77.1", "10.231.77.2"
_MORE = """
[adapter]
image_size = 32

[training]
density = 0.02
"""


def _run(*command: object) -> str:
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=90, check=False)
    assert result.returncode == 0, f"{command}: {result.stdout}{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def hosts() -> Iterator[dict[str, tuple[str, ...]]]:
    """Yield, for "hub" and "plant", the command that runs another on that machine."""
    names = {who: f"fs-{who}-{os.getpid()}" for who in ("hub", "plant")}
    cable = f"fs{os.getpid()}"[:12]
    try:
        for name in names.values():
            _run("ip", "netns", "add", name)
        _run("ip", "link", "add", f"{cable}a", "netns", names["hub"], "type", "veth", "peer", "name", f"{cable}b",
             "netns", names["plant"])  # fmt: skip
        for who, end, address in (("hub", "a", HUB), ("plant", "b", PLANT)):
            inside = ("ip", "-n", names[who])
            _run(*inside, "addr", "add", f"{address}/24", "dev", f"{cable}{end}")
            _run(*inside, "link", "set", f"{cable}{end}", "up")
            _run(*inside, "link", "set", "lo", "up")
            other = PLANT if who == "hub" else HUB
            _run(*inside, "route", "add", "default", "via", other)  # whatever else is dialled shows on the cable
            resolver = Path("/etc/netns") / names[who] / "resolv.conf"
            resolver.parent.mkdir(parents=True)
            resolver.write_text(f"nameserver {other}\n")  # and whoever asks for a name as well
        yield {who: ("ip", "netns", "exec", name) for who, name in names.items()}
    except AssertionError as error:
        pytest.skip(f"no network namespaces here: {error}")
    finally:
        for name in names.values():
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)
            shutil.rmtree(Path("/etc/netns") / name, ignore_errors=True)


def _fedsparse(*arguments: object) -> tuple[object, ...]:
    return (str(Path(sys.executable).parent / "fedsparse"), *arguments)


def _settle(folder: Path) -> tuple[Path, Path]:
    """Lay out two machines' folders with data and settings, but without any certificate."""
    layout = lay_out(folder / "made", 2, thin=24, more=_MORE)
    hub, plant = folder / "hub", folder / "kiso"
    for source, home in ((layout.federation.parent, hub), (layout.sites["kiso"].parent, plant)):
        shutil.copytree(source, home, ignore=shutil.ignore_patterns("identity", "approved"))
    shutil.copy(folder / "made" / "test.csv", folder)
    address = f"{HUB}:9443"
    federation, site = hub / "federation.toml", plant / "site.toml"
    told = re.sub('listen = ".*"', f'listen = "{address}"', federation.read_text())
    federation.write_text(told.replace("count = 2", "count = 2\nmin_plants = 1").replace("gather_", "# gather_"))
    site.write_text(re.sub('hub = ".*"', f'hub = "{address}"', site.read_text()))
    return hub, plant


def _enrol(hosts: dict[str, tuple[str, ...]], folder: Path, hub: Path, plant: Path) -> None:
    """Make the certificates as the README says; files are carried between machines by hand."""
    ca, signed = folder / "ca-machine" / "pki", folder / "ca-machine" / "signed"
    _run(*_fedsparse("pki", "init", ca, "--name", "solar-cells"))
    _run(*hosts["hub"], *_fedsparse("server", "enroll", "hub", "--host", HUB, "--identity", hub / "identity"))
    _run(*hosts["plant"], *_fedsparse("client", "enroll", "kiso", "--identity", plant / "identity"))
    for role, name, home in (("hub", "hub", hub), ("plant", "kiso", plant)):
        request = shutil.copy(home / "identity" / f"{name}.csr", folder / "ca-machine")
        _run(*_fedsparse("pki", "sign", role, name, request, "--ca", ca, "--out", signed, "--yes"))
        for file in (f"{name}.pem", "ca.pem"):
            shutil.copy(signed / file, home)
        command = "server" if role == "hub" else "client"
        adopt = _fedsparse(command, "adopt", name, home / f"{name}.pem", "--ca", home / "ca.pem")
        _run(*hosts[role], *adopt, "--identity", home / "identity")
    shutil.copy(ca / "crl.pem", hub / "identity")


def _addressees(log: Path) -> list[str]:
    """Return where packets went, as protocol (6 is TCP), address and port; without how network cards greet."""
    return [line for line in log.read_text().splitlines() if line != "arp" and not line.startswith("58 ")]


def _wait_for(path: Path) -> None:
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.05)


def test_a_hub_and_a_plant_on_two_machines_run_rounds_by_the_readmes_commands(
    hosts: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    hub, plant = _settle(tmp_path)
    _enrol(hosts, tmp_path, hub, plant)
    _run(*hosts["plant"], *_fedsparse("client", "approve", "--config", plant / "site.toml", "--yes"))
    with contextlib.ExitStack() as stack:
        started = {}
        for who in hosts:
            log = stack.enter_context((tmp_path / f"{who}.packets").open("wb"))
            listening = tmp_path / f"{who}.listening"
            sniffer = subprocess.Popen(
                [*hosts[who], sys.executable, "-m", "tests.integration.sniffer", str(listening)], stdout=log
            )
            stack.callback(sniffer.wait, 20)
            stack.callback(sniffer.terminate)
            _wait_for(listening)
        for who, command, settings in (
            ("hub", "server", hub / "federation.toml"),
            ("plant", "client", plant / "site.toml"),
        ):
            log = stack.enter_context((tmp_path / f"{who}.out").open("wb"))
            started[who] = subprocess.Popen(
                [*hosts[who], *map(str, _fedsparse(command, "up", "--config", settings))], stdout=log, stderr=log
            )
            stack.callback(started[who].wait, 60)
            stack.callback(started[who].terminate)
        end = time.monotonic() + 400
        while started["hub"].poll() is None and started["plant"].poll() is None and time.monotonic() < end:
            time.sleep(0.5)
        told = "\n".join((tmp_path / f"{who}.out").read_text() for who in started)
        assert started["hub"].poll() == 0, told
    assert _addressees(tmp_path / "plant.packets") == [f"6 {HUB} 9443"]
    assert {to.rpartition(" ")[0] for to in _addressees(tmp_path / "hub.packets")} == {f"6 {PLANT}"}
    authority = (plant / "identity" / "ca.pem").read_bytes()
    verdict = verify_ledger(plant / "state" / "ledger", authority, hub / "state" / "receipts" / "kiso.jsonl")
    assert (verdict.problems, verdict.updates) == ((), 2)
    keys = {path.name for home in (hub, tmp_path / "ca-machine") for path in home.rglob("*.key")}
    assert keys == {"hub.key", "ca.key", "issuing.key"}  # the plant's lies at the plant alone

"""The README's walk-through on two machines: two network namespaces, joined by one cable, and nothing else.

Where nft is installed, both machines have the firewall of deploy/nftables: neither end may miss what it closes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedsparse.audit import verify_ledger
from tests.integration.hosts import HUB, PLANT, enrol, fedsparse, run, settle, two_hosts

DEPLOY = Path(__file__).parents[2] / "deploy"

pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2, for network namespaces"
    ),
]


@pytest.fixture(scope="module")
def hosts() -> Iterator[dict[str, tuple[str, ...]]]:
    try:
        with two_hosts() as names:
            yield names
    except RuntimeError as error:
        pytest.skip(f"no network namespaces here: {error}")


def _addressees(log: Path) -> list[str]:
    """Return where packets went, as protocol (6 is TCP), address and port; without how network cards greet."""
    return [line for line in log.read_text().splitlines() if line != "arp" and not line.startswith("58 ")]


def _close(hosts: dict[str, tuple[str, ...]], folder: Path) -> None:
    """Load the rules of deploy/nftables, for root: all processes are root's here."""
    for role, inside in hosts.items():
        rules = (DEPLOY / "nftables" / f"{role}.nft").read_text()
        for theirs, ours in ((f'"fedsparse-{role}"', "0"), ("192.0.2.10", HUB), ("192.0.2.0/24", f"{PLANT}/32")):
            rules = rules.replace(theirs, ours)
        path = folder / f"{role}.nft"
        path.write_text(rules)
        run(*inside, "nft", "-f", path)


def _refused(inside: tuple[str, ...], table: str) -> set[str]:
    """Return which of a table's counters of refused packets have counted."""
    told = json.loads(run(*inside, "nft", "-j", "list", "counters", "table", "inet", table))["nftables"]
    counters = [one["counter"] for one in told if "counter" in one]
    return {one["name"] for one in counters if one["packets"]} - {"fedsparse_hub", "fedsparse_hub_in"}


def _wait_for(path: Path) -> None:
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end, path
        time.sleep(0.05)


def test_a_hub_and_a_plant_on_two_machines_run_rounds_by_the_readmes_commands(
    hosts: dict[str, tuple[str, ...]], tmp_path: Path
) -> None:
    hub, plant = settle(tmp_path)
    enrol(hosts, tmp_path, hub, plant)
    run(*hosts["plant"], *fedsparse("client", "approve", "--config", plant / "site.toml", "--yes"))
    if shutil.which("nft") is not None:
        _close(hosts, tmp_path)
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
                [*hosts[who], *map(str, fedsparse(command, "up", "--config", settings))], stdout=log, stderr=log
            )
            stack.callback(started[who].wait, 60)
            stack.callback(started[who].terminate)
        end = time.monotonic() + 400
        while started["hub"].poll() is None and started["plant"].poll() is None and time.monotonic() < end:
            time.sleep(0.5)
        told = "\n".join((tmp_path / f"{who}.out").read_text() for who in started)
        assert started["hub"].poll() == 0, told
    if shutil.which("nft") is not None:
        assert (_refused(hosts["plant"], "fedsparse"), _refused(hosts["hub"], "fedsparse_hub")) == (set(), set())
    assert _addressees(tmp_path / "plant.packets") == [f"6 {HUB} 9443"]
    assert {to.rpartition(" ")[0] for to in _addressees(tmp_path / "hub.packets")} == {f"6 {PLANT}"}
    authority = (plant / "identity" / "ca.pem").read_bytes()
    verdict = verify_ledger(plant / "state" / "ledger", authority, hub / "state" / "receipts" / "kiso.jsonl")
    assert (verdict.problems, verdict.updates) == ((), 2)
    keys = {path.name for home in (hub, tmp_path / "ca-machine") for path in home.rglob("*.key")}
    assert keys == {"hub.key", "witness.key", "ca.key", "issuing.key"}  # the plant's lies at the plant alone

"""One federation of real processes, with a plant killed in mid-round; every check looks at the same run."""

from __future__ import annotations

import ipaddress
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from fedsparse.audit import verify_ledger
from fedsparse.processes import HUB_LOOPBACK, PLANT_LOOPBACK
from fedsparse.registry import Registry

from .conftest import Federation

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]
ROUNDS = 14
VICTIM = "kiso"


@pytest.fixture(scope="module")
def run(federation_factory: Callable[..., Federation]) -> tuple[Federation, dict[str, Any]]:
    """Run a federation; kill one plant in its second round, bring it back, and let the rounds end."""
    federation = federation_factory(ROUNDS)
    _listen_everywhere(federation.layout.federation)
    seen: dict[str, Any] = {}
    for name in ("server", *federation.layout.sites):
        federation.start(name)
    federation.wait_for(lambda e: e["event"] == "round_started" and e["round"] == 2)
    seen["survivors"] = federation.kill(VICTIM)
    federation.start(VICTIM)
    federation.wait_for(lambda e: e["event"] == "round_committed" and e["round"] == 3)
    seen["listening"] = _listening(federation)
    federation.wait_for_server()
    return federation, seen


def _listen_everywhere(settings: Path) -> None:
    """Let the hub listen as it does in a real federation, where plants dial it from other machines."""
    settings.write_text(settings.read_text().replace('listen = "127.0.0.1:', 'listen = "0.0.0.0:'))


def _listening(federation: Federation) -> list[tuple[str, int]]:
    """Return what the federation's processes listen on off loopback, as `ss -ltnp` would show it."""
    found = []
    for process in federation.processes():
        for connection in process.net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                found.append((connection.laddr.ip, connection.laddr.port))
    return sorted(set(found))


def _rounds(federation: Federation) -> dict[int, dict[str, Any]]:
    return {e["round"]: e for e in federation.events() if e["event"] == "round_committed"}


def test_every_round_commits_although_a_plant_is_killed_in_one(run: tuple[Federation, Any]) -> None:
    federation, _ = run
    assert sorted(_rounds(federation)) == list(range(1, ROUNDS + 1))


def test_the_round_of_the_kill_completes_with_the_other_plants_at_least(run: tuple[Federation, Any]) -> None:
    """The killed one may be back soon enough to take its task up again."""
    federation, _ = run
    answered = {p["plant"] for p in _rounds(federation)[2]["plants"] if p["reason"] is None}
    assert answered >= set(federation.layout.sites) - {VICTIM}


def test_the_killed_plant_leaves_no_process_behind(run: tuple[Federation, Any]) -> None:
    assert run[1]["survivors"] == []


def test_the_killed_plant_rejoins(run: tuple[Federation, Any]) -> None:
    federation, _ = run
    later = [_rounds(federation)[n] for n in range(3, ROUNDS + 1)]
    assert any(p["plant"] == VICTIM and p["reason"] is None for r in later for p in r["plants"])


def test_only_the_hub_listens_off_loopback(run: tuple[Federation, Any]) -> None:
    federation, seen = run
    hub = int(federation.layout.federation.read_text().split('listen = "0.0.0.0:')[1].split('"')[0])
    off_loopback = {port for address, port in seen["listening"] if not _is_loopback(address)}
    assert len(seen["listening"]) >= 6  # SuperLink, hub, at least two gateways and two SuperNodes
    assert off_loopback == {hub}


def test_what_listens_on_loopback_has_an_address_that_the_firewall_knows(run: tuple[Federation, Any]) -> None:
    found = [address for address, _ in run[1]["listening"] if _is_loopback(address)]
    assert set(found) == {HUB_LOOPBACK, PLANT_LOOPBACK}
    assert found.count(HUB_LOOPBACK) == 1  # SuperLink, with all of Flower's calls on one port


def _is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return (mapped or parsed).is_loopback


def test_every_ledger_verifies_with_a_receipt_for_each_update(run: tuple[Federation, Any]) -> None:
    federation, _ = run
    authority = federation.layout.authority.read_bytes()
    for site in federation.layout.sites.values():
        verdict = verify_ledger(site.parent / "state" / "ledger", authority)
        assert verdict.verified, verdict.problems
        assert verdict.updates >= 2


def test_the_base_model_is_loaded_once_per_plant_process(run: tuple[Federation, Any]) -> None:
    federation, _ = run
    loads = {
        name: len((site.parent / "state" / "base_model_loads").read_text().splitlines())
        for name, site in federation.layout.sites.items()
    }
    assert loads == {name: 2 if name == VICTIM else 1 for name in federation.layout.sites}


def test_versions_form_a_chain_and_load(run: tuple[Federation, Any]) -> None:
    federation, _ = run
    registry = Registry.open(federation.state / "registry")
    versions = registry.versions()
    assert [v.round for v in versions] == list(range(1, ROUNDS + 1))
    assert [v.parents for v in versions] == [(), *((n,) for n in range(1, ROUNDS))]
    for version in versions:
        registry.load(version.number)


def test_audit_verify_as_a_command_says_verified(run: tuple[Federation, Any]) -> None:
    federation, _ = run
    site = federation.layout.sites["suzuka"]
    command = [str(Path(sys.executable).parent / "fedsparse"), "audit", "verify"]
    arguments = [str(site.parent / "state" / "ledger"), "--ca", str(federation.layout.authority)]
    result = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "verified" in result.stdout


def test_the_hub_keeps_the_same_receipts_as_the_plants(run: tuple[Federation, Any]) -> None:
    federation, _ = run
    for name, site in federation.layout.sites.items():
        lines = (federation.state / "receipts" / f"{name}.jsonl").read_text().splitlines()
        verdict = verify_ledger(site.parent / "state" / "ledger", None)
        assert [json.loads(line)["sequence"] for line in lines] == list(range(1, len(lines) + 1))
        assert verdict.receipts <= len(lines)  # a receipt under way at the kill is the hub's alone

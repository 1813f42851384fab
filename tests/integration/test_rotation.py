"""One federation of real processes in which every certificate is replaced and one plant revoked, while it runs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedsparse.audit import verify_ledger

from .conftest import Federation

pytestmark = [pytest.mark.processes, pytest.mark.timeout(600)]
ROUNDS = 16
RENEWED, REVOKED = "kiso", "suzuka"
_PATIENCE = 60.0  # seconds within which a revoked plant must be out


def _fedsparse(*arguments: object) -> str:
    command = [str(Path(sys.executable).parent / "fedsparse"), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def _renew(federation: Federation, command: str, name: str, home: Path, *more: str) -> None:
    """Enrol anew by the commands that people use, and let the running process take it up."""
    identity, back = home / "identity", federation.folder / f"back-{name}"
    _fedsparse(command, "enroll", name, "--identity", identity, *more)
    role = "hub" if command == "server" else "plant"
    request, pki = identity / f"{name}.csr", federation.folder / "pki"
    _fedsparse("pki", "sign", role, name, request, "--ca", pki, "--out", back, "--yes")
    _fedsparse(command, "adopt", name, back / f"{name}.pem", "--identity", identity)


@pytest.fixture(scope="module")
def run(federation_factory: Callable[..., Federation]) -> tuple[Federation, dict[str, Any]]:
    """Rotate the issuing CA, the hub and a plant; then revoke another plant; each between rounds that go on."""
    federation = federation_factory(ROUNDS)
    pki, hub = federation.folder / "pki", federation.layout.federation.parent
    seen: dict[str, Any] = {}
    for name in ("server", *federation.layout.sites):
        federation.start(name)
    federation.wait_for(lambda e: e["event"] == "round_committed" and e["round"] == 1)
    _fedsparse("pki", "rotate", "--ca", pki, "--root-key", pki / "ca.key")
    _renew(federation, "server", "hub", hub, "--host", "127.0.0.1", "--host", "localhost")
    _renew(federation, "client", RENEWED, federation.layout.sites[RENEWED].parent)
    seen["rotated_in"] = federation.events()[-1].get("round", 1)
    log = federation.layout.sites[RENEWED].parent / "state" / "logs" / "gateway.log"
    _eventually(lambda: "dialling anew" in log.read_text(), 30)
    after = seen["dialled_in"] = max(e["round"] for e in federation.events() if e["event"] == "round_committed")
    federation.wait_for(lambda e: e["event"] == "round_committed" and e["round"] >= after + 2)
    _fedsparse("pki", "revoke", REVOKED, "--ca", pki)
    started = time.monotonic()
    shutil.copy(pki / "crl.pem", hub / "identity" / "crl.pem")
    federation.wait_for(lambda e: e["event"] == "plant_lost" and e["plant"] == REVOKED)
    seen["turned_out_after"] = time.monotonic() - started
    federation.wait_for_server()
    return federation, seen


def _eventually(holds: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.1)


def _rounds(federation: Federation) -> list[dict[str, Any]]:
    return [e for e in federation.events() if e["event"] == "round_committed"]


def test_no_round_is_lost_by_rotation_and_every_plant_is_in_each_until_one_is_revoked(
    run: tuple[Federation, dict[str, Any]],
) -> None:
    federation, seen = run
    rounds = _rounds(federation)
    assert [e["round"] for e in rounds] == list(range(1, ROUNDS + 1))
    lost = next(e["time"] for e in federation.events() if e["event"] == "plant_lost" and e["plant"] == REVOKED)
    before = [e for e in rounds if e["time"] < lost]
    assert max(e["round"] for e in before) > seen["dialled_in"]
    for event in before[:-1]:  # the last of them may have been under way at the revocation
        merged = {plant["plant"] for plant in event["plants"] if not plant["reason"]}
        assert merged == set(federation.layout.sites), event


def test_the_revoked_plant_is_out_within_a_minute_and_stays_out(run: tuple[Federation, dict[str, Any]]) -> None:
    federation, seen = run
    assert seen["turned_out_after"] < _PATIENCE
    last = _rounds(federation)[-1]
    assert REVOKED not in {plant["plant"] for plant in last["plants"]}
    assert {plant["plant"] for plant in last["plants"]} == set(federation.layout.sites) - {REVOKED}
    assert f"of CN={REVOKED} is revoked" in (federation.state / "logs" / "hub.log").read_text()
    assert f"of CN={REVOKED} is revoked" in " ".join(federation.log(REVOKED).read_text().split())


def test_receipts_of_the_old_and_the_new_hub_certificate_all_verify(
    run: tuple[Federation, dict[str, Any]],
) -> None:
    federation, _ = run
    authority = (federation.folder / "pki" / "ca.pem").read_bytes()
    for name, settings in federation.layout.sites.items():
        receipts = federation.state / "receipts" / f"{name}.jsonl"
        verdict = verify_ledger(settings.parent / "state" / "ledger", authority, receipts)
        assert verdict.verified, (name, verdict.problems)


def test_no_private_key_is_written_to_any_log(run: tuple[Federation, dict[str, Any]]) -> None:
    federation, _ = run
    keys = [path.read_text().splitlines()[1] for path in federation.folder.rglob("*.key")]
    assert len(keys) >= 6  # root, issuing, hub and three plants
    for log in [*federation.folder.rglob("*.log"), *federation.folder.rglob("*.out")]:
        text = log.read_text(errors="replace")
        assert not any(key in text for key in keys), log

"""The gateway as a real process that dials a real hub."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import httpx
import psutil
import pytest
from flwr.proto.run_pb2 import GetRunRequest, GetRunResponse

from fedsparse.audit import EntryKind
from fedsparse.bundle import bundle_sha256
from fedsparse.processes import PLANT_LOOPBACK, free_port
from fedsparse.security import Role
from fedsparse.v1 import ledger_pb2
from tests.unit.federation_samples import SPACE, HubProcess, Pki, eventually, federation, hub_process


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory, pki: Pki) -> Iterator[HubProcess]:
    with hub_process(tmp_path_factory.mktemp("hub") / "hub", pki) as process:
        yield process


class Site:
    """One plant's folder and its gateway."""

    def __init__(self, home: Path, pki: Pki, hub_port: int, name: str = "kiso", more: str = "") -> None:
        self.identity = pki.issue(Role.PLANT, name)
        self.state = home / "state"
        self.state.mkdir()
        self.port = free_port(PLANT_LOOPBACK)
        self.log = home / "gateway.log"
        settings = home / "site.toml"
        settings.write_text(
            f"""
[site]
name = "{name}"
hub = "127.0.0.1:{hub_port}"

[site.identity]
certificate = "{self.identity}/{name}.pem"
key = "{self.identity}/{name}.key"
authority = "{self.identity}/ca.pem"

[data]
path = "nowhere"
{more}
"""
        )
        self._command = [sys.executable, "-m", "fedsparse_client.gateway.main", "--config", str(settings)]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [*self._command, "--port", str(self.port)], stdout=output, stderr=output
            )
        return self.process

    def ends(self) -> tuple[int, str]:
        return self.start().wait(60), self.log.read_text()

    def tells(self, what: str) -> None:
        eventually(lambda: what in self.log.read_text(), f"{what!r} in the gateway's log", 60)

    def recorded(self) -> list[int]:
        with closing(sqlite3.connect(self.state / "ledger" / "ledger.db")) as database:
            rows = database.execute("SELECT entry FROM entries ORDER BY sequence").fetchall()
        return [int(ledger_pb2.LedgerEntry.FromString(row[0]).kind) for row in rows]


@pytest.fixture
def site(tmp_path: Path, pki: Pki) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(hub_port: int, name: str = "kiso", more: str = "") -> Site:
        made.append(Site(tmp_path, pki, hub_port, name, more))
        return made[-1]

    yield make
    for one in made:
        if one.process is not None:
            one.process.kill()
            one.process.wait(20)


def test_the_gateway_publishes_what_is_trained_and_serves_loopback_alone(
    hub: HubProcess, site: Callable[..., Site]
) -> None:
    plant = site(hub.port)
    process = plant.start()
    eventually((plant.state / "federation.pb").exists, plant.log.read_text(), 60)
    assert (plant.state / "federation.pb").read_bytes() == federation().SerializeToString(deterministic=True)
    assert plant.recorded() == [EntryKind.OPENED, EntryKind.POLICY, EntryKind.DESCRIBE]
    url = f"http://{PLANT_LOOPBACK}:{plant.port}/v1/fleet/get-run"

    def answers() -> bool:
        try:
            reply = httpx.post(url, content=GetRunRequest(run_id=3).SerializeToString(), trust_env=False)
        except httpx.ConnectError:
            return False
        return GetRunResponse.FromString(reply.content).run.fab_hash == bundle_sha256()

    eventually(answers, "an answer to the SuperNode")
    listening = [
        connection.laddr
        for connection in psutil.Process(process.pid).net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == [(PLANT_LOOPBACK, plant.port)]
    assert plant.recorded() == [
        EntryKind.OPENED,
        EntryKind.POLICY,
        EntryKind.DESCRIBE,
    ]  # not present before the trainer is ready
    (plant.state / "trainer.ready").write_text(SPACE.fingerprint.hex())
    eventually(
        lambda: plant.recorded() == [EntryKind.OPENED, EntryKind.POLICY, EntryKind.DESCRIBE, EntryKind.ATTEND],
        "the dial in the ledger",
    )
    assert not (plant.state / "attending").exists()  # no SuperLink is behind this hub: it lets nobody in
    plant.tells("connection to the hub lost (unavailable: no tasks can be handed out now")
    assert process.poll() is None  # the plant goes on dialling


def test_a_plant_that_the_hub_refuses_ends_with_the_status_for_it_and_the_hubs_words(
    hub: HubProcess, site: Callable[..., Site]
) -> None:
    status, log = site(hub.port, "stranger").ends()
    assert status == os.EX_NOPERM
    assert "error: the hub at" in log
    assert "urn:fedsparse:plant:stranger is not on this hub's list of plants" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("messages", "call", "left"),
    [("attend", "describe", []), ("describe", "attend", [EntryKind.DESCRIBE])],
)
def test_a_plant_whose_own_policy_forbids_a_call_ends_with_that_status_too(
    hub: HubProcess, site: Callable[..., Site], messages: str, call: str, left: list[EntryKind]
) -> None:
    plant = site(hub.port, more=f'[egress]\nmessages = ["update", "reason", "{messages}"]')
    (plant.state / "trainer.ready").write_text(SPACE.fingerprint.hex())
    status, log = plant.ends()
    assert status == os.EX_NOPERM
    assert log.splitlines()[-1].startswith(
        f"error: this site's own policy does not let the plant {call} at the hub (rule kind): "
    )
    assert f'Add "{call}" to messages of the policy' in log
    assert "Traceback" not in log
    assert plant.recorded() == [EntryKind.OPENED, EntryKind.POLICY, *left, EntryKind.REFUSED]


def test_a_plant_whose_policy_has_no_call_left_today_waits_for_tomorrow(
    hub: HubProcess, site: Callable[..., Site]
) -> None:
    plant = site(hub.port, more="[egress.per_day]\ncalls = 1")
    (plant.state / "trainer.ready").write_text(SPACE.fingerprint.hex())
    process = plant.start()
    plant.tells("this would make 2 calls in 24 hours, the limit is 1. Raise per_day.calls of the policy")
    eventually((plant.state / "held").exists, "what tells the agent")
    assert process.poll() is None
    kinds = [EntryKind.OPENED, EntryKind.POLICY, EntryKind.DESCRIBE, EntryKind.REFUSED]
    assert plant.recorded() == kinds  # one entry, not one for each moment of waiting


def test_a_key_that_others_can_read_ends_the_gateway_with_the_remedy(
    hub: HubProcess, site: Callable[..., Site]
) -> None:
    plant = site(hub.port)
    (plant.identity / "kiso.key").chmod(0o644)
    status, log = plant.ends()
    assert status == 1
    assert "Run: chmod 600" in log
    assert "Traceback" not in log


def test_a_ledger_in_use_by_another_gateway_ends_the_second_one(
    hub: HubProcess, site: Callable[..., Site]
) -> None:
    plant = site(hub.port)
    first = plant.start()
    eventually((plant.state / "federation.pb").exists, "the first gateway", 60)
    status, log = plant.ends()
    assert status == 1
    assert "another process writes to the ledger" in log
    first.kill()
    first.wait(20)


def test_a_gateway_waits_for_a_hub_that_is_not_there_yet(site: Callable[..., Site]) -> None:
    plant = site(free_port())
    process = plant.start()
    plant.tells("does not answer")
    assert process.poll() is None


def _break_off(listener: socket.socket, answer: bytes, seen: list[None]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            seen.append(None)
            connection.recv(1000)
            connection.sendall(answer)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 502 Bad Gateway\r\n\r\n"])
def test_a_handshake_that_is_broken_off_is_tried_again_and_is_no_verdict_on_the_plant(
    site: Callable[..., Site], answer: bytes
) -> None:
    seen: list[None] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_break_off, args=(listener, answer, seen), daemon=True).start()
        status, log = site(listener.getsockname()[1]).ends()
        listener.shutdown(socket.SHUT_RDWR)
    assert status == 1
    assert len(seen) == 3
    assert re.search("error: the hub at .*(broke off the handshake|does not speak TLS 1.3)", log)

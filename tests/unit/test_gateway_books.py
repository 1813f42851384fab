from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from fedsparse_client.gateway.books import Books, open_ledger
from fedsparse_client.gateway.clock import clock_error_us
from fedsparse_client.gateway.control import Tally
from fedsparse_client.gateway.route import count_route
from pydantic import ValidationError
from rich.console import Console

from fedsparse import config
from fedsparse.audit import EntryKind, read_folder, verify_ledger
from fedsparse.audit.control import control_calls
from fedsparse.cli.erase import run_erase
from fedsparse.config import RouteSettings
from fedsparse.delta import Reason, RoundUpdate, encode_update
from fedsparse.errors import ConfigError, LedgerError
from fedsparse.security import Credentials, Role, load_credentials
from fedsparse.v1 import ledger_pb2
from tests.unit.federation_samples import Pki
from tests.unit.samples import call_draft, draft_of

PAYLOAD = encode_update(RoundUpdate.refusal(3, 0, Reason.TRAINING_FAILED))
_RULE = {"counter": {"name": "fedsparse_hub", "table": "fedsparse", "packets": 7, "bytes": 900}}


@pytest.fixture
def interfaces(tmp_path: Path) -> Path:
    folder = tmp_path / "net" / "eth0" / "statistics"
    folder.mkdir(parents=True)
    for name, value in (("tx_bytes", 1000), ("tx_packets", 10), ("rx_bytes", 2000), ("rx_packets", 20)):
        (folder / name).write_text(f"{value}\n")
    return tmp_path / "net"


@pytest.fixture
def site(tmp_path: Path) -> config.SiteConfig:
    pki = Pki(tmp_path / "pki")
    home = pki.issue(Role.PLANT, "kiso")
    settings = {
        "site": {
            "name": "kiso",
            "hub": "127.0.0.1:1",
            "identity": {"certificate": home / "kiso.pem", "key": home / "kiso.key", "authority": pki.ca},
            "retain_days": 1,
        },
        "data": {"path": tmp_path},
        "state": tmp_path / "state",
    }
    return config.SiteConfig.model_validate(settings)


def credentials(site: config.SiteConfig) -> Credentials:
    return load_credentials(site.site.identity, Role.PLANT)


def test_an_interfaces_counters_are_read(interfaces: Path) -> None:
    count = count_route(RouteSettings(interface="eth0"), interfaces)
    assert (count.route, count.sent_bytes, count.sent_packets) == ("interface eth0", 1000, 10)
    assert (count.received_bytes, count.received_packets) == (2000, 20)
    assert count.since


def test_a_counter_of_the_firewall_is_read(tmp_path: Path) -> None:
    file = tmp_path / "counters.json"
    file.write_text(json.dumps({"nftables": [{"metainfo": {}}, _RULE]}))
    count = count_route(RouteSettings(counter=file))
    assert (count.route, count.sent_bytes) == ("nftables counter fedsparse_hub", 900)


@pytest.mark.parametrize("text", ["", "{}", '{"nftables": []}', '{"nftables": 5}', '{"nftables": ["x"]}'])
def test_counters_that_are_none_are_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "counters.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"the counters of site\.route cannot be read"):
        count_route(RouteSettings(counter=file))


def test_an_interface_that_is_not_there_is_told(interfaces: Path) -> None:
    with pytest.raises(ConfigError, match="Name an interface"):
        count_route(RouteSettings(interface="eth9"), interfaces)


@pytest.mark.parametrize("settings", [{}, {"interface": "a", "counter": "b"}, {"interface": "../../etc"}])
def test_a_route_is_one_thing_and_no_path(settings: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        RouteSettings.model_validate(settings)


def test_the_clocks_error_is_a_number_or_unknown() -> None:
    assert clock_error_us() >= -1


def test_the_ledger_begins_with_who_writes_it(site: config.SiteConfig, tmp_path: Path) -> None:
    for _ in range(2):  # a second start says so again
        with open_ledger(site, credentials(site)):
            pass
    verdict = verify_ledger(site.state / "ledger", site.site.identity.authority.read_bytes())
    assert (verdict.entries, verdict.problems) == (2, ())


def test_a_payload_is_deleted_on_request_and_the_ledger_says_so(
    site: config.SiteConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "load", lambda path, model: site)
    with open_ledger(site, credentials(site)) as ledger:
        ledger.append(draft_of(PAYLOAD, "task", EntryKind.REASON), PAYLOAD)
        ledger.append(call_draft(), b"")
    for number, why in ((1, "about the ledger itself"), (3, "has no payload"), (9, "there is no entry 9")):
        with pytest.raises(LedgerError, match=why):
            run_erase(tmp_path, number, yes=True, console=Console(quiet=True))
    run_erase(tmp_path, 2, yes=True, console=Console(quiet=True))
    with pytest.raises(LedgerError, match="the payload of entry 2 is gone already"):
        run_erase(tmp_path, 2, yes=True, console=Console(quiet=True))
    verdict = verify_ledger(site.state / "ledger", site.site.identity.authority.read_bytes())
    assert (verdict.problems, verdict.erased) == ((), 1)


def test_payloads_are_deleted_once_they_are_older_than_the_site_keeps_them(
    site: config.SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_ledger(site, credentials(site)) as ledger:
        ledger.append(draft_of(PAYLOAD, "task", EntryKind.REASON), PAYLOAD)
        books = Books(site, ledger)
        books.delivered()
        kept = sorted((site.state / "ledger" / "payloads").iterdir())
        now = time.time_ns()
        monkeypatch.setattr(time, "time_ns", lambda: now + 2 * 24 * 3600 * 10**9)
        Books(site, ledger).delivered()
        kinds = [int(entry.kind) for entry in ledger.entries()]
        note = list(ledger.entries())[-1]
        erasure = ledger_pb2.Erasure.FromString(
            (site.state / "ledger" / "payloads" / note.payload_sha256.hex()).read_bytes()
        )
    assert kinds == [EntryKind.OPENED, EntryKind.REASON, EntryKind.ERASED]
    assert (erasure.cause, erasure.payload_bytes) == ("retention", len(PAYLOAD))
    assert erasure.payload_sha256.hex() in {path.name for path in kept}
    assert not (site.state / "ledger" / "payloads" / erasure.payload_sha256.hex()).exists()
    verdict = verify_ledger(site.state / "ledger", site.site.identity.authority.read_bytes())
    assert (verdict.problems, verdict.erased) == ((), 1)


def test_the_supernodes_calls_are_recorded_before_its_answer_and_only_where_there_are_any(
    site: config.SiteConfig,
) -> None:
    tally = Tally()
    with open_ledger(site, credentials(site)) as ledger:
        books = Books(site, ledger, tally)
        books.answered()
        for _ in range(2):
            tally.accept("send-node-heartbeat", 20)
            books.answered()
        entries = list(ledger.entries())
    assert [int(entry.kind) for entry in entries] == [EntryKind.OPENED, EntryKind.ROUTE, EntryKind.ROUTE]
    found = control_calls(entries, read_folder(site.state / "ledger").payload)
    assert found is not None
    assert (found.accepted, found.bytes, found.gateways) == ({"send-node-heartbeat": 2}, 40, 1)

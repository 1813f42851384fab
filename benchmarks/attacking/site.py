"""One plant's gateway, as the agent starts it, against a hub of any kind."""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from benchmarks.attacking.federation import Federation, Watched
from benchmarks.attacking.messages import SPACE
from fedsparse.processes import PLANT_LOOPBACK, free_port
from fedsparse.security import PLANT_ENVIRONMENT, Role

MAX_UPDATE_BYTES = 1 << 20
_START_SECONDS = 60.0


def write_settings(federation: Federation, name: str, hub: str) -> Path:
    """Write a site.toml with a good certificate, and return where."""
    home = federation.folder / f"site-{name}"
    (home / "state").mkdir(parents=True)
    identity = federation.pki.issue(Role.PLANT, name)
    path = home / "site.toml"
    path.write_text(
        f"""
[site]
name = "{name}"
hub = "{hub}"

[site.identity]
certificate = "{identity}/{name}.pem"
key = "{identity}/{name}.key"
authority = "{identity}/ca.pem"
revoked = "{federation.revoked}"

[data]
path = "nowhere"

[egress]
max_update_bytes = {MAX_UPDATE_BYTES}
"""
    )
    return path


class Site:
    """A folder with settings, and the process.

    Args:
        federation: whose certificates it has.
        name: of the plant, and of its log.
        hub: port that it dials.
        host: that it dials.
    """

    def __init__(self, federation: Federation, name: str, hub: int, host: str = "127.0.0.1") -> None:
        self._federation = federation
        path = write_settings(federation, name, f"{host}:{hub}")
        self.state = path.parent / "state"
        self.port = free_port(PLANT_LOOPBACK)
        command = [sys.executable, "-u", "-m", "fedsparse_client.gateway.main", "--config", str(path)]
        child = federation.spawn(f"gateway-{name}", [*command, "--port", str(self.port)], dict(PLANT_ENVIRONMENT))
        self.watched = Watched(child, fresh=True)

    def begin(self) -> None:
        """Do what the trainer does once it is ready: the gateway then is present at the hub."""
        self._federation.wait((self.state / "federation.pb").exists, "the gateway's first call", _START_SECONDS)
        (self.state / "trainer.ready").write_text(SPACE.fingerprint.hex())

    def filed(self) -> int:
        """Return how many receipts it has filed."""
        with closing(sqlite3.connect(self.state / "ledger" / "ledger.db")) as database:
            found: int = database.execute("SELECT count(*) FROM receipts").fetchone()[0]
            return found

"""A plant's processes as its agent starts them, with a trainer that trains nothing."""

from __future__ import annotations

import secrets
from pathlib import Path

from fedsparse_client.app import SOCKET_VARIABLE

from benchmarks.linking.certificates import Certificates
from benchmarks.linking.messages import SPACE
from benchmarks.linking.operator import MAX_UPDATE_BYTES, Operator
from benchmarks.linking.trainer import SOCKET
from fedsparse.files import write_atomic
from fedsparse.processes import PLANT_LOOPBACK, Child, free_port, script
from fedsparse.security import PLANT_ENVIRONMENT, Role

_START_SECONDS = 120.0


class Plant:
    """One plant; its processes end with the operator's.

    Args:
        operator: whose hub it dials.
        certificates: its own among them.
        name: its own.
        whole: with trainer, SuperNode and executor, or only the gateway.
    """

    def __init__(self, operator: Operator, certificates: Certificates, name: str, *, whole: bool) -> None:
        self._operator = operator
        self.name = name
        self.state = operator.folder / name / "state"
        self.port = free_port(PLANT_LOOPBACK)
        self._write(certificates.home(Role.PLANT, name))
        module = [script("python"), "-u", "-m"]
        config = ["--config", str(self.state.parent / "site.toml"), "--port", str(self.port)]
        gateway = self._spawn("gateway", [*module, "fedsparse_client.gateway.main", *config])
        if whole:
            self._spawn("trainer", [*module, "benchmarks.linking.trainer", str(self.state)])
            self._spawn_flower(module)
        else:
            write_atomic(self.state / "trainer.ready", SPACE.fingerprint.hex().encode())
        gateway.wait_until((self.state / "attending").exists, _START_SECONDS)
        self.node = operator.node(name)

    @property
    def gateway(self) -> str:
        """Where a SuperNode finds the gateway."""
        return f"{PLANT_LOOPBACK}:{self.port}"

    @property
    def log(self) -> Path:
        """The gateway's."""
        return self._operator.folder / f"{self.name}-gateway.log"

    def _write(self, home: Path) -> None:
        self.state.mkdir(parents=True)
        text = SITE.format(name=self.name, hub=self._operator.address, home=home, limit=MAX_UPDATE_BYTES)
        (self.state.parent / "site.toml").write_text(text, encoding="utf-8")

    def _spawn(self, name: str, command: list[str]) -> Child:
        variables = {**PLANT_ENVIRONMENT, SOCKET_VARIABLE: str(self.state / SOCKET)}
        return self._operator.spawn(f"{self.name}-{name}", command, variables)

    def _spawn_flower(self, module: list[str]) -> None:
        secret = self.state / "runtime.secret"
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_hex(32))
        runtime = str(free_port(PLANT_LOOPBACK))
        self._spawn(
            "supernode",
            [
                *[script("flower-supernode"), "--insecure", "--superlink", self.gateway],
                *["--host", PLANT_LOOPBACK, "--port", runtime],
                *["--isolation", "process", "--superexec-auth-secret-file", str(secret)],
            ],
        )
        place = ["--runtime", f"{PLANT_LOOPBACK}:{runtime}", "--secret-file", str(secret)]
        self._spawn("executor", [*module, "fedsparse_client.executor", *place])


SITE = """\
state = "state"

[site]
name = "{name}"
hub = "{hub}"

[site.identity]
certificate = "{home}/{name}.pem"
key = "{home}/{name}.key"
authority = "{home}/ca.pem"

[data]
path = "data.csv"

[egress]
max_density = 1.0
max_update_bytes = {limit}
"""

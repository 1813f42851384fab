"""`fedsparse client up`: starts a plant's processes in order, restarts what falls, stops everything together."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from fedsparse import config
from fedsparse.approval import require_approved
from fedsparse.bundle import bundle_sha256
from fedsparse.errors import CertificateError, NotAdmittedError, ProcessError
from fedsparse.files import hold, private_folder, require_socket_path
from fedsparse.processes import FLOWER_ENVIRONMENT, PLANT_LOOPBACK, Child, free_port, script, stop_all
from fedsparse.security import PLANT_ENVIRONMENT, Role, load_credentials
from fedsparse_client.app import SOCKET_VARIABLE
from fedsparse_client.gateway.calls import HELD_FILE

PROGRESS_FILE = "trainer.progress"  # holds "read total", both in images
_RESTARTS = 10  # of one process within _RESTART_WINDOW_SECONDS, before the agent gives up
_RESTART_WINDOW_SECONDS = 600.0
_RESTART_SECONDS = 1.0
_FEATURES_SECONDS = 6 * 3600.0


def read_progress(state: Path) -> tuple[int, int] | None:
    """Return how many images of how many the trainer has read, or None before the first."""
    try:
        done, total = (state / PROGRESS_FILE).read_text().split()
    except (OSError, ValueError):
        return None
    return int(done), int(total)


class Agent:
    """One plant as one thing that starts, runs and stops.

    Args:
        path: site.toml.
        settings: the same, read and validated.
        say: told of each phase, for people.
    """

    def __init__(self, path: Path, settings: config.SiteConfig, say: Callable[[str], None]) -> None:
        self._path = path
        self._settings = settings
        self._say = say
        self._state = settings.state
        self._gateway_port = free_port(PLANT_LOOPBACK)
        self._runtime_port = free_port(PLANT_LOOPBACK)
        self._children: dict[str, Child] = {}
        self._restarts: dict[str, list[float]] = {}
        self._quarter = 0  # of the images
        self._held = ""

    def start(self) -> None:
        """Start gateway, trainer, SuperNode and executor; return when the plant is present at the hub.

        Raises:
            NotAdmittedError: the hub, or the site's own policy, refuses this plant.
            FedsparseError: says which setting, certificate, file or process is not right.
        """
        credentials = load_credentials(self._settings.site.identity, Role.PLANT)
        if credentials.identity.name != self._settings.site.name:
            raise CertificateError(
                f"the certificate is {credentials.identity.name!r}'s, site.name is {self._settings.site.name!r}",
                f"Use {self._settings.site.name}'s own certificate, or correct site.name",
            )
        require_approved(bundle_sha256(), self._settings.site.approved)
        if due := credentials.renewal_due():
            self._say(due)
        config.require_source(self._settings.data.path, "data.path")
        require_socket_path(self._state / "trainer.sock")
        self._lock = hold(private_folder(self._state) / "lock", "plant")
        for name in ("federation.pb", "trainer.ready", "attending", PROGRESS_FILE, HELD_FILE):
            (self._state / name).unlink(missing_ok=True)
        self._write_secret()
        self._say(f"dialling the hub at {self._settings.site.hub}")
        gateway = self._spawn("gateway")
        gateway.wait_until(self._reached("federation.pb"), timeout=3600)
        self._say("loading the base model and checking the data")
        trainer = self._spawn("trainer")
        self._spawn("supernode")
        self._spawn("executor")
        trainer.wait_until(self._trainer_ready, timeout=_FEATURES_SECONDS)
        gateway.wait_until(self._reached("attending"), timeout=3600)
        self._say("present at the hub")

    def _reached(self, name: str) -> Callable[[], bool]:
        """Return what tells whether the gateway has come so far, and says what keeps it from the hub meanwhile."""

        def reached() -> bool:
            self._say_held()
            self._require_admitted()
            return (self._state / name).exists()

        return reached

    def _say_held(self) -> None:
        """Say once why the site's own policy keeps the plant from the hub, and once that it no longer does."""
        try:
            held = (self._state / HELD_FILE).read_text(encoding="utf-8")
        except OSError:
            held = ""
        if bool(held) != bool(self._held):
            self._say(held or "this site's own policy lets the plant call the hub again")
        self._held = held

    def _require_admitted(self) -> None:
        """Raise NotAdmittedError where the gateway ended because trying again would change nothing."""
        gateway = self._children.get("gateway")
        if gateway is not None and gateway.exit_code == os.EX_NOPERM:
            raise NotAdmittedError(gateway.last_words(1).removeprefix("error: "))

    def _trainer_ready(self) -> bool:
        """Say how far the reading of the images is, and return whether the trainer is ready."""
        if (progress := read_progress(self._state)) is not None:
            done, total = progress
            if (quarter := 4 * done // total) > self._quarter:
                self._quarter = quarter
                self._say(f"the frozen activations of {done} of {total} images are cached")
        return (self._state / "trainer.ready").exists()

    def run(self) -> None:
        """Watch the processes until interrupted; restart one that stops.

        Raises:
            NotAdmittedError: the hub, or the site's own policy, refuses this plant.
            ProcessError: a process keeps stopping.
        """
        while True:
            self._say_held()
            for name, child in list(self._children.items()):
                if child.exit_code is not None:
                    self._require_admitted()
                    self._restart(name, child)
            time.sleep(0.5)

    def stop(self) -> None:
        """Stop everything that was started."""
        stop_all(list(self._children.values()))

    def _restart(self, name: str, child: Child) -> None:
        now = time.monotonic()
        recent = [then for then in self._restarts.get(name, []) if now - then < _RESTART_WINDOW_SECONDS]
        self._restarts[name] = [*recent, now]
        if len(recent) >= _RESTARTS:
            raise ProcessError(
                f"{name} stopped {len(recent) + 1} times in {_RESTART_WINDOW_SECONDS / 60:.0f} minutes:\n"
                f"{child.last_words()}",
                f"Its whole log is {child.log}",
            )
        self._say(f"{name} stopped with status {child.exit_code}; starting it again")
        if name == "trainer":
            (self._state / "trainer.ready").unlink(missing_ok=True)
        time.sleep(_RESTART_SECONDS)
        self._spawn(name)

    def _spawn(self, name: str) -> Child:
        child = Child(
            name,
            self._command(name),
            self._state / "logs" / f"{name}.log",
            {
                **FLOWER_ENVIRONMENT,
                **PLANT_ENVIRONMENT,
                "FLWR_HOME": str(self._state / "flwr"),
                SOCKET_VARIABLE: str(self._state / "trainer.sock"),
            },
        )
        self._children[name] = child
        return child

    def _command(self, name: str) -> list[str]:
        module = [script("python"), "-u", "-m"]
        secret = str(self._state / "runtime.secret")
        if name == "gateway":
            port = str(self._gateway_port)
            return [*module, "fedsparse_client.gateway.main", "--config", str(self._path), "--port", port]
        if name == "trainer":
            return [*module, "fedsparse_client.trainer", "--config", str(self._path)]
        if name == "executor":
            runtime = f"{PLANT_LOOPBACK}:{self._runtime_port}"
            return [*module, "fedsparse_client.executor", "--runtime", runtime, "--secret-file", secret]
        return [
            *[script("flower-supernode"), "--insecure", "--superlink", f"{PLANT_LOOPBACK}:{self._gateway_port}"],
            *["--host", PLANT_LOOPBACK, "--port", str(self._runtime_port)],
            *["--isolation", "process", "--superexec-auth-secret-file", secret],
        ]

    def _write_secret(self) -> None:
        """Only this plant's own executor may ask the SuperNode for tasks."""
        path = self._state / "runtime.secret"
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))

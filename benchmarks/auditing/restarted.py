"""A gateway that is killed and started anew: the product's own process, forked after its imports to be quick."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

from fedsparse_client.gateway.main import main

from benchmarks.linking.operator import MAX_UPDATE_BYTES
from benchmarks.linking.plant import SITE
from fedsparse.bundle import bundle_sha256
from fedsparse.processes import PLANT_LOOPBACK, die_with_parent, free_port

PRELOAD = "benchmarks.auditing.restarted"


class Gateway:
    """One plant's gateway, on the same folder and port every time.

    Args:
        folder: of the plant.
        name: of the plant.
        home: its certificate.
        hub: "host:port" that it dials.
        space: fingerprint that its trainer, were there one, would have derived.
    """

    def __init__(self, folder: Path, name: str, home: Path, hub: str, space: bytes) -> None:
        self.name = name
        self.ledger = folder / "state" / "ledger"
        self.port = free_port(PLANT_LOOPBACK)
        self.log = folder / "gateway.log"
        self._settings = folder / "site.toml"
        self._attending = folder / "state" / "attending"
        self._attending.parent.mkdir(parents=True)
        self._settings.write_text(
            SITE.format(name=name, hub=hub, home=home, limit=MAX_UPDATE_BYTES), encoding="utf-8"
        )
        (folder / "state" / "trainer.ready").write_text(space.hex())
        self._process: BaseProcess | None = None

    @property
    def present(self) -> bool:
        """Whether the hub has let this one in since it was started."""
        return self._attending.exists()

    @property
    def ended(self) -> bool:
        """Whether it ended by itself."""
        return self._process is not None and self._process.exitcode is not None

    def start(self) -> None:
        """Start it."""
        self._attending.unlink(missing_ok=True)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([PRELOAD])
        self._process = context.Process(target=_serve, args=(self._settings, self.port, self.log), daemon=True)
        self._process.start()

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.join()


def _serve(settings: Path, port: int, log: Path) -> None:
    die_with_parent()
    with log.open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    sys.argv = ["gateway", "--config", str(settings), "--port", str(port)]
    main()


if __name__ != "__main__":
    bundle_sha256()  # is kept: what every start would otherwise compute anew

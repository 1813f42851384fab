"""The gateway process: the loopback side, the link side, and the gate between them."""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import uvicorn

from fedsparse import config
from fedsparse.approval import require_approved
from fedsparse.audit import EgressPolicy, EntryKind, Ledger, Recorded
from fedsparse.bundle import bundle_sha256
from fedsparse.delta import AdapterSpace, Reason
from fedsparse.errors import (
    EgressRefusedError,
    FedsparseError,
    HandshakeError,
    HubUnreachableError,
    LinkError,
    NotAdmittedError,
    ProcessError,
)
from fedsparse.files import write_atomic
from fedsparse.processes import PLANT_LOOPBACK
from fedsparse.security import LiveCredentials, Revocations, Role
from fedsparse_client.gateway.books import Books, open_ledger
from fedsparse_client.gateway.calls import Calls
from fedsparse_client.gateway.control import Tally
from fedsparse_client.gateway.desk import Answer, Desk
from fedsparse_client.gateway.fleet import FleetApi
from fedsparse_client.gateway.gate import INTERNAL, Gate
from fedsparse_client.gateway.link import SESSION_BYTES, Link

_MAX_TASK_BYTES = 1 << 30
_DIAL_SECONDS = 2.0
_BROKEN_HANDSHAKES = 3  # one after another: a hub that restarts breaks off one
_MOST_UNDELIVERED = 16  # what is older answers tasks that nobody waits for
_log = logging.getLogger("gateway")


class Gateway:
    """Ties desk, gate and link together.

    Args:
        settings: the site's settings.
        link: the channel to the hub.
        ledger: where everything that leaves is recorded first.
        port: for the SuperNode, on ``PLANT_LOOPBACK``.
    """

    def __init__(self, settings: config.SiteConfig, link: Link, ledger: Ledger, port: int) -> None:
        self._settings = settings
        self._link = link
        self._ledger = ledger
        self._port = port
        self._tally = Tally()
        self._books = Books(settings, ledger, self._tally)
        self._undelivered = ledger.undelivered(_MOST_UNDELIVERED)
        link.hold(recorded.task_id for recorded in self._undelivered)
        self._desk = Desk(settings.egress.max_update_bytes + (1 << 16))
        self._state = settings.state

    def run(self) -> None:
        """Serve until stopped; exits the process with EX_NOPERM when hub or policy refuse this plant for good.

        Raises:
            FedsparseError: the hub refuses or does not answer, the policy lets nobody ask it, or the ledger fails.
        """
        gate = Gate(EgressPolicy(self._settings.egress), self._ledger, self._settings.site.hub)
        self._books.begin()
        calls = Calls(gate, self._settings.egress, self._state)
        calls.record(EntryKind.DESCRIBE)
        federation = self._link.describe()
        space = AdapterSpace.from_proto(federation.space)
        self._ledger.set_space(space)
        write_atomic(self._state / "federation.pb", federation.SerializeToString(deterministic=True))
        threading.Thread(target=self._send, args=(gate, space), daemon=True).start()
        threading.Thread(target=self._receive, args=(calls,), daemon=True).start()
        limit, approved = self._settings.egress.max_update_bytes + (1 << 20), self._settings.site.approved
        application = FleetApi(self._desk, limit, approved, self._tally).application()
        uvicorn.run(application, host=PLANT_LOOPBACK, port=self._port, log_level="warning", access_log=False)

    def _receive(self, calls: Calls) -> None:
        """Once the trainer is ready, be present at the hub and put tasks on the desk."""
        ready = self._state / "trainer.ready"
        while not ready.exists():
            time.sleep(0.05)
        try:
            derived = bytes.fromhex(ready.read_text())  # by this site's trainer, from its own base model
            for task in self._link.attend(derived, _Presence(calls, self._desk, self._state / "attending")):
                if self._may_run(task.bundle_sha256):
                    self._desk.offer(task)
                else:
                    self._desk.answers.put(Answer(task, reason=Reason.APP_NOT_APPROVED))
        except FedsparseError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
            os._exit(_exit_status(error))
        except Exception:
            _stop_on_bug()

    def _may_run(self, bundle: str) -> bool:
        """Tell whether a bundle is the one that this site installed and approved: no other code runs here."""
        if bundle != bundle_sha256():
            _log.warning("refused a task of the app bundle %s, which is not installed here", bundle[:64])
            return False
        try:
            require_approved(bundle, self._settings.site.approved)
        except ProcessError as error:
            _log.warning("refused a task: %s", error)
            return False
        return True

    def _send(self, gate: Gate, space: AdapterSpace) -> None:
        """Pass every answer through the gate, and on to the hub only what the ledger has recorded."""
        for recorded in self._undelivered:
            self._guarded(partial(self._deliver, gate, recorded))
        while True:
            answer = self._desk.answers.get()
            self._guarded(partial(self._answer, gate, answer, space))

    def _answer(self, gate: Gate, answer: Answer, space: AdapterSpace) -> None:
        self._books.answered()
        self._deliver(gate, gate.decide(answer, space))

    def _deliver(self, gate: Gate, recorded: Recorded) -> None:
        try:
            gate.file_receipt(recorded, self._link.push(recorded, self._ledger))
            self._books.delivered()
        except LinkError as error:
            _log.warning("entry %d was not delivered: %s", recorded.sequence, error)

    def _guarded(self, step: Callable[[], object]) -> None:
        try:
            step()
        except FedsparseError as error:  # where the ledger cannot record, nothing leaves
            _log.error("nothing left, or its receipt could not be filed: %s", error)
        except Exception:
            _stop_on_bug()


class _Presence:
    """Records each presence before the hub learns of it, and says in a file that the hub has let this plant in."""

    def __init__(self, calls: Calls, desk: Desk, attending: Path) -> None:
        self._calls = calls
        self._desk = desk
        self._attending = attending
        self._recorded = False

    def dialling(self) -> None:
        if not self._recorded:  # dials that nobody answers are one attempt: nothing has left
            self._calls.record(EntryKind.ATTEND)
            self._recorded = True

    def accepted(self) -> None:
        self._recorded = False
        write_atomic(self._attending, b"")

    def lost(self) -> list[str]:
        return self._desk.clear()


def _exit_status(error: FedsparseError) -> int:
    """Return EX_NOPERM only where hub or policy refuse for good: the agent does not try again then."""
    if isinstance(error, EgressRefusedError):
        return 1 if error.rule == INTERNAL else os.EX_NOPERM
    return os.EX_NOPERM if isinstance(error, NotAdmittedError) else 1


def _stop_on_bug() -> None:
    """End the process, so that the agent starts it anew: without one of its threads it would only look alive."""
    _log.exception("the gateway stops on an error that nobody foresaw")
    os._exit(1)


def _wait_for_hub(link: Link) -> None:
    """Dial until something answers.

    Raises:
        HandshakeError: time and again it breaks off the handshake.
        NotAdmittedError: it refuses this plant.
    """
    broken = 0
    while True:
        try:
            return link.check()
        except HubUnreachableError as error:
            broken = broken + 1 if isinstance(error, HandshakeError) else 0
            if broken == _BROKEN_HANDSHAKES:
                raise
            _log.warning("%s; next try in %.0f s", error, _DIAL_SECONDS)
            time.sleep(_DIAL_SECONDS)


def _session(settings: config.SiteConfig) -> bytes:
    """Return what this plant dials with; a gateway that was killed and started anew takes up where it was."""
    path = settings.state / "session"
    try:
        token = path.read_bytes()
    except OSError:
        token = b""
    if len(token) != SESSION_BYTES:
        token = secrets.token_bytes(SESSION_BYTES)
        write_atomic(path, token, 0o600)
    return token


def main() -> None:
    """Run as a process of the agent's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    settings = config.load(options.config, config.SiteConfig)
    identity = settings.site.identity
    try:
        credentials = LiveCredentials(identity, Role.PLANT, _log.error)
        revocations = Revocations(identity.revoked, lambda: credentials.current.roots)
        with (
            Link(
                settings.site.hub,
                credentials,
                _MAX_TASK_BYTES,
                revocations,
                settings.site.proxy,
                _session(settings),
            ) as link,
            open_ledger(settings, credentials.current) as ledger,
        ):
            _wait_for_hub(link)
            Gateway(settings, link, ledger, options.port).run()
    except FedsparseError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        sys.exit(_exit_status(error))


if __name__ == "__main__":
    main()

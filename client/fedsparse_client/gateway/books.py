"""What the gateway records about its own record: who writes, what the route has carried, what was deleted."""

from __future__ import annotations

import hashlib
import logging
import time
from importlib.metadata import version

from cryptography.hazmat.primitives.serialization import Encoding

from fedsparse import config
from fedsparse.audit import EntryKind, Ledger, make_opening, read_payload_key
from fedsparse.bundle import bundle_sha256
from fedsparse.errors import ConfigError
from fedsparse.security import Credentials, Daily
from fedsparse_client.gateway.clock import clock_error_us
from fedsparse_client.gateway.control import Tally
from fedsparse_client.gateway.route import count_route

_DAY_MS = 24 * 3600 * 1000
_log = logging.getLogger("gateway")


def open_ledger(settings: config.SiteConfig, credentials: Credentials) -> Ledger:
    """Open the site's ledger, and record who writes to it from now on.

    Raises:
        LedgerError: it cannot be opened or written.
    """
    key = settings.site.payload_key
    authority = hashlib.sha256(credentials.roots[0].public_bytes(Encoding.DER)).digest()
    folder, payload_key = settings.state / "ledger", None if key is None else read_payload_key(key)
    ledger = Ledger(folder, authority, settings.site.name, payload_key)
    bundle, software = bundle_sha256(), version("fedsparse")
    opening = make_opening(ledger.origin, ledger.key, credentials, software, bundle, clock_error_us())
    ledger.append_note(EntryKind.OPENED, opening)
    return ledger


class Books:
    """Keeps the ledger's notes about itself.

    Args:
        settings: the site's settings.
        ledger: where they are recorded.
        tally: of the SuperNode's calls.
    """

    def __init__(self, settings: config.SiteConfig, ledger: Ledger, tally: Tally | None = None) -> None:
        self._route = settings.site.route
        self._retain_days = settings.site.retain_days
        self._ledger = ledger
        self._tally = tally or Tally()
        self._daily = Daily()

    def begin(self) -> None:
        """Record the route's counters before anything is sent.

        Raises:
            ConfigError: the counters cannot be read.
            LedgerError: they cannot be recorded.
        """
        if self._route is not None:
            self._ledger.append_note(EntryKind.ROUTE, count_route(self._route))

    def answered(self) -> None:
        """Record the SuperNode's calls so far, before its answer is: the hub's receipt for that witnesses both.

        Raises:
            LedgerError: they cannot be recorded.
        """
        if (count := self._tally.count()) is not None:
            self._ledger.append_note(EntryKind.ROUTE, count.to_proto())

    def delivered(self) -> None:
        """Record the route's counters after something has left, and once a day delete what is kept too long.

        Raises:
            LedgerError: it cannot be recorded.
        """
        try:
            self.begin()
        except ConfigError as error:  # the auditor finds that there is none
            _log.error("%s", error)
        self._daily.once(self._erase_expired)

    def _erase_expired(self) -> str:
        if self._retain_days is not None:
            before = time.time_ns() // 1_000_000 - self._retain_days * _DAY_MS
            for digest, size in self._ledger.older_than(before):
                self._ledger.erase(digest, size, "retention")
        return ""

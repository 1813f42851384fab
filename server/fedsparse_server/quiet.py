"""Clients with a good certificate that make no call: what gRPC refuses of them, it refuses without a word.

A connection on which something else than gRPC is spoken, or broken HTTP/2, is closed by gRPC's C core alone. What
the hub can see is that a handshake went through and no call followed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

QUIET_SECONDS = 5.0
"""In which an honest plant's first call has long come."""
_MOST = 10_000  # clients kept in mind; the oldest are told of at once when there are more


class QuietClients:
    """Finds clients that made no call after their handshake.

    Args:
        clock: seconds, never falling.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: dict[str, float] = {}
        self._spoke: dict[str, float] = {}

    def shook_hands(self, peer: str) -> None:
        """Note that the handshake of a client (``ServicerContext.peer``) went through."""
        with self._lock:
            if peer not in self._spoke:
                self._waiting.setdefault(peer, self._clock())  # a port that is used again is not forgiven

    def spoke(self, peer: str) -> None:
        """Note that a client made a call."""
        with self._lock:
            self._spoke.pop(peer, None)
            self._spoke[peer] = self._clock()
            self._waiting.pop(peer, None)

    def take(self) -> list[str]:
        """Return the clients that made no call in time, each once."""
        with self._lock:
            now = self._clock()
            for peer in _before(self._spoke, now - QUIET_SECONDS):
                del self._spoke[peer]  # kept till now, for gRPC's log may be read after the call
            quiet = _before(self._waiting, now - QUIET_SECONDS)
            for peer in quiet:
                del self._waiting[peer]
        return quiet


def _before(times: dict[str, float], limit: float) -> list[str]:
    """Return the oldest keys of ``times``: those from before ``limit``, and what is above :data:`_MOST`."""
    spare = len(times) - _MOST
    found: list[str] = []
    for peer, then in times.items():
        if then >= limit and len(found) >= spare:
            break
        found.append(peer)
    return found

"""Why a client was refused before any call: gRPC's C core knows, and says it only on its own log.

The C core writes to file descriptor 2 (with ``GRPC_VERBOSITY=info``, set before grpc is imported). The descriptor
is put through a pipe here: handshake failures become calls, all other lines pass on to the real stderr.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TextIO

VERBOSITY = {"GRPC_VERBOSITY": "info"}
_FAILURE = re.compile(r"Handshake failed with error \w+(?:: error:\w+:[\w ]+ routines:\w*:(\w+))?(?:: (.*))?")
_CORE_CHATTER = re.compile(r"^[IW]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [\w./]+\.(cc|h):\d+\]")
_CHECKS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no client certificate",
    "HTTP_REQUEST": "plain HTTP, not TLS",
    "WRONG_VERSION_NUMBER": "not TLS",
    "UNSUPPORTED_PROTOCOL": "TLS version too old",
    "BAD_SIGNATURE": "client certificate not accepted: certificate signature failure",
    # What a client's alert looks like to the hub when it turns away before any keys are agreed.
    "BAD_PACKET_LENGTH": "the client does not accept this hub's certificate",
}


def read_failure(line: str) -> str | None:
    """Return which check failed, if ``line`` is gRPC's report of a failed handshake."""
    found = _FAILURE.search(line)
    if found is None:
        return None
    code, detail = found.groups()
    if code == "CERTIFICATE_VERIFY_FAILED":
        return f"client certificate not accepted: {detail}"
    return _CHECKS.get(code or "", f"TLS handshake failed: {(code or line.strip()).replace('_', ' ').lower()}")


@contextlib.contextmanager
def watch_handshakes(on_refused: Callable[[str], None]) -> Iterator[TextIO]:
    """Call ``on_refused`` with the failed check for every refused handshake while the block runs.

    Yields:
        the real stderr; what ``on_refused`` prints belongs there, not back into the pipe.
    """
    sys.stderr.flush()
    real = os.dup(2)
    source, sink = os.pipe()
    os.dup2(sink, 2)
    os.close(sink)
    with os.fdopen(source, "r", errors="replace") as lines, os.fdopen(real, "w", buffering=1) as stderr:
        reader = threading.Thread(target=_read, args=(lines, stderr, on_refused), daemon=True)
        reader.start()
        try:
            yield stderr
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)  # closes the last writing end: the reader ends
            reader.join()


def _read(lines: TextIO, stderr: TextIO, on_refused: Callable[[str], None]) -> None:
    for line in lines:
        with contextlib.suppress(OSError):  # a full disk loses lines; a full pipe would stop the whole hub
            if (check := read_failure(line)) is not None:
                on_refused(check)
            elif not _CORE_CHATTER.match(line):
                stderr.write(line)

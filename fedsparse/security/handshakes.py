"""Who was refused before any call, and why: gRPC's C core knows, and says it only on its own log.

The C core writes to file descriptor 2 (with ``VERBOSITY``, set before grpc is imported). The descriptor is put
through a pipe here: the ends of TLS handshakes become calls, all other lines pass on to the real stderr.

The C core logs some of what strangers send as it came, line feeds included: the host name that a client asks for.
So an entry counts only if it has the server's mark, which nobody else knows; lines that pass on are escaped, and
begin with ``stderr:``, as no line of the hub's own log does.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TextIO

VERBOSITY = {"GRPC_VERBOSITY": "info", "GRPC_TRACE": "handshaker"}
_MARK = "fedsparse.mark"
_BEGINS, _ENDS = "CallNextHandshakerLocked: error=", "exit_early="
_ERROR = re.compile(re.escape(_BEGINS) + r"\w+: ([^\n]+)")
_PEER = re.compile(r"grpc\.internal\.endpoint_peer_address=([^,}\s]+)")
_SSL = re.compile(r"error:\w+:[\w ]+ routines:\w*:(\w+)(?:: (.*?))?(?:: OK)?$")
_HEADER = re.compile(r"^[EIW]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [\w./]+\.(cc|h):\d+\]")
_CHATTER = re.compile(r"^(=== Source Location Trace: ===|src/core/[\w./]+:\d+|)$")
_MOST_LINES = 8  # of an entry; gRPC writes four
_CHECKS = {
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "no client certificate",
    "HTTP_REQUEST": "plain HTTP, not TLS",
    "WRONG_VERSION_NUMBER": "not TLS",
    "UNSUPPORTED_PROTOCOL": "TLS version too old",
    "NO_SHARED_CIPHER": "TLS version too old (no cipher of TLS 1.3 in common)",
    "BAD_SIGNATURE": "client certificate not accepted: certificate signature failure",
    # What a client's alert looks like to the hub when it turns away before any keys are agreed.
    "BAD_PACKET_LENGTH": "the client does not accept this hub's certificate",
}


@dataclass(frozen=True)
class Handshake:
    """A TLS handshake that has ended.

    Attributes:
        peer: the client's address, as ``ServicerContext.peer`` has it.
        failure: the check that failed; None where the handshake went through.
    """

    peer: str
    failure: str | None = None


def mark_option(mark: str) -> tuple[str, str]:
    """Return the option of a gRPC server by which its handshakes are told from what only looks like one."""
    return _MARK, mark


def read_handshake(entry: str, mark: str) -> Handshake | None:
    """Return what an entry of gRPC's log (its lines together) tells of a handshake.

    None where it tells of none that has ended, of a client that left by itself before the end, or lacks the mark.
    """
    if f"{_MARK}={mark}" not in entry:
        return None
    peer = _PEER.search(entry)
    where = peer.group(1) if peer else "an unknown address"
    if found := _ERROR.search(entry):
        failure = _check(found.group(1))
        return Handshake(where, _escaped(failure)) if failure else None
    return Handshake(where) if "grpc.auth_context=" in entry else None


def _check(error: str) -> str | None:
    if "Handshake read failed" in error:
        # The server closes what is not through in time; anything else is a client that went.
        return "no TLS handshake before the hub closed the connection" if "Endpoint closing" in error else None
    if "ALPN" in error:
        return "the client does not offer HTTP/2 (ALPN h2)"
    if (found := _SSL.search(error)) is None:
        return f"TLS handshake failed: {error.strip()}"
    code, detail = found.groups()
    if code == "CERTIFICATE_VERIFY_FAILED":
        return f"client certificate not accepted: {detail}"
    return _CHECKS.get(code, f"TLS handshake failed: {code.replace('_', ' ').lower()}")


@contextlib.contextmanager
def watch_handshakes(mark: str, on_end: Callable[[Handshake], None]) -> Iterator[TextIO]:
    """Call ``on_end`` with every handshake that ends while the block runs.

    Args:
        mark: that the server has by :func:`mark_option`, secret.
        on_end: must not fail.

    Yields:
        the real stderr; what ``on_end`` prints belongs there, not back into the pipe.
    """
    sys.stderr.flush()
    real = os.dup(2)
    source, sink = os.pipe()
    os.dup2(sink, 2)
    os.close(sink)
    with (
        os.fdopen(source, "r", encoding="utf-8", errors="replace", newline="\n") as lines,
        os.fdopen(real, "w", encoding="utf-8", errors="backslashreplace", buffering=1) as stderr,
    ):
        reader = threading.Thread(target=_read, args=(lines, mark, stderr, on_end), daemon=True)
        reader.start()
        try:
            yield stderr
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)  # closes the last writing end: the reader ends
            reader.join()


def _read(lines: Iterable[str], mark: str, stderr: TextIO, on_end: Callable[[Handshake], None]) -> None:
    entry: list[str] = []
    for line in lines:
        with contextlib.suppress(OSError):  # a full disk loses lines; a full pipe would stop the whole hub
            text = line.removesuffix("\n")
            if _HEADER.match(text):
                _pass_on(entry[1:], stderr)  # an entry without an end: what followed may be somebody else's
                entry = [text] if _BEGINS in text else []
                if text[0] == "E":
                    _pass_on([text], stderr)
            elif entry:
                entry.append(text)
            else:
                _pass_on([text], stderr)
            if entry and _ENDS in entry[-1]:
                handshake = read_handshake("\n".join(entry), mark)
                between, entry = entry[1:-1], []
                _pass_on(between, stderr)
                if handshake is not None:
                    on_end(handshake)
            elif len(entry) > _MOST_LINES:
                _pass_on(entry[1:], stderr)
                entry = []


def _pass_on(texts: Iterable[str], stderr: TextIO) -> None:
    """Write what is not the C core's own chatter, told from the lines of the hub's log and harmless to read."""
    for text in texts:
        if not _CHATTER.match(text.rstrip()):
            stderr.write(f"stderr: {_escaped(text)}\n")


def _escaped(text: str) -> str:
    """Return a line with whatever would act on a terminal, or on whoever reads the log line by line, spelt out."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)

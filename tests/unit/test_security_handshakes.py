from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fedsparse.security.handshakes import read_failure

# As grpcio 1.85 writes them.
PREFIX = "I1124 05:38:17.943674    3782 ssl_transport_security.cc:2563] "
FAILED = PREFIX + "Handshake failed with error SSL_ERROR_SSL: error:{number}:SSL routines:OPENSSL_internal:{code}"


@pytest.mark.parametrize(
    ("number", "code", "check"),
    [
        (
            "1000007d",
            "CERTIFICATE_VERIFY_FAILED: certificate has expired",
            "client certificate not accepted: certificate has expired",
        ),
        (
            "100000c0",
            "PEER_DID_NOT_RETURN_A_CERTIFICATE: Invalid certificate verification context",
            "no client certificate",
        ),
        ("100000f7", "WRONG_VERSION_NUMBER: Invalid certificate verification context", "not TLS"),
        ("1000009c", "HTTP_REQUEST: Invalid certificate verification context", "plain HTTP, not TLS"),
        ("100000f0", "UNSUPPORTED_PROTOCOL: Invalid certificate verification context", "TLS version too old"),
        ("10000070", "BAD_PACKET_LENGTH: x", "the client does not accept this hub's certificate"),
        ("10000001", "SOMETHING_NEW: x", "TLS handshake failed: something new"),
        ("10000001", "SOMETHING_NEW", "TLS handshake failed: something new"),
    ],
)
def test_a_failed_handshake_is_told_by_the_check_that_failed(number: str, code: str, check: str) -> None:
    assert read_failure(FAILED.format(number=number, code=code) + "\n") == check


def test_a_failure_without_openssls_code_is_told_as_it_stands() -> None:
    told = read_failure(PREFIX + "Handshake failed with error SSL_ERROR_SYSCALL")
    assert told is not None
    assert told.startswith("TLS handshake failed: ")
    assert "ssl error syscall" in told


@pytest.mark.parametrize("line", ["", "\n", "hello", PREFIX + "TSI_OK", "2026-11-24 hub kiso is present\n"])
def test_other_lines_tell_of_no_failure(line: str) -> None:
    assert read_failure(line) is None


def watched(script: str) -> tuple[list[str], str]:
    """Run ``script`` while handshakes are watched; return what was refused, and the stderr of the process."""
    code = f"""
import os, sys
from fedsparse.security.handshakes import watch_handshakes
refused = []
with watch_handshakes(refused.append) as stderr:
    {script}
print("after", file=sys.stderr)
print(repr(refused))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env={**os.environ}
    )
    refused: list[str] = eval(result.stdout)  # noqa: S307 - our own repr
    return refused, result.stderr


def test_a_failure_written_to_the_descriptor_becomes_a_call_and_no_line() -> None:
    line = FAILED.format(number="1", code="HTTP_REQUEST: x\n")
    refused, stderr = watched(f"os.write(2, {line.encode()!r})")
    assert refused == ["plain HTTP, not TLS"]
    assert stderr == "after\n"


def test_other_lines_pass_on_to_the_real_stderr_and_grpcs_chatter_does_not() -> None:
    chatter = (PREFIX + "chatter\n").encode()
    refused, stderr = watched(
        f"os.write(2, {chatter!r}); print('ours', file=sys.stderr); stderr.write('direct\\n')"
    )
    assert refused == []
    assert sorted(stderr.splitlines()) == ["after", "direct", "ours"]


def test_a_full_disk_under_the_log_never_stops_the_writers() -> None:
    """The descriptor is a pipe while watched: if nobody read it, the next writer would hang for ever."""
    script = "[os.write(2, b'x' * 1000 + b'\\n') for _ in range(1000)]; print('passed', flush=True)"
    code = f"""
import os
os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
from fedsparse.security.handshakes import watch_handshakes
try:
    with watch_handshakes(print):
        {script}
except OSError:
    pass  # closing the full stderr
"""
    result = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert "passed" in result.stdout

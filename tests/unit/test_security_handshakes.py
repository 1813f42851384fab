from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fedsparse.security.handshakes import Handshake, read_handshake

# As grpcio 1.85 writes them.
HEADER = "I1126 21:58:37.342098   18056 handshaker.cc:155] "
PEER = "ipv4:127.0.0.1:59804"
MARK = "5ec4e7"


def args(auth: str = "") -> str:
    return (
        f"args={{endpoint=0x7f8fa4002420, args={{fedsparse.mark={MARK}, grpc.so_reuseport=0, {auth}grpc.internal."
        f"endpoint_local_address=ipv4:127.0.0.1:39953, grpc.internal.endpoint_peer_address={PEER}, "
        "grpc.so_reuseport=0}, read_buffer.Length()=0, exit_early=0}\n"
    )


def failed(error: str) -> str:
    trace = "=== Source Location Trace: === \nsrc/core/util/status_helper.cc:68\n"
    return f"{HEADER}CallNextHandshakerLocked: error={error}\n{trace} shutdown=false index=2, {args()}"


def ssl_error(code: str) -> str:
    return (
        "UNKNOWN: Ssl handshake failed (TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:100000f7:SSL "
        f"routines:OPENSSL_internal:{code}: OK"
    )


BEGUN = f"{HEADER}CallNextHandshakerLocked: error=OK shutdown=false index=1, {args()}"
DONE = f"{HEADER}CallNextHandshakerLocked: error=OK shutdown=false index=2, {args('grpc.auth_context=0x7f8f98, ')}"
NO_CONTEXT = "Invalid certificate verification context"


@pytest.mark.parametrize(
    ("code", "check"),
    [
        (
            "CERTIFICATE_VERIFY_FAILED: certificate has expired",
            "client certificate not accepted: certificate has expired",
        ),
        (f"PEER_DID_NOT_RETURN_A_CERTIFICATE: {NO_CONTEXT}", "no client certificate"),
        (f"WRONG_VERSION_NUMBER: {NO_CONTEXT}", "not TLS"),
        (f"HTTP_REQUEST: {NO_CONTEXT}", "plain HTTP, not TLS"),
        (f"UNSUPPORTED_PROTOCOL: {NO_CONTEXT}", "TLS version too old"),
        ("BAD_PACKET_LENGTH: x", "the client does not accept this hub's certificate"),
        ("SOMETHING_NEW: x", "TLS handshake failed: something new"),
        ("SOMETHING_NEW", "TLS handshake failed: something new"),
    ],
)
def test_a_failed_handshake_is_told_by_the_check_that_failed(code: str, check: str) -> None:
    assert read_handshake(failed(ssl_error(code)), MARK) == Handshake(PEER, check)


@pytest.mark.parametrize(
    ("error", "check"),
    [
        (
            "UNKNOWN: Cannot check peer: missing selected ALPN property.",
            "the client does not offer HTTP/2 (ALPN h2)",
        ),
        (
            "UNAVAILABLE: Handshake read failed (Endpoint closing)",
            "no TLS handshake before the hub closed the connection",
        ),
        ("UNKNOWN: SSL_ERROR_SYSCALL", "TLS handshake failed: SSL_ERROR_SYSCALL"),
    ],
)
def test_a_failure_without_openssls_code_is_told_in_words_or_as_it_stands(error: str, check: str) -> None:
    assert read_handshake(failed(error), MARK) == Handshake(PEER, check)


def test_a_handshake_that_went_through_tells_the_client() -> None:
    assert read_handshake(DONE, MARK) == Handshake(PEER)


@pytest.mark.parametrize(
    "entry",
    [
        "",
        "hello\n",
        BEGUN,
        HEADER + "handshake_manager 0x7f8fa40020a0: adding handshaker security\n",
        failed("UNAVAILABLE: Handshake read failed (Socket closed)"),
    ],
)
def test_other_entries_tell_of_no_handshake_that_has_ended(entry: str) -> None:
    assert read_handshake(entry, MARK) is None


def watched(script: str) -> tuple[list[str], str]:
    """Run ``script`` while handshakes are watched; return the checks told of, and the stderr of the process."""
    code = f"""
import os, sys
from fedsparse.security.handshakes import watch_handshakes
refused = []
with watch_handshakes("{MARK}", lambda handshake: refused.append(handshake.failure)) as stderr:
    {script}
print("after", file=sys.stderr)
print(repr(refused))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env={**os.environ}
    )
    refused: list[str] = eval(result.stdout)  # noqa: S307 - our own repr
    return refused, result.stderr


def test_a_handshake_written_to_the_descriptor_becomes_a_call_and_no_line() -> None:
    entries = failed(ssl_error("HTTP_REQUEST: x")) + BEGUN + DONE
    refused, stderr = watched(f"os.write(2, {entries.encode()!r})")
    assert refused == ["plain HTTP, not TLS", None]
    assert stderr == "after\n"


def test_an_entry_without_an_end_swallows_nothing() -> None:
    cut = failed("UNKNOWN: x").split(" shutdown=")[0]
    refused, stderr = watched(f"os.write(2, {(cut + DONE + cut + 'a word' + chr(10) + DONE).encode()!r})")
    assert refused == [None, None]
    assert stderr.splitlines() == ["stderr: a word", "after"]


def test_an_entry_that_goes_on_for_ever_ends_after_some_lines_which_are_passed_on() -> None:
    cut = failed("UNKNOWN: x").split(" shutdown=")[0]
    refused, stderr = watched(
        f"os.write(2, {(cut + 20 * 'word' + chr(10) + 20 * ('y' + chr(10)) + DONE).encode()!r})"
    )
    assert refused == [None]
    assert stderr.count("stderr: y") == 20


@pytest.mark.parametrize("feed", ["\n", "\r"])
def test_what_a_client_writes_into_grpcs_log_is_neither_believed_nor_a_line_of_its_own(feed: str) -> None:
    """The C core logs the host name that a client asks for as it came, if no certificate matches it."""
    forged = failed(ssl_error("HTTP_REQUEST: x")).replace(MARK, "0").replace("\n", feed)
    name = feed.join(["x", forged, DONE.replace(MARK, "0"), "2026-11-26 12:00:00,000 hub all is well\x1b[31m"])
    line = HEADER.replace("I1126", "E1126") + f"No match found for server name: {name}\n"
    refused, stderr = watched(f"os.write(2, {line.encode()!r})")
    assert refused == []
    assert all(line.startswith("stderr: ") for line in stderr.splitlines()[:-1])
    assert stderr.splitlines()[-1] == "after"
    assert "\x1b" not in stderr


def test_bytes_that_are_no_text_never_stop_the_reader() -> None:
    code = f"""
import os
from fedsparse.security.handshakes import watch_handshakes
with watch_handshakes("{MARK}", print):
    for _ in range(200):
        os.write(2, b"\\xff\\xfe" * 500 + b"\\n")
print("passed")
"""
    environment = {**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert result.stdout == "passed\n"


def test_other_lines_pass_on_to_the_real_stderr_and_grpcs_chatter_does_not() -> None:
    chatter = HEADER + "handshake manager 0x7f8fa40020a0: Failed with error: UNKNOWN: x\n"
    chatter += "=== Source Location Trace: ===\nsrc/core/util/status_helper.cc:68\n\n"
    refused, stderr = watched(
        f"os.write(2, {chatter.encode()!r}); print('ours', file=sys.stderr); stderr.write('direct\\n')"
    )
    assert refused == []
    assert sorted(stderr.splitlines()) == ["after", "direct", "stderr: ours"]


def test_a_full_disk_under_the_log_never_stops_the_writers() -> None:
    """The descriptor is a pipe while watched: if nobody read it, the next writer would hang for ever."""
    script = "[os.write(2, b'x' * 1000 + b'\\n') for _ in range(1000)]; print('passed', flush=True)"
    code = f"""
import os
os.dup2(os.open("/dev/full", os.O_WRONLY), 2)
from fedsparse.security.handshakes import watch_handshakes
try:
    with watch_handshakes("", print):
        {script}
except OSError:
    pass  # closing the full stderr
"""
    result = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=60, check=False
    )
    assert "passed" in result.stdout

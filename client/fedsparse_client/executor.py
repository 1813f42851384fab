"""Starts one process per Flower message, as Flower does, but forked from one that has already imported Flower.

Flower's own executor spends about a second of CPU on imports for every message; a fork spends none, and every
message still gets a fresh process of its own.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import time
from pathlib import Path

import httpx
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.auth import load_superexec_auth_secret
from flwr.supercore.constant import TaskType
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor, SuperExecAuthHttpInterceptor
from flwr.supercore.retry import make_simple_http_retry_invoker
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime.run_clientapp import run_clientapp

import fedsparse_client.app  # noqa: F401 - imported here once, so that no fork has to

_POLL_SECONDS = 0.1
_log = logging.getLogger("executor")


def _run_task(address: str, token: str, parent: int) -> None:
    """Be the ClientApp process of one message; never returns."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        run_clientapp(runtime_api_address=address, token=token, insecure=True, parent_pid=parent)
    except SystemExit as stop:
        os._exit(stop.code if isinstance(stop.code, int) else 1)
    except BaseException:
        _log.exception("the ClientApp process failed")
        os._exit(1)
    os._exit(0)


def run(address: str, secret_file: Path) -> None:
    """Acquire tasks from the SuperNode's runtime API at ``address`` and fork a process for each, for ever."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps what has finished
    secret = load_superexec_auth_secret(secret_file=str(secret_file))
    if not secret:
        sys.exit(f"{secret_file} holds no secret")
    client = RuntimeHttpClient.from_server_address(
        server_address=address,
        insecure=True,
        root_certificates=None,
        interceptors=[
            RuntimeVersionHttpInterceptor(component_name="SuperExec"),
            SuperExecAuthHttpInterceptor(
                master_secret=secret, protected_methods=frozenset({"/flwr.proto.Runtime/AcquireTask"})
            ),
        ],
        retry_invoker=make_simple_http_retry_invoker(),
    )
    request = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
    parent = os.getpid()
    while True:
        try:
            reply = client.AcquireTask(request)
        except httpx.HTTPError as error:
            _log.warning("the SuperNode does not answer: %s", error)
            time.sleep(1.0)
            continue
        if reply.HasField("task") and reply.token:
            if os.fork() == 0:
                _run_task(address, reply.token, parent)
        else:
            time.sleep(_POLL_SECONDS)


def main() -> None:
    """Run as a process of the agent's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runtime", required=True, help="host:port of the SuperNode's runtime API")
    parser.add_argument("--secret-file", type=Path, required=True)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    run(options.runtime, options.secret_file)


if __name__ == "__main__":
    main()

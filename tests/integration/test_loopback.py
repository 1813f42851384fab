"""A real SuperLink behind hub.nft, asked by its own user and by another one of the same machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedsparse.processes import FLOWER_ENVIRONMENT, HUB_LOOPBACK, past_proxies, script

from .hosts import run

TOOLS = ("ip", "nft", "setpriv")
RULES = Path(__file__).parents[2] / "deploy" / "nftables" / "hub.nft"
OWN, OTHER = 64003, 64002  # user ids that need no account
PORT = 40000
ASK = f"""
import httpx
from flwr.proto.control_pb2 import ListRunsRequest
from flwr.supercore.control.control_http_client import ControlHttpClient
client = ControlHttpClient.from_server_address(
    "{HUB_LOOPBACK}:{PORT}", insecure=True, root_certificates=None, interceptors=[]
)
try:
    print("answered", len(client.ListRuns(ListRunsRequest()).run_dict))
except httpx.ConnectError as error:
    print("refused", error)
"""
Ask = Callable[[int], str]

pytestmark = [
    pytest.mark.processes,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        os.geteuid() != 0 or any(shutil.which(tool) is None for tool in TOOLS),
        reason=f"needs root and {', '.join(TOOLS)}, for a network namespace and its firewall",
    ),
]


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"fs-loopback-{os.getpid()}"
    try:
        run("ip", "netns", "add", name)
        run("ip", "netns", "exec", name, "nft", "list", "ruleset")
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield name
    except RuntimeError as error:
        pytest.skip(f"no network namespaces, or no nftables in them: {error}")
    finally:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


@pytest.fixture
def home() -> Iterator[Path]:
    """Make a folder that any user may write to: those of pytest are root's alone."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def _as(user: int, namespace: str) -> list[str]:
    """Return what runs a command as a user, who may also look into folders: root's own Python may lie in one."""
    look = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    who = [f"--reuid={user}", f"--regid={user}", "--clear-groups", *look]
    return ["ip", "netns", "exec", namespace, "setpriv", *who, "--"]


@pytest.fixture
def ask(namespace: str, home: Path) -> Iterator[Ask]:
    """Start SuperLink as the supervisor does; yield what asks its Control API as a user of the machine."""
    environment = {
        **os.environ,
        **past_proxies(),
        **FLOWER_ENVIRONMENT,
        "HOME": str(home),
        "FLWR_HOME": str(home / "flwr"),
    }
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])

    def asked(user: int) -> str:
        command = [*_as(user, namespace), sys.executable, "-c", ASK]
        told = subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False, env=environment, cwd=home
        )
        return told.stdout + told.stderr

    command = [*_as(OWN, namespace), script("flower-superlink"), "--insecure", "--host", HUB_LOOPBACK]
    command += ["--port", str(PORT), "--disable-runtime-dependency-installation"]
    with (home / "superlink.log").open("wb") as log:
        superlink = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=home)
    try:
        end = time.monotonic() + 60
        while "answered" not in (told := asked(OWN)):
            log = (home / "superlink.log").read_text()
            assert superlink.poll() is None, log
            assert time.monotonic() < end, log + told
            time.sleep(0.5)
        yield asked
    finally:
        superlink.terminate()
        superlink.wait(20)


def test_another_user_may_start_runs_until_the_rules_are_loaded(ask: Ask, namespace: str, home: Path) -> None:
    assert ask(OTHER).startswith("answered")  # what the rules are for
    rules = home / "hub.nft"
    rules.write_text(RULES.read_text().replace('"fedsparse-hub"', str(OWN)))
    run("ip", "netns", "exec", namespace, "nft", "-f", rules)
    assert ask(OWN).startswith("answered")
    assert ask(0).startswith("answered")  # root's own checks
    assert "refused [Errno 111] Connection refused" in ask(OTHER)

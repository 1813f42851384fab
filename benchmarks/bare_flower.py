"""How long a round of bare Flower takes in which nothing is trained: what our overhead is measured against."""

from __future__ import annotations

import hashlib
import itertools
import statistics
import tempfile
import time
from pathlib import Path

import httpx
from flwr.cli.build import build_fab_from_disk
from flwr.common.serde import fab_to_proto
from flwr.proto.control_pb2 import ListRunsRequest, StartRunRequest
from flwr.supercore.control.control_http_client import ControlHttpClient
from flwr.supercore.fab import Fab

from fedsparse.processes import FLOWER_ENVIRONMENT, Child, free_port, script, stop_all

_APP = Path(__file__).parent / "noop_app"
_QUIET = {name: FLOWER_ENVIRONMENT[name] for name in ("FLWR_TELEMETRY_ENABLED", "FLWR_DISABLE_UPDATE_CHECK")}
_SECONDS = 300.0


def round_seconds(plants: int, rounds: int) -> list[float]:
    """Return the seconds each of ``rounds`` no-op rounds takes with Flower's own polling and processes."""
    with tempfile.TemporaryDirectory() as scratch:
        return _run(Path(scratch), plants, rounds)


def _run(folder: Path, plants: int, rounds: int) -> list[float]:
    times = folder / "times"
    environment = {
        **_QUIET,
        "FLWR_HOME": str(folder / "flwr"),
        "NOOP_TIMES": str(times),
        "NOOP_PLANTS": str(plants),
        "NOOP_ROUNDS": str(rounds),
    }
    address = f"127.0.0.1:{free_port()}"
    command = [script("flower-superlink"), "--insecure", "--host", "127.0.0.1", "--port", address.split(":")[1]]
    superlink = Child(
        "superlink", [*command, "--disable-runtime-dependency-installation"], folder / "superlink.log", environment
    )
    children = [superlink]
    try:
        superlink.wait_until(lambda: _answers(address), _SECONDS)
        for number in range(plants):
            node = [script("flower-supernode"), "--insecure", "--superlink", address]
            own = ["--host", "127.0.0.1", "--port", str(free_port())]
            children.append(Child(f"node {number}", [*node, *own], folder / f"node-{number}.log", environment))
        _submit_and_wait(address)
    finally:
        stop_all(children)
    starts = [float(line) for line in times.read_text().splitlines()]
    return [after - before for before, after in itertools.pairwise(starts)]


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"http://{address}/health", timeout=1.0).status_code < 500
    except httpx.HTTPError:
        return False


def _submit_and_wait(address: str) -> None:
    client = ControlHttpClient.from_server_address(address, insecure=True, root_certificates=None, interceptors=[])
    try:
        content = build_fab_from_disk(_APP)
        fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
        run_id = client.StartRun(StartRunRequest(fab=fab_to_proto(fab))).run_id
        end = time.monotonic() + _SECONDS
        while client.ListRuns(ListRunsRequest(run_id=run_id)).run_dict[run_id].status.status != "finished":
            if time.monotonic() > end:
                raise SystemExit(f"bare Flower did not finish within {_SECONDS:.0f} s")
            time.sleep(0.5)
    finally:
        client.close()


if __name__ == "__main__":
    seconds = round_seconds(plants=3, rounds=8)
    print(f"median of {len(seconds)} rounds: {statistics.median(seconds):.2f} s", [round(s, 2) for s in seconds])

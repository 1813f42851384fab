from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fedsparse.errors import ProcessError
from fedsparse.processes import HUB_LOOPBACK, PLANT_LOOPBACK, Child, free_port, script, stop_all
from tests.unit.federation_samples import eventually

SLEEP = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
POLITE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(print('bye', flush=True)))
print('up', flush=True)
time.sleep(600)
"""


@pytest.fixture
def children() -> Iterator[list[Child]]:
    started: list[Child] = []
    yield started
    for child in started:
        child.kill()


def start(children: list[Child], folder: Path, code: str, name: str = "child") -> Child:
    """Start Python with ``code``, and wait until it has said that it is up."""
    child = Child(name, [sys.executable, "-u", "-c", code], folder / "logs" / f"{name}.log")
    children.append(child)
    child.wait_until(lambda: "up" in child.last_words(), 60)
    return child


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_a_child_becomes_its_command_with_its_output_in_the_log(children: list[Child], tmp_path: Path) -> None:
    child = start(children, tmp_path, f"import os, sys; print(os.getpid(), file=sys.stderr); {SLEEP}")
    assert child.log.read_text().split() == [str(child.pid), "up"]
    assert child.exit_code is None
    child.require_running()


def test_a_child_gets_its_variables_on_top_of_ours_and_our_scripts_first(
    children: list[Child], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEDSPARSE_TEST_OURS", "ours")
    code = "import os; print(*(os.environ[k] for k in ('FEDSPARSE_TEST_OURS', 'MORE', 'PATH')), 'up')"
    child = Child("child", [sys.executable, "-c", code], tmp_path / "log", {"MORE": "more"})
    children.append(child)
    eventually(lambda: child.exit_code == 0, "its end")
    ours, more, path, _ = child.last_words().split()
    assert (ours, more, path.split(os.pathsep)[0]) == ("ours", "more", str(Path(sys.executable).parent))


def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    code = f"""
import sys, time
from pathlib import Path
from fedsparse.processes import Child
child = Child("child", [sys.executable, "-c", {SLEEP!r}], Path({str(tmp_path / "child.log")!r}))
child.wait_until(lambda: "up" in child.last_words(), 60)
print(child.pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert not gone(child)
    parent.kill()
    parent.wait(20)
    parent.stdout.close()
    eventually(lambda: gone(child), "the child's end")


def test_a_child_whose_parent_died_before_it_began_does_not_begin(tmp_path: Path) -> None:
    code = "from fedsparse.processes import launch; launch(1, ['touch', 'began'])"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert list(tmp_path.iterdir()) == []


def test_stopping_is_polite_first(children: list[Child], tmp_path: Path) -> None:
    child = start(children, tmp_path, POLITE)
    child.stop()
    assert (child.exit_code, child.last_words(1)) == (0, "bye")


def test_a_child_that_does_not_listen_is_killed(children: list[Child], tmp_path: Path) -> None:
    child = start(children, tmp_path, STUBBORN)
    child.stop(grace=0.2)
    assert child.exit_code == -signal.SIGKILL


def test_a_killed_child_takes_what_it_started_along(children: list[Child], tmp_path: Path) -> None:
    code = f"""
import subprocess, sys
inner = subprocess.Popen([sys.executable, "-c", {SLEEP!r}], stdout=subprocess.DEVNULL)
print("inner", inner.pid, "up", flush=True)
inner.wait()
"""
    child = start(children, tmp_path, code)
    inner = int(child.last_words().split()[1])
    child.kill()
    eventually(lambda: gone(inner), "the grandchild's end")


def test_stop_all_ends_every_child_whether_it_runs_or_has_stopped(children: list[Child], tmp_path: Path) -> None:
    running = [start(children, tmp_path, POLITE, f"polite-{n}") for n in range(2)]
    crashed = start(children, tmp_path, "print('up'); raise SystemExit(3)", "crashed")
    eventually(lambda: crashed.exit_code == 3, "the crash")
    stop_all([*running, crashed])
    assert [child.exit_code for child in (*running, crashed)] == [0, 0, 3]
    stop_all([*running, crashed])  # a second time changes nothing


def test_waiting_for_a_child_that_stops_tells_its_status_and_last_words(
    children: list[Child], tmp_path: Path
) -> None:
    code = "[print(f'line {n}') for n in range(20)]; raise SystemExit('no data')"
    child = Child("trainer", [sys.executable, "-c", code], tmp_path / "trainer.log")
    children.append(child)
    with pytest.raises(ProcessError) as caught:
        child.wait_until(lambda: False, 60)
    assert caught.value.what.startswith("trainer stopped with status 1:\n")
    assert caught.value.what.endswith("line 19\nno data")
    assert "line 5" not in caught.value.what
    assert caught.value.remedy == f"Its whole log is {tmp_path / 'trainer.log'}"


def test_waiting_for_a_child_that_is_never_ready_tells_its_last_words(
    children: list[Child], tmp_path: Path
) -> None:
    child = start(children, tmp_path, SLEEP)
    with pytest.raises(ProcessError, match=r"child was not ready within 0 s:\nup"):
        child.wait_until(lambda: False, 0.1)


def test_a_restarted_childs_log_is_continued(children: list[Child], tmp_path: Path) -> None:
    start(children, tmp_path, SLEEP).kill()
    again = Child("child", [sys.executable, "-c", "print('again')"], tmp_path / "logs" / "child.log")
    children.append(again)
    eventually(lambda: again.exit_code == 0, "its end")
    assert again.last_words() == "up\nagain"


def test_a_free_port_can_be_bound() -> None:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", free_port()))


def test_a_script_that_is_not_installed_is_named() -> None:
    assert Path(script("fedsparse")).exists()
    with pytest.raises(ProcessError, match="no-such-script is not installed beside"):
        script("no-such-script")


@pytest.mark.parametrize("name", ["no_proxy", "NO_PROXY"])
def test_a_child_reaches_loopback_itself_where_the_environment_names_a_proxy(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for given in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(given, raising=False)
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv(name, "localhost,127.0.0.1")
    asked = ("127.0.0.1", HUB_LOOPBACK, PLANT_LOOPBACK, "192.0.2.10")
    code = f"""
import httpx
client = httpx.Client()
for host in {asked}:
    print(host, type(client._transport_for_url(httpx.URL(f"http://{{host}}:1/"))._pool).__name__)
"""
    child = Child("asker", [sys.executable, "-c", code], tmp_path / "log")
    child._process.wait(30)
    direct = [f"{host} ConnectionPool" for host in asked[:3]]
    assert (tmp_path / "log").read_text().splitlines() == [*direct, "192.0.2.10 HTTPProxy"]

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fedsparse.events import EventFollower, EventLog


def names(follower: EventFollower) -> list[str]:
    return [event["event"] for event in follower.new()]


def test_events_are_followed_in_order_and_each_once(tmp_path: Path) -> None:
    log, follower = EventLog(tmp_path / "deep" / "events.jsonl"), EventFollower(tmp_path / "deep" / "events.jsonl")
    log.emit("one", plant="木曽")
    log.emit("two")
    first, second = follower.new()
    assert (first["event"], first["plant"], second["event"]) == ("one", "木曽", "two")
    assert first["time"] <= second["time"]
    assert names(follower) == []
    log.emit("three")
    assert names(follower) == ["three"]


def test_a_file_that_is_not_there_yet_has_no_events(tmp_path: Path) -> None:
    follower = EventFollower(tmp_path / "events.jsonl")
    assert names(follower) == []
    EventLog(tmp_path / "events.jsonl").emit("one")
    assert names(follower) == ["one"]


def test_half_a_line_waits_for_its_other_half(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    follower = EventFollower(path)
    path.write_bytes(b'{"event": "one"}\n{"event": ')
    assert names(follower) == ["one"]
    with path.open("ab") as file:
        file.write(b'"two"}\n')
    assert names(follower) == ["two"]


def test_a_line_that_a_full_disk_cut_does_not_stop_the_follower(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"event": "one"}\n{"event": "tw{"event": "three"}\n{"event": "four"}\n')
    assert names(EventFollower(path)) == ["one", "four"]


def test_several_processes_share_one_file_without_mixing_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    code = f"""
from pathlib import Path
from fedsparse.events import EventLog
log = EventLog(Path({str(path)!r}))
for _ in range(300):
    log.emit("x", filler="y" * 300)
"""
    writers = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert names(EventFollower(path)) == ["x"] * 900

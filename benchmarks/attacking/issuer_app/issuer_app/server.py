"""Sends what lies in the folder "tasks" of the hub's state, and writes down every answer that comes."""

import json
import os
import time
from hashlib import sha256
from pathlib import Path

from fedsparse_server.bell import ring
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Send and collect until the file "stop" appears."""
    folder = Path(os.environ["ATTACKS_TASKS"])
    waiting: set[str] = set()
    (folder / "ready").touch()
    while not (folder / "stop").exists():
        for path in sorted(folder.glob("*.task")):
            waiting.add(_send(grid, path))
        for answer in grid.pull_messages(waiting) if waiting else ():
            waiting.discard(answer.metadata.reply_to_message_id)
            _note(folder, answer)
        time.sleep(0.1)


def _send(grid: Grid, path: Path) -> str:
    node = int(path.name.split("-")[0])
    content = RecordDict({"fedsparse": ConfigRecord({"payload": path.read_bytes()})})
    message = Message(content, dst_node_id=node, message_type="train", group_id="1")
    (task_id,) = grid.push_messages([message])
    path.rename(path.with_suffix(".sent"))
    ring(path.parent.parent)
    return task_id


def _note(folder: Path, answer: Message) -> None:
    payload = answer.content["fedsparse"]["payload"] if answer.has_content() else b""
    assert isinstance(payload, bytes)
    line = {"task_id": answer.metadata.reply_to_message_id, "sha256": sha256(payload).hexdigest()}
    with (folder / "answers.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")

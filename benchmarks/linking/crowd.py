"""Many plants in one process, each with a certificate, connection and stream of its own; each declines every task.

Writes one JSON line per happening: plant, what happened, and when by the monotonic clock.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from pathlib import Path
from typing import TextIO

import grpc

from benchmarks.linking.certificates import home_of
from benchmarks.linking.messages import SPACE, refusal
from fedsparse.processes import die_with_parent
from fedsparse.security import Role
from fedsparse.v1 import link_pb2, link_pb2_grpc
from tests.unit.federation_samples import PlantLog

_FIRST_BACKOFF_SECONDS = 0.5  # as the gateway waits
_LAST_BACKOFF_SECONDS = 15.0
_PUSH_SECONDS = 60.0


class _Plant:
    def __init__(self, name: str, home: Path, address: str, out: TextIO) -> None:
        self._name = name
        self._session = secrets.token_bytes(16)
        self._out = out
        self._log = PlantLog(name)
        authority, self._key, chain = (
            (home / file).read_bytes() for file in ("ca.pem", f"{name}.key", f"{name}.pem")
        )
        credentials = grpc.ssl_channel_credentials(authority, self._key, chain)
        options = [
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.initial_reconnect_backoff_ms", 500),
            ("grpc.max_reconnect_backoff_ms", 15_000),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        self._stub = link_pb2_grpc.LinkStub(grpc.aio.secure_channel(address, credentials, options=options))

    def _say(self, what: str, detail: str = "") -> None:
        line = {"plant": self._name, "what": what, "at": time.monotonic(), "detail": detail}
        self._out.write(f"{json.dumps(line)}\n")
        self._out.flush()

    async def run(self) -> None:
        backoff = _FIRST_BACKOFF_SECONDS
        while True:
            try:
                await self._attend()
                backoff = _FIRST_BACKOFF_SECONDS
            except grpc.aio.AioRpcError as error:
                self._say("lost", f"{error.code().name}: {error.details()}")
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, _LAST_BACKOFF_SECONDS)

    async def _attend(self) -> None:
        request = link_pb2.AttendRequest(protocol=3, space=SPACE.fingerprint, session=self._session)
        call = self._stub.Attend(request)
        await call.initial_metadata()
        self._say("present")
        async for task in call:
            self._say("task")
            asyncio.get_running_loop().create_task(self._decline(task.task_id))

    async def _decline(self, task_id: str) -> None:
        update = self._log.update(refusal(), task_id, secrets.token_bytes(32), self._key)
        backoff = _FIRST_BACKOFF_SECONDS
        while True:
            try:
                receipt = await self._stub.Push(update, timeout=_PUSH_SECONDS)
                self._log.witnessed = receipt.body.checkpoint_size
                return self._say("receipt")
            except grpc.aio.AioRpcError as error:
                self._say("not delivered", f"{error.code().name}: {error.details()}")
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, _LAST_BACKOFF_SECONDS)


async def _run(address: str, folder: Path, out: TextIO, names: list[str]) -> None:
    plants = [_Plant(name, home_of(folder, Role.PLANT, name), address, out) for name in names]
    await asyncio.gather(*(plant.run() for plant in plants))


def main() -> None:
    """Be all the plants that are named, until killed."""
    die_with_parent()
    address, folder, out, *names = sys.argv[1:]
    with Path(out).open("w", encoding="utf-8") as file:
        asyncio.run(_run(address, Path(folder), file, names))


if __name__ == "__main__":
    main()

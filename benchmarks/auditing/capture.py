"""Keeps every frame of a machine's interfaces but loopback: run inside its network namespace until terminated."""

from __future__ import annotations

import signal
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

OUTGOING = 4  # packet type of what this machine sends (packet(7))
_EVERY_PROTOCOL = 3
_BUFFER = 64 << 20
_HEAD = struct.Struct(">BI")


def main() -> None:
    """Write frames to the first argument; create the second once it listens."""
    with (
        Path(sys.argv[1]).open("wb") as file,
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERY_PROTOCOL)) as sniffer,
    ):
        sniffer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
        Path(sys.argv[2]).touch()
        while True:
            frame, (interface, _, direction, *_) = sniffer.recvfrom(1 << 18)
            if interface != "lo":
                file.write(_HEAD.pack(direction, len(frame)) + frame)
                file.flush()


def read_frames(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield direction and bytes of the frames in a capture."""
    data = path.read_bytes()
    at = 0
    while at < len(data):
        direction, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        yield direction, data[at : at + length]
        at += length


if __name__ == "__main__":
    main()

"""What a site trains by itself reaches nobody."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from .data_samples import write_images
from .test_cli_train import FAST, STAGES, trained, written


def test_training_and_applying_an_adapter_open_no_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "images")
    dialled: list[object] = []

    def refuse(self: socket.socket, address: object) -> None:
        dialled.append(address)
        raise OSError("no connection is to be opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: dialled.append(host))
    trained("-c", written(tmp_path, FAST + STAGES))
    assert (tmp_path / "out" / "report.html").exists()
    assert dialled == []

"""A hub by hand: HTTP/2 over TLS, with messages that claim a length no library would send."""

from __future__ import annotations

import socket
import ssl
import tempfile
import threading
from pathlib import Path

from benchmarks.attacking import raw
from benchmarks.attacking.messages import federation
from fedsparse.security import Credentials

_OK = b"\x88" + raw.literal("content-type", b"application/grpc")
_CLAIMED = (1 << 31) - 1


class BareHub:
    """Answers Describe honestly, and begins a task of two gigabytes on Attend.

    Args:
        credentials: what it shows.
        version: of TLS, at most.
    """

    def __init__(self, credentials: Credentials, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.maximum_version = version
        self._context.set_alpn_protocols(["h2"])
        with tempfile.TemporaryDirectory() as folder:
            pair = Path(folder) / "pair.pem"
            pair.touch(mode=0o600)
            pair.write_bytes(credentials.key + credentials.certificate)
            self._context.load_cert_chain(pair)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.claimed = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """End it."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        try:
            with self._context.wrap_socket(plain, server_side=True) as channel:
                channel.sendall(raw.frame(raw.SETTINGS, 0, 0))
                data = b""
                while more := channel.recv(65536):
                    data = self._answer(channel, data + more)
        except OSError:
            return

    def _answer(self, channel: ssl.SSLSocket, data: bytes) -> bytes:
        """Answer every whole frame; return what is left."""
        data = data.removeprefix(raw.PREFACE)
        while len(data) >= 9 and len(data) >= (end := 9 + int.from_bytes(data[:3], "big")):
            kind, flags, stream = data[3], data[4], int.from_bytes(data[5:9], "big")
            body, data = data[9:end], data[end:]
            if kind == raw.SETTINGS and not flags & raw.ACK:
                channel.sendall(raw.frame(raw.SETTINGS, raw.ACK, 0))
            elif kind == raw.PING and not flags & raw.ACK:
                channel.sendall(raw.frame(raw.PING, raw.ACK, 0, body))
            elif kind == raw.HEADERS:
                channel.sendall(self._reply(stream))
        return data

    def _reply(self, stream: int) -> bytes:
        begin = raw.frame(raw.HEADERS, raw.END_HEADERS, stream, _OK)
        if stream > 1:  # a gateway asks first what is trained, and then attends
            self.claimed += 1
            return begin + raw.frame(raw.DATA, 0, stream, b"\x00" + _CLAIMED.to_bytes(4, "big") + bytes(1000))
        told = raw.frame(raw.DATA, 0, stream, raw.message(federation().SerializeToString()))
        end = raw.literal("grpc-status", b"0")
        return begin + told + raw.frame(raw.HEADERS, raw.END_HEADERS | raw.END_STREAM, stream, end)

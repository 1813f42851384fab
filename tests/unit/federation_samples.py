"""Certificates, settings, tasks and a hub at work, as the tests of both ends of the link need them."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from fedsparse_server.superlink import PulledTask
from flwr.app import Message
from flwr.app.message import make_message
from flwr.app.metadata import Metadata

from fedsparse.audit import Checkpoint, merkle, origin_of, public_bytes, statement
from fedsparse.audit.notes import sign_checkpoint
from fedsparse.bundle import bundle_sha256
from fedsparse.config import IdentitySettings
from fedsparse.delta import (
    AdapterSpace,
    Operation,
    Reason,
    RoundTask,
    RoundUpdate,
    SparseDelta,
    TensorDelta,
    TensorSpec,
    TrainingSettings,
    ValueCoding,
    encode,
    encode_task,
    encode_update,
)
from fedsparse.envelope import wrap
from fedsparse.security import (
    HUB_ENVIRONMENT,
    Authority,
    Credentials,
    Identity,
    LiveCredentials,
    Revocations,
    Role,
    create_authority,
    issue,
    revoke,
    sign,
)
from fedsparse.security.keys import read_key
from fedsparse.v1 import link_pb2

SPACE = AdapterSpace(bytes(range(32)), (TensorSpec("conv.weight", (10, 10)), TensorSpec("head.weight", (2, 10))))
TRAINING = TrainingSettings(0.05, 1, 8, 1e-3, 1e-3, 7)
HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


class Pki:
    """A federation's certificates; every call of :meth:`issue` makes new files."""

    def __init__(self, folder: Path, name: str = "test") -> None:
        self.folder = folder
        self.authority: Authority = create_authority(folder / "ca", name)
        self.ca = folder / "ca" / "ca.pem"
        revoke(self.authority)
        self.nobody_revoked = (folder / "ca" / "crl.pem").read_bytes()

    def issue(self, role: Role, name: str, *hosts: str) -> Path:
        """Return the folder with NAME.pem, NAME.key and ca.pem."""
        home = self.folder / f"{role.value}-{name}-{len(list(self.folder.iterdir()))}"
        issue(self.authority, Identity(role, name), home, hosts)
        return home

    def credentials(self, role: Role, name: str, *hosts: str) -> Credentials:
        return read(self.issue(role, name, *hosts), role, name)

    def dated(self, credentials: Credentials, start: timedelta, end: timedelta) -> Credentials:
        """Return the same certificate, but valid from ``start`` to ``end`` as seen from now."""
        return replace(credentials, certificate=dated(self.authority, credentials.certificate, start, end))


class Fixed(LiveCredentials):
    """Credentials that no file can change, right or wrong."""

    def __init__(self, credentials: Credentials) -> None:
        self.current = credentials

    def renew(self) -> bool:
        return False


def files(home: Path, name: str) -> IdentitySettings:
    """Return the settings that name what :meth:`Pki.issue` wrote."""
    return IdentitySettings(certificate=home / f"{name}.pem", key=home / f"{name}.key", authority=home / "ca.pem")


def nobody_revoked() -> Revocations:
    return Revocations(None, tuple)


def read(home: Path, role: Role, name: str) -> Credentials:
    """Return credentials without any of the checks of load_credentials, as a careless peer would."""
    contents = ((home / f).read_bytes() for f in (f"{name}.pem", f"{name}.key", "ca.pem"))
    return Credentials(*contents, Identity(role, name))


def dated(authority: Authority, pem: bytes, start: timedelta, end: timedelta) -> bytes:
    old, now = x509.load_pem_x509_certificate(pem), datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(authority.certificate.subject)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + start)
        .not_valid_after(now + end)
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    leaf = builder.sign(authority.key, hashes.SHA256())
    return b"".join(one.public_bytes(Encoding.PEM) for one in (leaf, authority.certificate))


def dated_root(pki: Pki, start: timedelta, end: timedelta) -> bytes:
    """Return the root's certificate, of the same key and name, but valid from ``start`` to ``end``."""
    root = pki.authority.root
    itself = Authority(pki.folder, root, read_key(pki.folder / "ca" / "ca.key"), root)
    return dated(itself, root.public_bytes(Encoding.PEM), start, end).partition(_NEXT)[0] + _NEXT


_NEXT = b"-----END CERTIFICATE-----\n"


def settings(folder: Path, plants: tuple[str, ...] = ("kiso", "ise"), listen: str = "127.0.0.1:0") -> Path:
    """Write a federation.toml whose hub's certificate lies in ``folder``/identity."""
    path = folder / "federation.toml"
    path.write_text(
        f"""
[federation]
name = "test"
classes = ["good", "bad"]

[hub]
listen = "{listen}"
plants = [{", ".join(f'"{plant}"' for plant in plants)}]
max_update_bytes = 4096

[hub.identity]
certificate = "identity/hub.pem"
key = "identity/hub.key"
authority = "identity/ca.pem"
"""
    )
    return path


def federation(space: AdapterSpace = SPACE) -> link_pb2.Federation:
    return link_pb2.Federation(protocol=3, name="test", space=space.to_proto(), classes=["good", "bad"])


class PlantLog:
    """A plant's ledger as the hub sees it: leaf hashes under signed checkpoints.

    Args:
        plant: its name.
    """

    def __init__(self, plant: str) -> None:
        self.plant = plant
        self.key = Ed25519PrivateKey.generate()
        self.leaves: list[bytes] = []
        self.witnessed = 0

    @property
    def origin(self) -> str:
        return origin_of(self.plant, public_bytes(self.key))

    def node(self, level: int, place: int) -> bytes:
        if level == 0:
            return self.leaves[place]
        return merkle.node_hash(self.node(level - 1, 2 * place), self.node(level - 1, 2 * place + 1))

    def checkpoint(self, entry_hash: bytes, signer: bytes) -> link_pb2.Checkpoint:
        """Return the checkpoint over all leaves, with proofs for one that joins them unless it is there.

        Args:
            signer: key of the plant's certificate, PEM.
        """
        if entry_hash not in self.leaves:
            self.leaves.append(entry_hash)
        size, index, public = len(self.leaves), self.leaves.index(entry_hash), public_bytes(self.key)
        whole = Checkpoint(self.origin, size, merkle.root(self.node, size))
        return link_pb2.Checkpoint(
            note=sign_checkpoint(whole, self.key),
            ledger_key=public,
            key_signature=sign(signer, statement(self.origin, public)),
            entry=index + 1,
            inclusion=merkle.inclusion_proof(self.node, index, size),
            old_size=self.witnessed,
            consistency=merkle.consistency_proof(self.node, self.witnessed, size),
        )

    def update(self, payload: bytes, task_id: str, entry_hash: bytes, signer: bytes) -> link_pb2.Update:
        return link_pb2.Update(
            task_id=task_id,
            round_update=payload,
            ledger_hash=entry_hash,
            checkpoint=self.checkpoint(entry_hash, signer),
        )


def round_task(round: int = 1, version: int = 0) -> bytes:
    task = RoundTask(round, SPACE.fingerprint, version, version, (), b"", b"", b"", TRAINING)
    return encode_task(task)


def link_task(task_id: str = "a" * 64, bundle: str | None = None) -> link_pb2.Task:
    return link_pb2.Task(
        task_id=task_id, run_id=7, bundle_sha256=bundle or bundle_sha256(), round_task=round_task()
    )


def change(*indices: int, operation: Operation = Operation.ADD) -> SparseDelta:
    chosen = np.array(indices or (1, 5), np.int64)
    values = np.linspace(-1, 1, chosen.size).astype(np.float32)
    return SparseDelta(SPACE.fingerprint, operation, (TensorDelta(0, chosen, values),))


def update(
    delta: SparseDelta | None = None,
    round: int = 1,
    version: int = 0,
    samples: int = 100,
    metrics: dict[str, float] | None = None,
) -> bytes:
    encoded = encode(delta or change(), SPACE, ValueCoding.FP32)
    return encode_update(RoundUpdate(round, version, samples, encoded, Reason.NONE, metrics or {}))


def pulled_task(task_id: str = "a" * 64, created: float = 0.0) -> PulledTask:
    metadata = Metadata(
        run_id=7,
        message_id=task_id,
        src_node_id=1,
        dst_node_id=2,
        reply_to_message_id="",
        group_id="1",
        created_at=created,
        ttl=60.0,
        message_type="train",
    )
    message: Message = make_message(metadata=metadata, content=wrap(round_task()))
    return PulledTask(message, bundle_sha256(), round_task())


def eventually(holds: Callable[[], object], what: str, seconds: float = 20) -> None:
    """Wait until ``holds()``; fail if it never does."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"never seen: {what}"
        time.sleep(0.02)


@dataclass(frozen=True)
class HubProcess:
    """The hub as the operator runs it, but with no SuperLink behind it."""

    port: int
    log: Path

    def tells(self, pattern: str, before: int) -> None:
        """Wait until the hub's log has ``pattern`` after its first ``before`` characters."""

        end = time.monotonic() + 20
        while not re.search(pattern, told := self.log.read_text()[before:]):
            assert time.monotonic() < end, f"the hub's log never had {pattern!r}, but {told!r}"
            time.sleep(0.02)


@contextmanager
def hub_process(folder: Path, pki: Pki) -> Iterator[HubProcess]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    folder.mkdir(parents=True)
    (folder / "state").mkdir()
    (folder / "state" / "federation.pb").write_bytes(federation().SerializeToString())
    issue(pki.authority, Identity(Role.HUB, "hub"), folder / "identity", ("127.0.0.1", "localhost"))
    path = settings(folder, listen=f"127.0.0.1:{port}")
    log = folder / "hub.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "fedsparse_server.hub", "--config", str(path), "--superlink", "127.0.0.1:9"],
            stdout=output,
            stderr=output,
            env={**os.environ, **HUB_ENVIRONMENT},
        )
    try:
        ready = folder / "state" / "hub.ready"
        eventually(lambda: ready.exists() or process.poll() is not None, "hub.ready", 60)
        assert process.poll() is None, log.read_text()
        yield HubProcess(port, log)
    finally:
        process.terminate()
        process.wait(20)


def tls_socket(
    port: int,
    credentials: Credentials,
    folder: Path,
    version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    protocols: Sequence[str] = ("h2",),
) -> ssl.SSLSocket:
    """Dial the hub with TLS of exactly ``version``, and offer ``protocols`` (ALPN)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = version
    context.load_verify_locations(cadata=credentials.authority.decode())
    if protocols:
        context.set_alpn_protocols(list(protocols))
    pair = folder / "pair.pem"
    pair.write_bytes(credentials.key + credentials.certificate)
    context.load_cert_chain(pair)
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), 10), server_hostname="127.0.0.1")


def grpc_call(channel: ssl.SSLSocket, method: str, request: bytes) -> bytes:
    """Make one gRPC call by hand (HTTP/2, RFC 9113, with HPACK literals); return all that comes back."""

    def text(value: str) -> bytes:
        return bytes([len(value)]) + value.encode()

    def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
        return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body

    headers = b"\x83\x87\x04" + text(method) + b"\x01" + text("localhost")
    headers += b"\x0f\x10" + text("application/grpc") + b"\x00" + text("te") + text("trailers")
    message = b"\x00" + len(request).to_bytes(4, "big") + request
    channel.sendall(
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(4, 0, 0, b"")
        + frame(1, 4, 1, headers)
        + frame(0, 1, 1, message)
    )
    received = b""
    while b"grpc-status" not in received and (more := channel.recv(4096)):
        received += more
    return received

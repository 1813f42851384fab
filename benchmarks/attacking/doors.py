"""Attacks on the hub's door: who dials, with what certificate, speaking what."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from functools import partial

import grpc
from cryptography.x509.oid import ExtendedKeyUsageOID

from benchmarks.attacking import certificates, raw
from benchmarks.attacking.attack import DIALLED, Attack, in_words
from benchmarks.attacking.certificates import HOUR, SERVER, Form
from benchmarks.attacking.federation import Federation
from benchmarks.attacking.messages import SPACE
from fedsparse.security import Credentials, Role
from fedsparse.v1 import link_pb2, link_pb2_grpc

_GROUP = "dialling the hub"
_NOT = "client certificate not accepted"
_ISSUER = f"{_NOT}: unable to get local issuer certificate"
_NO_ALPN = "the client does not offer HTTP/2"
_URN = "urn:fedsparse:plant:"


def _knocks(make: Callable[[Federation], Credentials | None]) -> Callable[[Federation], str]:
    return lambda federation: raw.knock(federation.port, make(federation))


def _forged(form: Form) -> Callable[[Federation], str]:
    return _knocks(lambda federation: federation.pki.forge(form))


def _ended(check: str, does: str, run: Callable[[Federation], str]) -> Attack:
    """Return an attack that ends within the handshake; gRPC closes without an alert, its log names the check."""
    refused = f"the handshake fails: {in_words(check)}"
    return Attack(_GROUP, does, refused, r"^TLS: (closed|unexpected eof)", f"{DIALLED}.*{check}", run)


def _told(code: str, said: str, does: str, run: Callable[[Federation], str]) -> Attack:
    return Attack(_GROUP, does, f"{code}: {in_words(said)}", f"{code}: .*{said}", f"refused ipv4:.*{said}", run)


def _plain_http(federation: Federation) -> str:
    with raw.tcp(federation.port) as plain:
        plain.sendall(b"POST /fedsparse.v1.Link/Describe HTTP/1.1\r\nHost: hub\r\n\r\n")
        return raw.heard(plain)


def _plain_h2(federation: Federation) -> str:
    with raw.tcp(federation.port) as plain:
        plain.sendall(raw.PREFACE + raw.frame(raw.SETTINGS, 0, 0))
        return raw.heard(plain)


def _by_tls(federation: Federation, version: ssl.TLSVersion) -> str:
    try:
        with raw.tls(federation.port, federation.credentials("mallory"), version) as connection:
            begin = raw.PREFACE + raw.frame(raw.SETTINGS, 0, 0)
            connection.sendall(begin + raw.opened(1, raw.SERVICE + "Describe", raw.ASK.SerializeToString()))
            return raw.heard(connection, until=b"grpc-status")
    except OSError as error:
        return raw.failure(error)


def _without_alpn(federation: Federation, *protocols: str) -> str:
    try:
        with raw.tls(federation.port, federation.credentials("mallory"), protocols=protocols) as connection:
            begin = raw.PREFACE + raw.frame(raw.SETTINGS, 0, 0)
            connection.sendall(begin + raw.opened(1, raw.SERVICE + "Describe", raw.ASK.SerializeToString()))
            return raw.heard(connection, 3.0, until=b"grpc-status")
    except OSError as error:
        return raw.failure(error)


def _leave(federation: Federation) -> str:
    """Be revoked while the stream is open; say how long that took, and how it ended."""
    with raw.channel(federation.port, federation.credentials("leaver")) as dialled:
        request = link_pb2.AttendRequest(protocol=3, space=SPACE.fingerprint, session=b"l" * 16)
        stream = link_pb2_grpc.LinkStub(dialled).Attend(request, timeout=60)
        stream.initial_metadata()
        federation.pki.revoke("leaver")
        federation.copy_revoked()
        started = time.monotonic()
        try:
            next(iter(stream))
        except grpc.RpcError as error:
            federation.revoked_seconds = time.monotonic() - started
            return raw.status(error)
    return "a task"


def attacks() -> list[Attack]:
    """Return them in the order in which they are run."""
    return [*_speaking(), *_strangers(), *_leaves(), *_names(), *_revoked()]


def _speaking() -> list[Attack]:
    closed = "the connection is closed"
    return [
        Attack(_GROUP, "HTTP/1.1 in plain text", closed, "closed|TCP", f"{DIALLED}plain HTTP",
               _plain_http),
        Attack(_GROUP, "HTTP/2 in plain text (h2c)", closed, "closed|TCP", f"{DIALLED}not TLS", _plain_h2),
        Attack(
            _GROUP, "gRPC in plain text", "UNAVAILABLE", "UNAVAILABLE", "refused ipv4:.*: not TLS",
            lambda federation: raw.describe(federation.port, None),
        ),
        _ended("TLS version too old", "TLS 1.1", partial(_by_tls, version=ssl.TLSVersion.TLSv1_1)),
        _ended("TLS version too old", "TLS 1.2, with a good certificate",
               partial(_by_tls, version=ssl.TLSVersion.TLSv1_2)),
        Attack(_GROUP, "TLS 1.3 without ALPN, with a good certificate", closed, "^(closed|TLS: )",
               f"{DIALLED}{_NO_ALPN}", _without_alpn),
        Attack(_GROUP, "TLS 1.3 with ALPN http/1.1, with a good certificate", closed, "^(closed|TLS: )",
               f"{DIALLED}{_NO_ALPN}", lambda federation: _without_alpn(federation, "http/1.1")),
    ]  # fmt: skip


def _strangers() -> list[Attack]:
    def of_other_ca(federation: Federation) -> Credentials:
        return federation.other.credentials(Role.PLANT, "kiso")

    def through_a_plant(federation: Federation) -> Credentials:
        return certificates.through_a_leaf(federation.pki, federation.credentials("mallory"))

    def signature_altered(federation: Federation) -> Credentials:
        return certificates.altered(federation.pki.forge(Form()))

    return [
        _ended("no client certificate", "no client certificate", _knocks(lambda _: None)),
        _ended(_ISSUER, "a plant's certificate of another CA", _knocks(of_other_ca)),
        _ended(f"{_NOT}: self signed certificate", "a certificate that vouches for itself",
               _knocks(lambda federation: certificates.self_signed(federation.pki))),
        _ended(_NOT, "a certificate of an honest plant's name, signed with another plant's certificate",
               _knocks(through_a_plant)),
        _ended("certificate signature failure", "one bit of the certificate's signature altered",
               _knocks(signature_altered)),
    ]  # fmt: skip


def _leaves() -> list[Attack]:
    purpose = f"{_NOT}: unsupported certificate purpose"
    any_use = Form(usage=(ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,))
    return [
        _ended(f"{_NOT}: certificate has expired", "an expired certificate",
               _forged(Form(start=-2 * HOUR, end=-HOUR))),
        _ended(f"{_NOT}: certificate is not yet valid", "a certificate that is not valid yet",
               _forged(Form(start=HOUR, end=2 * HOUR))),
        _ended(purpose, "the hub's own kind of certificate",
               _knocks(lambda federation: federation.pki.credentials(Role.HUB, "mallory", "127.0.0.1"))),
        _ended(purpose, "a plant's name with the usage of a server alone", _forged(Form(usage=(SERVER,)))),
        _ended(purpose, "a certificate for any usage (anyExtendedKeyUsage) alone", _forged(any_use)),
        _ended(f"{_NOT}: unhandled critical extension", "an unknown critical extension",
               _forged(Form(more=(certificates.unknown_extension(),)))),
        _told("UNAUTHENTICATED", "a plant's is needed", "a certificate without extended key usage",
              _forged(Form(usage=()))),
        _told("UNAUTHENTICATED", "key", "an RSA key", _forged(Form(rsa=True))),
        _told("UNAUTHENTICATED", "CA", "a plant's certificate that says it is a CA (CA:TRUE)",
              _forged(Form(authority=True))),
        _told("UNAUTHENTICATED", "has more than 8 certificates", "a chain of ten certificates",
              _knocks(lambda federation: certificates.padded(federation.credentials("mallory"), 9))),
    ]  # fmt: skip


def _names() -> list[Attack]:
    one = "does not name one hub or plant"
    no_name = "is no name for a plant"
    off = "is not on this hub's list of plants"
    forged_line = "mallory\n2026-01-01 00:00:00,000 hub kiso has left"
    return [
        _told("UNAUTHENTICATED", one, "a certificate without a URI name", _forged(Form(names=()))),
        _told("UNAUTHENTICATED", one, "a certificate with a host name alone",
              _forged(Form(names=(), hosts=("mallory.example",)))),
        _told("UNAUTHENTICATED", one, "a certificate that names two plants",
              _forged(Form(names=(_URN + "mallory", _URN + "kiso")))),
        _told("UNAUTHENTICATED", "a plant's is needed", "a client's certificate that names a hub",
              _forged(Form(names=("urn:fedsparse:hub:hub",)))),
        _told("UNAUTHENTICATED", "unknown role", "a certificate of an unknown role",
              _forged(Form(names=("urn:fedsparse:admin:mallory",)))),
        _told("PERMISSION_DENIED", off, "a plant that is not on the list",
              _knocks(lambda federation: federation.credentials("stranger"))),
        _told("UNAUTHENTICATED", no_name, "a name in upper case", _forged(Form(names=(_URN + "KISO",)))),
        _told("UNAUTHENTICATED", no_name, "a name with a full-width letter",
              _forged(Form(names=(_URN + "kiso\uff0d",)))),
        _told("UNAUTHENTICATED", no_name, "a name of 5,000 letters", _forged(Form(names=(_URN + "k" * 5000,)))),
        _told("UNAUTHENTICATED", no_name, "a name with a line feed and a forged log line",
              _forged(Form(names=(_URN + forged_line,)))),
        _told("UNAUTHENTICATED", no_name, "a name that is a path (../kiso)",
              _forged(Form(names=(_URN + "../kiso",)))),
    ]  # fmt: skip


def _revoked() -> list[Attack]:
    revoked = "is revoked"
    return [
        _told("UNAUTHENTICATED", revoked, "a revoked certificate", _knocks(lambda federation: federation.gone)),
        _told("UNAUTHENTICATED", revoked, "a certificate of an issuing CA that was given up as compromised",
              _knocks(lambda federation: federation.sold)),
        Attack(_GROUP, "a certificate that is revoked while its stream is open", "the stream ends UNAUTHENTICATED "
               "within 60 s", "UNAUTHENTICATED: .*is revoked", "refused ipv4:.*is revoked", _leave, limit=65.0),
    ]  # fmt: skip

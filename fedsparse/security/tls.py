"""Mutual TLS for gRPC, and one handshake by hand that says what failed."""

from __future__ import annotations

import secrets
import socket
import ssl
import tempfile
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from fedsparse.errors import CertificateError, HandshakeError, HubUnreachableError, NotAdmittedError
from fedsparse.security.credentials import Credentials, LiveCredentials
from fedsparse.security.handshakes import VERBOSITY
from fedsparse.security.identity import Role, identity_of
from fedsparse.security.revocation import Revocations

PLANT_ENVIRONMENT: Mapping[str, str] = {"GRPC_SSL_CIPHER_SUITES": "ECDHE-PSK-AES128-CBC-SHA"}
"""Of a process that dials the link.

gRPC for Python takes no least version of TLS. The list is of ciphers up to TLS 1.2 alone, and the one on it needs
a key that was agreed beforehand, which nobody has: what is left is TLS 1.3 (RFC 8446).
"""

HUB_ENVIRONMENT: Mapping[str, str] = {**PLANT_ENVIRONMENT, **VERBOSITY}
"""Of the process that serves it."""

_PROBE_SECONDS = 10.0


def channel_credentials(credentials: Credentials) -> grpc.ChannelCredentials:
    """Return what a plant dials with."""
    return grpc.ssl_channel_credentials(
        root_certificates=credentials.authority,
        private_key=credentials.key,
        certificate_chain=credentials.certificate,
    )


def server_credentials(credentials: LiveCredentials) -> grpc.ServerCredentials:
    """Return what the hub serves with; a client without a certificate of the same CA gets nowhere.

    Before every handshake it is seen whether certificate, key or CA have changed: new connections get new ones.
    """

    def configuration() -> grpc.ServerCertificateConfiguration:
        now = credentials.current
        return grpc.ssl_server_certificate_configuration([(now.key, now.certificate)], now.authority)

    return grpc.dynamic_ssl_server_credentials(
        configuration(),
        lambda: configuration() if credentials.renew() else None,  # type: ignore[arg-type,return-value] # as gRPC says
        require_client_authentication=True,
    )


def probe(
    host: str,
    port: int,
    credentials: Credentials,
    revocations: Revocations | None = None,
    proxy: tuple[str, int] | None = None,
) -> None:
    """Do one TLS 1.3 handshake (RFC 8446) with the hub and hang up.

    Args:
        revocations: who no longer counts.
        proxy: host and port of an HTTP proxy that tunnels to the hub.

    Raises:
        HandshakeError: it ended before the hub had accepted us, and nothing says why.
        HubUnreachableError: nothing answers there (yet).
        NotAdmittedError: names the check that failed, on this side or at the hub.
    """
    where = f"the hub at {host}:{port}"
    context = _context(credentials)
    try:
        plain = _connect(host, port, proxy)
    except OSError as error:  # refused, no route, no such name: all of it may pass
        raise HubUnreachableError(f"{where} does not answer: {error}") from None
    try:
        with plain, context.wrap_socket(plain, server_hostname=host) as channel:
            _check_hub(x509.load_der_x509_certificate(channel.getpeercert(binary_form=True) or b""), revocations)
            # The hub judges our certificate only after its own part is done: its verdict is the first byte.
            # A hub that accepts sends its HTTP/2 SETTINGS.
            if not channel.recv(1):
                raise HandshakeError(
                    f"{where} hung up on reading our certificate {credentials.identity.uri}",
                    "Its log names the check that failed: most often the certificate is of another CA or expired",
                )
    except CertificateError as error:
        raise NotAdmittedError(f"{where}: {error}") from None
    except ssl.SSLCertVerificationError as error:
        raise NotAdmittedError(
            f"{where}: its certificate is not accepted here: {error.verify_message.rstrip('.')}",
            "Check the hub's address and ca.pem",
        ) from None
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        if isinstance(error, ssl.SSLEOFError):
            raise HandshakeError(f"{where} broke off the handshake: {reason}") from None
        if "alert" not in reason:  # it did not refuse anything: it speaks something else, or a proxy does
            raise HandshakeError(f"{where} does not speak TLS 1.3: {reason}", "Check the hub's address") from None
        raise NotAdmittedError(f"{where} refused our certificate {credentials.identity.uri}: {reason}") from None
    except TimeoutError as error:
        raise HubUnreachableError(f"{where} does not answer: {error}") from None
    except OSError as error:
        raise HandshakeError(f"{where} broke off the handshake: {error}") from None


def _check_hub(leaf: x509.Certificate, revocations: Revocations | None) -> None:
    """Check what TLS does not know of: that a certificate is a hub's by its name, and that it was not revoked.

    Raises:
        CertificateError: it is not so.
    """
    identity = identity_of(leaf)
    if identity.role is not Role.HUB:
        raise CertificateError(f"its certificate is {identity.uri}'s, a hub's is needed")
    if revocations is not None:
        revocations.check([leaf])


def _connect(host: str, port: int, proxy: tuple[str, int] | None) -> socket.socket:
    """Return a connection to the hub, through a proxy where there is one (CONNECT, RFC 9110, 9.3.6).

    Raises:
        OSError: nobody answers, or the proxy refuses.
    """
    if proxy is None:
        return socket.create_connection((host, port), timeout=_PROBE_SECONDS)
    tunnel = HTTPConnection(*proxy, timeout=_PROBE_SECONDS)
    tunnel.set_tunnel(host, port)
    try:
        tunnel.connect()
    except HTTPException as error:
        raise OSError(f"the proxy at {proxy[0]}:{proxy[1]} answers no HTTP: {error!r}") from None
    return tunnel.sock


def _context(credentials: Credentials) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=credentials.authority.decode())
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as gRPC: any CA that the site trusts ends a chain
    context.set_alpn_protocols(["h2"])
    with tempfile.TemporaryDirectory() as folder:  # the ssl module reads keys from files only
        pair, password = Path(folder) / "pair.pem", secrets.token_bytes(32).hex().encode()
        key = load_pem_private_key(credentials.key, None)
        hidden = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(password))
        pair.write_bytes(hidden + credentials.certificate)
        context.load_cert_chain(pair, password=password)
    return context

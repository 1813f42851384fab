"""Requests for certificates, made where the key stays (PKCS #10, RFC 2986), and what comes back from the CA."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from fedsparse.errors import CertificateError
from fedsparse.files import sync_folder, write_atomic
from fedsparse.security.chains import check_chain, read_pem_chain
from fedsparse.security.identity import Identity
from fedsparse.security.keys import UNREADABLE, new_key, read_key, write_key

_HOST = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_NEXT = "next"  # NAME.next.key waits for its certificate while NAME.key is still in use


def fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """Return the first 16 bytes of a key's SHA-256, in groups that can be read out over the telephone."""
    digest = sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()[:32]
    return " ".join(digest[i : i + 4] for i in range(0, len(digest), 4))


def request_certificate(
    identity: Identity,
    folder: Path,
    hosts: Iterable[str] = (),
    passphrase: bytes | None = None,
    *,
    again: bool = False,
) -> Path:
    """Make a new key and the request for its certificate; a key in use stays until the answer is there.

    Args:
        folder: where ``NAME.next.key`` (mode 0600) and ``NAME.csr`` are written.
        hosts: host names and IP addresses at which a hub is dialled.
        passphrase: what the key is encrypted under.
        again: throw a key away whose certificate is still awaited.

    Returns:
        The request's path.

    Raises:
        CertificateError: a host is no host name, a key waits for its certificate already, or the folder cannot be
            written.
    """
    waiting = folder / f"{identity.name}.{_NEXT}.key"
    if waiting.exists() and not again:
        raise CertificateError(
            f"{waiting} still waits for its certificate",
            "Adopt that one, or say --again to make another key and throw this one away",
        )
    key = new_key()
    names = [x509.UniformResourceIdentifier(identity.uri), *map(host_name, hosts)]
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.name)]))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{identity.name}.csr"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_key(waiting, key, passphrase)
        write_atomic(path, request.public_bytes(Encoding.PEM))
    except OSError as error:
        raise CertificateError(f"cannot write to {folder}: {error.strerror}", "Name another folder") from None
    return path


def read_request(path: Path) -> x509.CertificateSigningRequest:
    """Read a request and check that whoever made it holds the key.

    Raises:
        CertificateError: it is absent, no request, of another kind of key, or not signed by its own key.
    """
    try:
        request = x509.load_pem_x509_csr(path.read_bytes())
        signed = request.is_signature_valid
        key = request.public_key()
    except OSError as error:
        raise CertificateError(f"cannot read the request {path}: {error.strerror}") from None
    except UNREADABLE:
        raise CertificateError(f"{path} is not a PEM certificate request") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise CertificateError(f"{path} asks for another kind of key than P-256", "Use `fedsparse client enroll`")
    if not signed:
        raise CertificateError(f"{path} is not signed by the key it names: it was altered", "Ask for it again")
    return request


def requested_names(request: x509.CertificateSigningRequest) -> tuple[str, list[str]]:
    """Return whom a request is for, as a URI ("" where it does not say), and the hosts it names."""
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *UNREADABLE):
        return "", []
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    hosts = [*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))]
    return uris[0] if len(uris) == 1 else "", hosts


def adopt_certificate(
    certificate: Path, authority: Path, identity: Identity, folder: Path, passphrase: bytes | None = None
) -> None:
    """Put a certificate that came back into use, with the key that was made for it.

    Whoever reads certificate and key between the two renames sees that they do not belong together, and keeps
    what it has until they do.

    Args:
        certificate: PEM, the leaf first.
        authority: the CA certificates that the site trusts, or will: written to ``ca.pem`` where that is absent.
        passphrase: of the new key.

    Raises:
        CertificateError: no key waits for it, or it is another's.
    """
    waiting = folder / f"{identity.name}.{_NEXT}.key"
    chain = _read_chain(certificate)
    key = read_key(waiting, passphrase) if waiting.exists() else None
    if key is None or key.public_key() != chain[0].public_key():
        raise CertificateError(
            f"no key in {folder} waits for the certificate {certificate}",
            "Make a request with `enroll` in that folder, and have that one signed",
        )
    trusted = folder / "ca.pem"
    if not authority.exists() and not trusted.exists():
        raise CertificateError(
            f"{trusted} is not there yet", "Name the ca.pem that came back with the certificate: --ca ca.pem"
        )
    roots = _read_chain(trusted if trusted.exists() else authority)
    found = check_chain(chain, roots, identity.role, str(certificate))
    if found != identity:
        raise CertificateError(f"{certificate} is {found.uri}'s, and {identity.uri} is asked for")
    try:
        if not trusted.exists():
            write_atomic(trusted, authority.read_bytes())
        write_atomic(folder / f"{identity.name}.pem", certificate.read_bytes())
        waiting.replace(folder / f"{identity.name}.key")
        (folder / f"{identity.name}.csr").unlink(missing_ok=True)
        sync_folder(folder)
    except OSError as error:
        raise CertificateError(f"cannot write to {folder}: {error.strerror}", "Run it again once mended") from None


def _read_chain(path: Path) -> list[x509.Certificate]:
    try:
        return read_pem_chain(path.read_bytes(), str(path))
    except OSError as error:
        raise CertificateError(f"cannot read the certificate {path}: {error.strerror}") from None


def host_name(host: str) -> x509.GeneralName:
    """Return a host name or IP address as it stands in a certificate.

    Raises:
        CertificateError: it is neither.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        if not _HOST.fullmatch(host):
            raise CertificateError(
                f"{host!r} is no host name or IP address", "Name it without scheme and port, e.g. hub.example"
            ) from None
        return x509.DNSName(host)

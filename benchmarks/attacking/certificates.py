"""A federation's certificates, and certificates that no CA should have made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from fedsparse.security import (
    Authority,
    Credentials,
    Identity,
    LiveCredentials,
    Role,
    create_authority,
    issue,
    replace_issuing,
    revoke,
)
from fedsparse.security.keys import read_key

HOUR = timedelta(hours=1)
CLIENT, SERVER = ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH
_UNKNOWN = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.55555.1"), b"\x05\x00")
_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


class Pki:
    """One federation's CA.

    Args:
        folder: everything is written below it.
        name: of the federation.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self._authority = create_authority(folder / "ca", name)
        self.root_key = read_key(folder / "ca" / "ca.key")
        revoke(self._authority)

    @property
    def authority(self) -> Authority:
        """The CA as it issues now."""
        return self._authority

    @property
    def root(self) -> bytes:
        """The root's certificate, PEM."""
        return (self.folder / "ca" / "ca.pem").read_bytes()

    @property
    def revoked(self) -> bytes:
        """The revocation lists as they are now, PEM."""
        return (self.folder / "ca" / "crl.pem").read_bytes()

    def revoke(self, *names: str) -> None:
        """Revoke every certificate of ``names``."""
        revoke(self._authority, names)

    def give_up_issuing(self) -> None:
        """Replace the issuing CA as a compromised one: what it signed is revoked."""
        self._authority = replace_issuing(self.folder / "ca", self.folder / "ca" / "ca.key", compromised=True)
        revoke(self._authority)

    def issue(self, role: Role, name: str, *hosts: str) -> Path:
        """Return a folder with NAME.pem, NAME.key and ca.pem."""
        home = self.folder / f"{role.value}-{name}"
        issue(self._authority, Identity(role, name), home, hosts)
        return home

    def credentials(self, role: Role, name: str, *hosts: str) -> Credentials:
        """Return new credentials, unchecked."""
        home = self.issue(role, name, *hosts)
        certificate, key, authority = ((home / f).read_bytes() for f in (f"{name}.pem", f"{name}.key", "ca.pem"))
        return Credentials(certificate, key, authority, Identity(role, name))

    def forge(self, form: Form) -> Credentials:
        """Return credentials with a leaf of the given form, signed by the issuing CA."""
        return self.forge_below(
            form, self._authority.certificate, self._authority.key, [self._authority.certificate]
        )

    def forge_below(
        self, form: Form, issuer: x509.Certificate, key: _Key, above: Sequence[x509.Certificate]
    ) -> Credentials:
        """Return credentials with a leaf of the given form, signed by anybody."""
        own = form.key()
        leaf = form.builder(own).issuer_name(issuer.subject).sign(key, hashes.SHA256())
        return _packed([leaf, *above], own, self.root)


@dataclass(frozen=True)
class Form:
    """What stands in a leaf.

    Attributes:
        names: URIs of its subject alternative name.
        usage: extended key usages; none: the extension is absent.
        start: of its validity, as seen from now.
        authority: whether it says that it is a CA.
        more: further extensions, critical.
    """

    names: tuple[str, ...] = ("urn:fedsparse:plant:mallory",)
    hosts: tuple[str, ...] = ()
    usage: tuple[ObjectIdentifier, ...] = (CLIENT,)
    start: timedelta = -HOUR
    end: timedelta = HOUR
    authority: bool = False
    rsa: bool = False
    more: tuple[x509.ExtensionType, ...] = field(default=())

    def key(self) -> _Key:
        """Return a new key."""
        return rsa.generate_private_key(65537, 2048) if self.rsa else ec.generate_private_key(ec.SECP256R1())

    def builder(self, key: _Key) -> x509.CertificateBuilder:
        """Return the certificate without issuer and signature."""
        now = datetime.now(UTC)
        built = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mallory")]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + self.start)
            .not_valid_after(now + self.end)
            .add_extension(x509.BasicConstraints(self.authority, 0 if self.authority else None), critical=True)
        )
        names = [_uri(name) for name in self.names] + [x509.DNSName(host) for host in self.hosts]
        if names:
            built = built.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if self.usage:
            built = built.add_extension(x509.ExtendedKeyUsage(self.usage), critical=False)
        for extension in self.more:
            built = built.add_extension(extension, critical=True)
        return built


def _uri(name: str) -> x509.UniformResourceIdentifier:
    """Return a URI without the library's checks: what a foreign CA's software might write."""
    return x509.UniformResourceIdentifier._init_without_validation(name)


def unknown_extension() -> x509.ExtensionType:
    """Return an extension that nobody knows."""
    return _UNKNOWN


def through_a_leaf(pki: Pki, own: Credentials) -> Credentials:
    """Return a certificate that a plant signed with its own, and the chain through it."""
    leaf, *above = own.chain
    key = _private(own.key)
    return pki.forge_below(Form(("urn:fedsparse:plant:kiso",)), leaf, key, [leaf, *above])


def self_signed(pki: Pki) -> Credentials:
    """Return a certificate that vouches for itself."""
    form = Form()
    own = form.key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mallory")])
    return _packed([form.builder(own).issuer_name(name).sign(own, hashes.SHA256())], own, pki.root)


def altered(credentials: Credentials) -> Credentials:
    """Return the same with one bit of the leaf's signature changed."""
    leaf, *above = credentials.chain
    der = bytearray(leaf.public_bytes(Encoding.DER))
    der[-1] ^= 1
    changed = x509.load_der_x509_certificate(bytes(der))
    return replace(credentials, certificate=_pem([changed, *above]))


def padded(credentials: Credentials, number: int) -> Credentials:
    """Return the same with its issuing CA's certificate so many times in the chain."""
    leaf, issuing = credentials.chain[:2]
    return replace(credentials, certificate=_pem([leaf, *[issuing] * number]))


def trusting(credentials: Credentials, root: bytes) -> Credentials:
    """Return the same, trusting another CA: what somebody holds who dials a strange hub."""
    return replace(credentials, authority=root)


class Fixed(LiveCredentials):
    """Credentials that no file can change, right or wrong."""

    def __init__(self, credentials: Credentials) -> None:
        self.current = credentials

    def renew(self) -> bool:
        """Say that nothing is new."""
        return False


def _private(pem: bytes) -> ec.EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def _pem(chain: Sequence[x509.Certificate]) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in chain)


def _packed(chain: Sequence[x509.Certificate], key: _Key, root: bytes) -> Credentials:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return Credentials(_pem(chain), private, root, Identity(Role.PLANT, "mallory"))

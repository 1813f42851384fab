"""What an issuing CA does: certificates for plants and hubs, and the list of those that are revoked."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedsparse.errors import CertificateError
from fedsparse.files import append_line, write_atomic
from fedsparse.security.authority import LIST, RECORD, ROOT, Authority, builder, key_usage, read_record
from fedsparse.security.enrolment import fingerprint, host_name, read_request, requested_names
from fedsparse.security.identity import Identity, Role
from fedsparse.security.keys import UNREADABLE, new_key, write_key

LEAF_LIFE = timedelta(days=90)
LIST_LIFE = timedelta(days=30)
_USAGE = {Role.HUB: ExtendedKeyUsageOID.SERVER_AUTH, Role.PLANT: ExtendedKeyUsageOID.CLIENT_AUTH}
_END = b"-----END X509 CRL-----\n"
_RESERVED = ("ca", "issuing", "crl")  # names of the authority's own files


def issue(
    authority: Authority,
    identity: Identity,
    folder: Path,
    hosts: Iterable[str] = (),
    *,
    life: timedelta = LEAF_LIFE,
    passphrase: bytes | None = None,
) -> None:
    """Create ``NAME.pem`` (the issuing CA's certificate in it), ``NAME.key`` (0600) and ``ca.pem`` in ``folder``.

    The key is made here and has to travel: where that is not wanted, the plant makes it (:func:`sign_request`).

    Args:
        hosts: host names and IP addresses at which a hub is dialled.
        life: of the certificate.
        passphrase: what the key is encrypted under.

    Raises:
        CertificateError: a host is no host name, the name is one of the CA's files, or a folder cannot be written.
    """
    key = new_key()
    leaf = _sign(authority, identity, key.public_key(), hosts, life)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_key(folder / f"{identity.name}.key", key, passphrase)
    except OSError as error:
        raise CertificateError(f"cannot write to {folder}: {error.strerror}", "Name another folder") from None
    _write(authority, identity, leaf, folder)


def sign_request(
    authority: Authority,
    identity: Identity,
    request: Path,
    folder: Path,
    hosts: Iterable[str] = (),
    *,
    life: timedelta = LEAF_LIFE,
) -> str:
    """Create ``NAME.pem`` and ``ca.pem`` in ``folder`` for a key that was made elsewhere.

    Args:
        identity: whom the operator means to admit; the request must name the same.
        hosts: at which a hub is dialled; by default those that a hub's request names.

    Returns:
        The fingerprint of the key, to be compared with what was read out where it was made.

    Raises:
        CertificateError: the request is wrong, or for somebody else.
    """
    asked = read_request(request)
    uri, named = requested_names(asked)
    if uri != identity.uri:
        raise CertificateError(
            f"{request} is for {uri or 'nobody of a federation'}, and {identity.uri} is to be admitted",
            "Check whom it came from",
        )
    key = asked.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)  # noqa: S101 - read_request refuses others
    hosts = tuple(hosts) or (tuple(named) if identity.role is Role.HUB else ())
    if wild := [host for host in hosts if "*" in host and host in named]:
        raise CertificateError(f"{request} asks for the hosts {', '.join(wild)}", "Name the hub's own with --host")
    require_hosts(identity, hosts)
    leaf = _sign(authority, identity, key, hosts, life)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CertificateError(f"cannot write to {folder}: {error.strerror}", "Name another folder") from None
    _write(authority, identity, leaf, folder)
    return fingerprint(key)


def require_hosts(identity: Identity, hosts: Collection[str]) -> None:
    """Check that a hub gets a certificate that plants will accept.

    Raises:
        CertificateError: it names no host.
    """
    if identity.role is Role.HUB and not hosts:
        raise CertificateError(
            "a hub's certificate needs the names at which plants dial it", "Add --host, e.g. --host hub.example"
        )


def _sign(
    authority: Authority,
    identity: Identity,
    key: ec.EllipticCurvePublicKey,
    hosts: Iterable[str],
    life: timedelta,
) -> x509.Certificate:
    if identity.name in _RESERVED:
        raise CertificateError(
            f"the name {identity.name!r} is the CA's own: its files would be overwritten", "Use another name"
        )
    names = [x509.UniformResourceIdentifier(identity.uri), *map(host_name, hosts)]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.name)])
    issuer = authority.key.public_key()
    left = authority.certificate.not_valid_after_utc - datetime.now(UTC)
    if left <= timedelta():
        raise CertificateError("the issuing CA has expired", "Replace it with `fedsparse pki rotate`")
    return (
        builder(subject, authority.certificate.subject, key, min(life, left))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_USAGE[identity.role]]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
        .sign(authority.key, hashes.SHA256())
    )


def _write(authority: Authority, identity: Identity, leaf: x509.Certificate, folder: Path) -> None:
    """Record what was signed, then hand it out: what nobody knows of could not be revoked by name."""
    line = json.dumps(
        {
            "serial": f"{leaf.serial_number:x}",
            "role": identity.role.value,
            "name": identity.name,
            "expires": f"{leaf.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}",
            "issuer": f"{authority.certificate.serial_number:x}",
        }
    )
    chain = b"".join(one.public_bytes(Encoding.PEM) for one in (leaf, authority.certificate))
    try:
        append_line(authority.folder / RECORD, line.encode() + b"\n")
        write_atomic(folder / f"{identity.name}.pem", chain)
        write_atomic(folder / f"{ROOT}.pem", authority.root.public_bytes(Encoding.PEM))
    except OSError as error:
        raise CertificateError(f"cannot write to {folder}: {error.strerror}", "Name another folder") from None


def revoke(
    authority: Authority, names: Iterable[str] = (), *, role: Role | None = None, life: timedelta = LIST_LIFE
) -> list[str]:
    """Write ``crl.pem`` anew, with every certificate of some names in addition, or all whose serials are given.

    Args:
        names: of plants or hubs, or serial numbers in hex; none: the list is only renewed.
        role: that the named ones have; None where no name is both a hub's and a plant's.
        life: until when the list should be renewed.

    Returns:
        The serial numbers that are revoked now and were not before, hex.

    Raises:
        CertificateError: no certificate of that name or serial was issued in that role, a name is a hub's and a
            plant's, or the list cannot be read or written; nobody is revoked then.
    """
    path = authority.folder / LIST
    others, revoked = _earlier(path, authority)
    wanted = tuple(names)
    issued = read_record(authority.folder) if wanted else []
    new: list[int] = []
    for name in wanted:
        found = _serials(issued, name, role, f"`fedsparse pki list --ca {authority.folder}` names all")
        new += [serial for serial in found if serial not in revoked and serial not in new]
    now = datetime.now(UTC)
    built = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now)
        .next_update(now + life)
        .add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
    )
    for serial, at in (revoked | dict.fromkeys(new, now)).items():
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at).build()
        built = built.add_revoked_certificate(entry)
    signed = built.sign(authority.key, hashes.SHA256())
    mine = authority.certificate.public_bytes(Encoding.PEM) + signed.public_bytes(Encoding.PEM)
    try:
        write_atomic(path, others + mine)
    except OSError as error:
        raise CertificateError(f"cannot write {path}: {error.strerror}") from None
    return [f"{serial:x}" for serial in new]


def _serials(issued: Iterable[Mapping[str, str]], name: str, role: Role | None, remedy: str) -> list[int]:
    """Return the serial numbers of all that was issued to a name in one role, or of the one that is named itself.

    Raises:
        CertificateError: there is none, or nobody said which role of two is meant.
    """
    found = [one for one in issued if name.lower() in (one["name"], one["serial"])]
    roles = {one["role"] for one in found}
    if role is None and len(roles) > 1:
        raise CertificateError(
            f"{name!r} is the name of a {' and of a '.join(sorted(roles))} here",
            f"Say which, with --role {' or --role '.join(sorted(roles))}, or give a serial number: {remedy}",
        )
    serials = [int(one["serial"], 16) for one in found if role is None or one["role"] == role.value]
    if not serials:
        asked = f"of {name!r}" if role is None else f"of a {role.value} {name!r}"
        other = f", but of a {' and of a '.join(sorted(roles))} of that name" if roles else ""
        raise CertificateError(f"no certificate {asked} was issued here{other}", remedy)
    return serials


def _earlier(path: Path, authority: Authority) -> tuple[bytes, dict[int, datetime]]:
    """Return what earlier issuing CAs wrote into the list, as it is, and what this one has revoked so far."""
    if not path.exists():
        return b"", {}
    mine = authority.certificate.public_bytes(Encoding.PEM)
    others, found, own = path.read_bytes().partition(mine)
    if not found:
        return others, {}
    own, end, behind = own.partition(_END)  # behind it lies what the root revoked meanwhile
    own, others = own + end, others + behind.lstrip()
    try:
        given = x509.load_pem_x509_crl(own)
        revoked = {one.serial_number: one.revocation_date_utc for one in given}
    except UNREADABLE:
        raise CertificateError(f"{path} is damaged", "Restore it from a backup: it says who is revoked") from None
    return others, revoked

"""Signatures by certificate keys: ECDSA on P-256 with SHA-256 (FIPS 186-5), DER."""

from __future__ import annotations

from datetime import datetime

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from fedsparse.errors import CertificateError
from fedsparse.security.chains import check_chain, read_der_chain, read_pem_chain
from fedsparse.security.identity import Identity, Role
from fedsparse.security.keys import UNREADABLE
from fedsparse.security.revocation import Revocations

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256's group


def sign(key: bytes, data: bytes) -> bytes:
    """Sign ``data`` with a PEM private key.

    Of (r, s) and (r, n - s), which are equally valid and which anybody can turn into each other, it is the one
    with the smaller s.
    """
    private = load_pem_private_key(key, None)
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise CertificateError("the key is not an elliptic-curve key")
    r, s = decode_dss_signature(private.sign(data, ec.ECDSA(hashes.SHA256())))
    return encode_dss_signature(r, min(s, _ORDER - s) if private.curve.name == "secp256r1" else s)


def is_lowest(signature: bytes) -> bool:
    """Tell whether a signature on P-256 is the one of its two forms that :func:`sign` writes."""
    try:
        return decode_dss_signature(signature)[1] <= _ORDER // 2
    except ValueError:
        return False


def signed_by(certificate: bytes, data: bytes, signature: bytes) -> bool:
    """Tell whether the key of a chain's leaf signed ``data``, whether or not the chain still counts.

    Args:
        certificate: the signer's chain, DER, one after the other, the leaf first.
    """
    try:
        key = read_der_chain(certificate, "the signer's certificate")[0].public_key()
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
            return True
    except (InvalidSignature, CertificateError, *UNREADABLE):
        pass
    return False


def verify(
    certificate: bytes,
    authority: bytes,
    role: Role,
    data: bytes,
    signature: bytes,
    at: datetime | None = None,
    revocations: Revocations | None = None,
) -> Identity:
    """Return who signed ``data``.

    Args:
        certificate: the signer's chain, DER, one after the other, the leaf first.
        authority: the CA certificates that are trusted, PEM.
        role: what the signer must be.
        at: when it was signed, in UTC: a certificate that has expired since does not undo what it signed. An old
            key in the wrong hands can write an old date, so a fresh signature is checked without it.
        revocations: who no longer counts, whenever it was signed.

    Raises:
        CertificateError: the certificate or the signature is not right.
    """
    chain = read_der_chain(certificate, "the signer's certificate")
    roots = read_pem_chain(authority, "the CA certificate")
    identity = check_chain(chain, roots, role, "the signer's certificate", at, exact=True)
    if revocations is not None:
        revocations.check(chain)
    key = chain[0].public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise CertificateError("the signer's key is not an elliptic-curve key")
    try:
        key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise CertificateError(f"the signature of {identity.uri} does not match") from None
    return identity

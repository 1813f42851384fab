"""Reading the CA certificate that an auditor names."""

from __future__ import annotations

from pathlib import Path

from fedsparse.errors import CertificateError
from fedsparse.security import read_pem_chain


def read_authority(path: Path) -> bytes:
    """Return the PEM of the federation's CA; a file that is none is the auditor's mistake, not the plant's.

    Raises:
        CertificateError: it cannot be read, or holds no certificate.
    """
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise CertificateError(f"cannot read the CA certificate {path}: {error.strerror}") from None
    read_pem_chain(pem, str(path))
    return pem

"""Who a certificate speaks for: a role and a name, in its subject alternative name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from cryptography import x509

from fedsparse.errors import CertificateError
from fedsparse.security.keys import UNREADABLE

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


class Role(Enum):
    """What a certificate's holder may be in the federation."""

    HUB = "hub"
    PLANT = "plant"


@dataclass(frozen=True)
class Identity:
    """One hub or plant, as its certificate names it.

    Raises:
        CertificateError: the name is not 1 to 63 lower-case letters, digits and hyphens.
    """

    role: Role
    name: str

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise CertificateError(
                f"{self.name!r} is no name for a {self.role.value}",
                "Use 1 to 63 lower-case letters, digits and hyphens",
            )

    @property
    def uri(self) -> str:
        """The URI that stands in the certificate."""
        return f"urn:fedsparse:{self.role.value}:{self.name}"


def identity_of(certificate: x509.Certificate) -> Identity:
    """Return whom ``certificate`` speaks for.

    Raises:
        CertificateError: it does not name exactly one hub or plant, or cannot be read.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    except UNREADABLE:
        raise CertificateError("the names in the certificate cannot be read") from None
    found = [uri.removeprefix("urn:fedsparse:") for uri in uris if uri.startswith("urn:fedsparse:")]
    if len(found) != 1:
        raise CertificateError("the certificate does not name one hub or plant of a federation")
    role, _, name = found[0].partition(":")
    try:
        return Identity(Role(role), name)
    except ValueError:
        raise CertificateError(f"the certificate names the unknown role {role!r}") from None

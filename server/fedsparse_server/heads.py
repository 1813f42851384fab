"""The newest version's signature: every plant checks it before it trains, so it must be one that still counts."""

from __future__ import annotations

import logging
from functools import partial

from fedsparse.config import IdentitySettings
from fedsparse.errors import CertificateError
from fedsparse.registry import Registry
from fedsparse.security import Credentials, Revocations, Role, check_chain, read_der_chain, sign, signed_by

_log = logging.getLogger("strategy")


def sign_head_anew(registry: Registry, hub: Credentials, identity: IdentitySettings) -> bool:
    """Sign the newest version with the hub's certificate of today, where the one that signed it no longer counts.

    Whether it was signed by that certificate's key is checked all the same: an altered version stays refused.

    Returns:
        Whether that was needed.
    """
    number = registry.head()
    if not number:
        return False
    try:
        chain = read_der_chain(registry.certificate(number), "the signer's certificate")
        check_chain(chain, hub.roots, Role.HUB, "the signer's certificate")
        Revocations(identity.revoked, lambda: hub.roots).check(chain)
    except CertificateError as error:
        if not signed_by(registry.certificate(number), registry.manifest(number), registry.signature(number)):
            _log.error("version %d is not what its signer signed", number)
            return False
        registry.resign(number, partial(sign, hub.key), hub.der)
        _log.warning("version %d is signed anew: %s", number, error)
        return True
    return False

"""Who may speak to whom: certificates, mutual TLS, signatures."""

from fedsparse.security.authority import Authority, create_authority, load_authority, replace_issuing
from fedsparse.security.chains import check_chain, check_dates, read_der_chain, read_pem_chain, to_der_chain
from fedsparse.security.credentials import Credentials, Daily, LiveCredentials, load_credentials
from fedsparse.security.enrolment import adopt_certificate, fingerprint, read_request, request_certificate
from fedsparse.security.handshakes import Handshake, mark_option, watch_handshakes
from fedsparse.security.identity import Identity, Role, identity_of
from fedsparse.security.issuing import issue, revoke, sign_request
from fedsparse.security.keys import read_passphrase
from fedsparse.security.revocation import Revocations
from fedsparse.security.signing import is_lowest, sign, signed_by, verify
from fedsparse.security.tls import (
    HUB_ENVIRONMENT,
    PLANT_ENVIRONMENT,
    channel_credentials,
    probe,
    server_credentials,
)

__all__ = [
    "HUB_ENVIRONMENT",
    "PLANT_ENVIRONMENT",
    "Authority",
    "Credentials",
    "Daily",
    "Handshake",
    "Identity",
    "LiveCredentials",
    "Revocations",
    "Role",
    "adopt_certificate",
    "channel_credentials",
    "check_chain",
    "check_dates",
    "create_authority",
    "fingerprint",
    "identity_of",
    "is_lowest",
    "issue",
    "load_authority",
    "load_credentials",
    "mark_option",
    "probe",
    "read_der_chain",
    "read_passphrase",
    "read_pem_chain",
    "read_request",
    "replace_issuing",
    "request_certificate",
    "revoke",
    "server_credentials",
    "sign",
    "sign_request",
    "signed_by",
    "to_der_chain",
    "verify",
    "watch_handshakes",
]

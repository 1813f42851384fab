"""Who may speak to whom: certificates, mutual TLS, signatures."""

from fedsparse.security.authority import Authority, create_authority, issue, load_authority
from fedsparse.security.credentials import Credentials, load_credentials
from fedsparse.security.handshakes import watch_handshakes
from fedsparse.security.identity import Identity, Role, identity_of
from fedsparse.security.signing import sign, verify
from fedsparse.security.tls import channel_credentials, probe, server_credentials

__all__ = [
    "Authority",
    "Credentials",
    "Identity",
    "Role",
    "channel_credentials",
    "create_authority",
    "identity_of",
    "issue",
    "load_authority",
    "load_credentials",
    "probe",
    "server_credentials",
    "sign",
    "verify",
    "watch_handshakes",
]

"""Which certificate a machine shows, for those that take part in a federation."""

from __future__ import annotations

from pathlib import Path

from fedsparse.config.names import Settings


class IdentitySettings(Settings):
    """Where this machine's certificate, its private key and the federation's CA lie.

    Attributes:
        certificate: PEM, with the certificates of the CAs between it and the root.
        key: PEM, readable by its owner alone.
        authority: the CA certificates that are trusted, PEM; old and new one while the root is replaced.
        passphrase_file: holds what the key is encrypted under.
        revoked: revocation lists, PEM; read again whenever the file changes.
    """

    certificate: Path
    key: Path
    authority: Path
    passphrase_file: Path | None = None
    revoked: Path | None = None

"""Which certificate a machine shows, for those that take part in a federation."""

from __future__ import annotations

from pathlib import Path

from fedsparse.config.names import Settings


class IdentitySettings(Settings):
    """Where this machine's certificate, its private key and the federation's CA lie."""

    certificate: Path
    key: Path
    authority: Path

"""Certificates of one federation, issued once and kept in the work folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedsparse.config import IdentitySettings
from fedsparse.errors import CertificateError
from fedsparse.security import Identity, Role, create_authority, issue, load_credentials


class Certificates:
    """Finds them, or issues all of them anew where one is missing or due.

    Args:
        folder: where they lie.
        plants: every plant that will need one.
    """

    def __init__(self, folder: Path, plants: Sequence[str]) -> None:
        self.folder = folder
        wanted = [(Role.HUB, "hub"), *((Role.PLANT, plant) for plant in plants)]
        if not all(self._is_good(role, name) for role, name in wanted):
            authority = create_authority(folder / f"ca-{len(list(folder.glob('ca-*')))}", "bench")
            for role, name in wanted:
                hosts = ("127.0.0.1", "localhost") if role is Role.HUB else ()
                issue(authority, Identity(role, name), self.home(role, name), hosts)

    def _is_good(self, role: Role, name: str) -> bool:
        try:
            return not load_credentials(self.settings(role, name), role).renewal_due()
        except CertificateError:
            return False

    def home(self, role: Role, name: str) -> Path:
        """Return the folder with NAME.pem, NAME.key and ca.pem."""
        return home_of(self.folder, role, name)

    def settings(self, role: Role, name: str) -> IdentitySettings:
        """Return the settings that name these files."""
        home = self.home(role, name)
        return IdentitySettings(
            certificate=home / f"{name}.pem", key=home / f"{name}.key", authority=home / "ca.pem"
        )


def home_of(folder: Path, role: Role, name: str) -> Path:
    """Return where in ``folder`` NAME.pem, NAME.key and ca.pem lie."""
    return folder / f"{role.value}-{name}"

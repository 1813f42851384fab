"""One family of exceptions; each says what is wrong, with the value, and what to do about it."""

from __future__ import annotations


class FedsparseError(Exception):
    """Anything fedsparse refuses or cannot do, told to a human.

    Args:
        what: what is wrong, naming the value and the limit it broke.
        remedy: what the reader can do about it; empty where nothing can be done.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        """Return both parts, as one message."""
        return f"{self.what}. {self.remedy}" if self.remedy else self.what


class ConfigError(FedsparseError):
    """A settings file has a wrong key or value."""


class DataError(FedsparseError):
    """Local data is absent, unreadable or unusable."""


class ModelError(FedsparseError):
    """A base model cannot be loaded, or is not the federation's."""


class DeltaError(FedsparseError):
    """Bytes or values are not a valid sparse delta or round message."""


class SpaceMismatchError(FedsparseError):
    """Two sides name different adapter spaces."""


class RegistryError(FedsparseError):
    """An adapter version is absent, altered or cannot be committed."""


class LedgerError(FedsparseError):
    """The ledger cannot be written, or does not verify."""


class EgressRefusedError(FedsparseError):
    """The egress gate refuses to let something leave.

    Args:
        rule: identifier of the rule that refused, as written to the ledger.
    """

    def __init__(self, rule: str, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.rule = rule


class CertificateError(FedsparseError):
    """A certificate or key is missing, wrong, or not trusted for this use."""


class LinkError(FedsparseError):
    """The link between plant and hub cannot be established or was refused."""


class NotAdmittedError(LinkError):
    """The hub, or the site's own policy, refuses this plant until somebody changes something."""


class HubUnreachableError(LinkError):
    """Nothing answers at the hub's address, at least not now."""


class HandshakeError(HubUnreachableError):
    """A handshake ended without a reason: a refused certificate looks so, and so does a hub that restarts."""


class ReceiptError(LinkError):
    """The hub took an update, but gave no receipt that could be filed."""


class ProcessError(FedsparseError):
    """A process that belongs to the federation did not start or stopped unexpectedly."""

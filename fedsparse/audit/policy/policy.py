"""A site's policy: judges one message at a time, without memory of its own."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

from fedsparse.audit.policy.canonical import canonical_bytes
from fedsparse.audit.policy.outgoing import Outgoing
from fedsparse.audit.policy.rules import (
    Refusal,
    budget_rules,
    delta_rules,
    message_rules,
    metric_rules,
    source_rules,
    tensor_rules,
)
from fedsparse.audit.policy.usage import Usage
from fedsparse.config import EgressSettings
from fedsparse.errors import EgressRefusedError


class EgressPolicy:
    """The site's own limits; neither hub nor strategy can widen them.

    Args:
        settings: the content of egress.toml, or the ``[egress]`` table of site.toml.

    Attributes:
        settings: as they were given.
        sha256: over :meth:`canonical_bytes`; names the policy in every entry of the ledger.
        max_update_bytes: of one message.
    """

    def __init__(self, settings: EgressSettings) -> None:
        self.settings = settings
        self.sha256 = sha256(self.canonical_bytes()).digest()
        self.max_update_bytes = settings.max_update_bytes

    def canonical_bytes(self) -> bytes:
        """Return the policy's text; :func:`parse_policy` reads it again."""
        return canonical_bytes(self.settings)

    def refusals(self, message: Outgoing, usage: Usage) -> Iterator[Refusal]:
        """Yield every rule that ``message`` breaks; if there is none, it may leave.

        Args:
            usage: what has left before.
        """
        yield from message_rules(self.settings, message)
        yield from budget_rules(self.settings, message, usage)
        yield from metric_rules(self.settings, message)
        if message.delta is not None:
            yield from delta_rules(self.settings, message.delta)
            yield from tensor_rules(self.settings, message.delta)
            yield from source_rules(self.settings, message, message.delta)

    def evaluate(self, message: Outgoing, usage: Usage) -> None:
        """Return if ``message`` may leave.

        Raises:
            EgressRefusedError: names the first rule that refuses, the value and the limit.
        """
        for refusal in self.refusals(message, usage):
            raise EgressRefusedError(refusal.rule, refusal.what)

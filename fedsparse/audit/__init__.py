"""What left the site: egress policy, ledger, verification."""

from fedsparse.audit.entry import EntryDraft, EntryKind, TensorFacts, describe_delta
from fedsparse.audit.ledger import Ledger, Recorded
from fedsparse.audit.policy import EgressPolicy
from fedsparse.audit.verify import Verdict, verify_ledger

__all__ = [
    "EgressPolicy",
    "EntryDraft",
    "EntryKind",
    "Ledger",
    "Recorded",
    "TensorFacts",
    "Verdict",
    "describe_delta",
    "verify_ledger",
]

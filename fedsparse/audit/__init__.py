"""What left the site: egress policy, ledger, verification."""

from fedsparse.audit.entry import EntryDraft, EntryKind, TensorFacts, describe_delta
from fedsparse.audit.ledger import Ledger, Recorded
from fedsparse.audit.policy import EgressPolicy
from fedsparse.audit.receipt import Receipted, check_receipt, read_receipts, receipt_line
from fedsparse.audit.verify import Verdict, verify_ledger

__all__ = [
    "EgressPolicy",
    "EntryDraft",
    "EntryKind",
    "Ledger",
    "Receipted",
    "Recorded",
    "TensorFacts",
    "Verdict",
    "check_receipt",
    "describe_delta",
    "read_receipts",
    "receipt_line",
    "verify_ledger",
]

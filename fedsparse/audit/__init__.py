"""What left the site: egress policy, ledger, verification."""

from fedsparse.audit.bundle import read_bundle, write_bundle
from fedsparse.audit.entry import EntryDraft, EntryKind, TensorFacts, describe_delta
from fedsparse.audit.evidence import Evidence, read_folder
from fedsparse.audit.keys import load_key, origin_of, statement
from fedsparse.audit.ledger import Ledger, Recorded
from fedsparse.audit.notes import Checkpoint, check_cosignature, check_note, cosign, public_bytes
from fedsparse.audit.opening import CLOCK_UNKNOWN, make_opening
from fedsparse.audit.payloads import read_payload_key
from fedsparse.audit.policy import EgressPolicy
from fedsparse.audit.receipt import (
    HubRecord,
    Receipted,
    agrees,
    check_receipt,
    read_receipts,
    read_record,
    receipt_line,
    sign_receipt,
)
from fedsparse.audit.record import Comparison, compare_receipts
from fedsparse.audit.verify import LEFT, Verdict, parse_entry, verify_evidence, verify_ledger
from fedsparse.audit.views import compare_views
from fedsparse.audit.witness import STALE_SIZE, Seen, StaleCheckpointError, check_checkpoint

__all__ = [
    "CLOCK_UNKNOWN",
    "LEFT",
    "STALE_SIZE",
    "Checkpoint",
    "Comparison",
    "EgressPolicy",
    "EntryDraft",
    "EntryKind",
    "Evidence",
    "HubRecord",
    "Ledger",
    "Receipted",
    "Recorded",
    "Seen",
    "StaleCheckpointError",
    "TensorFacts",
    "Verdict",
    "agrees",
    "check_checkpoint",
    "check_cosignature",
    "check_note",
    "check_receipt",
    "compare_receipts",
    "compare_views",
    "cosign",
    "describe_delta",
    "load_key",
    "make_opening",
    "origin_of",
    "parse_entry",
    "public_bytes",
    "read_bundle",
    "read_folder",
    "read_payload_key",
    "read_receipts",
    "read_record",
    "receipt_line",
    "sign_receipt",
    "statement",
    "verify_evidence",
    "verify_ledger",
    "write_bundle",
]

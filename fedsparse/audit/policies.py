"""Whether what a ledger calls a policy is one, and is the one that its entries name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from fedsparse.audit.entry import EntryKind
from fedsparse.audit.policy import parse_policy
from fedsparse.errors import ConfigError, LedgerError
from fedsparse.v1 import ledger_pb2

_JUDGED = frozenset(
    map(int, (EntryKind.UPDATE, EntryKind.REASON, EntryKind.REFUSED, EntryKind.DESCRIBE, EntryKind.ATTEND))
)
_LONGEST = 200


def check_policy(entry: ledger_pb2.LedgerEntry, policy: bytes) -> Iterator[str]:
    """Yield where an entry names another policy than it must, each as the end of the sentence "entry N: ...".

    Args:
        policy: digest of the last one recorded before it; empty before the first.
    """
    if int(entry.kind) == EntryKind.POLICY and entry.policy_sha256 != entry.payload_sha256:
        yield "names another policy than the one whose text it has"
    if policy and entry.kind in _JUDGED and entry.policy_sha256 != policy:
        yield "was judged by another policy than the one recorded before it"


def unread_policies(
    entries: Iterable[ledger_pb2.LedgerEntry | None], payload: Callable[[bytes], bytes]
) -> Iterator[str]:
    """Yield each policy that this release does not read as one.

    That contradicts nothing by itself: the digest is right all the same, and it may be another release's. But
    nobody can say what it let through.
    """
    for entry in entries:
        if entry is None or int(entry.kind) != EntryKind.POLICY:
            continue
        try:
            parse_policy(payload(entry.payload_sha256) if entry.payload_bytes else b"")
        except LedgerError:
            continue  # told of where payloads are checked
        except ConfigError as error:
            yield f"entry {entry.sequence}: {str(error)[:_LONGEST]}"

"""Two views of one ledger, as two auditors were given them: they must be one history."""

from __future__ import annotations

from collections.abc import Iterator

from fedsparse.audit import merkle
from fedsparse.audit.evidence import Evidence
from fedsparse.audit.notes import Checkpoint, open_note
from fedsparse.errors import LedgerError


def compare_views(one: Evidence, other: Evidence) -> Iterator[str]:
    """Yield where two views contradict each other; both may verify, each by itself.

    One may be older than the other: then it must be the other's beginning.
    """
    names = {_origin(one), _origin(other)}
    if len(names) > 1:
        yield f"they are of different ledgers: {' and '.join(sorted(names))}"
        return
    for number, (row, same) in enumerate(zip(one.rows, other.rows, strict=False), start=1):
        if merkle.leaf_hash(row.entry) != merkle.leaf_hash(same.entry):
            yield f"entry {number}: it is another in each view: somebody keeps two histories"
            return


def _origin(evidence: Evidence) -> str:
    try:
        return Checkpoint.parse(open_note(evidence.checkpoint).body).origin
    except LedgerError:
        return "one without a checkpoint"

"""A process that records into a ledger until it is killed or fails, and says what was recorded.

Usage: ledger_writer.py FOLDER [LARGEST FILE IN BYTES]
"""

from __future__ import annotations

import resource
import signal
import sys
from pathlib import Path

from fedsparse.audit import EntryDraft, EntryKind, Ledger
from fedsparse.delta import Reason, RoundUpdate, encode_update
from fedsparse.errors import LedgerError

folder = Path(sys.argv[1])
if len(sys.argv) > 2:  # what a full disk does, without filling one
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
with Ledger(folder, bytes(32), "ise") as ledger:
    for number in range(1, 10_000):
        reason = Reason.TRAINING_FAILED
        payload = encode_update(RoundUpdate.refusal(number, 0, reason))
        draft = EntryDraft(EntryKind.REASON, "hub:9443", bytes(32), f"task-{number}", number, reason=reason)
        try:
            recorded = ledger.append(draft, payload)
        except LedgerError as error:
            print("refused", error, flush=True)
            sys.exit(3)
        print(recorded.sequence, flush=True)

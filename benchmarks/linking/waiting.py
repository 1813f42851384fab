"""Waiting for things to happen, and what a row of seconds comes to."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence

import numpy as np

from fedsparse.errors import ProcessError


def eventually(holds: Callable[[], object], what: str, seconds: float, every: float = 0.02) -> float:
    """Wait until ``holds()``; return the seconds it took.

    Raises:
        ProcessError: it did not within ``seconds``.
    """
    start = time.monotonic()
    while not holds():
        if time.monotonic() - start > seconds:
            raise ProcessError(f"not seen within {seconds:.0f} s: {what}")
        time.sleep(every)
    return time.monotonic() - start


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` percent of ``values`` do not exceed."""
    return float(np.percentile(values, share))


def allow_files(count: int) -> int:
    """Let this process and its children open at least ``count`` files, if the system does; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        soft = count if hard == resource.RLIM_INFINITY else min(count, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft

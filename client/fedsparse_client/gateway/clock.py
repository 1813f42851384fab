"""What the system itself thinks of its clock."""

from __future__ import annotations

import ctypes

from fedsparse.audit import CLOCK_UNKNOWN

_UNSYNCHRONISED = 5  # TIME_ERROR of ntp_gettime(3)


class _NtpTime(ctypes.Structure):
    """struct ntptimeval of sys/timex.h; times in microseconds."""

    _fields_ = (
        ("seconds", ctypes.c_long),
        ("microseconds", ctypes.c_long),
        ("largest_error", ctypes.c_long),
        ("error", ctypes.c_long),
        ("tai_offset", ctypes.c_long),
        ("reserved", ctypes.c_long * 4),
    )


def clock_error_us() -> int:
    """Return the system's estimate of its clock's error in microseconds; CLOCK_UNKNOWN where none is kept."""
    found = _NtpTime()
    try:
        state = ctypes.CDLL(None).ntp_gettime(ctypes.byref(found))
    except (OSError, AttributeError):  # not Linux
        return CLOCK_UNKNOWN
    return CLOCK_UNKNOWN if state in (-1, _UNSYNCHRONISED) else int(found.error)

"""Files that are there whole or not at all, and folders that one process holds."""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

from fedsparse.errors import ConfigError, ProcessError

_BLOCK = 4096
_PART = 1 << 20
_SOCKET_PATH_BYTES = 107  # sun_path of unix(7), less its final zero


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put ``data`` at ``path`` at once: after a crash the old content is there or the new one, synced to disk.

    Raises:
        OSError: it cannot be written; ``path`` is as it was.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.")
    scratch = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.chmod(mode)
        scratch.replace(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_at_most(path: Path, most: int) -> bytes:
    """Return a file's bytes; it may be a stranger's, and claim any size.

    Raises:
        OSError: it cannot be read, or has more than ``most`` bytes, which are not read then.
    """
    too_many = OSError(errno.EFBIG, f"it has more than {most:,} bytes")
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size > most:
            raise too_many
        data = bytearray()
        while part := file.read(_PART):  # a pipe or device has no size
            data += part
            if len(data) > most:
                raise too_many
    return bytes(data)


def append_line(path: Path, line: bytes) -> None:
    """Append ``line`` whole and synced, or leave the file as it was; half a line that a crash left is cut off.

    Raises:
        OSError: it cannot be written.
    """
    new = not path.exists()
    with path.open("a+b", buffering=0) as file:
        before = _end_of_lines(file)
        file.truncate(before)
        try:
            if (written := file.write(line)) != len(line):
                raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes were written")
            os.fsync(file.fileno())
        except OSError:
            file.truncate(before)  # the next line must not continue half a line
            raise
    if new:
        sync_folder(path.parent)


def _end_of_lines(file: IO[bytes]) -> int:
    """Return where the last whole line ends."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - _BLOCK)
        file.seek(start)
        if (found := file.read(end - start).rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0


def sync_folder(path: Path) -> None:
    """Sync the names in a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def hold(path: Path, what: str) -> IO[str]:
    """Hold the lock file ``path`` for as long as the returned file stays open.

    Args:
        what: what else would run there, for the message, e.g. "plant".

    Raises:
        ProcessError: another process holds it.
    """
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise ProcessError(
            f"another {what} runs on the folder {path.parent}", "Stop it first, or name another folder"
        ) from None
    return file


def private_folder(path: Path) -> Path:
    """Create ``path`` so that only this user can look into it, whatever is written there later."""
    path.mkdir(parents=True, exist_ok=True)
    path.chmod(0o700)
    return path


def require_socket_path(path: Path) -> None:
    """Check that a Unix-domain socket can be bound at ``path``.

    Raises:
        ConfigError: the path is too long.
    """
    if len(os.fsencode(path)) > _SOCKET_PATH_BYTES:
        raise ConfigError(
            f"the socket {path} has {len(os.fsencode(path))} bytes, the system's limit is {_SOCKET_PATH_BYTES}",
            "Name a shorter folder with `state`",
        )

"""Large payloads on the link, in parts of one size, so that a connection that drops loses one part and not all.

Every part but the last has exactly ``PART_BYTES``: a peer can neither dribble a payload nor hide in how it is cut.
"""

from __future__ import annotations

from collections.abc import Iterator

from fedsparse.errors import LinkError

PART_BYTES = 1 << 20
"""What is longer travels in parts."""
MESSAGE_BYTES = PART_BYTES + (64 << 10)
"""Most that one message with a part, or with all of a short payload, takes: proofs and names come with it."""
OFFSET = "fedsparse-offset"
"""Initial metadata of an Upload: from which byte on the hub wants the data; decimal."""


def parts(payload: bytes, offset: int = 0) -> Iterator[memoryview]:
    """Yield what follows byte ``offset`` of ``payload``, in parts."""
    whole = memoryview(payload)
    for start in range(offset, len(payload), PART_BYTES):
        yield whole[start : start + PART_BYTES]


class Assembly:
    """A payload that arrives in parts.

    Args:
        size: of the whole payload in bytes, at least 1; memory is taken only as parts arrive.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._data = bytearray()

    def __len__(self) -> int:
        """Return how many bytes are here."""
        return len(self._data)

    @property
    def complete(self) -> bool:
        """Whether all of it is here."""
        return len(self._data) == self.size

    def add(self, part: bytes) -> None:
        """Take the next part.

        Raises:
            LinkError: it has another length than the part at this place has; nothing of it is kept.
        """
        here = len(self._data)
        if len(part) != (awaited := min(PART_BYTES, self.size - here)):
            raise LinkError(f"a part of {len(part)} bytes after {here} of {self.size}, not one of {awaited}")
        self._data += part

    def take(self) -> bytes:
        """Return the whole payload."""
        return bytes(self._data)

"""Error feedback across rounds and restarts: what stays behind of an update counts once the update is merged."""

from __future__ import annotations

import logging
from hashlib import sha256
from pathlib import Path

from fedsparse.delta import (
    AdapterSpace,
    Operation,
    RoundUpdate,
    SparseDelta,
    ValueCoding,
    decode,
    encode,
    encode_update,
)
from fedsparse.errors import FedsparseError
from fedsparse.files import write_atomic
from fedsparse.registry import AdapterVersion

_MAX_BYTES = 1 << 40  # our own file
_VERSION, _DIGEST = 8, 32  # bytes of what stands before a residual
_log = logging.getLogger("trainer")


class Residual:
    """What rounding and leaving out took from this plant's updates, see :func:`fedsparse.delta.compensate`.

    An update may be refused by the gate, come too late, or be lost with a connection. What was added to it from
    the residual would be lost with it, so the residual before it is kept until a version says whether the update
    is among those merged: if not, that one is used again, as if the round had not been. Where none can say,
    because the plant missed versions, the update counts as merged.

    Layout: ``residual``, the version that settled it and the delta; ``residual.unsettled``, the version that the
    last update started from, the update's digest, and the delta that it left.

    Args:
        folder: where the files lie.
        space: the federation's adapter space.
    """

    def __init__(self, folder: Path, space: AdapterSpace) -> None:
        self._settled = folder / "residual"
        self._unsettled = folder / "residual.unsettled"
        self._space = space

    def settle(self, version: int, manifest: AdapterVersion | None) -> SparseDelta:
        """Return the residual to go on with.

        Args:
            version: that the next update starts from.
            manifest: of that version; None of the untouched base.
        """
        try:
            record = self._unsettled.read_bytes()
        except FileNotFoundError:
            return self._read(version)
        start, digest = _number(record), record[_VERSION:][:_DIGEST].hex()
        left = self._decoded(record[_VERSION + _DIGEST :])
        if left is not None and start <= version and _counts(digest, start, version, manifest):
            write_atomic(self._settled, version.to_bytes(_VERSION, "big") + self._encoded(left), 0o600)
        else:
            _log.info(
                "the last update, from version %d, was not merged: what it left behind does not count", start
            )
        self._unsettled.unlink()
        return self._read(version)

    def leave(self, residual: SparseDelta, update: RoundUpdate) -> None:
        """Note what ``update`` leaves behind, should it be merged."""
        head = update.version.to_bytes(_VERSION, "big") + sha256(encode_update(update)).digest()
        write_atomic(self._unsettled, head + self._encoded(residual), 0o600)

    def _read(self, version: int) -> SparseDelta:
        nothing = SparseDelta.empty(self._space.fingerprint, Operation.ADD)
        try:
            record = self._settled.read_bytes()
        except FileNotFoundError:
            return nothing
        if _number(record) > version:
            _log.info("the error-feedback residual is of another line of versions and starts anew")
            return nothing
        found = self._decoded(record[_VERSION:])
        return nothing if found is None else found

    def _encoded(self, residual: SparseDelta) -> bytes:
        return encode(residual, self._space, ValueCoding.FP32)

    def _decoded(self, data: bytes) -> SparseDelta | None:
        try:
            return decode(data, self._space, max_bytes=_MAX_BYTES)
        except FedsparseError as error:  # of another space, or cut short: rounding errors are no great loss
            _log.warning("the error-feedback residual is unusable and starts anew: %s", error)
            return None


def _number(record: bytes) -> int:
    return int.from_bytes(record[:_VERSION], "big")


def _counts(digest: str, start: int, version: int, manifest: AdapterVersion | None) -> bool:
    """Return whether the update that started from ``start`` is merged, as far as can be told."""
    if version == start:  # the same again: its round came to nothing
        return False
    if manifest is None or start not in (manifest.parents or (0,)):
        return True
    return digest in {contribution.update_sha256 for contribution in manifest.contributions}

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
_DIGEST, _VERSION = 32, 8  # bytes of what stands before the unsettled residual
_log = logging.getLogger("trainer")


class Residual:
    """What rounding and leaving out took from this plant's updates, see :func:`fedsparse.delta.compensate`.

    An update may be refused by the gate, come too late, or be lost with a connection. What was added to it from
    the residual would be lost with it, so the residual before it is kept until a version says whether the update
    is among those merged. Where none can say, because the plant missed versions, it counts as merged.

    Layout: ``residual``, and ``residual.unsettled`` with the digest of the last update and the version that it
    started from before the residual that it left.

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
            return self._read()
        digest, start = record[:_DIGEST], int.from_bytes(record[_DIGEST:][:_VERSION], "big")
        if _counts(digest.hex(), start, version, manifest):
            write_atomic(self._settled, record[_DIGEST + _VERSION :], 0o600)
        else:
            _log.info("the update from version %d was not merged: its residual is taken back", start)
        self._unsettled.unlink()
        return self._read()

    def leave(self, residual: SparseDelta, update: RoundUpdate) -> None:
        """Note what ``update`` leaves behind, should it be merged."""
        head = sha256(encode_update(update)).digest() + update.version.to_bytes(_VERSION, "big")
        write_atomic(self._unsettled, head + encode(residual, self._space, ValueCoding.FP32), 0o600)

    def _read(self) -> SparseDelta:
        try:
            return decode(self._settled.read_bytes(), self._space, max_bytes=_MAX_BYTES)
        except FileNotFoundError:
            pass
        except FedsparseError as error:  # of another space, or cut short: rounding errors are no great loss
            _log.warning("the error-feedback residual is unusable and starts anew: %s", error)
        return SparseDelta.empty(self._space.fingerprint, Operation.ADD)


def _counts(digest: str, start: int, version: int, manifest: AdapterVersion | None) -> bool:
    """Return whether the update that started from ``start`` is merged, as far as can be told."""
    if version == start:  # the same again: its round came to nothing
        return False
    if manifest is None or start not in (manifest.parents or (0,)):
        return True
    return digest in {contribution.update_sha256 for contribution in manifest.contributions}

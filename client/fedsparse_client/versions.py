"""Which adapter version this plant holds, and which ones it accepts: signed, of this space, never backwards."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from fedsparse.delta import AdapterSpace, Operation, RoundTask, SparseDelta, ValueCoding, apply, decode, encode
from fedsparse.errors import DeltaError, FedsparseError, RegistryError
from fedsparse.files import write_atomic
from fedsparse.registry import AdapterVersion

_MAX_STATE_BYTES = 1 << 40  # our own file, checked against its digest
_log = logging.getLogger("trainer")

Verify = Callable[[RoundTask, datetime], None]
"""Checks that the hub signed a task's manifest at the given time; raises if not."""


class VersionNotHeldError(DeltaError):
    """The task's delta builds on a version that this plant does not hold."""


class HeldVersion:
    """The newest adapter version that this plant has accepted, kept across restarts.

    Layout: ``manifest.json``, the exact signed bytes, and the state under the digest that the manifest names.

    Args:
        folder: created if absent.
        space: the federation's adapter space.
        verify: checks a manifest's signature.
    """

    def __init__(self, folder: Path, space: AdapterSpace, verify: Verify) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._space = space
        self._verify = verify
        self._manifest: AdapterVersion | None = None
        self._seen = 0
        self.state = SparseDelta.empty(space.fingerprint, Operation.SET)
        self._restore()

    @property
    def number(self) -> int:
        """Number of the version, 0 for the untouched base."""
        return self._manifest.number if self._manifest else 0

    @property
    def manifest(self) -> AdapterVersion | None:
        """What was signed of the version; None of the untouched base."""
        return self._manifest

    def accept(self, task: RoundTask) -> SparseDelta:
        """Take the version that ``task`` starts from; return its state.

        Raises:
            VersionNotHeldError: the hub must send the version whole.
            RegistryError: signature, digest or lineage does not verify; what was held stays.
            DeltaError: the delta is malformed.
        """
        if task.version < self._seen:
            raise RegistryError(
                f"version {task.version} is offered, but version {self._seen} was seen here: no way back",
                f"If the operator began anew, remove {self._folder}",
            )
        if task.version == 0:
            return self.state
        state = self._reconstruct(task)
        manifest = self._check(task, state)
        if manifest != self._manifest:
            self._keep(task.manifest, manifest, state)
        return self.state

    def _reconstruct(self, task: RoundTask) -> SparseDelta:
        if task.held_version == self.number:
            start = self.state
        elif task.held_version == 0:
            start = SparseDelta.empty(self._space.fingerprint, Operation.SET)
        else:
            raise VersionNotHeldError(
                f"the delta builds on version {task.held_version}, held is version {self.number}"
            )
        for data in task.deltas:
            start = apply(start, decode(data, self._space, max_bytes=len(data)))
        return start

    def _check(self, task: RoundTask, state: SparseDelta) -> AdapterVersion:
        manifest = AdapterVersion.from_bytes(task.manifest)
        self._verify(task, _created(manifest))
        found = sha256(encode(state, self._space, ValueCoding.FP32)).hexdigest()
        facts = {
            "number": (manifest.number, task.version),
            "base": (manifest.base_fingerprint, self._space.base_fingerprint.hex()),
            "space": (manifest.space_fingerprint, self._space.fingerprint.hex()),
            "state": (manifest.state_sha256, found),
        }
        for name, (said, true) in facts.items():
            if said != true:
                raise RegistryError(f"version {task.version}: its manifest says {name} {said}, here it is {true}")
        if self._manifest is not None and manifest.number == self.number and manifest != self._manifest:
            raise RegistryError(f"version {manifest.number} was signed twice with different content")
        return manifest

    def _keep(self, data: bytes, manifest: AdapterVersion, state: SparseDelta) -> None:
        """Write the state first, then the manifest that points to it; then forget the state before."""
        write_atomic(self._folder / manifest.state_sha256, encode(state, self._space, ValueCoding.FP32))
        write_atomic(self._folder / "manifest.json", data)
        for path in self._folder.iterdir():
            if path.name not in ("manifest.json", manifest.state_sha256):
                path.unlink()
        self._manifest, self.state, self._seen = manifest, state, manifest.number

    def _restore(self) -> None:
        path = self._folder / "manifest.json"
        if not path.exists():
            return
        try:
            manifest = AdapterVersion.from_bytes(path.read_bytes())
            self._seen = manifest.number  # also where its state is lost
            data = (self._folder / manifest.state_sha256).read_bytes()
            if sha256(data).hexdigest() != manifest.state_sha256:
                raise RegistryError(f"the state of version {manifest.number} was altered")
            self.state = decode(data, self._space, max_bytes=_MAX_STATE_BYTES)
            self._manifest = manifest
        except (OSError, FedsparseError) as error:  # the hub sends it again, whole
            _log.warning("the version held in %s is unusable: %s", self._folder, error)


def _created(manifest: AdapterVersion) -> datetime:
    try:
        return datetime.fromtimestamp(manifest.created_unix_ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        raise RegistryError(f"version {manifest.number} is dated {manifest.created_unix_ms} ms: no time") from None

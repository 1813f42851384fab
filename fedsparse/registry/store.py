"""The registry: immutable adapter versions on disk, each committed whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from fedsparse.delta import (
    AdapterSpace,
    Operation,
    SparseDelta,
    TensorDelta,
    apply,
    decode,
    difference,
    digest,
)
from fedsparse.errors import DeltaError, RegistryError, SpaceMismatchError
from fedsparse.files import sync_folder, write_atomic
from fedsparse.registry.manifest import AdapterVersion, Contribution


class Registry:
    """One federation's adapter versions.

    Layout: ``space.json`` and ``versions/000001/{adapter.safetensors, manifest.json, manifest.sig,
    manifest.der}``, the last the signer's certificate; ``step.delta`` beside them leads here from the version
    before, and ``server.memory``, of the newest version alone, is what the server goes on with.
    One process commits; any number read.

    Args:
        path: the folder, created if absent.
        space: the adapter space every version belongs to.

    Raises:
        SpaceMismatchError: the folder belongs to another space.
    """

    def __init__(self, path: Path, space: AdapterSpace) -> None:
        self._versions = path / "versions"
        self._versions.mkdir(parents=True, exist_ok=True)
        self.space = space
        if not (path / "space.json").exists():
            write_atomic(path / "space.json", space.to_json())
        elif _read_space(path / "space.json").fingerprint != space.fingerprint:
            raise SpaceMismatchError(
                f"the registry {path} belongs to another adapter space than {space.fingerprint.hex()[:16]}",
                "Start with a new state folder, or restore the base model and adapter settings",
            )

    @classmethod
    def open(cls, path: Path) -> Registry:
        """Open an existing registry without knowing its space.

        Raises:
            RegistryError: there is none.
        """
        if not (path / "space.json").exists():
            raise RegistryError(f"{path} holds no registry", "Name a folder with a space.json")
        return cls(path, _read_space(path / "space.json"))

    def head(self) -> int:
        """Return the newest version's number; 0 when there is none."""
        numbers = [int(entry.name) for entry in self._versions.iterdir() if entry.name.isdecimal()]
        return max(numbers, default=0)

    def versions(self) -> list[AdapterVersion]:
        """Return every manifest, oldest first."""
        return [AdapterVersion.from_bytes(self.manifest(n)) for n in range(1, self.head() + 1)]

    def manifest(self, number: int) -> bytes:
        """Return the exact bytes that were signed."""
        return self._read(number, "manifest.json")

    def signature(self, number: int) -> bytes:
        """Return the signature over :meth:`manifest`."""
        return self._read(number, "manifest.sig")

    def certificate(self, number: int) -> bytes:
        """Return the certificate of whoever signed, DER."""
        return self._read(number, "manifest.der")

    def load(self, number: int) -> tuple[AdapterVersion, SparseDelta]:
        """Return a version and its whole state, after checking the state against the manifest.

        Raises:
            RegistryError: there is no such version, or it was altered.
        """
        version = AdapterVersion.from_bytes(self.manifest(number))
        state, found = self._state(number)
        if found.hex() != version.state_sha256 or version.number != number:
            raise RegistryError(f"version {number} was altered: its state is not what its manifest says")
        return version, state

    def state(self, number: int) -> SparseDelta:
        """Return a version's whole state, checked against its manifest; 0 is the untouched base."""
        if number == 0:
            return SparseDelta.empty(self.space.fingerprint, Operation.SET)
        return self.load(number)[1]

    def steps(self, held: int, target: int) -> tuple[bytes, ...]:
        """Return the ADD deltas that lead from version ``held`` to ``target``, in order.

        None where one lacks or was altered: what they lead to is checked against the target's manifest.
        """
        paths = [self._versions / f"{number:06d}" / "step.delta" for number in range(held + 1, target + 1)]
        try:
            steps = tuple(path.read_bytes() for path in paths)
            state = self.state(held)
            for step in steps:
                state = apply(state, decode(step, self.space, max_bytes=len(step)))
            wanted = AdapterVersion.from_bytes(self.manifest(target)).state_sha256
            return steps if digest(state, self.space).hex() == wanted else ()
        except (OSError, DeltaError, SpaceMismatchError):
            return ()

    def memory(self) -> bytes:
        """Return what the server noted with the newest version; empty if nothing."""
        path = self._versions / f"{self.head():06d}" / "server.memory"
        return path.read_bytes() if path.exists() else b""

    def delta(self, held: int, target: int) -> SparseDelta:
        """Return the SET delta from version ``held`` to version ``target``; 0 is the untouched base."""
        return difference(self.state(held), self.state(target))

    def commit(
        self,
        state: SparseDelta,
        *,
        round: int,
        rule: str,
        contributions: tuple[Contribution, ...],
        metrics: Mapping[str, float],
        sign: Callable[[bytes], bytes],
        certificate: bytes,
        step: bytes = b"",
        memory: bytes = b"",
    ) -> AdapterVersion:
        """Make ``state`` the next version; after a crash it is there whole, or not at all.

        Args:
            sign: signs the manifest.
            certificate: the signer's, DER; kept beside the signature, so that it outlives the signer's next one.
            step: the ADD delta that leads here from the newest version so far, for :meth:`steps`.
            memory: for :meth:`memory`; that of older versions is removed.

        Raises:
            RegistryError: it cannot be written.
        """
        head = self.head()
        version = AdapterVersion(
            number=head + 1,
            parents=(head,) if head else (),
            base_fingerprint=self.space.base_fingerprint.hex(),
            space_fingerprint=self.space.fingerprint.hex(),
            state_sha256=digest(state, self.space).hex(),
            round=round,
            rule=rule,
            contributions=contributions,
            metrics=metrics,
            created_unix_ms=time.time_ns() // 1_000_000,
        )
        manifest = version.to_bytes()
        files = {
            "adapter.safetensors": save(_arrays(state, self.space)),
            "manifest.json": manifest,
            "manifest.sig": sign(manifest),
            "manifest.der": certificate,
            "step.delta": step,
            "server.memory": memory,
        }
        try:
            self._install(version.number, {name: data for name, data in files.items() if data})
            (self._versions / f"{head:06d}" / "server.memory").unlink(missing_ok=True)
        except OSError as error:
            raise RegistryError(f"version {version.number} cannot be committed: {error}") from error
        return version

    def resign(self, number: int, sign: Callable[[bytes], bytes], certificate: bytes) -> None:
        """Put another signature beside a version, whose content stays: its signer's certificate no longer counts.

        A crash in between leaves a signature that does not fit its certificate, and the next call mends it.

        Raises:
            RegistryError: it cannot be written.
        """
        manifest = self.manifest(number)
        folder = self._versions / f"{number:06d}"
        try:
            write_atomic(folder / "manifest.der", certificate)
            write_atomic(folder / "manifest.sig", sign(manifest))
        except OSError as error:
            raise RegistryError(f"version {number} cannot be signed anew: {error}") from error

    def _install(self, number: int, files: Mapping[str, bytes]) -> None:
        scratch = Path(tempfile.mkdtemp(prefix=".commit-", dir=self._versions))
        try:
            for name, data in files.items():
                _write_synced(scratch / name, data)
            sync_folder(scratch)
            scratch.chmod(0o755)
            scratch.rename(self._versions / f"{number:06d}")
            sync_folder(self._versions)
        except OSError:
            shutil.rmtree(scratch, ignore_errors=True)
            raise

    def _read(self, number: int, name: str) -> bytes:
        folder = self._versions / f"{number:06d}"
        try:
            return (folder / name).read_bytes()
        except OSError as error:
            if folder.is_dir():
                raise RegistryError(f"version {number} was altered: {name}: {error.strerror}") from None
            raise RegistryError(
                f"there is no version {number}", f"The newest is {self.head()}; see `fedsparse registry list`"
            ) from None

    def _state(self, number: int) -> tuple[SparseDelta, bytes]:
        """Return the state and its digest."""
        data = self._read(number, "adapter.safetensors")
        try:
            state = _state_of(load(data), self.space)
            return state, digest(state, self.space)
        except (SafetensorError, KeyError, ValueError, TypeError, DeltaError) as error:
            raise RegistryError(f"version {number} was altered: {error}") from None


def _arrays(state: SparseDelta, space: AdapterSpace) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for tensor in state.tensors:
        name = space.tensors[tensor.tensor].name
        arrays[f"{name}.indices"] = np.ascontiguousarray(tensor.indices)
        arrays[f"{name}.values"] = np.ascontiguousarray(tensor.values)
    return arrays


def _state_of(arrays: dict[str, np.ndarray], space: AdapterSpace) -> SparseDelta:
    """Undo :func:`_arrays`, which leaves nothing over."""
    tensors = []
    for position, spec in enumerate(space.tensors):
        if (indices := arrays.pop(f"{spec.name}.indices", None)) is not None:
            tensors.append(TensorDelta(position, indices, arrays.pop(f"{spec.name}.values")))
    if arrays:
        raise DeltaError(f"it holds {', '.join(sorted(arrays))}, which is no part of a state")
    return SparseDelta(space.fingerprint, Operation.SET, tuple(tensors))


def _read_space(path: Path) -> AdapterSpace:
    """Read a space.json file.

    Raises:
        RegistryError: it is absent or no such file.
    """
    try:
        return AdapterSpace.from_json(path.read_bytes())
    except (OSError, DeltaError) as error:
        raise RegistryError(f"{path} does not describe an adapter space: {error}") from None


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())

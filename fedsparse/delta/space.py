"""The adapter space: which coordinates exist, in which order, under one fingerprint."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from hashlib import sha256

from fedsparse.errors import DeltaError
from fedsparse.v1 import space_pb2

_MAX_TENSORS = 100_000
_MAX_COORDINATES = 1 << 40


@dataclass(frozen=True)
class TensorSpec:
    """One adaptable tensor of the base model."""

    name: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= 1000 or not self.name.isprintable():
            raise DeltaError(f"the tensor name {self.name[:40]!r} must have 1 to 1000 printable characters")
        if not self.shape or any(type(extent) is not int or not 0 < extent < 1 << 32 for extent in self.shape):
            raise DeltaError(f"the shape {self.shape} of {self.name} must hold extents between 1 and 2^32 - 1")

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class AdapterSpace:
    """An ordered list of named tensors on top of one base model.

    Coordinates are ``(tensor position, flat index in C order)``.

    Attributes:
        base_fingerprint: SHA-256 of the frozen base model, 32 bytes.
        tensors: what may be adapted.
    """

    base_fingerprint: bytes
    tensors: tuple[TensorSpec, ...]

    def __post_init__(self) -> None:
        if len(self.base_fingerprint) != 32:
            raise DeltaError(f"a base fingerprint has 32 bytes, not {len(self.base_fingerprint)}")
        if not 0 < len(self.tensors) <= _MAX_TENSORS:
            raise DeltaError(f"an adapter space has 1 to {_MAX_TENSORS} tensors, not {len(self.tensors)}")
        if len({spec.name for spec in self.tensors}) != len(self.tensors):
            raise DeltaError("two tensors of the adapter space have the same name")
        if self.size > _MAX_COORDINATES:
            raise DeltaError(f"an adapter space has at most {_MAX_COORDINATES} coordinates, not {self.size}")

    @cached_property
    def fingerprint(self) -> bytes:
        """SHA-256 over base fingerprint, names and shapes, each length-prefixed (8 bytes, big-endian)."""
        digest = sha256(b"fedsparse adapter space 1\x00" + self.base_fingerprint)
        for spec in self.tensors:
            name = spec.name.encode()
            digest.update(len(name).to_bytes(8, "big") + name + len(spec.shape).to_bytes(8, "big"))
            digest.update(b"".join(extent.to_bytes(8, "big") for extent in spec.shape))
        return digest.digest()

    @cached_property
    def size(self) -> int:
        """Number of coordinates of all tensors."""
        return sum(spec.size for spec in self.tensors)

    def matching(self, globs: Collection[str]) -> frozenset[int]:
        """Return the positions of the tensors whose names match any glob."""
        return frozenset(
            position
            for position, spec in enumerate(self.tensors)
            if any(fnmatchcase(spec.name, glob) for glob in globs)
        )

    @property
    def dense_bytes(self) -> int:
        """Bytes of the whole space in fp32."""
        return 4 * self.size

    def to_json(self) -> bytes:
        """Return the content of a space.json file."""
        fields = {
            "base_fingerprint": self.base_fingerprint.hex(),
            "tensors": [{"name": spec.name, "shape": spec.shape} for spec in self.tensors],
        }
        return json.dumps(fields, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> AdapterSpace:
        """Read a space.json file.

        Raises:
            DeltaError: it is not exactly what :meth:`to_json` writes.
        """
        try:
            fields = json.loads(data)
            tensors = tuple(TensorSpec(tensor["name"], tuple(tensor["shape"])) for tensor in fields["tensors"])
            space = cls(bytes.fromhex(fields["base_fingerprint"]), tensors)
            canonical = space.to_json() == data
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise DeltaError(f"the bytes describe no adapter space: {error}") from None
        if not canonical:
            raise DeltaError("the adapter space is not in canonical form: other bytes say the same")
        return space

    def to_proto(self) -> space_pb2.AdapterSpace:
        """Return the form that travels."""
        tensors = [space_pb2.TensorSpec(name=spec.name, shape=spec.shape) for spec in self.tensors]
        return space_pb2.AdapterSpace(base_fingerprint=self.base_fingerprint, tensors=tensors)

    @classmethod
    def from_proto(cls, message: space_pb2.AdapterSpace) -> AdapterSpace:
        """Validate what came over the wire.

        Raises:
            DeltaError: it is no adapter space.
        """
        if len(message.tensors) > _MAX_TENSORS:
            raise DeltaError(f"an adapter space has at most {_MAX_TENSORS} tensors, not {len(message.tensors)}")
        return cls(message.base_fingerprint, tuple(TensorSpec(t.name, tuple(t.shape)) for t in message.tensors))

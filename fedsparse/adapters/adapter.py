"""One adapter on one network: its state, what of it is trained, and how it comes off again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from fedsparse.adapters.attachment import Attachment, Part, collect_gradient
from fedsparse.adapters.kinds import Injection
from fedsparse.delta import AdapterSpace, Operation, SparseDelta, TensorDelta
from fedsparse.errors import ModelError, SpaceMismatchError
from fedsparse.sparsity.support import Support


@dataclass(frozen=True)
class _Loaded:
    """What a state changed in one tensor: where, by how much, and what stood there, each (k,)."""

    where: Tensor
    offsets: Tensor
    before: Tensor


class Adapter:
    """Parameters of a network that make up one adapter space: initial values, plus a state, plus what is trained.

    The initial values are the pretrained weights (`delta`), or those that :class:`Injection` gave new modules
    (`lora`, `bottleneck`). Only what a state changes is remembered, so that loading another costs as much as the
    two states have coordinates, and taking it off restores every bit.

    Args:
        network: must not require gradients; one network has one adapter.
        space: its tensors are parameters of ``network``.
        dense: positions of the tensors that every update carries whole.
        injection: what was put into the network for this adapter.

    Raises:
        ModelError: the network has been changed by another adapter.
    """

    def __init__(
        self, network: nn.Module, space: AdapterSpace, dense: Collection[int], injection: Injection
    ) -> None:
        self.network = network
        self.space = space
        self.dense = frozenset(dense)
        self.injection = injection
        self._names = [tensor.name for tensor in space.tensors]
        self._weights = [_contiguous(network.get_parameter(name)) for name in self._names]
        self._flat = [weight.detach().view(-1) for weight in self._weights]  # the same memory, seen as (size,)
        self._loaded: dict[int, _Loaded] = {}
        self._attachment: Attachment | None = None
        self._origins: list[Tensor] = []  # of each part of the attachment, (k,), float32
        self._merged = False

    @property
    def kind(self) -> str:
        """`delta`, `lora` or `bottleneck`."""
        return self.injection.kind

    @torch.no_grad()
    def load(self, state: SparseDelta) -> Self:
        """Make the parameters initial + ``state``, whatever they were: the hot swap; nothing may be attached.

        Args:
            state: operation SET against the initial values; the empty one restores them bit by bit.

        Raises:
            SpaceMismatchError: the state belongs to another space.
            ModelError: a support is attached.
        """
        if state.space != self.space.fingerprint:
            raise SpaceMismatchError(
                f"the state's adapter space is {state.space.hex()[:16]}, "
                f"the model's is {self.space.fingerprint.hex()[:16]}"
            )
        self._require_idle()
        merged = self._merged
        self.unmerge()
        for position, loaded in self._loaded.items():
            self._flat[position][loaded.where] = loaded.before
        self._loaded = {part.tensor: self._apply(part) for part in state.tensors}
        if merged:
            self.merge()
        return self

    def _apply(self, part: TensorDelta) -> _Loaded:
        flat = self._flat[part.tensor]
        where = torch.tensor(part.indices, device=flat.device)
        offsets = torch.tensor(part.values, device=flat.device)
        before = flat[where]
        flat[where] = (before.float() + offsets).to(flat.dtype)
        return _Loaded(where, offsets, before)

    @torch.no_grad()
    def attach(self, support: Support, block: int | None = None) -> Attachment:
        """Start training at the coordinates of ``support``, from the parameters as they are; values start at 0.

        Args:
            block: side of the tiles where the support consists of tiles.

        Raises:
            ModelError: a support is attached already, or the adapter is merged.
        """
        self._require_idle()
        self.unmerge()
        self._attachment = Attachment(self.network, self._names, support, self.dense, block)
        self._origins = [self._exact(part) for part in self._attachment.parts]
        return self._attachment

    @torch.no_grad()
    def move(self, support: Support, block: int | None = None) -> tuple[Attachment, Tensor]:
        """Go on at other coordinates: values of those that stay are kept, others start at 0.

        Returns:
            The new attachment, and for each of its scattered values where it was in the old one, or -1, (k,).
        """
        old = self._require_attached()
        self.push()
        kept = {part.position: (part.where, part.offsets.clone(), part.span.start) for part in old.parts}
        whole = old.whole.detach().clone()
        self._restore()
        new = self.attach(support, block)
        came_from = torch.full((len(new.sparse),), -1, dtype=torch.int64, device=new.sparse.device)
        for part in new.parts:
            if part.values is new.sparse and part.position in kept:
                where, offsets, start = kept[part.position]
                at = torch.searchsorted(where, part.where).clamp(max=len(where) - 1)
                same = where[at] == part.where
                part.offsets[same] = offsets[at[same]]
                came_from[part.span][same] = start + at[same]
        new.whole.copy_(whole)
        self.push()
        return new, came_from

    @torch.no_grad()
    def push(self) -> None:
        """Make the parameters at the support what they were when it was attached, plus the values."""
        for part, origin in zip(self._require_attached().parts, self._origins, strict=True):
            flat = self._flat[part.position]
            flat[part.where] = (origin + part.offsets).to(flat.dtype)

    @torch.no_grad()
    def detach(self) -> SparseDelta:
        """Stop training: take the values off again, bit by bit, and return them as an addition, without zeros.

        Raises:
            DeltaError: training diverged, a value is NaN or infinite; the parameters are restored all the same.
        """
        try:
            return self.trained()
        finally:
            self._restore()

    def trained(self) -> SparseDelta:
        """Return the values as they are, as an addition, without zeros.

        Raises:
            DeltaError: training diverged, a value is NaN or infinite.
        """
        found = []
        for part in self._require_attached().parts:
            values = part.offsets.cpu().numpy()
            if np.any(kept := values != 0):
                found.append(TensorDelta(part.position, part.where.cpu().numpy()[kept], values[kept]))
        return SparseDelta(self.space.fingerprint, Operation.ADD, tuple(found))

    def discard(self) -> None:
        """Stop training and forget the values; without effect where nothing is attached."""
        if self._attachment is not None:
            self._restore()

    @property
    def support(self) -> Support:
        """Per tensor the coordinates in training, (k_t,); none where nothing is attached."""
        found = {part.position: part.where.cpu().numpy() for part in self._parts()}
        return tuple(found.get(i, np.empty(0, np.int64)) for i in range(len(self._names)))

    @property
    def values(self) -> tuple[Tensor, ...]:
        """Per tensor the values in training, (k_t,), as they are."""
        found = {part.position: part.offsets.cpu() for part in self._parts()}
        return tuple(found.get(i, torch.empty(0)) for i in range(len(self._names)))

    @contextmanager
    def watch(
        self, sink: Callable[[int, Tensor], None], positions: Collection[int] | None = None
    ) -> Iterator[None]:
        """Hand each tensor's dense gradient, (size,), to ``sink`` in every backward pass, and free it at once.

        An attached support gets no gradients meanwhile.

        Args:
            sink: gets the tensor's position and gradient.
            positions: of the tensors; all, if left out.
        """
        self.unmerge()
        if self._attachment is not None:
            self._attachment.remove()
        ends = []
        try:
            for position in range(len(self._names)) if positions is None else positions:
                told = _telling(sink, position)
                ends.append(collect_gradient(self._weights[position], told))
            yield
        finally:
            for end in ends:
                end()
            if self._attachment is not None:
                self._attachment.connect()

    def current(self, position: int) -> Tensor:
        """Return the values of one tensor as they are, (size,); not to be changed."""
        return self._flat[position]

    def merge(self) -> None:
        """Fold what was injected into the base's weights, so that inference costs what the base's costs.

        Raises:
            ModelError: this kind of adapter cannot be merged.
        """
        if not self._merged:
            self.injection.merge()
            self._merged = True

    def unmerge(self) -> None:
        """Restore the base's weights bit by bit; without effect where nothing is merged."""
        if self._merged:
            self.injection.unmerge()
            self._merged = False

    def remove(self) -> None:
        """Take the adapter off the network, which is then the untouched base, bit by bit."""
        self.load(SparseDelta.empty(self.space.fingerprint, Operation.SET))
        self.unmerge()
        self.injection.remove()

    def _parts(self) -> tuple[Part, ...]:
        return () if self._attachment is None else self._attachment.parts

    def _exact(self, part: Part) -> Tensor:
        """Return initial value plus state at the part's coordinates in fp32, whatever the weight's precision."""
        exact = self._flat[part.position][part.where].float()
        if (loaded := self._loaded.get(part.position)) is not None:
            at = torch.searchsorted(loaded.where, part.where).clamp(max=len(loaded.where) - 1)
            same = loaded.where[at] == part.where
            exact[same] = loaded.before[at[same]].float() + loaded.offsets[at[same]]
        return exact

    def _restore(self) -> None:
        attachment = self._require_attached()
        attachment.remove()
        for part, origin in zip(attachment.parts, self._origins, strict=True):
            flat = self._flat[part.position]
            flat[part.where] = origin.to(flat.dtype)
        self._attachment, self._origins = None, []

    def _require_attached(self) -> Attachment:
        if self._attachment is None:
            raise ModelError("no support is attached", "Attach one first")
        return self._attachment

    def _require_idle(self) -> None:
        if self._attachment is not None:
            raise ModelError("a support is attached", "Detach it first")


def _telling(sink: Callable[[int, Tensor], None], position: int) -> Callable[[Tensor], None]:
    return lambda gradient: sink(position, gradient)


def _contiguous(weight: nn.Parameter) -> nn.Parameter:
    weight.data = weight.data.contiguous()
    return weight

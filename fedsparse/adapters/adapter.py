"""One adapter on one network: its state, what of it is trained, and how it comes off again."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from fedsparse.adapters.attachment import Attachment, Part, collect_gradient
from fedsparse.adapters.kinds import Injection
from fedsparse.adapters.weights import Offsets, StatefulWeights, find
from fedsparse.delta import AdapterSpace, Operation, SparseDelta, TensorDelta
from fedsparse.errors import ModelError
from fedsparse.sparsity.support import Support


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
    """

    def __init__(
        self, network: nn.Module, space: AdapterSpace, dense: Collection[int], injection: Injection
    ) -> None:
        self.network = network
        self.space = space
        self.dense = frozenset(dense)
        self.injection = injection
        self._weights = StatefulWeights(network, space)
        self._attachment: Attachment | None = None
        self._origins: list[Offsets] = []  # of each part of the attachment
        self._merged = False

    @property
    def kind(self) -> str:
        """`delta`, `lora` or `bottleneck`."""
        return self.injection.kind

    def load(self, state: SparseDelta) -> Self:
        """Make the parameters initial + ``state``, whatever they were: the hot swap; what is merged stays merged.

        Args:
            state: operation SET against the initial values; the empty one restores them bit by bit.

        Raises:
            SpaceMismatchError: the state belongs to another space.
            DeltaError: it is no state, or has coordinates that the space has not.
            ModelError: a support is attached.
        """
        self._weights.require(state)
        self._require_idle()
        merged = self._merged
        self.unmerge()
        self._weights.load(state)
        if merged:
            self.merge()
        return self

    @torch.no_grad()
    def attach(self, support: Support, block: int | None = None) -> Attachment:
        """Start training at the coordinates of ``support``, from the parameters as they are; values start at 0.

        What was merged is unmerged.

        Args:
            block: side of the tiles where the support consists of tiles.

        Raises:
            ModelError: a support is attached already, or something else trains the network's weights.
        """
        self._require_idle()
        self.unmerge()
        names = [tensor.name for tensor in self.space.tensors]
        attachment = Attachment(self.network, names, support, self.dense, block)
        try:
            self._origins = [self._weights.offsets(part.position, part.where) for part in attachment.parts]
        except BaseException:  # such as MemoryError: nothing may stay connected that nobody can detach
            attachment.remove()
            raise
        self._attachment = attachment
        return attachment

    @torch.no_grad()
    def move(self, support: Support, block: int | None = None) -> tuple[Attachment, Tensor]:
        """Go on at other coordinates: values of those that stay are kept, others start at 0.

        Returns:
            The new attachment, and for each of its scattered values where it was in the old one, or -1, (k,).
        """
        kept = {part.position: part for part in self._require_attached().parts}
        self._restore()
        new = self.attach(support, block)
        came_from = torch.full((len(new.sparse),), -1, dtype=torch.int64, device=new.sparse.device)
        for part in new.parts:
            if (old := kept.get(part.position)) is not None:
                same, at = find(old.where, part.where)
                part.offsets[same] = old.offsets[at]
                if part.values is new.sparse:
                    came_from[part.span][same] = old.span.start + at
        self.push()
        return new, came_from

    @torch.no_grad()
    def push(self) -> None:
        """Make the parameters at the support what they were when it was attached, plus the values."""
        for part, origin in zip(self._require_attached().parts, self._origins, strict=True):
            self._weights.flat[part.position][part.where] = origin.shifted(part.offsets)

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
        return tuple(found.get(i, np.empty(0, np.int64)) for i in range(len(self.space.tensors)))

    @property
    def values(self) -> tuple[Tensor, ...]:
        """Per tensor the values in training, (k_t,), as they are."""
        found = {part.position: part.offsets.cpu() for part in self._parts()}
        return tuple(found.get(i, torch.empty(0)) for i in range(len(self.space.tensors)))

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
            for position in range(len(self.space.tensors)) if positions is None else positions:
                name, weight = self.space.tensors[position].name, self._weights.parameters[position]
                ends.append(collect_gradient(name, weight, _telling(sink, position)))
            yield
        finally:
            for end in ends:
                end()
            if self._attachment is not None:
                self._attachment.connect()

    def current(self, position: int) -> Tensor:
        """Return the values of one tensor as they are, (size,); not to be changed."""
        return self._weights.flat[position]

    def merge(self) -> None:
        """Fold what was injected into the base's weights, so that inference costs what the base's costs.

        Raises:
            ModelError: this kind of adapter cannot be merged, or a support is attached.
        """
        self._require_idle()
        if not self._merged:
            self.injection.merge()
            self._merged = True

    def unmerge(self) -> None:
        """Restore the base's weights bit by bit; without effect where nothing is merged."""
        if self._merged:
            self.injection.unmerge()
            self._merged = False

    def remove(self) -> None:
        """Take the adapter off the network, which is then the untouched base, bit by bit.

        Raises:
            ModelError: a support is attached.
        """
        self._require_idle()
        self.unmerge()
        self._weights.load(SparseDelta.empty(self.space.fingerprint, Operation.SET))
        self.injection.remove()

    def _parts(self) -> tuple[Part, ...]:
        return () if self._attachment is None else self._attachment.parts

    def _restore(self) -> None:
        attachment = self._require_attached()
        attachment.remove()
        for part, origin in zip(attachment.parts, self._origins, strict=True):
            self._weights.flat[part.position][part.where] = origin.shifted()
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

"""Reconstruction attempts: images whose gradient points as an update does, and whether they show any that it knew.

After "deep leakage from gradients" (Zhu et al. 2019, https://arxiv.org/abs/1906.08935) in the form of Geiping et
al. 2020 (https://arxiv.org/abs/2003.14053): signed Adam on the cosine between gradients, with total variation held
down. The attacker here is given the labels. A few hundred steps of it are a probe and no proof: what it does not
find, a better attack may.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from numpy.typing import NDArray
from torch import Tensor

from fedsparse.adapters import BaseModel, ImageReader
from fedsparse.errors import DataError
from fedsparse.leakage.gradients import UpdateView
from fedsparse.leakage.intervals import Rate, share
from fedsparse.leakage.membership import LEAST, Membership, measure
from fedsparse.leakage.similarity import roughness, similarity

_RATE = 0.05  # of Adam, per pixel in [0, 1]
_SMOOTH = 0.2  # how much smoothing pulls, against matching
_PERMUTATIONS = 2000


@dataclass(frozen=True)
class Pictures:
    """Labelled images as the base model reads them.

    Attributes:
        pixels: (n, 3, s, s) in [0, 1].
        labels: (n,).
    """

    pixels: Tensor
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Reconstruction:
    """What came of a few attempts.

    Attributes:
        attempts: images that were sought in the update, and as many by themselves.
        steps: of each attempt.
        advantage: how much oftener the image nearest to a found one was trained on than held out, of equally
            many of its class: from -1 to 1, 0 is chance. Nearness is the cosine of what the trained part of the
            network reads, in which attempts succeed long before a person would see it. The interval is what
            chance gives, by permutation, around it.
        evidence: what it tells of membership how near an image is to any that was found; None where the images
            are too few. All images count here and not only the nearest, so its interval is the narrower one.
        looks: structural similarity, from -1 to 1, of each found image to that trained on which it looks most
            like, the mean.
        control: share of known images that are nearer than all held out of their class to what is found in their
            own gradient, one image and one step at the same coordinates: what no update of many images and steps
            comes near.
        control_chance: what guessing would yield of it.
        control_looks: structural similarity of what is found to the known image, the mean.
    """

    attempts: int
    steps: int
    advantage: Rate
    evidence: Membership | None
    looks: float
    control: Rate
    control_chance: float
    control_looks: float

    @property
    def is_telling(self) -> bool:
        """Whether the attack works at all here: without that, its failure on the update means nothing."""
        return self.control.low > self.control_chance


def reconstruct(
    base: BaseModel, view: UpdateView, members: Pictures, others: Pictures, *, attempts: int, steps: int, seed: int
) -> Reconstruction:
    """Seek a few images in an update, and in single images' gradients.

    Args:
        base: whose prefix lies before the view's network.
        view: of the update.
        members: images that were trained on.
        others: images that were not.
        attempts: how many images are sought.
        steps: of each.
        seed: decides which, and where the search starts.

    Raises:
        DataError: no class has members and others, the base model reads no images, or its weights are not float32.
    """
    if not isinstance(base.reader, ImageReader) or not view.is_exact:
        raise DataError("only images are reconstructed, and only where the weights are float32")
    draw = np.random.default_rng(seed)
    members, others = _equal_pools(members, others, draw)
    chosen = np.sort(draw.choice(len(members.labels), min(attempts, len(members.labels)), replace=False))
    labels = torch.from_numpy(members.labels[chosen])
    search, pool = _Search(base, base.reader, view, steps), torch.cat([members.pixels, others.pixels])
    is_member = np.arange(len(pool)) < len(members.labels)
    classes = np.concatenate([members.labels, others.labels])
    of_class = members.labels[chosen][:, None] == classes
    found = search.run(view.direction, labels, draw)
    alone = torch.cat([search.alone(members.pixels[[i]], labels[[n]], draw) for n, i in enumerate(chosen)])
    near, near_alone = (np.where(of_class, search.nearness(one, pool), -np.inf) for one in (found, alone))
    looks, rivals = similarity(found, members.pixels), of_class & ~is_member
    own = near_alone[np.arange(len(chosen)), chosen]
    hits = own > np.where(rivals, near_alone, -np.inf).max(1)
    return Reconstruction(
        len(chosen),
        steps,
        surplus(near.argmax(1), is_member, classes, draw),
        _evidence(near.max(0), is_member),
        float(looks.max(1).mean()),
        share(int(hits.sum()), len(chosen)),
        float((1 / (1 + rivals.sum(1))).mean()),
        float(np.diag(similarity(alone, members.pixels[chosen])).mean()),
    )


def surplus(
    nearest: NDArray[np.int64], is_member: NDArray[np.bool_], classes: NDArray[np.int64], draw: np.random.Generator
) -> Rate:
    """Return how much oftener the nearest candidate is a member than not, beside what chance gives.

    Attempts at one update are not independent: an image near to everything is near to all of them. So chance is
    what happens when membership is dealt anew within each class, and the nearest candidates stay as they are.

    Args:
        nearest: which candidate is nearest to each attempt, (k,).
        is_member: (c,), as many true as false in each class.
        classes: of the candidates, (c,).
    """

    def advantage(membership: NDArray[np.bool_]) -> float:
        return float(2 * membership[nearest].mean() - 1)

    chance = []
    for _ in range(_PERMUTATIONS):
        dealt = is_member.copy()
        for label in np.unique(classes):
            dealt[classes == label] = draw.permutation(is_member[classes == label])
        chance.append(abs(advantage(dealt)))
    value, reach = advantage(is_member), float(np.quantile(chance, 0.95))
    return Rate(value, max(-1.0, value - reach), min(1.0, value + reach))


def _evidence(nearness: NDArray[np.float64], is_member: NDArray[np.bool_]) -> Membership | None:
    counted = np.isfinite(nearness)  # images of classes that were sought
    members, others = nearness[counted & is_member], nearness[counted & ~is_member]
    return measure(members, others) if min(len(members), len(others)) >= LEAST else None


class _Search:
    """The optimisation, the same for an update and for a known image."""

    def __init__(self, base: BaseModel, reader: ImageReader, view: UpdateView, steps: int) -> None:
        self._base = base
        self._reader = reader
        self._view = view
        self._steps = steps

    def alone(self, pixels: Tensor, labels: Tensor, draw: np.random.Generator) -> Tensor:
        """Return what is found in the gradient of known images, given nothing else."""
        with torch.no_grad():
            read = self._read(pixels)
        target = self._view.gradient((read,), labels)
        return self.run(target / target.norm().clamp(min=1e-12), labels, draw)

    def run(self, target: Tensor, labels: Tensor, draw: np.random.Generator) -> Tensor:
        """Return images of the given labels whose common gradient points towards ``target``, (n, 3, s, s)."""
        size = self._reader.size
        noise = torch.from_numpy(draw.normal(0.5, 0.1, (len(labels), 3, size, size)).astype(np.float32))
        pixels = noise.clamp(0, 1).requires_grad_()
        adam = torch.optim.Adam([pixels], lr=_RATE)
        plan = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.1, self._steps)
        for _ in range(self._steps):
            smooth = torch.autograd.grad(roughness(pixels), pixels)[0]
            pixels.grad = (_unit(self._mismatch(pixels, target, labels)) + _SMOOTH * _unit(smooth)).sign()
            adam.step()
            plan.step()
            with torch.no_grad():
                pixels.clamp_(0, 1)
        return pixels.detach()

    @torch.no_grad()
    def nearness(self, one: Tensor, other: Tensor) -> NDArray[np.float64]:
        """Return the cosine between what the network reads of each image and each other, (n, m)."""
        read = [F.normalize(self._read(images).flatten(1).double(), dim=1) for images in (one, other)]
        cosines: NDArray[np.float64] = (read[0] @ read[1].T).numpy()
        return cosines

    def _mismatch(self, pixels: Tensor, target: Tensor, labels: Tensor) -> Tensor:
        """Return the derivative of 1 - cosine by the pixels."""
        read = self._read(pixels)
        gradient = self._view.gradient((read.detach(),), labels)
        length = gradient.norm().clamp(min=1e-12)
        along = gradient / length
        towards = (target - (along @ target) * along) / length
        back = -self._view.pull(read, labels, towards)
        found: Tensor = torch.autograd.grad(read, pixels, back)[0]
        return found

    def _read(self, pixels: Tensor) -> Tensor:
        images = self._reader.normalise(pixels).contiguous(memory_format=torch.channels_last)
        read: Tensor = self._base.prefix(images)
        return read


def _unit(values: Tensor) -> Tensor:
    scaled: Tensor = values / values.norm().clamp(min=1e-12)
    return scaled


def _equal_pools(members: Pictures, others: Pictures, draw: np.random.Generator) -> tuple[Pictures, Pictures]:
    """Return as many members as others of each class: the nearest of more would be nearer."""
    kept: tuple[list[int], list[int]] = [], []
    for label in np.unique(members.labels):
        both = [np.flatnonzero(side.labels == label) for side in (members, others)]
        count = min(map(len, both))
        for side, positions in zip(kept, both, strict=True):
            side += draw.choice(positions, count, replace=False).tolist()
    if not kept[0]:
        raise DataError("no class has images that were trained on and images that were held out")
    mine, theirs = (sorted(side) for side in kept)
    return (
        Pictures(members.pixels[mine], members.labels[mine]),
        Pictures(others.pixels[theirs], others.labels[theirs]),
    )

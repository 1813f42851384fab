"""A whole probe of one update at one site: what the figures are, and whether they are within a limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedsparse.adapters import BaseModel, ImageReader
from fedsparse.delta import SparseDelta
from fedsparse.errors import DataError
from fedsparse.leakage.gradients import UpdateView
from fedsparse.leakage.membership import Membership, measure, others_needed
from fedsparse.leakage.reconstruction import Pictures, Reconstruction, reconstruct
from fedsparse.leakage.scoring import score
from fedsparse.training import LocalTrainer, Samples
from fedsparse.training.images import open_image
from fedsparse.training.local import HELD_OUT, SPLIT_SEED

_Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Probe:
    """What one update tells of the samples behind it.

    Attributes:
        membership: by name of the score, see :data:`fedsparse.leakage.scoring.SCORES`.
        reconstruction: of images, where it was attempted.
        not_attempted: why it was not.
    """

    membership: Mapping[str, Membership]
    reconstruction: Reconstruction | None = None
    not_attempted: str = ""

    @property
    def highest(self) -> float:
        """The upper end of the membership advantage's interval, by the score where it is highest."""
        return max(found.advantage.high for found in self.membership.values())

    def to_json(self) -> dict[str, Any]:
        """Return the figures as JSON has them; what cannot be told says why."""
        return {
            "membership": {name: _told(found) for name, found in self.membership.items()},
            "highest_advantage": self.highest,
            "reconstruction": None if self.reconstruction is None else _attempted(self.reconstruction),
            "reconstruction_not_attempted": self.not_attempted,
        }


def site_samples(trainer: LocalTrainer, most: int | None = None, seed: int = 0) -> tuple[_Positions, _Positions]:
    """Return the positions of samples that the site trains on, and of those that it holds out.

    Args:
        most: of either, drawn at random where there are more.
    """
    draw = np.random.default_rng(seed)
    members, others = trainer.samples.split(HELD_OUT, SPLIT_SEED)
    if most is not None:
        members, others = (np.sort(draw.permutation(part)[:most]) for part in (members, others))
    return members, others


def probe_membership(
    trainer: LocalTrainer, state: SparseDelta, update: SparseDelta, most: int | None = None, seed: int = 0
) -> Probe:
    """Measure what an update tells of membership in the site's training samples; state of the adapter changes.

    Where the site has near-duplicates, some held-out samples are as good as trained on, and less is found.

    Args:
        trainer: whose samples are split as they were in training.
        state: that the update starts from, operation SET.
        update: as it is sent, operation ADD.
        most: samples of either kind, which bounds the time it takes.

    Raises:
        DataError: there are too few samples to tell anything.
        DeltaError: the update changes nothing.
        SpaceMismatchError: state or update belongs to another space.
    """
    members, others = site_samples(trainer, most, seed)
    both = np.concatenate([members, others])
    scores = score(trainer.adapter, state, update, trainer.inputs.take(both), trainer.samples.labels[both])
    return Probe({name: measure(one[: len(members)], one[len(members) :], seed) for name, one in scores.items()})


def probe_images(
    base: BaseModel,
    trainer: LocalTrainer,
    state: SparseDelta,
    update: SparseDelta,
    *,
    attempts: int,
    steps: int,
    most: int | None = None,
    seed: int = 0,
) -> Reconstruction:
    """Attempt to reconstruct training images from an update; the adapter's state changes.

    Raises:
        DataError: the site's samples are no images, or none of one class is held out.
        DeltaError: the update changes nothing.
        SpaceMismatchError: state or update belongs to another space.
    """
    members, others = site_samples(trainer, most, seed)
    view = UpdateView(trainer.adapter, state, update)
    pictures = (pictures_of(base, trainer.samples, part) for part in (members, others))
    return reconstruct(base, view, *pictures, attempts=attempts, steps=steps, seed=seed)


def pictures_of(base: BaseModel, samples: object, positions: _Positions) -> Pictures:
    """Return some of a site's images as the base model reads them.

    Raises:
        DataError: they are no images, or have changed since they were checked.
    """
    if not isinstance(samples, Samples) or not isinstance(base.reader, ImageReader):
        raise DataError("only images are reconstructed, texts are not attempted")
    read = [base.reader.pixels(open_image(samples.read(int(i)))) for i in positions]
    return Pictures(torch.stack(read), samples.labels[positions])


def _told(found: Membership) -> dict[str, Any]:
    told = asdict(found)
    told["found"] = {
        f"{rate:g}": asdict(one)
        if one is not None
        else {"cannot_tell": f"{found.others} samples held out, {others_needed(rate)} are needed"}
        for rate, one in found.found.items()
    }
    return told


def _attempted(found: Reconstruction) -> dict[str, Any]:
    told = asdict(found)
    told["evidence"] = None if found.evidence is None else _told(found.evidence)
    if not found.is_telling:
        told["cannot_tell"] = "the attack finds not even single known images here, so its failure means nothing"
    return told

"""The problems that federations are benchmarked on, and draws of plants that are unlike one another."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fedsparse import config
from fedsparse.adapters import Adapter, build_adapter, load_base
from fedsparse.cli.demo_site import CLASSES, read_cells, write_manifest
from fedsparse.training import Evaluator, Inputs, LocalTrainer, cached_features, load_samples, prepare
from fedsparse.training.partition import dirichlet_shares, hold_out, partition
from fedsparse.training.samples import Labelled, Texts

TEST_SHARE, TEST_SEED = 0.25, 7
_DRAWS = 1000
_SMALLEST = 12  # samples of a plant of many

ORDERS = Path("../shared/data/fmc-mwo2kg")
"""Where the maintenance work orders are expected; --texts names another folder."""

Name = Literal["images", "texts"]


@dataclass(frozen=True)
class Bench:
    """A problem's samples, split into what plants share out among themselves and the test set, and its adapter.

    Attributes:
        adapter: on the base model.
        samples: all.
        inputs: what the network reads of them.
        strata: what a draw of plants splits alike or unlike, of each sample.
        rest: positions that plants train on.
        test: positions of the common test set.
        least: samples of each class that a plant must have.
    """

    adapter: Adapter
    samples: Labelled
    inputs: Inputs
    strata: Sequence[Hashable]
    rest: NDArray[np.int64]
    test: NDArray[np.int64]
    least: int

    def trainer(self, positions: NDArray[np.int64]) -> LocalTrainer:
        """Return a plant's trainer on some of the samples."""
        return LocalTrainer(self.adapter, self.samples.subset(positions), self.inputs.take(positions))

    def evaluator(self) -> Evaluator:
        """Return an evaluator on the test set."""
        return Evaluator(self.adapter, self.samples.labels[self.test], self.inputs.take(self.test))

    def digest(self) -> str:
        """Return the SHA-256 of all samples and their labels, hex."""
        told = "".join(f"{d}{label}\n" for d, label in zip(self.samples.digests, self.samples.labels, strict=True))
        return hashlib.sha256(told.encode()).hexdigest()

    def tuning(self) -> Bench:
        """Return the same without the test set: a part of the rest is tested on instead."""
        rest, held = hold_out([self.strata[i] for i in self.rest], TEST_SHARE, TEST_SEED)
        return replace(self, rest=self.rest[rest], test=self.rest[held])

    def share(self, share: float) -> Bench:
        """Return the same with only a share of what plants train on, of each stratum."""
        _, kept = hold_out([self.strata[i] for i in self.rest], share, TEST_SEED + 1)
        return replace(self, rest=self.rest[kept])

    def many_plants(self, count: int, alpha: float, seed: int, least: int) -> list[NDArray[np.int64]]:
        """Draw the samples of unlike plants, which may be many and small; they depend on the seed alone.

        A plant that draws less than 12 samples, or less than ``least`` of a second class, gets what it lacks from
        those that have most.
        """
        strata = [self.strata[i] for i in self.rest]
        parts = partition(strata, dirichlet_shares(strata, count, alpha, seed), seed)
        labels = self.samples.labels[self.rest]
        filled = fill_up(parts, labels, len(self.samples.classes), least)
        return [self.rest[np.array(sorted(part), np.int64)] for part in filled]

    def plants(self, count: int, alpha: float, seed: int) -> list[NDArray[np.int64]]:
        """Draw the samples of unlike plants; they depend on the seed alone.

        Args:
            alpha: concentration of the Dirichlet draw, over classes and whatever else the strata tell apart.
        """
        strata = [self.strata[i] for i in self.rest]
        for attempt in range(_DRAWS):
            parts = partition(strata, dirichlet_shares(strata, count, alpha, _DRAWS * seed + attempt), seed)
            plants = [self.rest[np.array(part, np.int64)] for part in parts]
            if all(self._is_enough(plant) for plant in plants):
                return plants
        least = f"{self.least} samples of each class" if self.least else "samples of two classes"
        raise SystemExit(f"no draw at alpha {alpha} gives every plant {least}")

    def _is_enough(self, plant: NDArray[np.int64]) -> bool:
        counts = np.bincount(self.samples.labels[plant], minlength=len(self.samples.classes))
        if self.least:
            return bool(counts.min() >= self.least)
        return np.count_nonzero(counts) > 1


def fill_up(
    parts: Sequence[Sequence[int]], labels: NDArray[np.int64], classes: int, least: int
) -> list[list[int]]:
    """Move samples, one at a time, until each part has 12, and ``least`` of each of two classes.

    Args:
        parts: positions in ``labels``.

    Raises:
        SystemExit: there are too few.
    """
    filled = [list(part) for part in parts]
    counts = np.stack([np.bincount(labels[part], minlength=classes) for part in filled])
    overall = counts.sum(0)
    for mine in range(len(filled)):
        while True:
            first, second, *others = sorted(range(classes), key=lambda k: (-counts[mine, k], -overall[k], k))
            lacking = counts[mine, second] < least
            if not lacking and counts[mine].sum() >= _SMALLEST:
                break
            wanted = (second, *others) if lacking else (first, second, *others)
            giver, label = _giver(counts, mine, wanted, least)
            moved = max(i for i in filled[giver] if labels[i] == label)
            filled[giver].remove(moved)
            filled[mine].append(moved)
            counts[giver, label] -= 1
            counts[mine, label] += 1
    return filled


def _giver(counts: NDArray[np.int64], mine: int, wanted: Sequence[int], least: int) -> tuple[int, int]:
    """Return who has most of the first wanted class that somebody can spare a sample of, and that class."""
    for label in wanted:
        for giver in np.argsort(-counts[:, label], kind="stable").tolist():
            if giver != mine and counts[giver].sum() > 2 * _SMALLEST and counts[giver, label] > least:
                return giver, label
    raise SystemExit(f"there are too few samples for {len(counts)} plants")


def images(folder: Path, spec: config.AdapterSettings) -> Bench:
    """Return the solar cells; strata are class and cell type.

    Args:
        folder: where the frozen prefix's activations are kept.
    """
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    cells = read_cells()
    if not (folder / "cells.csv").exists():
        write_manifest(folder / "cells.csv", cells)
    samples = load_samples(folder / "cells.csv", CLASSES)
    by_path = {cell.path: cell for cell in cells}
    strata = [(by_path[path].label, by_path[path].kind) for path in samples.paths]
    base = load_base(config.BaseModelSettings(), spec, CLASSES, "image-classification")
    rest, test = (np.array(part) for part in hold_out(strata, TEST_SHARE, TEST_SEED))
    inputs = cached_features(base, samples, folder, config.AugmentationSettings())
    return Bench(build_adapter(base, spec), samples, inputs, strata, rest, test, least=16)


def texts(
    orders: Path,
    spec: config.AdapterSettings,
    model: config.BaseModelSettings = config.BaseModelSettings(model="minilm"),  # noqa: B008 - frozen
) -> Bench:
    """Return the work orders; plants share the published training set, strata are the classes.

    Args:
        orders: their folder.
    """
    torch.set_num_threads(1)
    found: dict[str, tuple[str, str, bool]] = {}
    for part in ("train", "dev", "test"):
        for line in (orders / f"{part}.txt").read_text(encoding="utf-8").splitlines():
            if line.strip():
                text, label = line.strip().rsplit(",", 1)
                found.setdefault(hashlib.sha256(text.encode()).hexdigest(), (text, label, part == "train"))
    digests = tuple(sorted(found))
    rows = [found[digest] for digest in digests]
    classes = tuple(sorted({label for _, label, _ in rows}))
    labels = np.array([classes.index(label) for _, label, _ in rows])
    samples = Texts(tuple(text for text, _, _ in rows), labels, digests, classes)
    base = load_base(model, spec, classes, "text-classification")
    trained = np.array([part for _, _, part in rows])
    inputs = prepare(base, samples, Path("unused"), None)
    rest, test = np.flatnonzero(trained), np.flatnonzero(~trained)
    return Bench(build_adapter(base, spec), samples, inputs, labels.tolist(), rest, test, least=0)

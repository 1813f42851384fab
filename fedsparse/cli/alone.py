"""One plant of the demo by itself: the same engine and budget, without a federation. Writes alone.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from fedsparse import config
from fedsparse.adapters import build_adapter, load_base
from fedsparse.errors import FedsparseError
from fedsparse.files import write_atomic
from fedsparse.training import Evaluator, LocalTrainer, load_labelled, prepare, train_alone


def main(site: Path, federation: Path) -> None:
    """Train the plant of ``site`` alone and write its balanced accuracy on the common test set, by round."""
    plant = config.load(site, config.SiteConfig)
    settings = config.load(federation, config.FederationConfig)
    if settings.evaluation is None:
        raise FedsparseError("the federation has no test set", "Set evaluation.path")
    classes = settings.federation.classes
    task = settings.federation.task
    base = load_base(settings.base, settings.adapter, classes, task)
    adapter = build_adapter(base, settings.adapter)
    torch.set_num_threads(plant.trainer.threads)
    test = load_labelled(settings.evaluation, task, classes)
    evaluator = Evaluator(adapter, test.labels, prepare(base, test, settings.state / "features", None))
    samples = load_labelled(plant.data, task, classes)
    inputs = prepare(base, samples, plant.state / "trainer", plant.augmentation)
    trainer = LocalTrainer(adapter, samples, inputs, plant.augmentation)
    qualities = train_alone(trainer, settings.training.schedule(settings.rounds.count), evaluator)
    scores = [round(quality.balanced_accuracy, 6) for quality in qualities]
    write_atomic(site.parent / "alone.json", json.dumps(scores).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

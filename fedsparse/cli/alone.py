"""One plant of the demo by itself: the same engine and budget, without a federation. Writes alone.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from fedsparse import config
from fedsparse.adapters import DeltaAdapter, build_space, dense_tensors, load_base
from fedsparse.delta import TrainingSettings
from fedsparse.errors import FedsparseError
from fedsparse.files import write_atomic
from fedsparse.training import FLIPS, Evaluator, LocalTrainer, cached_features, load_samples, train_alone


def main(site: Path, federation: Path) -> None:
    """Train the plant of ``site`` alone and write its balanced accuracy on the common test set, by round."""
    plant = config.load(site, config.SiteConfig)
    settings = config.load(federation, config.FederationConfig)
    if settings.evaluation is None:
        raise FedsparseError("the federation has no test set", "Set evaluation.path")
    classes = settings.federation.classes
    base = load_base(settings.base.model, settings.adapter, classes)
    space = build_space(base, settings.adapter)
    torch.set_num_threads(plant.trainer.threads)
    test = load_samples(settings.evaluation.path, classes)
    adapter = DeltaAdapter(base.suffix, space)
    evaluator = Evaluator(adapter, test.labels, cached_features(base, test, settings.state / "features", 1))
    samples = load_samples(plant.data.path, classes)
    features = cached_features(base, samples, plant.state / "trainer", len(FLIPS))
    trainer = LocalTrainer(adapter, dense_tensors(space, settings.adapter), samples, features)
    training = TrainingSettings(**settings.training.model_dump())
    qualities = train_alone(trainer, training, settings.rounds.count, evaluator)
    scores = [round(quality.balanced_accuracy, 6) for quality in qualities]
    write_atomic(site.parent / "alone.json", json.dumps(scores).encode())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

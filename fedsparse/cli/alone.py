"""One plant of the demo by itself: the same engine and budget, without a federation. Writes alone.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from fedsparse import config
from fedsparse.adapters import build_space, load_base
from fedsparse.errors import FedsparseError
from fedsparse.training import Evaluator, load_samples, train_alone


def main(site: Path, federation: Path) -> None:
    """Train the plant of ``site`` alone and write its balanced accuracy on the common test set, by round."""
    plant = config.load(site, config.SiteConfig)
    settings = config.load(federation, config.FederationConfig)
    if settings.evaluation is None:
        raise FedsparseError("the federation has no test set", "Set evaluation.path")
    classes = settings.federation.classes
    base = load_base(settings.base.model, settings.adapter, classes)
    space = build_space(base, settings.adapter)
    test = load_samples(settings.evaluation.path, classes)
    evaluator = Evaluator(base, space, settings.adapter, test, settings.state / "features")
    qualities = train_alone(
        base,
        space,
        settings.adapter,
        load_samples(plant.data.path, classes),
        plant.state / "trainer",
        settings.training,
        settings.rounds.count,
        evaluator,
        threads=plant.trainer.threads,
    )
    target = site.parent / "alone.json"
    scratch = target.with_suffix(".tmp")
    scratch.write_text(json.dumps([round(quality.balanced_accuracy, 6) for quality in qualities]))
    scratch.replace(target)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""How it learns: a site's data, the training of one sparse delta, and what the result is worth (needs torch)."""

from fedsparse.training.alone import train_alone
from fedsparse.training.data import Samples, load_samples
from fedsparse.training.evaluator import Evaluator
from fedsparse.training.features import FLIPS, Features, cached_features
from fedsparse.training.local import LocalTrainer, Trained
from fedsparse.training.metrics import Quality, measure

__all__ = [
    "FLIPS",
    "Evaluator",
    "Features",
    "LocalTrainer",
    "Quality",
    "Samples",
    "Trained",
    "cached_features",
    "load_samples",
    "measure",
    "train_alone",
]

"""How it learns: a site's data, the training of one sparse delta, and what the result is worth (needs torch)."""

from fedsparse.training.alone import train_alone
from fedsparse.training.checks import DataReport, NearDuplicate, report
from fedsparse.training.engine import train
from fedsparse.training.evaluator import Evaluator
from fedsparse.training.features import Features, cached_features
from fedsparse.training.inputs import Inputs, Part, Tokens, prepare
from fedsparse.training.language import LanguageModelling, LanguageQuality
from fedsparse.training.loading import load_samples, load_texts
from fedsparse.training.local import LocalTrainer, Trained, round_stage
from fedsparse.training.machine import Machine, set_up
from fedsparse.training.metrics import Quality, intervals, measure
from fedsparse.training.opening import load_labelled
from fedsparse.training.outcome import Epoch, Outcome, Selection, StageEnd
from fedsparse.training.samples import Labelled, Samples, Texts
from fedsparse.training.stages import require_feasible
from fedsparse.training.tasks import Classification, ClassificationExam

__all__ = [
    "Classification",
    "ClassificationExam",
    "DataReport",
    "Epoch",
    "Evaluator",
    "Features",
    "Inputs",
    "Labelled",
    "LanguageModelling",
    "LanguageQuality",
    "LocalTrainer",
    "Machine",
    "NearDuplicate",
    "Outcome",
    "Part",
    "Quality",
    "Samples",
    "Selection",
    "StageEnd",
    "Texts",
    "Tokens",
    "Trained",
    "cached_features",
    "intervals",
    "load_labelled",
    "load_samples",
    "load_texts",
    "measure",
    "prepare",
    "report",
    "require_feasible",
    "round_stage",
    "set_up",
    "train",
    "train_alone",
]

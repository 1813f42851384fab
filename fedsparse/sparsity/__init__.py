"""Which coordinates are trained: scores on local data, and the support chosen by them (needs torch)."""

from fedsparse.sparsity.proximal import soft_threshold_
from fedsparse.sparsity.regrow import drop_and_grow, drop_fraction, keep_largest
from fedsparse.sparsity.schedule import cubic_density
from fedsparse.sparsity.scores import (
    SCORES,
    Loss,
    Score,
    Watched,
    fisher,
    gradient_magnitude,
    magnitude,
    movement,
    score_in_groups,
    snip,
)
from fedsparse.sparsity.sources import seeded_support, support_of
from fedsparse.sparsity.structure import Structure, structured_rows, structured_tiles
from fedsparse.sparsity.support import Allocation, Scores, Support, choose_support, sparse_budget

__all__ = [
    "SCORES",
    "Allocation",
    "Loss",
    "Score",
    "Scores",
    "Structure",
    "Support",
    "Watched",
    "choose_support",
    "cubic_density",
    "drop_and_grow",
    "drop_fraction",
    "fisher",
    "gradient_magnitude",
    "keep_largest",
    "magnitude",
    "movement",
    "score_in_groups",
    "seeded_support",
    "snip",
    "soft_threshold_",
    "sparse_budget",
    "structured_rows",
    "structured_tiles",
    "support_of",
]

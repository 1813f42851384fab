"""Which coordinates are trained: scores on local data, and the support chosen by them (needs torch)."""

from fedsparse.sparsity.scores import Loss, Score, gradient_magnitude
from fedsparse.sparsity.support import choose_support, sparse_budget

__all__ = ["Loss", "Score", "choose_support", "gradient_magnitude", "sparse_budget"]

"""How it merges: mask-aware averaging of sparse updates."""

from fedsparse.aggregation.accumulator import Accumulator
from fedsparse.aggregation.admission import Admitted, admit, admit_update
from fedsparse.aggregation.agreement import Agreement
from fedsparse.aggregation.holders import Holders, Part
from fedsparse.aggregation.lateness import Asked, Lateness
from fedsparse.aggregation.merging import merge_tensor
from fedsparse.aggregation.policy import Policy, Weighing, by_plant, by_samples, capped
from fedsparse.aggregation.review import Limits, Quarantine, Standing
from fedsparse.aggregation.rules import (
    Mean,
    Rule,
    SignElected,
    TrimmedMean,
    holders_mean,
    rule_named,
    shrunk,
    zero_fill,
)
from fedsparse.aggregation.server import Memory, Server, Step, voted

__all__ = [
    "Accumulator",
    "Admitted",
    "Agreement",
    "Asked",
    "Holders",
    "Lateness",
    "Limits",
    "Mean",
    "Memory",
    "Part",
    "Policy",
    "Quarantine",
    "Rule",
    "Server",
    "SignElected",
    "Standing",
    "Step",
    "TrimmedMean",
    "Weighing",
    "admit",
    "admit_update",
    "by_plant",
    "by_samples",
    "capped",
    "holders_mean",
    "merge_tensor",
    "rule_named",
    "shrunk",
    "voted",
    "zero_fill",
]

"""How it merges: mask-aware averaging of sparse updates."""

from fedsparse.aggregation.accumulator import Accumulator
from fedsparse.aggregation.admission import Admitted, admit
from fedsparse.aggregation.rules import Rule, holders_mean, rule_named, shrunk, zero_fill

__all__ = ["Accumulator", "Admitted", "Rule", "admit", "holders_mean", "rule_named", "shrunk", "zero_fill"]

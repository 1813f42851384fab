"""What may leave: deny by default, one rule identifier per refusal."""

from fedsparse.audit.policy.canonical import canonical_bytes, parse_policy
from fedsparse.audit.policy.changes import Change, Effect, changes_between
from fedsparse.audit.policy.outgoing import DeltaFacts, Outgoing, outgoing_update
from fedsparse.audit.policy.policy import EgressPolicy
from fedsparse.audit.policy.rehearsal import Rehearsal, Rehearsed, rehearse
from fedsparse.audit.policy.rules import RULES, Refusal
from fedsparse.audit.policy.usage import Spent, Usage
from fedsparse.audit.policy.words import explain, explain_change

__all__ = [
    "RULES",
    "Change",
    "DeltaFacts",
    "Effect",
    "EgressPolicy",
    "Outgoing",
    "Refusal",
    "Rehearsal",
    "Rehearsed",
    "Spent",
    "Usage",
    "canonical_bytes",
    "changes_between",
    "explain",
    "explain_change",
    "outgoing_update",
    "parse_policy",
    "rehearse",
]

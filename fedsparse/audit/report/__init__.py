"""What left a site, on one page: for the auditor, and for the plant manager who signs for it."""

from fedsparse.audit.report.explain import explain
from fedsparse.audit.report.gathering import Gathered, Sources, gather
from fedsparse.audit.report.page import render
from fedsparse.audit.report.site_facts import SiteFacts, read_facts
from fedsparse.audit.report.words import Lang, Pair

__all__ = ["Gathered", "Lang", "Pair", "SiteFacts", "Sources", "explain", "gather", "read_facts", "render"]

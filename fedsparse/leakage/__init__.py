"""What an update tells of the samples behind it, measured at the site before it leaves (needs torch)."""

from fedsparse.leakage.gradients import UpdateView
from fedsparse.leakage.intervals import Rate
from fedsparse.leakage.membership import FALSE_ALARMS, LEAST, Membership, measure, others_needed
from fedsparse.leakage.probe import Probe, pictures_of, probe_images, probe_membership
from fedsparse.leakage.reconstruction import Pictures, Reconstruction, reconstruct
from fedsparse.leakage.scoring import SCORES, score

__all__ = [
    "FALSE_ALARMS",
    "LEAST",
    "SCORES",
    "Membership",
    "Pictures",
    "Probe",
    "Rate",
    "Reconstruction",
    "UpdateView",
    "measure",
    "others_needed",
    "pictures_of",
    "probe_images",
    "probe_membership",
    "reconstruct",
    "score",
]

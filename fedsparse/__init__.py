"""Federated, on-prem fine-tuning: only sparse adapter deltas leave a plant."""

__version__ = "0.1.0"

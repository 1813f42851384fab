"""Rounds that do nothing."""

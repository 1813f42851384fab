"""`delta`: ΔW on a support of frozen weights; nothing is put into the network.

After SHiRA (https://arxiv.org/abs/2406.13175) and LT-SFT (https://arxiv.org/abs/2110.07560).
"""

from __future__ import annotations


class DeltaInjection:
    """The weights themselves are the space.

    Args:
        names: of the weights.
    """

    kind = "delta"

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def merge(self) -> None:
        """Do nothing: the values are in the weights already."""

    def unmerge(self) -> None:
        """Do nothing."""

    def remove(self) -> None:
        """Do nothing."""

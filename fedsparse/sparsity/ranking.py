"""Ranking: the best units of a stream, exactly, without keeping or sorting the stream.

Everywhere the higher rank wins and ties go to the lower key, so that a choice depends on nothing but its input.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ranks = NDArray[Any]
"""What units are ranked by, larger is better, of any type of number but NaN, (n,)."""

Keys = NDArray[np.int64]
"""What names a unit in a ranking, (n,)."""


def highest(ranks: Ranks, keys: Keys, count: int) -> NDArray[np.int64]:
    """Return where the ``count`` highest ranks are, in no order; ties go to the lower key."""
    if count >= len(ranks):
        return np.arange(len(ranks))
    if count <= 0:
        return np.arange(0)
    threshold = np.partition(ranks, -count)[-count]
    above = np.flatnonzero(ranks > threshold)
    ties = np.flatnonzero(ranks == threshold)
    missing = count - len(above)
    if missing < len(ties):
        ties = ties[np.argpartition(keys[ties], missing - 1)[:missing]]
    return np.concatenate([above, ties])


class Best:
    """The ``capacity`` highest-ranked units among those offered so far.

    Holds at most twice as many between offers: selecting only when that is exceeded keeps the cost of an offer
    proportional to its own length.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._ranks: list[Ranks] = []
        self._keys: list[Keys] = []
        self._floor: np.number[Any] | None = None  # the lowest rank held, once there is no room for a lower one

    def offer(self, ranks: Ranks, keys: Keys) -> None:
        """Consider units; a key is offered once."""
        if self._capacity == 0:
            return
        if self._floor is not None:
            promising = np.flatnonzero(ranks >= self._floor)
            ranks, keys = ranks[promising], keys[promising]
        self._ranks.append(ranks)
        self._keys.append(keys)
        if sum(map(len, self._keys)) > 2 * self._capacity:
            self.held()

    def held(self) -> tuple[Ranks, Keys]:
        """Return the best units' ranks and keys, (at most capacity,), in no order."""
        if not self._keys:
            return np.empty(0), np.empty(0, np.int64)
        ranks, keys = np.concatenate(self._ranks), np.concatenate(self._keys)
        if len(keys) >= self._capacity:
            best = highest(ranks, keys, self._capacity)
            ranks, keys = ranks[best], keys[best]
            self._floor = ranks.min()
        self._ranks, self._keys = [ranks], [keys]
        return ranks, keys


class Shelf:
    """What fits into ``room`` coordinates: from the best unit down, every unit that still fits.

    Of the units of one size a prefix of their own ranking is taken (once one does not fit, no later one does), so
    only the best ``room // size`` of each size are kept.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._by_size: dict[int, Best] = {}

    def offer(self, size: int, ranks: Ranks, keys: Keys) -> None:
        """Consider units of ``size`` coordinates each."""
        self._by_size.setdefault(size, Best(self._room // size)).offer(ranks, keys)

    def take(self, room: int) -> Keys:
        """Return the keys of what fits into ``room`` coordinates, at most the room it was made for, increasing."""
        if not self._by_size:
            return np.empty(0, np.int64)
        held = {size: best.held() for size, best in self._by_size.items()}
        sizes = np.repeat([*held], [len(keys) for _, keys in held.values()])
        keys = np.concatenate([keys for _, keys in held.values()])
        if sizes.sum() > room:
            ranks = np.concatenate([ranks for ranks, keys in held.values() if len(keys)])
            order = np.lexsort((-keys, ranks))[::-1]
            keys = _fitting(keys[order], sizes[order], room)
        return np.sort(keys)


def _fitting(keys: Keys, sizes: NDArray[np.int64], room: int) -> Keys:
    """Return the keys of the units that fit one after another, passing over those that do not."""
    fitting = []
    while len(keys):
        used = np.cumsum(sizes)
        count = int(np.searchsorted(used, room, side="right"))
        fitting.append(keys[:count])
        room -= int(used[count - 1]) if count else 0
        small = sizes[count:] <= room  # leaves out the first that did not fit, and with it all of its size
        keys, sizes = keys[count:][small], sizes[count:][small]
    return np.concatenate(fitting)

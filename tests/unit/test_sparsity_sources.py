from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import numpy as np
import pytest

from fedsparse.delta import AdapterSpace, TensorSpec
from fedsparse.errors import ConfigError
from fedsparse.sparsity import seeded_support

SPACE = AdapterSpace(bytes(32), (TensorSpec("a", (6, 5)), TensorSpec("head", (2,)), TensorSpec("b", (4, 3, 3))))
WORD = (1 << 64) - 1
GOLDEN = [[10, 13], [0, 1], [3, 7, 17, 21, 23, 29]]  # seed 42, density 0.15


def _philox(key: tuple[int, int]) -> Iterator[int]:
    """Philox4x64-10 as in Salmon et al. 2011, figure 1 and table 2, from the counter 1 on."""
    counter = 0
    while True:
        counter += 1
        (a, b, c, d), (k0, k1) = (counter, 0, 0, 0), key
        for _ in range(10):
            low, high = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
            a, b, c, d = (high >> 64) ^ b ^ k0, high & WORD, (low >> 64) ^ d ^ k1, low & WORD
            k0, k1 = (k0 + 0x9E3779B97F4A7C15) & WORD, (k1 + 0xBB67AE8584CAA73B) & WORD
        yield from (a, b, c, d)


def _documented(seed: int, count: int) -> list[list[int]]:
    """The construction in the docstring, in plain Python, for coordinates of the sparse tensors 0 and 2."""
    ranked = []
    for position in (0, 2):
        message = b"fedsparse seeded support 1\x00" + seed.to_bytes(8, "big") + SPACE.fingerprint
        key = sha256(message + position.to_bytes(4, "big")).digest()
        stream = _philox((int.from_bytes(key[:8], "little"), int.from_bytes(key[8:16], "little")))
        ranked += [(-next(stream), position, index) for index in range(SPACE.tensors[position].size)]
    chosen = sorted(ranked)[:count]
    return [sorted(index for _, p, index in chosen if p == position) for position in (0, 2)]


@pytest.mark.parametrize("seed", [0, 7, WORD])
def test_the_seeded_support_follows_its_documented_construction(seed: int) -> None:
    chosen = seeded_support(SPACE, 0.3, {1}, seed)
    assert [chosen[0].tolist(), chosen[2].tolist()] == _documented(seed, int(0.3 * SPACE.size) - 2)
    assert chosen[1].tolist() == [0, 1]


def test_the_seeded_support_never_changes() -> None:
    assert [part.tolist() for part in seeded_support(SPACE, 0.15, {1}, 42)] == GOLDEN


def test_another_seed_or_another_space_gives_another_support() -> None:
    other = AdapterSpace(bytes([1] * 32), SPACE.tensors)
    supports = [
        seeded_support(SPACE, 0.3, {1}, 1),
        seeded_support(SPACE, 0.3, {1}, 2),
        seeded_support(other, 0.3, {1}, 1),
    ]
    assert len({tuple(part.tobytes() for part in support) for support in supports}) == 3


def test_every_coordinate_is_drawn_equally_often() -> None:
    space = AdapterSpace(bytes(32), (TensorSpec("a", (10, 10)), TensorSpec("b", (60,))))
    drawn = np.zeros(160)
    for seed in range(400):
        support = seeded_support(space, 0.25, (), seed)
        drawn[support[0]] += 1
        drawn[support[1] + 100] += 1
    assert abs(drawn[:100].mean() - 100) < 1.5
    assert drawn.std() == pytest.approx((400 * 0.25 * 0.75) ** 0.5, rel=0.2)


@pytest.mark.parametrize("seed", [-1, 1 << 64])
def test_a_seed_of_more_than_eight_bytes_is_refused(seed: int) -> None:
    with pytest.raises(ConfigError, match=r"seed .* is out of range"):
        seeded_support(SPACE, 0.3, {1}, seed)

"""The Merkle tree of RFC 6962, section 2.1: roots, and proofs that are short.

A tree is kept as the hashes of its complete subtrees: (level, index) is the subtree over the leaves from
``index * 2**level`` up to, but not including, ``(index + 1) * 2**level``. Once complete, they never change.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from hashlib import sha256

HASH_BYTES = 32
EMPTY_ROOT = sha256(b"").digest()
Nodes = Callable[[int, int], bytes]
"""Returns the hash of a complete subtree, by level and index."""


def leaf_hash(leaf: bytes) -> bytes:
    """Return SHA-256(0x00 || leaf)."""
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def completed(nodes: Nodes, size: int, leaf: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield the subtrees that become complete when a leaf joins a tree of ``size``, from the leaf upwards.

    Args:
        nodes: of the tree before.
        size: leaves before.
        leaf: the new leaf's hash.
    """
    level, index, digest = 0, size, leaf
    yield level, index, digest
    while index % 2:
        digest = node_hash(nodes(level, index - 1), digest)
        level, index = level + 1, index // 2
        yield level, index, digest


def root(nodes: Nodes, size: int) -> bytes:
    """Return the Merkle tree hash over the first ``size`` leaves."""
    return _subtree(nodes, 0, size) if size else EMPTY_ROOT


def tree_over(leaves: Iterable[bytes]) -> dict[tuple[int, int], bytes]:
    """Return the hashes of all complete subtrees over leaves of these hashes, by level and index."""
    tree: dict[tuple[int, int], bytes] = {}
    for size, leaf in enumerate(leaves):
        for level, index, digest in completed(lambda *place: tree[place], size, leaf):
            tree[level, index] = digest
    return tree


def roots_at(leaves: Iterable[bytes], sizes: Container[int]) -> dict[int, bytes]:
    """Return the roots over the first so many leaves, for those ``sizes`` that there are.

    Args:
        leaves: their hashes.
    """
    peaks: list[bytes] = []
    found = {0: EMPTY_ROOT} if 0 in sizes else {}
    for size, leaf in enumerate(leaves, start=1):
        digest, rest = leaf, size
        while rest % 2 == 0:
            digest = sha256(b"\x01" + peaks.pop() + digest).digest()
            rest //= 2
        peaks.append(digest)
        if size in sizes:
            found[size] = _bag(peaks)
    return found


def inclusion_proof(nodes: Nodes, index: int, size: int) -> list[bytes]:
    """Return the audit path of leaf ``index``, from 0, in the tree over ``size`` leaves.

    Raises:
        ValueError: there is no such leaf.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    begin, end, path = 0, size, []
    while end - begin > 1:
        middle = begin + _split(end - begin)
        if index < middle:
            path.append(_subtree(nodes, middle, end))
            end = middle
        else:
            path.append(_subtree(nodes, begin, middle))
            begin = middle
    return path[::-1]


def consistency_proof(nodes: Nodes, old: int, new: int) -> list[bytes]:
    """Return the proof that the tree over ``new`` leaves continues that over the first ``old``; empty from 0.

    Raises:
        ValueError: ``old`` is larger than ``new``.
    """
    if not 0 <= old <= new:
        raise ValueError(f"a tree of {new} does not continue one of {old}")
    if old in (0, new):
        return []
    begin, end, whole, proof = 0, new, True, []
    while old != end:
        middle = begin + _split(end - begin)
        if old <= middle:
            proof.append(_subtree(nodes, middle, end))
            end = middle
        else:
            proof.append(_subtree(nodes, begin, middle))
            begin, whole = middle, False
    if not whole:
        proof.append(_subtree(nodes, begin, end))
    return proof[::-1]


def includes(leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected_root: bytes) -> bool:
    """Tell whether ``proof`` shows that the leaf with this hash is number ``index``, from 0, under a root."""
    if not 0 <= index < size or any(len(one) != HASH_BYTES for one in proof):
        return False
    digest, last, rest = leaf, size - 1, list(proof)
    while last:
        if index % 2:
            if not rest:
                return False
            digest = node_hash(rest.pop(0), digest)
        elif index < last:
            if not rest:
                return False
            digest = node_hash(digest, rest.pop(0))
        index, last = index // 2, last // 2
    return not rest and digest == expected_root


def continues(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Tell whether ``proof`` shows that a tree of ``new`` leaves continues one of ``old`` (RFC 9162, 2.1.4.2)."""
    if any(len(one) != HASH_BYTES for one in proof) or not 0 <= old <= new:
        return False
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    if old == new:
        return not proof and old_root == new_root
    rest = list(proof)
    if old & (old - 1) == 0:
        rest.insert(0, old_root)
    if not rest:
        return False
    index, last = old - 1, new - 1
    while index % 2:
        index, last = index // 2, last // 2
    first = second = rest.pop(0)
    for one in rest:
        if last == 0:
            return False
        if index % 2 or index == last:
            first, second = node_hash(one, first), node_hash(one, second)
            while index % 2 == 0 and index:
                index, last = index // 2, last // 2
        else:
            second = node_hash(second, one)
        index, last = index // 2, last // 2
    return last == 0 and first == old_root and second == new_root


def _split(count: int) -> int:
    """Return the largest power of two below ``count``."""
    return 1 << ((count - 1).bit_length() - 1)


def _subtree(nodes: Nodes, begin: int, end: int) -> bytes:
    """Return the hash over leaves that begin where a subtree of their size may begin."""
    count = end - begin
    if count & (count - 1) == 0:
        level = count.bit_length() - 1
        return nodes(level, begin >> level)
    middle = begin + _split(count)
    return node_hash(_subtree(nodes, begin, middle), _subtree(nodes, middle, end))


def _bag(peaks: Sequence[bytes]) -> bytes:
    digest = peaks[-1]
    for peak in reversed(peaks[:-1]):
        digest = node_hash(peak, digest)
    return digest

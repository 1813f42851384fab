from __future__ import annotations

from hashlib import sha256

import pytest

from fedsparse.audit import merkle
from fedsparse.audit.merkle import consistency_proof, continues, includes, inclusion_proof, leaf_hash, root

# The test vectors of Certificate Transparency's own implementation.
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
# Proofs of that implementation, for the same leaves.
INCLUSION = {
    (0, 1): [],
    (0, 8): [
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ],
    (5, 8): [
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
    (1, 5): [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
CONSISTENCY = {
    (1, 1): [],
    (1, 8): INCLUSION[0, 8],
    (6, 8): [
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ],
    (2, 5): [
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ],
}
MOST = 65  # one more than a power of two


def largest_power_below(count: int) -> int:
    half = 1
    while 2 * half < count:
        half *= 2
    return half


def naive(leaves: list[bytes]) -> bytes:
    """Return the root as RFC 6962, 2.1 defines it."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    half = largest_power_below(len(leaves))
    return sha256(b"\x01" + naive(leaves[:half]) + naive(leaves[half:])).digest()


def naive_path(index: int, leaves: list[bytes]) -> list[bytes]:
    """Return PATH(m, D[n]) of RFC 6962, 2.1.1, word for word."""
    if len(leaves) == 1:
        return []
    half = largest_power_below(len(leaves))
    if index < half:
        return [*naive_path(index, leaves[:half]), naive(leaves[half:])]
    return [*naive_path(index - half, leaves[half:]), naive(leaves[:half])]


def naive_subproof(old: int, leaves: list[bytes], whole: bool = True) -> list[bytes]:
    """Return SUBPROOF(m, D[n], b) of RFC 6962, 2.1.2, word for word."""
    if old == len(leaves):
        return [] if whole else [naive(leaves)]
    half = largest_power_below(len(leaves))
    if old <= half:
        return [*naive_subproof(old, leaves[:half], whole), naive(leaves[half:])]
    return [*naive_subproof(old - half, leaves[half:], False), naive(leaves[:half])]


@pytest.fixture(scope="module")
def tree() -> tuple[list[bytes], merkle.Nodes]:
    return grown([leaf_hash(bytes([number])) for number in range(MOST)])


def grown(leaves: list[bytes]) -> tuple[list[bytes], merkle.Nodes]:
    """Return leaves, and the tree that has grown one by one from them."""
    kept: dict[tuple[int, int], bytes] = {}

    def nodes(level: int, place: int) -> bytes:
        return kept[level, place]

    for size, leaf in enumerate(leaves):
        for level, place, node in list(merkle.completed(nodes, size, leaf)):
            assert (level, place) not in kept  # what is complete never changes
            kept[level, place] = node
    return leaves, nodes


def test_roots_are_those_of_certificate_transparency() -> None:
    leaves = [leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES]
    found = merkle.roots_at(leaves, range(9))
    assert [found[size].hex() for size in range(1, 9)] == ROOTS
    assert found[0] == merkle.EMPTY_ROOT


def test_proofs_are_those_of_certificate_transparency() -> None:
    leaves, nodes = grown([leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES])
    for (index, size), path in INCLUSION.items():
        assert [one.hex() for one in inclusion_proof(nodes, index, size)] == path
        assert includes(leaves[index], index, size, [*map(bytes.fromhex, path)], bytes.fromhex(ROOTS[size - 1]))
    for (old, new), proof in CONSISTENCY.items():
        assert [one.hex() for one in consistency_proof(nodes, old, new)] == proof
        roots = bytes.fromhex(ROOTS[old - 1]), bytes.fromhex(ROOTS[new - 1])
        assert continues(old, new, *roots, [*map(bytes.fromhex, proof)])


def test_proofs_of_every_size_are_as_defined(tree: tuple[list[bytes], merkle.Nodes]) -> None:
    leaves, nodes = tree
    for size in range(1, MOST + 1):
        for index in range(size):
            assert inclusion_proof(nodes, index, size) == naive_path(index, leaves[:size])
            assert consistency_proof(nodes, index + 1, size) == naive_subproof(index + 1, leaves[:size])


def test_a_leaf_is_never_taken_for_a_subtree() -> None:
    """Leaves and nodes are hashed with another first byte: nobody can pass two leaves off as one."""
    leaves, nodes = grown([leaf_hash(b"a"), leaf_hash(b"b")])
    assert leaf_hash(leaves[0] + leaves[1]) != root(nodes, 2)


def test_roots_of_every_size_are_as_defined(tree: tuple[list[bytes], merkle.Nodes]) -> None:
    leaves, nodes = tree
    found = merkle.roots_at(leaves, {3, 17, MOST, MOST + 1})
    assert set(found) == {3, 17, MOST}
    for size in range(MOST + 1):
        assert root(nodes, size) == naive(leaves[:size])
        assert found.get(size, root(nodes, size)) == root(nodes, size)


def test_a_proof_of_inclusion_holds_for_its_leaf_place_and_tree_alone(
    tree: tuple[list[bytes], merkle.Nodes],
) -> None:
    leaves, nodes = tree
    for size in range(1, MOST + 1):
        whole = root(nodes, size)
        for index in range(size):
            proof = inclusion_proof(nodes, index, size)
            assert includes(leaves[index], index, size, proof, whole)
            assert not includes(leaves[(index + 1) % MOST], index, size, proof, whole)
            assert not includes(leaves[index], index, size, [*proof, whole], whole)
            assert not includes(leaves[index], index, size, proof, leaves[index]) or size == 1
            others = range(-1, size + 1) if size < 18 else (index - 1, index + 1, index ^ 2, size)
            assert not any(includes(leaves[index], o, size, proof, whole) for o in others if o != index)
            for at in range(len(proof)):
                assert not includes(leaves[index], index, size, proof[:at] + proof[at + 1 :], whole)
                assert not includes(leaves[index], index, size, [*proof[:at], bytes(32), *proof[at + 1 :]], whole)


def test_a_proof_of_consistency_holds_for_its_trees_alone(tree: tuple[list[bytes], merkle.Nodes]) -> None:
    _, nodes = tree
    roots = [root(nodes, size) for size in range(MOST + 1)]
    for new in range(MOST + 1):
        for old in range(new + 1):
            proof = consistency_proof(nodes, old, new)
            assert continues(old, new, roots[old], roots[new], proof)
            assert not continues(old, new, roots[old], bytes(32), proof) or old == 0
            assert not continues(old, new, bytes(32), roots[new], proof)
            assert not continues(old, new, roots[old], roots[new], [*proof, bytes(32)])
            for at in range(len(proof)):
                assert not continues(old, new, roots[old], roots[new], proof[:at] + proof[at + 1 :])


@pytest.mark.parametrize(("index", "size"), [(-1, 3), (3, 3), (0, 0)])
def test_there_is_no_proof_for_a_leaf_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="is not in a tree"):
        inclusion_proof(lambda level, place: b"", index, size)


def test_a_tree_does_not_continue_a_larger_one() -> None:
    with pytest.raises(ValueError, match="does not continue"):
        consistency_proof(lambda level, place: b"", 4, 3)
    assert not continues(4, 3, bytes(32), bytes(32), [])


def test_proofs_of_another_length_than_hashes_are_refused() -> None:
    leaf = leaf_hash(b"")
    assert not includes(leaf, 0, 2, [b"short"], merkle.node_hash(leaf, b"short"))
    assert not continues(1, 2, leaf, merkle.node_hash(leaf, b"short"), [b"short"])

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
MOST = 40


def naive(leaves: list[bytes]) -> bytes:
    """Return the root as RFC 6962, 2.1 defines it."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while 2 * half < len(leaves):
        half *= 2
    return sha256(b"\x01" + naive(leaves[:half]) + naive(leaves[half:])).digest()


@pytest.fixture(scope="module")
def tree() -> tuple[list[bytes], merkle.Nodes]:
    leaves = [leaf_hash(bytes([number])) for number in range(MOST)]
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
            assert not any(
                includes(leaves[index], o, size, proof, whole) for o in range(-1, size + 1) if o != index
            )
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

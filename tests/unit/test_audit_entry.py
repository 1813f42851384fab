from __future__ import annotations

import math
from hashlib import sha256

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from fedsparse.audit import EntryKind, TensorFacts, describe_delta
from fedsparse.audit.merkle import leaf_hash
from fedsparse.audit.norm import sum_of_squares
from fedsparse.delta import SparseDelta
from fedsparse.v1 import ledger_pb2
from tests.unit.samples import NOTHING, SPACE, delta


def test_a_delta_is_described_tensor_by_tensor() -> None:
    facts = describe_delta(delta({0: {1: 3.0, 2: -4.0}, 2: {9: 0.5}}), SPACE)
    assert facts == (
        TensorFacts("conv.weight", nnz=2, minimum=-4.0, maximum=3.0, l2=5.0),
        TensorFacts("wide.weight", nnz=1, minimum=0.5, maximum=0.5, l2=0.5),
    )


def test_an_empty_delta_has_nothing_to_describe() -> None:
    assert describe_delta(NOTHING, SPACE) == ()


def test_the_norm_is_the_nearest_to_the_exact_one_whatever_the_order_of_summing() -> None:
    """An auditor's NumPy may sum in another order than the plant's did, and must find the same bits."""
    values = {index: 1 / (3 + index) for index in range(2000)}
    change = delta({2: values})
    squares = [float(value) ** 2 for value in change.tensors[0].values]
    [facts] = describe_delta(change, SPACE)
    assert facts.l2 == math.sqrt(math.fsum(reversed(squares)))


def test_a_norm_of_the_largest_values_is_finite() -> None:
    largest: SparseDelta = delta({0: dict.fromkeys(range(20), 3.4028234663852886e38)})
    assert math.isfinite(describe_delta(largest, SPACE)[0].l2)


@given(arrays(np.uint32, st.integers(1, 300), elements=st.integers(0, 2**32 - 1)))
def test_the_sum_of_squares_is_the_exact_one_rounded_once(bits: NDArray[np.uint32]) -> None:
    """Of any finite values: subnormal ones, and the largest beside the smallest."""
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    assert sum_of_squares(values) == math.fsum(np.square(values, dtype=np.float64))


def test_the_sum_of_squares_of_many_values_is_exact_across_chunks() -> None:
    values = np.random.default_rng(3).standard_normal(200_001).astype(np.float32)
    assert sum_of_squares(values) == math.fsum(np.square(values, dtype=np.float64))


def test_the_hash_of_an_entry_is_the_leaf_hash_of_rfc_6962() -> None:
    assert leaf_hash(b"") == bytes.fromhex("6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d")
    assert leaf_hash(b"entry") == sha256(b"\x00entry").digest()


def test_the_kinds_are_those_of_the_protocol() -> None:
    kinds = {f"ENTRY_KIND_{kind.name}": int(kind) for kind in EntryKind} | {"ENTRY_KIND_UNSPECIFIED": 0}
    assert kinds == dict(ledger_pb2.EntryKind.items())

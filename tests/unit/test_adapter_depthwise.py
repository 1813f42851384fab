"""Depthwise convolution of small maps: the same function and the same gradients as PyTorch's own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor

from fedsparse.adapters.bases.depthwise import is_small, small_depthwise


def _drawn(height: int, width: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    source = torch.Generator().manual_seed(height * 100 + width * 10 + size)
    x = torch.randn(3, 7, height, width, generator=source).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(7, 1, size, size, generator=source)
    return x.requires_grad_(), weight.requires_grad_(), torch.randn(7, generator=source)


@pytest.mark.parametrize("size", [1, 3, 5, 7])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (4, 4), (2, 5), (1, 16), (9, 6)])
def test_values_and_gradients_are_those_of_pytorch(height: int, width: int, size: int) -> None:
    x, weight, bias = _drawn(height, width, size)
    own = small_depthwise(x, weight, bias)
    reference = F.conv2d(x, weight, bias, padding=size // 2, groups=len(weight))
    assert torch.equal(own, reference)
    upstream = torch.randn(own.shape, generator=torch.Generator().manual_seed(1))
    for mine, theirs in zip(
        torch.autograd.grad(own, (x, weight), upstream),
        torch.autograd.grad(reference, (x, weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("frozen", [0, 1])
def test_what_is_frozen_gets_no_gradient(frozen: int) -> None:
    given = _drawn(2, 2, 3)
    given[frozen].requires_grad_(False)
    small_depthwise(*given).sum().backward()  # type: ignore[no-untyped-call]
    assert given[frozen].grad is None
    assert given[1 - frozen].grad is not None


def test_large_maps_and_lower_precision_are_left_to_pytorch() -> None:
    assert is_small(torch.zeros(1, 1, 5, 4), 5)
    assert not is_small(torch.zeros(1, 1, 5, 5), 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not is_small(torch.zeros(1, 1, 2, 2), 5)

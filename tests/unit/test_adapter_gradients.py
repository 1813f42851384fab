from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from fedsparse import config
from fedsparse.adapters import Adapter, build_adapter
from fedsparse.adapters.gradients import choose_kernel, row_kernel, sampled_kernel, tile_kernel
from fedsparse.adapters.sparse_linear import SparseLinear
from fedsparse.errors import ModelError
from fedsparse.sparsity import Support
from fedsparse.sparsity.structure import Structure, Tiling
from fedsparse.training.machine import Machine, set_up

from .model_samples import (
    KINDS,
    TASKS,
    Kind,
    adapted,
    base,
    batch,
    random_state,
    random_support,
    settings,
)
from .model_samples import one_thread as one_thread  # for every test here

STRUCTURES: tuple[Structure, ...] = ("unstructured", "row", "block")
Loss = Callable[[nn.Module], Tensor]


def _loss(*inputs: Tensor) -> Loss:
    """Return a loss that weighs every output differently."""

    def loss(network: nn.Module) -> Tensor:
        outputs = network(*inputs).float()
        draw = torch.Generator().manual_seed(9)
        result: Tensor = (outputs * torch.randn(outputs.shape, generator=draw)).sum()
        return result

    return loss


def _dense_gradients(adapter: Adapter, loss: Loss, support: Support) -> list[Tensor]:
    """Return per tensor what autograd gives at the support when it trains a copy of everything."""
    network = deepcopy(adapter.network).requires_grad_(True)
    loss(network).backward()  # type: ignore[no-untyped-call]
    found = []
    for tensor, where in zip(adapter.space.tensors, support, strict=True):
        gradient = network.get_parameter(tensor.name).grad
        assert gradient is not None or not len(where)
        found.append(torch.empty(0) if gradient is None else gradient.float().reshape(-1)[torch.from_numpy(where)])
    return found


def _sparse_gradients(adapter: Adapter, loss: Loss, support: Support, block: int | None) -> list[Tensor]:
    attachment = adapter.attach(support, block)
    loss(adapter.network).backward()  # type: ignore[no-untyped-call]
    parts = {part.position: part.gradient.clone() for part in attachment.parts}
    _require_no_dense_gradient(adapter.network)
    adapter.discard()
    return [parts.get(position, torch.empty(0)) for position in range(len(support))]


def _require_no_dense_gradient(network: nn.Module) -> None:
    assert [name for name, parameter in network.named_parameters() if parameter.grad is not None] == []


def _compare(
    adapter: Adapter, loss: Loss, support: Support, block: int | None = None, *, tolerance: float = 1e-4
) -> None:
    expected = _dense_gradients(adapter, loss, support)
    found = _sparse_gradients(adapter, loss, support, block)
    assert sum(torch.count_nonzero(gradient) for gradient in expected) > 0
    for one, other in zip(found, expected, strict=True):
        scale = float(other.abs().max()) if len(other) else 0.0
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * scale + 1e-8)


def _kernel_layers(adapter: Adapter, support: Support, block: int | None = None) -> set[str]:
    """Return the layers whose forward pass an attachment replaces."""
    adapter.attach(support, block)
    found = {name for name, module in adapter.network.named_modules() if "forward" in vars(module)}
    adapter.discard()
    return found


# Models


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize(("name", "kind"), [(name, kind) for name in TASKS for kind in KINDS])
def test_gradients_at_the_support_are_those_of_dense_training(name: str, kind: Kind, structure: Structure) -> None:
    adapter = build_adapter(base(name), settings(kind))
    adapter.load(random_state(adapter.space))  # zeros in head and factors would hide what is before them
    side = 8 if kind == "delta" else 2
    support = random_support(adapter, 0.3, structure, block=side)
    _compare(adapter, _loss(*batch(name)), support, side if structure == "block" else None)


@pytest.mark.parametrize("kind", KINDS)
def test_tensors_left_out_of_the_support_change_nothing_for_the_others(kind: Kind) -> None:
    adapter = build_adapter(base("bert"), settings(kind))
    adapter.load(random_state(adapter.space))
    full = random_support(adapter, 0.3)
    some = tuple(where if position % 3 == 0 else where[:0] for position, where in enumerate(full))
    assert sum(not len(where) for where in some) > 3
    _compare(adapter, _loss(*batch("bert")), some)


@pytest.mark.parametrize("structure", ["row", "block"])
def test_layers_with_a_structured_support_never_ask_for_a_dense_gradient(structure: Structure) -> None:
    for name in ("bert", "gpt2"):  # Linear and Conv1D
        adapter = build_adapter(base(name), settings("delta"))
        support = random_support(adapter, 0.04, structure)
        most = 0.05 if structure == "block" else 1.0  # share of a weight from which the dense product is as fast
        layers = {
            tensor.name.removesuffix(".weight")
            for position, (tensor, where) in enumerate(zip(adapter.space.tensors, support, strict=True))
            if 0 < len(where) <= most * tensor.size and position not in adapter.dense
        }
        assert layers
        assert _kernel_layers(adapter, support, 8) == layers
        assert _kernel_layers(adapter, random_support(adapter, 0.3), 8) == set()


# Layers


class _Convolutions(nn.Module):
    """Depthwise and strided, grouped, and 1 × 1."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=8)
        self.grouped = nn.Conv2d(8, 16, 3, groups=2, bias=False)
        self.pointwise = nn.Conv2d(16, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.pointwise(F.relu(self.grouped(F.relu(self.depthwise(x)))))
        return result


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("kind", ["delta", "lora"])
def test_convolutions_of_every_sort_get_the_gradients_of_dense_training(kind: Kind, structure: Structure) -> None:
    torch.manual_seed(0)
    adapter = adapted(_Convolutions(), kind, rank=1)
    adapter.load(random_state(adapter.space))
    expected = 3 if kind == "delta" else 6
    assert len(adapter.space.tensors) == expected
    support = random_support(adapter, 0.5, structure, block=2)
    _compare(adapter, _loss(torch.randn(2, 8, 9, 9)), support, 2 if structure == "block" else None)


@pytest.mark.parametrize("sparse", [False, True])
def test_an_embedding_gets_the_gradients_of_dense_training(sparse: bool) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Embedding(20, 8, padding_idx=0, sparse=sparse), nn.Linear(8, 4))
    adapter = adapted(network, include=("0.weight",))
    support = random_support(adapter, 0.5)
    ids = torch.tensor([[0, 3, 3, 19], [5, 0, 0, 1]])
    found = _sparse_gradients(adapter, _loss(ids), support, None)
    network[0].sparse = False
    expected = _dense_gradients(adapter, _loss(ids), support)
    torch.testing.assert_close(found, expected)


class _Twice(nn.Module):
    """One layer that is called three times, in two shapes of input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shared = nn.Linear(width, width)
        self.last = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        once = self.shared(F.gelu(self.shared(x)))  # (n, t, d)
        result: Tensor = self.last(self.shared(once.mean(1)))
        return result


@pytest.mark.parametrize(("structure", "kernel"), [("unstructured", True), ("row", True), ("block", True)])
def test_a_layer_that_is_called_several_times_gets_all_its_gradients(structure: Structure, kernel: bool) -> None:
    torch.manual_seed(0)
    adapter = adapted(_Twice(256), include=("shared.weight",))
    support = random_support(adapter, 0.01, structure)
    block = 8 if structure == "block" else None
    assert _kernel_layers(adapter, support, block) == ({"shared"} if kernel else set())
    _compare(adapter, _loss(torch.randn(2, 5, 256)), support, block)


def test_a_bias_beside_a_weight_with_a_kernel_gets_its_gradient() -> None:
    torch.manual_seed(0)
    adapter = adapted(_Twice(256), include=("shared.*",))
    names = [tensor.name for tensor in adapter.space.tensors]
    assert names == ["shared.weight", "shared.bias"]
    support = (np.arange(256 * 7, 256 * 9), np.arange(0, 256, 3))
    assert _kernel_layers(adapter, support) == {"shared"}
    _compare(adapter, _loss(torch.randn(2, 5, 256)), support)


def test_the_whole_head_gets_its_gradients_beside_the_scattered_values() -> None:
    torch.manual_seed(0)
    network = nn.ModuleDict({"body": nn.Linear(256, 256), "head": nn.Linear(256, 3)})
    network.forward = lambda x: network["head"](network["body"](x))
    adapter = adapted(network, dense=("head.*",))
    support = random_support(adapter, 0.01)
    attachment = adapter.attach(support)
    assert len(attachment.whole) == 256 * 3 + 3
    assert len(attachment.sparse) == 655  # 1 % of 256²
    loss = _loss(torch.randn(4, 256))
    loss(network).backward()  # type: ignore[no-untyped-call]
    found = {part.position: part.gradient.clone() for part in attachment.parts}
    adapter.discard()
    reference = network.requires_grad_(True)
    loss(reference).backward()  # type: ignore[no-untyped-call]
    for position, tensor in enumerate(adapter.space.tensors):
        gradient = reference.get_parameter(tensor.name).grad
        assert gradient is not None
        torch.testing.assert_close(found[position], gradient.reshape(-1)[torch.from_numpy(support[position])])


class _Direct(nn.Module):
    """A layer whose weight is used without calling it, alone or also."""

    def __init__(self, *, also_called: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(256, 256)
        self._also_called = also_called

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layer(x) if self._also_called else x
        return F.linear(torch.tanh(hidden), self.layer.weight)


@pytest.mark.parametrize("also_called", [False, True])
@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_weight_that_is_used_without_calling_its_layer_gets_those_gradients_too(
    structure: Structure, also_called: bool
) -> None:
    torch.manual_seed(0)
    adapter = adapted(_Direct(also_called=also_called))
    support = random_support(adapter, 0.01, structure)
    block = 8 if structure == "block" else None
    assert _kernel_layers(adapter, support, block) == {"layer"}
    _compare(adapter, _loss(torch.randn(2, 256)), support, block)


def test_a_subclass_that_computes_something_else_is_left_to_do_so() -> None:
    class Normalised(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, F.normalize(self.weight))

    torch.manual_seed(0)
    adapter = adapted(nn.Sequential(Normalised(16, 16)))
    support = random_support(adapter, 0.3, "row")
    assert _kernel_layers(adapter, support) == set()
    _compare(adapter, _loss(torch.randn(2, 16)), support)


def test_a_forward_pass_that_somebody_else_replaced_stays_in_force() -> None:
    network = nn.Sequential(nn.Linear(16, 16))
    plain = network[0].forward
    network[0].forward = lambda x: plain(x) * 2
    adapter = adapted(network)
    x = torch.randn(2, 16)
    expected = network(x)
    attachment = adapter.attach(random_support(adapter, 0.3, "row"))
    assert torch.equal(network(x), expected)
    network(x).sum().backward()
    assert attachment.sparse.grad is not None
    assert torch.count_nonzero(attachment.sparse.grad) > 0
    adapter.discard()
    assert torch.equal(network(x), expected)


# Kernels

_SHAPE = (256, 300)


def _structured(structure: Structure, density: float = 0.01) -> np.ndarray[Any, np.dtype[np.int64]]:
    tiling = Tiling.of(_SHAPE, structure, 4)
    units = np.random.default_rng(0).permutation(tiling.units)[: max(1, int(tiling.units * density))]
    return tiling.coordinates(units)


@pytest.mark.parametrize("kind", ["rows", "tiles", "sampled"])
@pytest.mark.parametrize("tokens", [1, 255, 256, 257, 1000])
def test_every_kernel_computes_the_dense_product_at_its_support(kind: str, tokens: int) -> None:
    draw = torch.Generator().manual_seed(tokens)
    a, b = (torch.randn(tokens, extent, generator=draw) for extent in _SHAPE)
    structures: dict[str, Structure] = {"rows": "row", "tiles": "block", "sampled": "unstructured"}
    where = _structured(structures[kind])
    indices = torch.from_numpy(where)
    if kind == "rows":
        kernel = row_kernel(np.unique(where // _SHAPE[1]), indices.device)
    elif kind == "tiles":
        corners = np.unique(where // _SHAPE[1] // 4 * 1000 + where % _SHAPE[1] // 4)
        kernel = tile_kernel(corners // 1000, corners % 1000, 4, indices, _SHAPE[1])
    else:
        kernel = sampled_kernel(indices, *_SHAPE)
    expected = (a.t() @ b).reshape(-1)[indices]
    for _ in range(2):  # nothing is left over from the first call
        torch.testing.assert_close(kernel(a, b), expected, rtol=1e-4, atol=1e-4)
    low = kernel(a.bfloat16(), b.bfloat16())
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, expected, rtol=0.05, atol=0.02 * float(expected.abs().max()))


def _chosen(where: np.ndarray[Any, np.dtype[np.int64]], shape: tuple[int, int], block: int | None) -> str | None:
    kernel = choose_kernel(torch.from_numpy(where), shape, block)
    return None if kernel is None else kernel.__qualname__.partition(".")[0]


def test_the_kernel_follows_from_support_and_shape() -> None:
    assert _chosen(_structured("row"), _SHAPE, None) == "row_kernel"
    assert _chosen(_structured("row"), _SHAPE, 4) == "row_kernel"
    assert _chosen(_structured("block"), _SHAPE, 4) == "tile_kernel"
    assert _chosen(_structured("block"), _SHAPE, None) == "sampled_kernel"
    assert _chosen(_structured("block"), _SHAPE, 8) == "sampled_kernel"  # tiles of another size are no tiles
    assert _chosen(_structured("unstructured", 0.05), _SHAPE, None) == "sampled_kernel"
    assert _chosen(_structured("unstructured", 0.051), _SHAPE, None) is None
    assert _chosen(_structured("block", 0.051), _SHAPE, 4) is None
    assert _chosen(np.arange(3, 300, 7), (256, 256), None) == "sampled_kernel"
    assert _chosen(np.arange(3, 300, 7), (255, 4000), None) is None
    assert _chosen(np.arange(3, 300, 7), (4000, 255), None) is None


def test_with_many_threads_the_dense_product_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert _chosen(_structured("unstructured", 0.02), _SHAPE, None) is None
    assert _chosen(_structured("block"), _SHAPE, 4) == "tile_kernel"


def test_the_sampled_kernel_leaves_the_number_of_threads_as_it_was() -> None:
    before = torch.get_num_threads()
    kernel = sampled_kernel(torch.arange(3, 300, 7), 256, 300)
    try:
        torch.set_num_threads(2)
        kernel(torch.randn(5, 256), torch.randn(5, 300))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_support_that_only_looks_like_rows_or_tiles_is_treated_as_scattered() -> None:
    row = np.arange(300, 600)
    assert _chosen(np.concatenate([row[:-1], [605]]), _SHAPE, None) == "sampled_kernel"
    assert _chosen(row + 1, _SHAPE, None) == "sampled_kernel"
    tile = (np.arange(4)[:, None] * 300 + np.arange(4)).ravel()
    assert _chosen(tile, _SHAPE, 4) == "tile_kernel"
    assert _chosen(tile + 1, _SHAPE, 4) == "sampled_kernel"
    assert _chosen(tile[:-1], _SHAPE, 4) == "sampled_kernel"


# Accumulation and memory


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_second_backward_pass_adds_to_the_first_until_gradients_are_cleared(structure: Structure) -> None:
    torch.manual_seed(0)
    adapter = adapted(_Twice(256), include=("shared.*", "last.*"), dense=("last.*",))
    attachment = adapter.attach(random_support(adapter, 0.01, structure), 8)
    loss = _loss(torch.randn(2, 5, 256))
    gradients = [values.grad for values in (attachment.sparse, attachment.whole)]
    loss(adapter.network).backward()  # type: ignore[no-untyped-call]
    once = [gradient.clone() for gradient in gradients if gradient is not None]
    assert all(torch.count_nonzero(gradient) for gradient in once)
    loss(adapter.network).backward()  # type: ignore[no-untyped-call]
    for gradient, single in zip(gradients, once, strict=True):
        torch.testing.assert_close(gradient, 2 * single)
    attachment.clear_gradients()
    assert attachment.sparse.grad is not None
    assert torch.count_nonzero(attachment.sparse.grad) == 0


def _three_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 56), nn.GELU(), nn.Linear(56, 72))


class _LiveTensors(TorchDispatchMode):
    """Counts the tensors of some shapes that are alive at once."""

    def __init__(self, shapes: set[tuple[int, ...]]) -> None:
        super().__init__()
        self._shapes = shapes | {shape[::-1] for shape in shapes}
        self._alive: list[StorageWeakRef] = []
        self.made = 0
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and tuple(result.shape) in self._shapes and func.is_view is False:
            self.made += 1
            self._alive.append(StorageWeakRef(result.untyped_storage()))
            self.peak = max(self.peak, sum(not one.expired() for one in self._alive))
        return result


def _most_alive(network: nn.Module, shapes: set[tuple[int, ...]]) -> tuple[int, int]:
    loss = _loss(torch.randn(4, 24))(network)
    with _LiveTensors(shapes) as live:
        loss.backward()  # type: ignore[no-untyped-call]
    return live.made, live.peak


def test_at_most_one_dense_gradient_is_alive_at_any_time() -> None:
    shapes = {(40, 24), (56, 40), (72, 56)}
    adapter = adapted(_three_layers())
    reference = deepcopy(adapter.network).requires_grad_(True)
    assert _most_alive(reference, shapes) == (3, 3)  # what training everything keeps, as the counter sees it
    attachment = adapter.attach(random_support(adapter, 0.1))
    assert _kernel_layers_now(adapter) == set()
    assert _most_alive(adapter.network, shapes) == (3, 1)
    assert attachment.sparse.grad is not None
    assert torch.count_nonzero(attachment.sparse.grad) == len(attachment.sparse)


def test_no_dense_gradient_is_ever_computed_where_all_layers_have_kernels() -> None:
    adapter = adapted(_three_layers())
    adapter.attach(random_support(adapter, 0.1, "row"))
    assert _kernel_layers_now(adapter) == {"0", "2", "4"}
    assert _most_alive(adapter.network, {(40, 24), (56, 40), (72, 56)}) == (0, 0)


def _kernel_layers_now(adapter: Adapter) -> set[str]:
    return {name for name, module in adapter.network.named_modules() if "forward" in vars(module)}


def test_parameters_and_optimiser_state_hold_the_k_values_alone() -> None:
    adapter = build_adapter(base("bert"), settings("delta"))
    support = random_support(adapter, 0.05)
    k = sum(len(where) for where in support)
    attachment = adapter.attach(support)
    trained = [values for values in (attachment.sparse, attachment.whole) if values.requires_grad]
    assert all(values.is_leaf for values in trained)
    assert sum(values.numel() for values in trained) == k
    optimiser = torch.optim.Adam(trained)
    _loss(*batch("bert"))(adapter.network).backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    moments = [entry for state in optimiser.state.values() for entry in state.values() if entry.numel() > 1]
    assert sum(moment.numel() for moment in moments) == 2 * k
    _require_no_dense_gradient(adapter.network)


@pytest.mark.parametrize("kind", KINDS)
def test_watching_hands_over_every_dense_gradient_and_keeps_none(kind: Kind) -> None:
    adapter = build_adapter(base("bert"), settings(kind))
    adapter.load(random_state(adapter.space))
    loss = _loss(*batch("bert"))
    everywhere = tuple(np.arange(tensor.size) for tensor in adapter.space.tensors)
    expected = _dense_gradients(adapter, loss, everywhere)
    attachment = adapter.attach(random_support(adapter, 0.1))
    found: dict[int, Tensor] = {}
    with adapter.watch(lambda position, gradient: found.update({position: gradient.clone()})):
        loss(adapter.network).backward()  # type: ignore[no-untyped-call]
    assert attachment.sparse.grad is not None
    assert torch.count_nonzero(attachment.sparse.grad) == 0  # nothing reached the values meanwhile
    for position, gradient in enumerate(expected):
        torch.testing.assert_close(found[position], gradient, rtol=1e-4, atol=1e-5)
    _require_no_dense_gradient(adapter.network)
    loss(adapter.network).backward()  # type: ignore[no-untyped-call]
    assert torch.count_nonzero(attachment.sparse.grad) > 0  # and they are heard again afterwards


def test_weights_that_something_else_trains_are_refused_and_nothing_stays_connected() -> None:
    adapter = adapted(_three_layers())
    adapter.network.get_parameter("4.weight").requires_grad_(True)
    with pytest.raises(ModelError, match=r"4\.weight is being trained already"):
        adapter.attach(random_support(adapter, 0.1, "row"))
    assert _kernel_layers_now(adapter) == set()
    assert [name for name, weight in adapter.network.named_parameters() if weight.requires_grad] == ["4.weight"]
    adapter.network.requires_grad_(False)
    adapter.attach(random_support(adapter, 0.1, "row"))


# Autocast and recomputed activations


@pytest.mark.parametrize("structure", STRUCTURES)
def test_gradients_under_autocast_are_close_to_those_in_full_precision(structure: Structure) -> None:
    torch.manual_seed(0)
    adapter = adapted(_Twice(256), include=("shared.*", "last.*"), dense=("last.*",))
    support = random_support(adapter, 0.01, structure)
    block = 8 if structure == "block" else None
    assert _kernel_layers(adapter, support, block) == {"shared"}
    exact = _loss(torch.randn(4, 5, 256))
    seen = []

    def lower(network: nn.Module) -> Tensor:
        handle = network.get_submodule("shared").register_forward_hook(lambda m, i, o: seen.append(o.dtype))
        with Machine(lower=torch.bfloat16).autocast():
            loss = exact(network)
        handle.remove()
        return loss

    expected = _dense_gradients(adapter, exact, support)
    found = _sparse_gradients(adapter, lower, support, block)
    assert set(seen) == {torch.bfloat16}
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert float((one - other).norm()) <= 0.02 * float(other.norm())
        assert float(other.norm()) > 0 or not len(other)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["bert", "gpt2", "vit", "resnet"])
def test_models_train_under_autocast(name: str, kind: Kind) -> None:
    adapter = build_adapter(base(name), settings(kind, alpha=2.0))
    adapter.load(random_state(adapter.space))
    support = random_support(adapter, 0.3, "row")
    exact = _loss(*batch(name))

    def lower(network: nn.Module) -> Tensor:
        with Machine(lower=torch.bfloat16).autocast():
            return exact(network)

    in_full, dense = (torch.cat(_dense_gradients(adapter, loss, support)) for loss in (exact, lower))
    found = torch.cat(_sparse_gradients(adapter, lower, support, None))
    assert float((found - dense).norm()) <= 1e-3 * float(dense.norm())
    assert float((found - in_full).norm()) <= 0.05 * float(in_full.norm())
    assert not torch.equal(found, in_full)


class _Recomputed(nn.Module):
    def __init__(self, *, reentrant: bool | None) -> None:
        super().__init__()
        self.block = _Twice(256)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        if self.reentrant is None:
            result: Tensor = self.block(x)
            return result
        return checkpoint(self.block, x, use_reentrant=self.reentrant)  # type: ignore[no-any-return]


@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("lower", [None, torch.bfloat16])
def test_recomputed_activations_give_the_same_gradients(
    reentrant: bool, structure: Structure, lower: torch.dtype | None
) -> None:
    torch.manual_seed(0)
    network = _Recomputed(reentrant=None)
    adapter = adapted(network, include=("*.weight",))
    support = random_support(adapter, 0.01, structure)
    block = 8 if structure == "block" else None
    x = torch.randn(2, 5, 256, requires_grad=True)  # what the reentrant way needs

    def loss(network: nn.Module) -> Tensor:
        with Machine(lower=lower).autocast():
            return _loss(x)(network)

    expected = _sparse_gradients(adapter, loss, support, block)
    network.reentrant = reentrant
    found = _sparse_gradients(adapter, loss, support, block)
    assert sum(torch.count_nonzero(gradient) for gradient in expected) > 0
    torch.testing.assert_close(found, expected)


def _checkpointed(name: str, kind: Kind, *, checkpointing: bool) -> Adapter:
    model = base(name, task="causal-lm" if name == "llama-dropout" else None)
    set_up(config.MachineSettings(device="cpu", threads=1, checkpointing=checkpointing), model.network)
    adapter = build_adapter(model, settings(kind))
    return adapter.load(random_state(adapter.space))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["bert", "vit", "dinov2", "gpt2", "llama", "qwen2", "llama-dropout"])
def test_a_machine_that_recomputes_activations_gives_the_same_gradients(name: str, kind: Kind) -> None:
    loss = _loss(*batch(name))
    plain, recomputing = (_checkpointed(name, kind, checkpointing=flag) for flag in (False, True))
    support = random_support(plain, 0.3, "row")
    passes = _passes_of_first_block(recomputing.network)
    found = _sparse_gradients(recomputing, loss, support, None)
    assert passes == [False, True]  # the first keeps no graph, the second is in the backward pass
    torch.testing.assert_close(found, _sparse_gradients(plain, loss, support, None))


def _passes_of_first_block(network: nn.Module) -> list[bool]:
    """Return a list that grows with every forward pass of a layer in the first block."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    block = next(module for module in network.modules() if isinstance(module, GradientCheckpointingLayer))
    layer = next(module for module in block.modules() if type(module).__name__ in ("Linear", "Conv1D"))
    passes: list[bool] = []
    layer.register_forward_hook(lambda *_: passes.append(bool(passes)))
    return passes


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_recomputing_leaves_answers_and_training_mode_alone(name: str) -> None:
    adapter = _checkpointed(name, "delta", checkpointing=True)
    plain = _checkpointed(name, "delta", checkpointing=False)
    assert not any(module.training for module in adapter.network.modules())
    with torch.no_grad():
        assert torch.equal(adapter.network(*batch(name)), plain.network(*batch(name)))


def test_recomputing_is_refused_where_a_base_model_has_no_blocks_for_it() -> None:
    with pytest.raises(ModelError, match=r"machine\.checkpointing is not possible"):
        set_up(config.MachineSettings(device="cpu", checkpointing=True), base("resnet").network)


def test_a_kernel_is_not_used_without_gradients_to_compute() -> None:
    calls = []
    layer = nn.Linear(4, 4).requires_grad_(False)
    anchor = nn.Parameter(torch.zeros(4))

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        calls.append(len(a))
        return row_kernel(np.array([1]), torch.device("cpu"))(a, b)

    sparse = SparseLinear(layer, kernel, anchor, lambda gradient: None, transposed=False)
    with torch.no_grad():
        layer(torch.ones(3, 4))
    assert calls == []
    layer(torch.ones(3, 2, 4)).sum().backward()
    assert calls == [6]
    sparse.remove()
    assert "forward" not in vars(layer)

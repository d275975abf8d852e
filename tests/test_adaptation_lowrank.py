"""Low-rank layers against dense matrices and autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from vovcodec.adaptation.lowrank import LowRankAdapter, offset_vector
from vovcodec.adaptation.projection import BalancedProjection
from vovcodec.errors import UsageError

CPU = torch.device("cpu")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 10), nn.Linear(10, 4, bias=False)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().requires_grad_(False)


def adapter_for(net, *, rank=1, length=13, offset=False) -> LowRankAdapter:
    linears = [("first", net.first), ("second", net.second)]
    return LowRankAdapter(linears, rank=rank, vector_length=length, seed=5, device=CPU, offset=offset)


def dense_updates(theta: torch.Tensor, rank: int) -> list[torch.Tensor]:
    """ΔW = B·A of both layers from an explicit scatter of θ."""
    sizes = [(6, 10), (10, 4)]
    n_entries = sum(rank * (n_in + n_out) for n_in, n_out in sizes)
    projection = BalancedProjection(n_entries, theta.numel(), 5)
    scatter = torch.zeros(n_entries, theta.numel())
    scatter[torch.arange(n_entries), torch.from_numpy(projection.index.astype(np.int64))] = torch.from_numpy(
        projection.scale
    )
    factors, updates, at = scatter @ theta, [], 0
    for n_in, n_out in sizes:
        a = factors[at : at + rank * n_in].view(rank, n_in)
        b = factors[at + rank * n_in : at + rank * (n_in + n_out)].view(n_out, rank)
        updates.append(b @ a)
        at += rank * (n_in + n_out)
    return updates


def dense_forward(net, updates, x):
    hidden = torch.tanh(x @ (net.first.weight + updates[0]).T + net.first.bias)
    return hidden @ (net.second.weight + updates[1]).T


@pytest.mark.parametrize("rank", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 7, 30])
@pytest.mark.parametrize("offset", [False, True])
def test_forward_and_gradient_are_those_of_dense_updates(net, rank, length, offset):
    adapter = adapter_for(net, rank=rank, length=length, offset=offset)
    assert adapter.n_entries == rank * 30
    x = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(1))
    start = torch.randn(length, generator=torch.Generator().manual_seed(2))
    theta, reference = (start.clone().requires_grad_(True) for _ in range(2))
    with adapter.attached():
        adapter.materialize(theta)
        out = net(x)
        out.square().sum().backward()
    if offset:
        theta_0 = torch.from_numpy(offset_vector(adapter.n_entries, length, 5))
        around, at_zero = dense_updates(theta_0 + reference, rank), dense_updates(theta_0, rank)
        updates = [update - zero for update, zero in zip(around, at_zero, strict=True)]
    else:
        updates = dense_updates(reference, rank)
    expected = dense_forward(net, updates, x)
    expected.square().sum().backward()
    assert torch.allclose(out, expected, atol=1e-4)
    assert torch.allclose(theta.grad, reference.grad, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("offset", [False, True])
def test_passes_one_by_one_collect_the_gradient_of_their_sum(net, offset):
    adapter = adapter_for(net, rank=2, offset=offset)
    start = torch.randn(13, generator=torch.Generator().manual_seed(2))
    inputs = torch.randn(4, 3, 6, generator=torch.Generator().manual_seed(1))
    together, apart = (start.clone().requires_grad_(True) for _ in range(2))
    with adapter.attached():
        adapter.materialize(together)
        sum(net(x).square().sum() for x in inputs).backward()
        adapter.gather(apart)
        assert float(adapter.collected().detach()) == 0.0, "nothing has been back-propagated yet"
        for x in inputs:
            net(x).square().sum().backward()
        assert apart.grad is None
        adapter.collected().backward()
    assert torch.allclose(apart.grad, together.grad, rtol=1e-5, atol=1e-5)


def test_an_offset_leaves_the_model_as_it_is_at_zero_and_has_a_gradient_there(net):
    adapter = adapter_for(net, offset=True)
    x, theta = torch.randn(4, 6), torch.zeros(13, requires_grad=True)
    plain = net(x)
    with adapter.attached():
        adapter.materialize(theta)
        out = net(x)
        out.sum().backward()
    assert torch.allclose(out, plain, atol=1e-6)
    assert theta.grad.abs().min() > 0


def test_without_an_offset_zero_is_a_saddle_point(net):
    adapter, theta = adapter_for(net), torch.zeros(13, requires_grad=True)
    with adapter.attached():
        adapter.materialize(theta)
        net(torch.randn(4, 6)).sum().backward()
    assert not theta.grad.any(), "both factors vanish: why plain vectors start at random"


def test_hooks_are_gone_afterwards_also_after_an_error(net):
    adapter, x = adapter_for(net), torch.randn(2, 6)
    plain = net(x)
    with pytest.raises(RuntimeError, match="on purpose"), adapter.attached():
        adapter.materialize(torch.ones(13))
        assert not torch.allclose(net(x), plain)
        raise RuntimeError("on purpose")
    assert torch.equal(net(x), plain)
    assert not net.first._forward_hooks and not net.second._forward_hooks


def test_strength_scales_the_update(net):
    adapter, x = adapter_for(net), torch.randn(2, 6)
    theta = torch.randn(13, generator=torch.Generator().manual_seed(3))
    for strength in (0.0, -1.0, 0.5):
        adapter.strength = strength
        with adapter.attached():
            adapter.materialize(theta)
            out = net(x)
        assert torch.allclose(out, dense_forward(net, [strength * u for u in dense_updates(theta, 1)], x), atol=1e-5)


def test_the_gradient_is_the_same_on_every_run(net):
    gradients = []
    for _ in range(3):
        adapter, theta = adapter_for(net, length=7), torch.full((7,), 0.3, requires_grad=True)
        with adapter.attached():
            adapter.materialize(theta)
            net(torch.ones(3, 6)).square().sum().backward()
        gradients.append(theta.grad)
    assert torch.equal(gradients[0], gradients[1]) and torch.equal(gradients[0], gradients[2])


def test_a_half_precision_layer_gets_its_own_dtype(net):
    net = net.to(torch.bfloat16)
    adapter = adapter_for(net)
    theta = torch.randn(13, requires_grad=True)
    with adapter.attached():
        adapter.materialize(theta)
        out = net(torch.randn(2, 6, dtype=torch.bfloat16))
        out.float().sum().backward()
    assert out.dtype == torch.bfloat16 and theta.grad.dtype == torch.float32 and theta.grad.any()


def test_a_vector_longer_than_the_factors_is_refused(net):
    with pytest.raises(UsageError, match="longer than"):
        adapter_for(net, length=31)

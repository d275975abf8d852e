"""Compiled blocks: one code for all of them, the same gradient, and attention that is not computed again."""

from __future__ import annotations

import pytest
import torch
from test_backbone_loading import CountAttention

from vovcodec.adaptation.lowrank import LowRankAdapter
from vovcodec.backbone.checkpointing import set_checkpointing
from vovcodec.backbone.linears import wan_linears
from vovcodec.bench.architectures import ARCHITECTURES

pytestmark = pytest.mark.slow  # tracing a block takes ten seconds

N_BLOCKS = 4


def test_blocks_share_their_code_and_keep_the_gradient():
    from diffusers import WanTransformer3DModel
    from torch._dynamo.testing import CompileCounterWithBackend

    torch.manual_seed(0)
    transformer = WanTransformer3DModel(**ARCHITECTURES["tiny"] | {"num_layers": N_BLOCKS}).requires_grad_(False)
    linears = wan_linears(transformer, "qkvo", 0)
    adapter = LowRankAdapter(linears, rank=1, vector_length=64, seed=0, device=torch.device("cpu"), offset=True)
    arguments = {"timestep": torch.tensor([500.0]), "encoder_hidden_states": torch.randn(1, 7, 24)}
    x_t = torch.randn(1, 16, 2, 8, 8)

    def step(mode: str) -> tuple[torch.Tensor, CountAttention]:
        theta = torch.full((64,), 0.1, requires_grad=True)
        set_checkpointing(transformer, mode)
        with adapter.attached(), CountAttention() as counter:
            adapter.materialize(theta)
            transformer(hidden_states=x_t, **arguments, return_dict=False)[0].square().mean().backward()
        return theta.grad, counter

    expected, _ = step("none")
    counter = CompileCounterWithBackend("aot_eager")
    for block in transformer.blocks:
        block.compile(backend=counter)
    for mode, n_attentions in (("none", N_BLOCKS), ("full", 2 * N_BLOCKS), ("attention", N_BLOCKS)):
        gradient, seen = step(mode)
        assert torch.allclose(gradient, expected, rtol=1e-4, atol=1e-6)
        assert seen.calls["self"] == n_attentions, mode
    assert counter.frame_count <= 2, "not one code per block"

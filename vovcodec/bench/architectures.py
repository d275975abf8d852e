"""Base models at their full size with random weights, made on the device: speed and memory need no files."""

from __future__ import annotations

import torch
from torch import nn

from vovcodec.sampling.sampler import Velocity

__all__ = ["ARCHITECTURES", "random_autoencoder", "random_transformer", "random_velocity"]

_WAN = {"in_channels": 16, "out_channels": 16, "text_dim": 4096, "freq_dim": 256, "attention_head_dim": 128}
ARCHITECTURES = {
    "tiny": {
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "in_channels": 16,
        "out_channels": 16,
        "text_dim": 24,
        "freq_dim": 16,
        "ffn_dim": 32,
        "num_layers": 2,
        "rope_max_seq_len": 64,
    },
    "pocket": {
        "num_attention_heads": 4,
        "attention_head_dim": 64,
        "in_channels": 65,
        "out_channels": 64,
        "text_dim": 128,
        "freq_dim": 128,
        "ffn_dim": 768,
        "num_layers": 7,
        "rope_max_seq_len": 256,
    },
    "wan2.1-1.3b": _WAN | {"num_attention_heads": 12, "ffn_dim": 8960, "num_layers": 30},
    "wan2.1-14b": _WAN | {"num_attention_heads": 40, "ffn_dim": 13824, "num_layers": 40},
}
_CAPTION_TOKENS = {"tiny": 8, "pocket": 64}
_TINY_AUTOENCODER = {"base_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}


def random_transformer(architecture: str, precision: str, device: str) -> nn.Module:
    """A frozen diffusers Wan transformer as a loader would leave it: what its class keeps in float32 is in float32.

    precision: "bfloat16" or "float32".
    """
    from diffusers import WanTransformer3DModel

    before = torch.get_default_dtype()
    # Made in its own precision: 14 B parameters in float32 would be twice what is measured.
    torch.set_default_dtype(torch.bfloat16 if precision == "bfloat16" else torch.float32)
    try:
        with torch.device(device):
            transformer = WanTransformer3DModel(**ARCHITECTURES[architecture])
    finally:
        torch.set_default_dtype(before)
    for name, parameter in transformer.named_parameters():
        if set(name.split(".")) & set(WanTransformer3DModel._keep_in_fp32_modules):
            parameter.data = parameter.data.float()
    return transformer.eval().requires_grad_(False)


def random_velocity(transformer: nn.Module, architecture: str) -> Velocity:
    """v(x_t, t) in float32, whatever the transformer's precision, as a backbone has it; with a random caption."""
    config, weight = transformer.config, transformer.blocks[0].attn1.to_q.weight
    n_tokens = _CAPTION_TOKENS.get(architecture, 512)
    condition = torch.randn(1, n_tokens, config.text_dim, device=weight.device, dtype=weight.dtype)

    def velocity(x_t, t):
        extra = config.in_channels - x_t.shape[1]
        x = torch.cat([x_t, torch.zeros_like(x_t[:, :extra])], dim=1) if extra else x_t
        times = torch.full((1,), 1000.0 * t, device=weight.device)
        prediction = transformer(x.to(weight.dtype), timestep=times, encoder_hidden_states=condition, return_dict=False)
        return prediction[0].float()

    return velocity


def random_autoencoder(architecture: str, device: str) -> nn.Module:
    """Wan2.1's autoencoder in float32; a small one for "tiny"."""
    from diffusers import AutoencoderKLWan

    with torch.device(device):
        return AutoencoderKLWan(**(_TINY_AUTOENCODER if architecture == "tiny" else {}))

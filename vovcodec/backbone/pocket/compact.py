"""Weights of the convolutional networks in one byte each.

A parameter of two or more dimensions is stored as int8 q with a float32 scale per output, w = scale·q, scale = max|w|
of the output divided by 127; vectors and buffers as they are. Which tensors are coded shows in the file: those that
have a companion NAME.scale.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
from diffusers.models.modeling_utils import ModelMixin
from safetensors.torch import load_file, save_file

__all__ = ["load_network", "save_network"]

_WEIGHTS = "diffusion_pytorch_model.safetensors"
_SUFFIX = ".scale"

Network = TypeVar("Network", bound=ModelMixin)


def save_network(network: ModelMixin, folder: Path) -> None:
    """Writes config.json and the weights into `folder`; parameters of two or more dimensions lose precision."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().float().contiguous() for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        if parameter.dim() < 2:
            continue
        weights = tensors[name]
        scale = weights.flatten(1).abs().amax(1).clamp_min(1e-12) / 127
        tensors[name] = torch.round(weights / scale.view(-1, *[1] * (weights.dim() - 1))).to(torch.int8)
        tensors[name + _SUFFIX] = scale
    save_file(tensors, folder / _WEIGHTS, metadata={"format": "pt"})
    network.save_config(folder)


def load_network(network_class: type[Network], folder: Path) -> Network:
    """The network that `save_network`, or diffusers' `save_pretrained`, wrote; float32.

    Raises OSError, ValueError, KeyError, TypeError, RuntimeError or SafetensorError for a folder that holds none.
    """
    config = network_class.load_config(folder, local_files_only=True)
    network = network_class.from_config(config)
    tensors = load_file(folder / _WEIGHTS)
    weights = {}
    for name, tensor in tensors.items():
        if name.endswith(_SUFFIX):
            continue
        scale = tensors.get(name + _SUFFIX)
        weights[name] = tensor.float()
        if scale is not None:
            weights[name] *= scale.view(-1, *[1] * (tensor.dim() - 1))
    network.load_state_dict(weights)
    return network

"""Networks in folders of diffusers' layout: config.json with the constructor's arguments, weights as safetensors.

The embedded model does not use the classes of diffusers and transformers: importing these takes longer than all else
that a command has to load, and what they compute may change with their versions, while files have to decode for good.
Names of weights and of fields are theirs, so that both sides read what the other one wrote.

The convolutional networks are stored in one byte per weight: a parameter of two or more dimensions as int8 q with a
float32 scale per output, w = scale·q, scale = max|w| of the output divided by 127; vectors and buffers as they are.
Which tensors are coded so shows in the file: those that have a companion NAME.scale.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

__all__ = ["StoredNetwork"]

_CONFIG = "config.json"
_SUFFIX = ".scale"


class StoredNetwork(nn.Module):
    """A network that knows the arguments it was made with, as `config`.

    Subclasses pass these to the constructor here, and may say how other libraries call them: WEIGHTS, name of the file;
    CONSTANT, fields of config.json that their architecture leaves no choice in.
    """

    WEIGHTS: ClassVar[str] = "diffusion_pytorch_model.safetensors"
    CONSTANT: ClassVar[dict[str, Any]] = {}

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.config = SimpleNamespace(**settings)

    def save_pretrained(self, folder: Path, *, as_bytes: bool = False) -> None:
        """Writes config.json and the weights into `folder`. as_bytes: parameters of two or more dimensions in one byte
        per weight, which loses precision."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().contiguous() for name, tensor in self.state_dict().items()}
        if as_bytes:
            tensors = {name: tensor.float() for name, tensor in tensors.items()}
            for name, parameter in self.named_parameters():
                if parameter.dim() >= 2:
                    tensors[name], tensors[name + _SUFFIX] = _as_bytes(tensors[name])
        save_file(tensors, folder / self.WEIGHTS, metadata={"format": "pt"})
        fields = {"_class_name": type(self).__name__} | vars(self.config) | self.CONSTANT
        (folder / _CONFIG).write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: Path) -> Self:
        """The network that `save_pretrained`, or the library whose layout this is, wrote; float32.

        Raises OSError, ValueError, TypeError, RuntimeError or SafetensorError for a folder that holds none.
        """
        fields = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        if not isinstance(fields, dict):
            raise ValueError(f"{_CONFIG} holds no fields")
        for name, value in cls.CONSTANT.items():
            if not name.startswith("_") and fields.get(name, value) != value:
                raise ValueError(f"{_CONFIG} has {name} = {fields[name]!r}, which must be {value!r}")
        known = {name: fields[name] for name in inspect.signature(cls).parameters if name in fields}
        settings = {name: tuple(value) if isinstance(value, list) else value for name, value in known.items()}
        tensors = load_file(folder / cls.WEIGHTS)
        weights = {name: _restored(name, tensors) for name in tensors if not name.endswith(_SUFFIX)}
        # Not on the device "meta", for which torch would import its compiler: that takes longer than the initial weights.
        with torch.random.fork_rng(devices=()):
            network = cls(**settings)
        wanted = {name: tensor.shape for name, tensor in network.state_dict().items()}
        if wanted != {name: tensor.shape for name, tensor in weights.items()}:
            raise ValueError(f"{cls.WEIGHTS} does not hold the tensors that {_CONFIG} asks for")
        network.load_state_dict(weights, assign=True)
        return network


def _as_bytes(weights: Tensor) -> tuple[Tensor, Tensor]:
    scale = weights.flatten(1).abs().amax(1).clamp_min(1e-12) / 127
    return torch.round(weights / scale.view(-1, *[1] * (weights.dim() - 1))).to(torch.int8), scale


def _restored(name: str, tensors: dict[str, Tensor]) -> Tensor:
    tensor, scale = tensors[name].float(), tensors.get(name + _SUFFIX)
    return tensor if scale is None else tensor * scale.view(-1, *[1] * (tensor.dim() - 1))

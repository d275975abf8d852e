"""Networks in folders of diffusers' layout: config.json with the constructor's arguments, weights as safetensors.

The embedded model does not use the classes of diffusers and transformers: importing these takes longer than all else
that a command has to load, and what they compute may change with their versions, while files have to decode for good.
Names of weights and of fields are theirs, so that they read what is written here, and the other way round as long as
the weights are one file.

The networks of pictures and clips are stored in one byte per weight, which only this module reads: a parameter of two
or more dimensions as int8 q with a float32 scale per output, w = scale·q, scale = max|w| of the output divided by 127;
vectors and buffers as they are. The scale of tensor NAME is tensor NAME.scale.
"""

from __future__ import annotations

import inspect
import json
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from vovcodec.backbone.locate import weight_files
from vovcodec.errors import ModelError

__all__ = ["StoredNetwork"]

_CONFIG, _CONFIG_MOST_BYTES = "config.json", 1 << 16
_SUFFIX = ".scale"
_FLOATS = ("F32", "F16", "BF16")
_MOST = 1 << 20  # of any number among the settings
_MAKERS = (torch.empty, torch.eye, torch.ones, torch.tensor)

Shapes = dict[str, tuple[int, ...]]


class StoredNetwork(nn.Module):
    """A network that knows the arguments it was made with, as `config`; all of them have defaults.

    Subclasses may say how other libraries call them: WEIGHTS, name of the file; CONSTANT, fields of config.json that
    their architecture leaves no choice in.
    """

    WEIGHTS: ClassVar[str] = "diffusion_pytorch_model.safetensors"
    CONSTANT: ClassVar[dict[str, Any]] = {}

    config: SimpleNamespace

    def __new__(cls, *arguments: Any, **settings: Any) -> Self:
        network = super().__new__(cls)
        given = inspect.signature(cls.__init__).bind(network, *arguments, **settings)
        given.apply_defaults()
        _, *values = given.arguments.items()  # the first one is the network itself
        network.config = SimpleNamespace(**dict(values))
        return network

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

        Nothing is believed: a network is made only as far as the file has numbers for it. Raises ModelError for a
        folder that does not hold one.
        """
        # Which file the fingerprint of a model covers is decided in one place.
        if weight_files(folder) != [folder / cls.WEIGHTS]:
            raise ModelError(f"{folder.name} does not have its weights in one file, {cls.WEIGHTS}")
        try:
            settings = cls._settings(folder / _CONFIG)
            shapes = _shapes(folder / cls.WEIGHTS)
            with _Outline(sum(math.prod(shape) for shape in shapes.values())):
                network = cls(**settings)
            if shapes != {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}:
                raise ValueError(f"{cls.WEIGHTS} does not hold the tensors that {_CONFIG} asks for")
            tensors = load_file(folder / cls.WEIGHTS)
            network.load_state_dict({name: _restored(name, tensors) for name in shapes}, assign=True)
        except (ArithmeticError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError) as error:
            raise ModelError(f"{folder.name}: {_first_line(error)}") from error
        except SafetensorError as error:
            raise ModelError(f"{folder.name}: {cls.WEIGHTS}: {_first_line(error)}") from error
        return network

    @classmethod
    def _settings(cls, path: Path) -> dict[str, Any]:
        if not path.is_file() or path.stat().st_size > _CONFIG_MOST_BYTES:
            raise ValueError(f"{_CONFIG} is no file, or too long")
        fields = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(fields, dict):
            raise ValueError(f"{_CONFIG} holds no fields")
        for name, value in cls.CONSTANT.items():
            if not name.startswith("_") and fields.get(name, value) != value:
                raise ValueError(f"{_CONFIG} has {name} = {fields[name]!r}, which must be {value!r}")
        kinds = typing.get_type_hints(cls.__init__)
        return {name: _checked(name, fields[name], kind) for name, kind in kinds.items() if name in fields}


def _checked(name: str, value: Any, kind: type) -> Any:
    """A setting of the annotated kind: an int of at least 1, a float of at least 0 or a tuple of such ints."""
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{_CONFIG} has {name} = {value!r}, which must be a list")
        return tuple(_checked(name, each, int) for each in value)
    kinds, least = (int, 1) if kind is int else ((int, float), 0)
    if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= _MOST:
        raise ValueError(f"{_CONFIG} has {name} = {value!r}, which must be a number from {least} to {_MOST}")
    return value


def _shapes(path: Path) -> Shapes:
    """Of every tensor but the scales, which are checked here. Nothing is loaded."""
    with safe_open(path, "pt") as file:
        stored = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (it has no iterator)
        facts = {name: (tuple(each.get_shape()), each.get_dtype()) for name, each in stored.items()}
    scales = {name: facts.pop(name) for name in list(facts) if name.endswith(_SUFFIX)}
    wanted = {name + _SUFFIX: (shape[:1], "F32") for name, (shape, dtype) in facts.items() if dtype == "I8"}
    if scales != wanted:
        raise ValueError(f"{path.name}: scales do not belong to the tensors")
    for name, (shape, dtype) in facts.items():
        if dtype not in _FLOATS and not (dtype == "I8" and len(shape) >= 2):
            raise ValueError(f"{path.name}: {name} holds {dtype}")
    return {name: shape for name, (shape, _) in facts.items()}


class _Outline(TorchFunctionMode):
    """Networks that this thread makes here have shapes but no values, so that neither memory nor random numbers are
    spent. Raises ValueError as soon as they have more than `n_values` parameters and entries of buffers.

    `torch.device("meta")` does the same, but imports torch's compiler for `eye` and `normal_`: that takes seconds.
    """

    def __init__(self, n_values: int) -> None:
        super().__init__()
        self._left = n_values

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, arguments: Sequence[Any] = (), settings: Any = None
    ) -> Any:
        settings = settings or {}
        if function is nn.init.normal_:
            return settings["tensor"]
        if function not in _MAKERS:
            return function(*arguments, **settings)
        if function is torch.eye:
            function, arguments = torch.empty, (arguments[0], arguments[-1])
        made = function(*arguments, **settings | {"device": "meta"})
        self._left -= made.numel()
        if self._left < 0:
            raise ValueError(f"{_CONFIG} asks for more than the weights are")
        return made


def _as_bytes(weights: Tensor) -> tuple[Tensor, Tensor]:
    scale = weights.flatten(1).abs().amax(1).clamp_min(1e-12) / 127
    return torch.round(weights / scale.view(-1, *[1] * (weights.dim() - 1))).to(torch.int8), scale


def _restored(name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    tensor, scale = tensors[name].float(), tensors.get(name + _SUFFIX)
    return tensor if scale is None else tensor * scale.view(-1, *[1] * (tensor.dim() - 1))


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

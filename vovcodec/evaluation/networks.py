"""The convolutional parts of VGG-16 and AlexNet, and where their published weights are looked for.

Only the structure is here, in the order and with the parameter names of torchvision's models, so that torchvision's
files load; torchvision itself is not needed. Nothing is downloaded.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from vovcodec.errors import ModelError

__all__ = ["WEIGHTS_VARIABLE", "alexnet_layers", "find_weights", "frame_batches", "load_convolutions", "vgg16_layers"]

WEIGHTS_VARIABLE = "VOV_METRIC_WEIGHTS"


def vgg16_layers() -> nn.Sequential:
    """The 13 convolutions of VGG-16, layers 0…29 of torchvision's `features` (the last pooling left out).

    K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image recognition", ICLR 2015,
    configuration D.
    """
    layers: list[nn.Module] = []
    n_in = 3
    for n_out, n_convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        if layers:
            layers.append(nn.MaxPool2d(2, 2))
        for _ in range(n_convolutions):
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1), nn.ReLU()]
            n_in = n_out
    return nn.Sequential(*layers)


def alexnet_layers() -> nn.Sequential:
    """The 5 convolutions of AlexNet as in torchvision's `features`, layers 0…11 (the last pooling left out).

    A. Krizhevsky, "One weird trick for parallelizing convolutional neural networks", arXiv 1404.5997.
    """
    return nn.Sequential(
        nn.Conv2d(3, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(),
    )  # fmt: skip


def load_convolutions(layers: nn.Sequential, path: Path) -> nn.Sequential:
    """Fills `layers` from a torchvision state file (`features.0.weight`, …). Raises ModelError if it does not fit."""
    state = read_state(path)
    features = {name.removeprefix("features."): value for name, value in state.items() if name.startswith("features.")}
    try:
        layers.load_state_dict(features)
    except RuntimeError as error:
        raise ModelError(f"{path}: not the weights of this network: {str(error).splitlines()[-1].strip()}") from error
    return layers.eval().requires_grad_(False)


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a PyTorch state file; nothing else in it is executed. Raises ModelError."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ModelError(f"{path}: cannot be read as PyTorch weights: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict):
        raise ModelError(f"{path}: holds no table of tensors")
    return state


def find_weights(what: str, names: Sequence[str], folder: Path | None, package: str = "", inside: str = "") -> Path:
    """The first file called one of `names` in `folder`, in $VOV_METRIC_WEIGHTS, in PyTorch's download cache, or, where
    the Python package `package` happens to be installed, in its folder `inside`.

    Raises ModelError that says what is missing, under which names, and where it was looked for.
    """
    places = list(_places(folder, package, inside))
    for place in places:
        for name in names:
            if (place / name).is_file():
                return place / name
    raise ModelError(
        f"{what} is not here: put {' or '.join(names)} into a folder and name it with --weights or in "
        f"{WEIGHTS_VARIABLE} (looked in {', '.join(map(str, places))})"
    )


def _places(folder: Path | None, package: str, inside: str) -> Iterator[Path]:
    if folder is not None:
        yield folder
        return
    if os.environ.get(WEIGHTS_VARIABLE):
        yield Path(os.environ[WEIGHTS_VARIABLE])
    yield Path(torch.hub.get_dir()) / "checkpoints"
    found = importlib.util.find_spec(package) if package else None
    for location in (found.submodule_search_locations or []) if found else []:
        yield Path(location) / inside


def frame_batches(reference, distorted) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of frames one by one, float32 [1, 3, H, W] in 0…1."""
    for pair in zip(reference, distorted, strict=True):
        x, y = (torch.from_numpy(frame.copy()).permute(2, 0, 1)[None].float() / 255 for frame in pair)
        yield x, y

"""Stage 2 of a fit: how θ is rounded, what that costs in bits, and which step size comes out.

`SizeTarget` holds a coded size all the time, `Multiplier` weighs bits against distortion; see fit.py for both.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from vovcodec.entropy.factorized import FactorizedModel
from vovcodec.entropy.mixture import GaussianMixtureModel
from vovcodec.entropy.proxies import add_uniform_noise, round_straight_through
from vovcodec.entropy.quantizer import COARSEST_OCTAVES, SYMBOL_LIMIT, dequantize, nearest_step_size_q, quantize
from vovcodec.entropy.step_search import finest_step_size_q
from vovcodec.entropy.symbols import coded_size

__all__ = ["Multiplier", "Rate", "SizeTarget"]

_LONG_VECTOR = 16384  # from here on the deep density earns its cost


class Rate(Protocol):
    """What both forms of stage 2 offer."""

    def parameters(self) -> list[nn.Parameter]:
        """What is learned besides θ."""
        ...

    def start(self, theta: Tensor) -> None:
        """Stage 2 begins with θ [k]."""
        ...

    def rounded(self, theta: Tensor, done: float) -> Tensor:
        """θ [k] as the network is to see it when the share `done` of the stage is over, in (0, 1]; differentiable."""
        ...

    def cost(self, theta: Tensor, step: int) -> tuple[Tensor, float]:
        """What step `step` of the stage adds to the distortion, a scalar, and the bits that the vector takes."""
        ...

    def step_size_q(self, theta: Tensor) -> int:
        """Of the Δ with which θ [k] goes into the file."""
        ...

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Tensors, not copied, and figures for `restore`."""
        ...

    def restore(self, tensors: dict[str, Tensor], figures: dict[str, float]) -> None:
        """Continue where `snapshot` was taken."""
        ...


class SizeTarget:
    """Δ is the finest at which the coded symbols take `size_bytes`; rounding sets in little by little.

    θ̃ = θ + a·(Δ·round(θ/Δ) − θ), a = the share of the stage that is over, with the identity as its gradient. Rounding
    in full from the first step on throws entries about that are half a step from where they should be.
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._near: int | None = None
        self._coded_bytes = 0

    def parameters(self) -> list[nn.Parameter]:
        """None."""
        return []

    def start(self, theta: Tensor) -> None:
        """Nothing to prepare."""

    def rounded(self, theta: Tensor, done: float) -> Tensor:
        """See the class."""
        self._near = self.step_size_q(theta)
        symbols = quantize(theta.detach().cpu().numpy(), self._near)
        self._coded_bytes = coded_size(symbols)
        coded = torch.from_numpy(dequantize(symbols, self._near)).to(theta.device)
        return theta + done * (coded - theta).detach()

    def cost(self, theta: Tensor, step: int) -> tuple[Tensor, float]:
        """No cost: the size is what it is to be."""
        return torch.zeros(()), 8.0 * self._coded_bytes

    def step_size_q(self, theta: Tensor) -> int:
        """See `Rate.step_size_q`."""
        return finest_step_size_q(theta.detach().cpu().numpy(), self.size_bytes, self._near)

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """See `Rate.snapshot`."""
        return {}, {} if self._near is None else {"near": self._near}

    def restore(self, tensors: dict[str, Tensor], figures: dict[str, float]) -> None:
        """See `Rate.restore`."""
        self._near = int(figures["near"]) if "near" in figures else None


class Multiplier:
    """λ·R/k with a learned Δ and a learned density p: R = Σ −log₂ p(θ/Δ + u), u uniform in ±1/2 (arXiv 2603.07615).

    Δ = exp(s) and, for short vectors, p a mixture of Gaussians; published: Δ = softplus(s) and p the deep factorised
    density whatever the length.

    lambda_: of the objective's distortion per bit per parameter. warmup_steps: until it acts in full. length: k.
    """

    def __init__(
        self, lambda_: float, warmup_steps: int, length: int, device: torch.device, *, published: bool = False
    ) -> None:
        self._lambda, self._warmup_steps, self._published = lambda_, warmup_steps, published
        self._raw_delta = nn.Parameter(torch.zeros((), device=device))
        is_deep = published or length >= _LONG_VECTOR
        self._model = (FactorizedModel() if is_deep else GaussianMixtureModel()).to(device)
        self._generator = torch.Generator(device)

    def _delta(self) -> Tensor:
        return functional.softplus(self._raw_delta) if self._published else self._raw_delta.exp()

    def _raw(self, delta: float) -> float:
        """s of a Δ: the inverse of `_delta`."""
        return delta + math.log(-math.expm1(-delta)) if self._published else math.log(delta)

    def parameters(self) -> list[nn.Parameter]:
        """s and the density's."""
        return [self._raw_delta, *self._model.parameters()]

    def start(self, theta: Tensor) -> None:
        """Δ from the vector's spread: two bits or so per parameter to begin with, λ takes it from there."""
        with torch.no_grad():
            # A Gaussian of deviation σ has entropy log2(σ/Δ) + 2.05 bits at small Δ.
            delta = float(theta.std(correction=0)) * 2.0**0.05 + 1e-8
            self._raw_delta.fill_(self._raw(delta))
        if isinstance(self._model, GaussianMixtureModel):
            self._model.fit(theta.detach() / delta)

    def rounded(self, theta: Tensor, done: float) -> Tensor:
        """Δ·round(θ/Δ), straight through."""
        with torch.no_grad():
            self._raw_delta.clamp_(max=self._raw(2.0**COARSEST_OCTAVES))  # the file's largest
        return round_straight_through(theta, self._delta(), SYMBOL_LIMIT)

    def cost(self, theta: Tensor, step: int) -> tuple[Tensor, float]:
        """See `Rate.cost`."""
        delta = self._delta()
        # Noise from a generator addressed by the step: a resumed fit draws the same.
        self._generator.manual_seed(step)
        noisy = add_uniform_noise(theta, delta, self._generator)
        warm = min(1.0, (step + 1) / max(1, self._warmup_steps))
        with torch.no_grad():
            # Reported is the rate of the symbols; noise makes a vector of many zeros look expensive.
            symbols = (theta / delta).round().clamp(-SYMBOL_LIMIT, SYMBOL_LIMIT)
            bits = float(self._model.rate_bits(symbols))
        return self._lambda * warm * self._model.rate_bits(noisy) / theta.numel(), bits

    def step_size_q(self, theta: Tensor) -> int:
        """See `Rate.step_size_q`."""
        return nearest_step_size_q(float(self._delta().detach()))

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, float]]:
        """See `Rate.snapshot`."""
        return {"raw_delta": self._raw_delta, **self._model.state_dict()}, {}

    def restore(self, tensors: dict[str, Tensor], figures: dict[str, float]) -> None:
        """See `Rate.restore`."""
        tensors = dict(tensors)
        with torch.no_grad():
            self._raw_delta.copy_(tensors.pop("raw_delta"))
        self._model.load_state_dict(tensors)

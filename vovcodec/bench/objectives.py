"""What a fitted vector is worth per network evaluation: the published recipe against fitting on the decoder's states.

    python -m vovcodec.bench.objectives --media FOLDER --out FILE.tsv [--clips kodim23] [--frames 9] [--crop 64]
        [--vector-length 2048] [--vector-bytes N] [--budgets 32,64,…] [--recipes trajectory,float,…]
        [--reference-budgets 512] [--paper-budgets 512,8000] [--lr 4e-2] [--steps 1,2,4,8] [--threads N]

Same model, latents, vector length and, with --vector-bytes, same bytes; vectors alone, no steering. The fits:

- paper: arXiv 2603.07615 to the letter: fresh noise, uniform times, two stages, constant rates; decoded in 50 steps.
- reference: its objective with our projection, start and learning rates; decoded in 50 steps.
- trajectory: ours, on the states of a decoder that takes 1, 2, 4 or 8 steps.
- float: the same with all evaluations in stage 1; its vector is not coded: what coding is to be compared with.
- on-policy, through-sampler: other objectives in place of the trajectory's, see other_objectives.py. What the first
  spends on tracing is not counted.

Every row is one fit of so many network evaluations and the quality of its decoded vector.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from vovcodec.bench.command import backbone_of, media_parser, media_paths, run
from vovcodec.bench.other_objectives import OnPolicyObjective, SamplerObjective
from vovcodec.bench.points import Item, byte_counts, names, read_item
from vovcodec.bench.table import Table
from vovcodec.codec.plans import adaptation_of_preset
from vovcodec.codec.regenerate import adapted_velocity, make_adapter
from vovcodec.entropy.symbols import coded_size
from vovcodec.errors import UsageError
from vovcodec.fitting.fit import FitSettings, StageSettings, entry_scale, fit_vector, initial_vector
from vovcodec.fitting.objective import Objective, ReferenceObjective, TrajectoryObjective, straight_path
from vovcodec.metrics import psnr, ssim
from vovcodec.preset_groups import Stage1, Stage2
from vovcodec.presets import Preset, load_preset, resolve
from vovcodec.progress import SilentListener
from vovcodec.sampling.sampler import Velocity, initial_noise, sample
from vovcodec.sampling.schedule import shift_to_q8, time_grid

__all__ = ["FitRow", "main"]

_RECIPES = ("trajectory", "float", "on-policy", "through-sampler")
_PAPER_STEPS, _SHIFT_Q8, _SEED, _SEGMENT = 50, shift_to_q8(3.0), 0, 0


@dataclass(frozen=True)
class FitRow:
    """One fit. lr: of stage 1, per factor entry (paper: per vector entry); evaluations: network passes of the fit;
    steps: of the decoder; vector_bytes: coded, or four for each entry of the recipe float.
    """

    model: str
    item: str
    size: str
    frames: int
    recipe: str
    lr: float
    vector_length: int
    target_bytes: int | None
    evaluations: int
    steps: int
    vector_bytes: int
    psnr_db: float
    ssim: float
    fit_s: float


class _Bench:
    """One picture or clip under one model."""

    def __init__(self, backbone, preset: Preset, paper: Preset, item: Item, options: argparse.Namespace) -> None:
        self.backbone, self.preset, self.paper, self.item, self.options = backbone, preset, paper, item, options
        self.target = backbone.to_latents(item.frames)

    def decoded(self, velocity, n_steps: int) -> np.ndarray:
        """What a decoder shows after so many steps."""
        noise = initial_noise(_SEED, _SEGMENT, tuple(self.target.shape)).to(self.target.device)
        return self.backbone.to_frames(sample(velocity, noise, time_grid(n_steps, _SHIFT_Q8), []))

    def stages(self, recipe: str) -> tuple[Stage1, Stage2]:
        """The preset's stages, with the learning rate that is asked for."""
        fitting = (self.paper if recipe == "paper" else self.preset).fitting
        if recipe == "paper" or not self.options.lr:
            return fitting.stage1, fitting.stage2
        lr = self.options.lr
        return replace(fitting.stage1, lr=lr), replace(fitting.stage2, lr=lr / 2)

    def fit(self, recipe: str, evaluations: int, fit_steps: int, decode_steps: Iterable[int]) -> list[FitRow]:
        """A fit of so many evaluations, then one row for each number of decoder steps.

        fit_steps: of the decoder that a trajectory fit is made for.
        """
        is_paper = recipe == "paper"
        settings = self.paper if is_paper else self.preset
        vector = replace(settings.adaptation, vector_length=self.options.vector_length)
        adaptation = adaptation_of_preset(replace(settings, adaptation=vector))
        adapter = make_adapter(self.backbone, adaptation)
        unit = 1.0 if is_paper else entry_scale(adapter)
        start = unit * initial_vector(_SEED, _SEGMENT, adapter.vector_length).to(self.backbone.device)
        if adaptation.projection_id == "offset-philox":
            start = torch.zeros_like(start)
        with adapted_velocity(self.backbone, "", adapter, start, for_fitting=True) as velocity:
            objective = self._objective(recipe, velocity, fit_steps, settings.fitting.batch)
            started = time.perf_counter()
            fitted = fit_vector(
                adapter,
                velocity,
                objective,
                self._fit_settings(recipe, evaluations // objective.evaluations, unit),
                start,
                segment=_SEGMENT,
                listener=SilentListener(),
            )
            fit_s = time.perf_counter() - started
            theta, n_bytes = fitted.theta, coded_size(fitted.symbols)
            if recipe == "float":
                theta, n_bytes = fitted.unquantized, 4 * adapter.vector_length
            rows = []
            for n_steps in decode_steps:
                with torch.no_grad():
                    adapter.materialize(torch.from_numpy(theta).to(self.backbone.device))
                    shown = self.decoded(velocity, n_steps)
                rows.append(
                    FitRow(
                        self.backbone.fingerprint.hex(),
                        self.item.name,
                        "{}x{}".format(*self.item.size),
                        len(self.item.frames),
                        recipe,
                        self.stages(recipe)[0].lr,
                        adapter.vector_length,
                        self.options.vector_bytes,
                        evaluations,
                        n_steps,
                        n_bytes,
                        round(psnr(self.item.frames, shown), 3),
                        round(ssim(self.item.frames, shown), 5),
                        round(fit_s, 1),
                    )
                )
        return rows

    def _fit_settings(self, recipe: str, n_iterations: int, unit: float) -> FitSettings:
        """Stage 2 takes half; `unit`: of the learning rates."""
        one, two = self.stages(recipe)
        n_two = 0 if recipe == "float" else n_iterations // 2
        return FitSettings(
            StageSettings(n_iterations - n_two, one.lr * unit, one.weight_decay),
            StageSettings(n_two, two.lr * unit, two.weight_decay),
            lambda_=two.lambda_,
            warmup_steps=n_two // 2 if recipe == "paper" else n_two // 6,
            target_bytes=self.options.vector_bytes,
            published=recipe == "paper",
        )

    def _objective(self, recipe: str, velocity: Velocity, n_steps: int, batch: int) -> Objective:
        """For a decoder of `n_steps` steps, which the published recipe does not know of."""
        if recipe in ("paper", "reference"):
            return ReferenceObjective(self.target, _SEED, _SEGMENT, batch)
        times = time_grid(n_steps, _SHIFT_Q8)
        states = straight_path(self.target, times, _SEED, _SEGMENT)
        with torch.no_grad():
            if recipe == "through-sampler":
                scale = float((sample(velocity, states[0][0], times, []) - self.target).square().mean())
                return SamplerObjective(self.target, states[0][0], times, scale)
            scales = [float((x_t - t * velocity(x_t, t) - self.target).square().mean()) for x_t, t in states]
        made = functools.partial(OnPolicyObjective, times=times) if recipe == "on-policy" else TrajectoryObjective
        return made(self.target, states, scales, _SEED, _SEGMENT, min(batch, n_steps))


def _cropped(item: Item, side: int | None) -> Item:
    """The middle of the picture, side × side pixels."""
    if side is None:
        return item
    height, width = item.frames.shape[1:3]
    top, left = (height - side) // 2, (width - side) // 2
    frames = np.ascontiguousarray(item.frames[:, top : top + side, left : left + side])
    return replace(item, frames=frames)


def _work(options: argparse.Namespace) -> int:
    unknown = set(options.recipes) - set(_RECIPES)
    if unknown:
        raise UsageError(f"no recipe {min(unknown)!r}; there are {', '.join(_RECIPES)}")
    paths = media_paths(options)
    shipped = load_preset(options.preset)
    preset, paper = resolve(shipped, {}, None), resolve(shipped, {}, "paper")
    backbone = backbone_of(preset, options.device)
    table = Table(options.out, FitRow, model=backbone.fingerprint.hex())
    for path in paths:
        item = _cropped(read_item(path, options.preset, options.frames, None), options.crop)
        bench = _Bench(backbone, preset, paper, item, options)
        few = options.steps
        runs = [
            (each, budget, steps, [steps]) for each in options.recipes for budget in options.budgets for steps in few
        ]
        runs += [("reference", budget, 0, [*few, _PAPER_STEPS]) for budget in options.reference_budgets]
        runs += [("paper", budget, 0, [*few, _PAPER_STEPS]) for budget in options.paper_budgets]
        here = {"item": item.name, "size": "{}x{}".format(*item.size), "frames": len(item.frames)}
        here |= {"vector_length": options.vector_length, "target_bytes": options.vector_bytes}
        for recipe, budget, fit_steps, decode_steps in runs:
            lr = bench.stages(recipe)[0].lr
            if not table.having(**here, recipe=recipe, lr=lr, evaluations=budget, steps=decode_steps[-1]):
                rows = bench.fit(recipe, budget, fit_steps, decode_steps)
                table.add(*rows)
                for row in rows:
                    _tell(row)
        print(_conclusion(table.having(**here)), flush=True)
    return 0


def _tell(row: FitRow) -> None:
    print(
        f"{row.item}: {row.recipe}, {row.evaluations} evaluations, {row.vector_bytes} B, decoded in {row.steps}: "
        f"{row.psnr_db:.2f} dB",
        file=sys.stderr,
        flush=True,
    )


def _conclusion(rows: Sequence[FitRow]) -> str:
    """Ratios and leads over the published recipe, for people."""
    ours = sorted((row for row in rows if row.recipe == "trajectory"), key=lambda row: row.evaluations)
    lines = [f"{rows[0].item}, {rows[0].frames} frame(s) of {rows[0].size}, {rows[0].vector_length} entries"]
    for recipe in ("paper", "reference"):
        theirs = [row for row in rows if row.recipe == recipe and row.steps == _PAPER_STEPS]
        if not theirs or not ours:
            continue
        final = max(theirs, key=lambda row: row.evaluations)
        lines.append(
            f"  {recipe}: {final.psnr_db:.2f} dB after {final.evaluations} evaluations, {final.vector_bytes} B"
        )
        for steps in sorted({row.steps for row in ours}):
            own = [row for row in ours if row.steps == steps]
            enough = next((row for row in own if row.psnr_db >= final.psnr_db), None)
            if enough is None:
                lines.append(f"    ours, {steps} steps: never so good (best {max(r.psnr_db for r in own):.2f} dB)")
            else:
                share = final.evaluations / enough.evaluations
                lines.append(f"    ours, {steps} steps: as good after {enough.evaluations} evaluations, 1/{share:.0f}")
            for row in own:
                for other in theirs:
                    if other.evaluations == row.evaluations:
                        lead = row.psnr_db - other.psnr_db
                        lines.append(f"      at {row.evaluations} evaluations {lead:+.2f} dB, {row.vector_bytes} B")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = media_parser("objectives", "Quality of a vector per network evaluation.", frames=9)
    parser.add_argument("--crop", type=int, help="pixels: only the middle square of the picture")
    parser.add_argument("--vector-length", type=int, default=2048)
    parser.add_argument("--vector-bytes", type=int, help="coded size to reach; default: each preset's multiplier")
    parser.add_argument("--budgets", type=byte_counts, default=[32, 64, 128, 256, 512], help="evaluations of our fits")
    parser.add_argument("--recipes", type=names, default=["trajectory"], help=f"of these fits: {', '.join(_RECIPES)}")
    parser.add_argument("--reference-budgets", type=byte_counts, default=[512], help="of the reference's objective")
    parser.add_argument("--paper-budgets", type=byte_counts, default=[512, 8000], help="of the published recipe")
    parser.add_argument("--lr", type=float, help="of our fits, per factor entry, instead of the preset's")
    parser.add_argument("--steps", type=byte_counts, default=[1, 2, 4, 8], help="decoder steps")
    return run("objectives", _work, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())

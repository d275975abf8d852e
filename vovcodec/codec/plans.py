"""Translation between what a file says and what the sampler and the adaptation take; shared by all verbs."""

from __future__ import annotations

from fractions import Fraction

from vovcodec.container import CodedAtoms, Segment, StreamHeader
from vovcodec.presets import Preset
from vovcodec.sampling.schedule import ETA_UNIT, shift_to_q8
from vovcodec.sampling.steering import SteeringPlan

__all__ = ["coded_atoms", "frame_rate_of", "plan_of_preset", "plan_of_segment"]

# Names in the container ↔ names in sampling.
_CODEBOOKS = {"hadamard": "hadamard", "cyclic-shift": "cyclic"}


def plan_of_segment(header: StreamHeader, segment: Segment) -> SteeringPlan:
    """The decoder's plan: times and seed of the header, atoms of the segment (none: an ODE sampler)."""
    sampler, atoms = header.sampler, segment.atoms
    if atoms is None:
        return SteeringPlan(n_steps=sampler.n_steps, shift_q8=sampler.shift_q8, seed=sampler.seed)
    return SteeringPlan(
        n_steps=sampler.n_steps,
        shift_q8=sampler.shift_q8,
        seed=sampler.seed,
        n_atoms_total=atoms.n_atoms_total,
        ramp_q=atoms.ramp_q,
        eta_q=atoms.eta_q,
        codebook=_CODEBOOKS[atoms.codebook],
        active_channels=atoms.extra[0] if atoms.extra else 0,
        n_steps_kept=atoms.n_steps_kept,
    )


def coded_atoms(plan: SteeringPlan, words: bytes) -> CodedAtoms:
    """The file's form of a plan and its coded positions and signs."""
    names = {value: key for key, value in _CODEBOOKS.items()}
    return CodedAtoms(
        codebook=names[plan.codebook],
        n_atoms_total=plan.n_atoms_total,
        ramp_q=plan.ramp_q,
        n_steps_kept=plan.n_steps_kept,
        eta_q=plan.eta_q,
        extra=(plan.active_channels,) if plan.active_channels else (),
        words=words,
    )


def plan_of_preset(preset: Preset, *, is_still: bool) -> SteeringPlan:
    """The encoder's plan before the number of atoms is known."""
    sampler, steering = preset.sampler, preset.steering
    shift = sampler.still_shift if is_still and sampler.still_shift else sampler.shift
    return SteeringPlan(
        n_steps=sampler.steps,
        shift_q8=shift_to_q8(shift),
        seed=sampler.seed,
        n_atoms_total=steering.atoms_total if steering.method == "atoms" else 0,
        ramp_q=round(255 * steering.ramp),
        eta_q=(round(ETA_UNIT * steering.eta),),
        codebook=steering.codebook,
        active_channels=steering.active_channels,
    )


def frame_rate_of(header: StreamHeader) -> Fraction:
    """Frames per second, exact; 0 for a still."""
    return Fraction(header.frame_rate_num, header.frame_rate_den)

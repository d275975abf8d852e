"""What a `.vov` file says about itself, without a model: no torch, no frames."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vovcodec.codec.limits import decode_cost, require_within
from vovcodec.codec.options import DecodeLimits
from vovcodec.codec.sound import audio_summary
from vovcodec.container import Segment, VovFile, audio_of, describe, describe_lines, parse, read_bytes
from vovcodec.errors import FormatError, name_input

if TYPE_CHECKING:
    from vovcodec.backbone.geometry import LatentGeometry

__all__ = ["check", "decoding", "inspect", "summary"]


def inspect(source: str | Path, *, verify: bool = False, limits: DecodeLimits | None = None) -> dict[str, Any]:
    """Everything in the file as plain data.

    source: a path or `-`. verify: also decode all that is coded (see `check`); every CRC is always verified.
    limits: what the file may have.
    Of a damaged file what can be read is told, and `content.damage` is not empty; with `verify` it is refused.
    Returns `file`, `summary` (see there), `decoding` (what it would take), `content` (field by field), `lines` (the
    same for people) and, with `verify`, `check`.
    Raises FormatError where the header cannot be read and for a file above the limits, MediaError where there is none.
    """
    stream = _read(source)
    require_within(stream, limits or DecodeLimits())
    checked = {"check": check(stream)} if verify else {}
    content = describe(stream)
    found = {"file": str(source), "summary": summary(stream), "decoding": decoding(stream)}
    return {**found, "content": content, "lines": describe_lines(content), **checked}


def _read(source: str | Path) -> VovFile:
    """All that can be read of a file. Tolerant reading has no eye for every fault: what strict reading finds counts."""
    data = read_bytes(sys.stdin.buffer if str(source) == "-" else source)
    try:
        try:
            return parse(data)
        except FormatError as fault:
            stream = parse(data, tolerant=True)
            return stream if stream.damage else replace(stream, damage=((None, fault),))
    except FormatError as error:
        if str(source) != "-":
            name_input(error, source)
        raise


def summary(stream: VovFile) -> dict[str, Any]:
    """The figures people compare files by.

    size_bytes: of the whole file; vector_bytes, atoms_bytes: of the coded payloads alone, all segments.
    bpp: 8·size_bytes / (frames·source width·source height). Sizes are (width, height) in pixels. frame_rate 0: a still.
    steps: of the sampler, of the segment that takes most. vectors: of the segment that has most, each with its
    strength, the factor on its update of the model. scenes: segments that rest on a picture, None for none; cameras:
    those over whose picture one moves. psnr_db: of the clip, from what the encoder measured of each segment, in steps
    of 1/16 dB; worst_psnr_db: of the segment that has least, None for a single one; both None where a segment has no
    check, as after dropping its steering. edits: how many made the file what it is, None for none. audio: see
    `sound.audio_summary`.
    """
    header = stream.header
    size_bytes = max((section.offset + section.size_bytes for section in stream.layout), default=0)
    n_pixels = header.n_frames * header.source_width * header.source_height
    n_steps = [header.sampler.steps_of(segment) for segment in stream.segments]
    updates = [segment.updates(header.adaptation) for segment in stream.segments]
    psnr_db, worst_psnr_db = _psnrs_db(stream.segments)
    return {
        "size_bytes": size_bytes,
        "bpp": 8 * size_bytes / n_pixels,
        "n_frames": header.n_frames,
        "frame_rate": Fraction(header.frame_rate_num, header.frame_rate_den),
        "source_size": (header.source_width, header.source_height),
        "coded_size": (header.coded_width, header.coded_height),
        "segments": header.n_segments,
        "backbone": header.backbone_id,
        "steps": max(n_steps, default=0),
        "vector_length": header.adaptation.vector_length if header.adaptation else 0,
        "vectors": max(map(len, updates), default=0),
        "strengths": [update.adaptation.strength for update in max(updates, key=len, default=())] or None,
        "vector_bytes": sum(update.vector.size_bytes for each in updates for update in each),
        "atoms_bytes": sum(len(s.atoms.words) for s in stream.segments if s.atoms),
        "scenes": sum(bool(s.atoms and s.atoms.scene_injections) for s in stream.segments) or None,
        "cameras": sum(bool(s.atoms and s.atoms.camera_path) for s in stream.segments) or None,
        "psnr_db": psnr_db,
        "worst_psnr_db": worst_psnr_db,
        "audio": audio_summary(stream),
        "caption": stream.caption or "",
        "edits": len(stream.history) or None,
    }


def _psnrs_db(segments: Sequence[Segment]) -> tuple[float | None, float | None]:
    """Of the clip, over the mean squared error of its frames, and of its worst segment; see `summary`."""
    known = [(segment.n_frames, segment.check.psnr_db) for segment in segments if segment.check]
    if not known or len(known) < len(segments):
        return None, None
    worst_db = min(psnr_db for _, psnr_db in known)
    if len(known) == 1:
        return worst_db, None
    error = sum(n * 10 ** (-psnr_db / 10) for n, psnr_db in known) / sum(n for n, _ in known)
    return -10 * math.log10(error), worst_db


def decoding(stream: VovFile) -> dict[str, Any]:
    """What decoding the whole file would take: estimates, see `backbone.cost` for what they rest on.

    n_network_evaluations; tflop_per_evaluation: of the mean one; memory_bytes: at the peak; hours_on_this_cpu: with all
    its threads. The last three are missing for a model that this version does not know.
    """
    cost = decode_cost(stream.header, stream.segments)
    taken: dict[str, Any] = {"n_network_evaluations": cost.n_evaluations}
    if cost.flop is not None and cost.n_evaluations:
        taken["tflop_per_evaluation"] = cost.flop / cost.n_evaluations / 1e12
        taken["memory_bytes"] = cost.memory_bytes
        taken["hours_on_this_cpu"] = cost.hours("cpu", os.cpu_count() or 1)
    return taken


def check(stream: VovFile) -> dict[str, int | str]:
    """Decodes the symbols of every vector, the atoms and the importance-sampling indices, as the decoder would.

    Returns how many sections, segments, symbols, atoms and indices are good; for atoms whose model is not at hand, so
    that the size of its latents is unknown, that they were not looked at. Raises FormatError, with every fault on its
    own line, when anything is damaged (read with `tolerant=True` to learn of more than the first).
    """
    faults = [(number, str(error)) for number, error in stream.damage]
    counted: dict[str, int | str] = {"symbols": 0}
    if any(segment.atoms for segment in stream.segments):
        counted["atoms"] = 0
    if any(segment.importance for segment in stream.segments):
        counted["indices"] = 0
    geometry = _geometry(stream) if "atoms" in counted else None
    for segment in stream.segments:
        try:
            counted["symbols"] += _n_symbols(stream, segment)
            if segment.importance is not None:
                counted["indices"] += _n_indices(stream, segment)
            if segment.atoms is not None and geometry is not None:
                counted["atoms"] += _n_atoms(stream, segment, geometry)
        except FormatError as error:
            faults.append((segment.index, str(error)))
    try:
        track = audio_of(stream)
    except FormatError as error:
        faults.append((None, str(error)))
    else:
        counted |= {} if track is None else {"sound packets": len(track.packets)}
    if "atoms" in counted and geometry is None:
        counted["atoms"] = "not decoded, their model is not at hand"
    if faults:
        where = ("file" if number is None else f"segment {number}" for number, _ in faults)
        listed = "\n".join(f"  {place}: {message}" for place, (_, message) in zip(where, faults, strict=True))
        n_whole = len(stream.segments)
        raise FormatError(f"damaged; {n_whole} of {stream.header.n_segments} segments can be read\n{listed}")
    return {"sections": len(stream.layout), "segments": len(stream.segments), **counted}


def _geometry(stream: VovFile) -> LatentGeometry | None:
    from vovcodec.backbone.geometry import known_geometry

    return known_geometry(stream.header.backbone_id, stream.header.fingerprint)


def _n_symbols(stream: VovFile, segment: Segment) -> int:
    updates = segment.updates(stream.header.adaptation)
    if not updates:
        return 0
    from vovcodec.entropy.symbols import decode_symbols

    return sum(
        decode_symbols(each.vector.model, each.vector.words, each.adaptation.vector_length).size for each in updates
    )


def _n_indices(stream: VovFile, segment: Segment) -> int:
    from vovcodec.container.indices import unpack_indices

    sampler = stream.header.sampler
    if sampler.n_steps is None or sampler.sampler_id != "eta" or segment.atoms is not None:
        raise FormatError("importance-sampling indices need schedule shift, sampler eta and no atoms beside them")
    return len(unpack_indices(segment.importance.indices, sampler.n_steps - 1, segment.importance.log2_candidates))


def _n_atoms(stream: VovFile, segment: Segment, geometry: LatentGeometry) -> int:
    from vovcodec.codec.chosen import segment_atoms

    segment_atoms(stream.header, segment, geometry)
    return sum(segment.atoms.counts)

"""What the points of a rate–distortion run say: slopes, floors, crossing points, means."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from vovcodec.bench.points import Point
from vovcodec.evaluation.curves import Curve, crossing

__all__ = ["summarize"]


def summarize(points: Sequence[Point]) -> str:
    """Lines for people: each item by itself, then means over the clips and over the stills."""
    lines: list[str] = []
    files = [point for point in points if point.is_of_a_codec]
    for item in dict.fromkeys(point.item for point in files):
        lines += _item_lines([point for point in files if point.item == item])
    for kind in dict.fromkeys(point.kind for point in points):
        lines += _mean_lines(kind, [point for point in files if point.kind == kind])
        lines += _scheme_lines([point for point in points if point.kind == kind and point not in files])
    return "\n".join(lines)


def _scheme_lines(points: Sequence[Point]) -> list[str]:
    """Means of each way to steer over its items."""
    lines = []
    for codec, own in _grouped(points).items():
        size, spent, quality, similarity = (
            fmean(getattr(point, field) for point in own) for field in ("size_bytes", "evaluations", "psnr_db", "ssim")
        )
        lines.append(f"  {codec}: {size:.0f} B, {spent:.1f} evaluations, {quality:.2f} dB {similarity:.3f}")
    return lines


def _item_lines(points: Sequence[Point]) -> list[str]:
    first = points[0]
    lines = [f"{first.item}, {first.frames} frame{'s' * (first.frames > 1)} of {first.size}"]
    by_codec = _grouped(points)
    for codec, own in by_codec.items():
        slope = _curve(own, "psnr_db").slope()
        steepness = "" if slope is None else f"; {slope:.2f} dB per doubling"
        shown = "  ".join(f"{each.size_bytes} B {each.psnr_db:.2f} dB {each.ssim:.3f}" for each in own)
        lines.append(f"  {codec:<17} {shown}{steepness}")
    for ours in (codec for codec in by_codec if codec.startswith("vov ")):
        for theirs in (codec for codec in by_codec if not codec.startswith("vov ")):
            lines.append(f"  {ours} against {theirs}: {_comparison(by_codec[ours], by_codec[theirs])}")
    return lines


def _comparison(ours: Sequence[Point], theirs: Sequence[Point]) -> str:
    floor = min(theirs, key=lambda point: point.size_bytes)
    parts = []
    for field, name in (("psnr_db", "PSNR"), ("ssim", "SSIM")):
        mine = _curve(ours, field)
        at_floor = mine.at(floor.size_bytes)
        lead = "" if at_floor is None else f", {at_floor - getattr(floor, field):+.3g} at its floor"
        parts.append(f"{name} {crossing(mine, _curve(theirs, field)).words()}{lead}")
    return "; ".join(parts) + f" (floor {floor.size_bytes} B)"


def _mean_lines(kind: str, points: Sequence[Point]) -> list[str]:
    """Per codec of ours and target, means over the items; anchors over those items where they fit, by interpolation."""
    lines: list[str] = []
    by_item = {item: _grouped([p for p in points if p.item == item]) for item in {point.item for point in points}}
    codecs = list(dict.fromkeys(point.codec for point in points))
    for ours in (codec for codec in codecs if codec.startswith("vov ")):
        for target in sorted({point.target_bytes for point in points if point.codec == ours}):
            here = {p.item: p for p in points if p.codec == ours and p.target_bytes == target}
            size, quality = fmean(p.size_bytes for p in here.values()), fmean(p.psnr_db for p in here.values())
            similarity = fmean(p.ssim for p in here.values())
            parts = [f"  {ours} {size:.0f} B: {quality:.2f} dB {similarity:.3f}"]
            for theirs in (codec for codec in codecs if not codec.startswith("vov ")):
                leads = [
                    (point.psnr_db - at_psnr, point.ssim - at_ssim)
                    for item, point in here.items()
                    if theirs in by_item[item]
                    for at_psnr in [_curve(by_item[item][theirs], "psnr_db").at(point.size_bytes)]
                    for at_ssim in [_curve(by_item[item][theirs], "ssim").at(point.size_bytes)]
                    if at_psnr is not None
                ]
                n_items = sum(theirs in by_item[item] for item in here)
                if leads:
                    psnrs, ssims = zip(*leads, strict=True)
                    parts.append(f"{theirs}: {fmean(psnrs):+.2f} dB {fmean(ssims):+.3f} on {len(leads)} of {n_items}")
                elif n_items:
                    parts.append(f"{theirs}: cannot go there")
            lines.append("; ".join(parts))
    return [f"means over {len(by_item)} {kind}{'s' * (len(by_item) > 1)}", *lines] if lines else []


def _grouped(points: Sequence[Point]) -> dict[str, list[Point]]:
    codecs = dict.fromkeys(point.codec for point in points)
    return {c: sorted((p for p in points if p.codec == c), key=lambda p: p.size_bytes) for c in codecs}


def _curve(points: Sequence[Point], field: str) -> Curve:
    return Curve((point.size_bytes, getattr(point, field)) for point in points)

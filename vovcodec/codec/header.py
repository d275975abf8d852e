"""The header of a new file: what the format can hold of an input, and what preset and model add to it."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from vovcodec.backbone.protocol import Backbone
from vovcodec.codec.options import EncodeOptions
from vovcodec.codec.plans import adaptation_of_preset, sampler_of_preset
from vovcodec.codec.spool import FrameSpool
from vovcodec.container import StreamHeader
from vovcodec.container.layout import ASPECT_MAX, CODED_SIDE_MAX, RATE_MAX, SOURCE_SIDE_MAX
from vovcodec.errors import MediaError
from vovcodec.media import MediaInfo, coded_size
from vovcodec.media.geometry import Segment, require_multiples
from vovcodec.presets import Preset, preset_digest

__all__ = ["chosen_size", "nearest_fraction", "new_header"]

_COLOUR_RANGES = {"unspecified": 0, "limited": 1, "full": 2}


def chosen_size(info: MediaInfo, preset: Preset, options: EncodeOptions) -> tuple[int, int]:
    """(width, height) that an input is coded at: `--size`, or the preset's short side.

    Raises MediaError for a source that no file can name, UsageError for a size that the model does not have.
    """
    if max(info.width, info.height) > SOURCE_SIDE_MAX:
        raise MediaError(
            f"pictures of up to {SOURCE_SIDE_MAX}x{SOURCE_SIDE_MAX} can be coded, not of {info.width}x{info.height}: "
            "scale it down first"
        )
    multiple = preset.geometry.multiple
    if options.size is None:
        return coded_size(info.width, info.height, short_side=preset.geometry.short_side, multiple=multiple)
    require_multiples(
        options.size, multiple, CODED_SIDE_MAX, f"preset {preset.name} codes", " (the decoder scales to any size)"
    )
    return options.size


def new_header(
    info: MediaInfo, preset: Preset, backbone: Backbone, spool: FrameSpool, segments: Sequence[Segment]
) -> StreamHeader:
    """The header of a file of the frames in `spool`."""
    is_still, size = info.kind == "image", (spool.width, spool.height)
    frame_rate = nearest_fraction(info.frame_rate, RATE_MAX)
    sample_aspect = nearest_fraction(info.sample_aspect, ASPECT_MAX)
    return StreamHeader(
        source_width=info.width,
        source_height=info.height,
        coded_width=spool.width,
        coded_height=spool.height,
        frame_rate_num=frame_rate.numerator,
        frame_rate_den=frame_rate.denominator,
        n_frames=spool.n_frames,
        n_segments=len(segments),
        segment_frames=max(segment.n_coded_frames for segment in segments),
        colour_matrix=info.colour_matrix,
        colour_primaries=info.colour_primaries,
        colour_transfer=info.colour_transfer,
        colour_range=_COLOUR_RANGES[info.colour_range],
        rotation=info.rotation,
        sample_aspect_num=sample_aspect.numerator,
        sample_aspect_den=sample_aspect.denominator,
        has_audio=info.has_audio and not is_still,
        backbone_id=backbone.id,
        backbone_revision=backbone.revision,
        fingerprint=backbone.fingerprint,
        preset_digest=preset_digest(preset),
        precision=backbone.precision,
        adaptation=adaptation_of_preset(preset),
        sampler=sampler_of_preset(preset, backbone.id, size, is_still=is_still),
    )


def nearest_fraction(value: Fraction, most: int) -> Fraction:
    """The fraction nearest to `value` >= 0 that has numerator and denominator of up to `most`."""
    if value > 1:
        return 1 / nearest_fraction(1 / value, most)
    return max(value.limit_denominator(most), Fraction(bool(value), most))

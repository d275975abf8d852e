"""Which frames of a clip are coded together (encoder only): segments of even lengths, neighbours that show one scene
joined.

Every segment that rests on a picture pays for it. Where one picture, and one path of the camera, do for several of
them, they are joined: it is paid for once, and there is no seam. That is so where the error to be expected
(expected.py) does not rise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from vovcodec.backbone.protocol import Backbone
from vovcodec.codec.expected import expected_scene_error
from vovcodec.codec.scene import may_rest_on_scenes
from vovcodec.codec.spool import FrameSpool
from vovcodec.codec.view import best_view
from vovcodec.media import pad_frames, segment_lengths
from vovcodec.media.geometry import Segment
from vovcodec.presets import Preset
from vovcodec.progress import ProgressListener

__all__ = ["joined_segments", "planned_segments"]

# A segment of its own for a scene takes about 30 bytes of header and check: not worth it in smaller files.
_LEAST_SEGMENT_BYTES = 200
_MOST_VALUES = 33 * 832 * 480  # pixels times frames of a joined segment: memory and time grow with them
_SEGMENT_BYTES = 30  # of header and check


def planned_segments(
    backbone: Backbone,
    preset: Preset,
    spool: FrameSpool,
    cuts: Sequence[int],
    size_bytes: float | None,
    listener: ProgressListener,
) -> list[Segment]:
    """The segments of the clip in `spool`. Scene cuts are left out where the file is too small for their segments.

    Args:
        cuts: frames that begin a new scene, in order.
        size_bytes: of the file, without its sound; None where no size was asked for.

    Raises MediaError when the spool cannot be read.
    """
    geometry = backbone.geometry
    most_frames = min(preset.geometry.segment_frames, geometry.max_frames)
    scene_frames = min(preset.geometry.scene_frames, geometry.max_frames)
    joins = size_bytes is not None and scene_frames > most_frames and may_rest_on_scenes(backbone, preset)
    for kept_cuts in (cuts, ()):
        segments = segment_lengths(spool.n_frames, most_frames, geometry.time_stride, kept_cuts)
        if joins and len(segments) > 1:
            segments = joined_segments(backbone, spool.read, segments, size_bytes, scene_frames, listener)
        if not kept_cuts or size_bytes is None or size_bytes >= _LEAST_SEGMENT_BYTES * len(segments):
            break
    return segments


def joined_segments(
    backbone: Backbone,
    read: Callable[[int, int], np.ndarray],
    segments: Sequence[Segment],
    size_bytes: float,
    most_frames: int,
    listener: ProgressListener,
) -> list[Segment]:
    """Segments of consecutive frames, those joined that rest on one picture.

    Args:
        read: (first frame, number of frames) → uint8 [F, H, W, 3].
        segments: as short as they may be; none is cut.
        size_bytes: of the file.
        most_frames: coded ones of a joined segment.
    """
    listener.stage("looking for scenes", len(segments))
    n_frames = sum(segment.n_frames for segment in segments)
    bytes_per_frame = max(size_bytes - _SEGMENT_BYTES * len(segments), 1.0) / n_frames

    def error(segment: Segment) -> float | None:
        """Mean square, or None where the segment does not rest on a picture."""
        frames = pad_frames(read(segment.start, segment.n_frames), segment.n_coded_frames)
        share = bytes_per_frame * segment.n_frames
        view = best_view(backbone, frames, share)
        if view is None:
            return None
        picture = 127.5 * (view.picture[0].permute(1, 2, 0).numpy()[None] + 1.0)
        return expected_scene_error(frames, picture, view.shown, share - view.path_bytes)

    def joined(a: Segment, b: Segment) -> Segment:
        n = a.n_frames + b.n_frames
        return Segment(a.start, n, backbone.geometry.coded_frames(n))

    height, width = read(segments[0].start, 1).shape[1:3]
    most_frames = min(most_frames, _MOST_VALUES // (width * height))
    done: list[Segment] = []
    apart: float | None = None  # summed errors of what the last one of them is made of, were it not joined
    for segment in segments:
        own_error = error(segment)
        listener.advance()
        both = joined(done[-1], segment) if done else segment
        if apart is not None and own_error is not None and both.n_coded_frames <= most_frames:
            both_error = error(both)
            both_apart = apart + segment.n_frames * own_error
            if both_error is not None and both.n_frames * both_error <= both_apart:
                done[-1], apart = both, both_apart
                continue
        done.append(segment)
        apart = None if own_error is None else segment.n_frames * own_error
    return done

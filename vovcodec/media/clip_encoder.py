"""Video files and streams through PyAV: exact frame rate and count, exact size, tagged colour. See `writer.Encoder`."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from vovcodec.container.audio import AudioTrack
from vovcodec.errors import UsageError
from vovcodec.media import colour
from vovcodec.media.output import FileOutput, StreamOutput
from vovcodec.media.sound_writer import SoundMuxer
from vovcodec.media.yuv import RANGE_LIMITED, PixelScaler

__all__ = ["ClipEncoder", "no_sound_in"]


@dataclass(frozen=True)
class _Container:
    """What an extension stands for.

    carries_tags     colour tags survive; without them readers assume `default_matrix`, so that is what is applied
    carries_aspect   the shape of a pixel survives (PyAV cannot set it on the stream, so the codec has to carry it)
    takes_odd_sizes  4:2:0 works with odd sizes. H.264 crops in units of two luma samples, so there odd sizes need
                     4:4:4, which software players show and many hardware decoders and browsers do not
    quality_option   name of the option that `quality` sets, if there is one
    sound            the sound codecs that it holds and players expect in it
    """

    muxer: str
    codec: str
    options: dict[str, str] = field(default_factory=dict)
    muxer_options: dict[str, str] = field(default_factory=dict)
    carries_tags: bool = False
    carries_aspect: bool = True
    takes_odd_sizes: bool = True
    quality_option: str | None = None
    sound: tuple[str, ...] = ()


_H264 = {"crf": "12", "preset": "medium"}
_MPEG4_QUANTIZER = 1  # of 1…31
_LAMBDA_PER_QUANTIZER = 118  # FF_QP2LAMBDA
_FASTSTART = {"movflags": "+faststart"}
# An MP4 without seeking has to be cut in fragments, or its index could not be written.
_FRAGMENTS = {"movflags": "+frag_keyframe+empty_moov+default_base_moof"}


def _h264_in(muxer: str, muxer_options: dict[str, str], *sound: str) -> _Container:
    return _Container(
        muxer, "libx264", _H264, muxer_options,
        carries_tags=True, takes_odd_sizes=False, quality_option="crf", sound=sound,
    )  # fmt: skip


_IN_MOV = ("aac", "mp3", "ac3", "eac3", "alac")


_CONTAINERS = {
    "mp4": _h264_in("mp4", _FASTSTART, *_IN_MOV, "opus", "flac"),
    "m4v": _h264_in("mp4", _FASTSTART, *_IN_MOV, "opus", "flac"),
    "mov": _h264_in("mov", _FASTSTART, *_IN_MOV),
    "mkv": _h264_in("matroska", {}, *_IN_MOV, "opus", "flac", "vorbis"),
    "webm": _Container(
        "webm", "libvpx-vp9", {"crf": "15", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"},
        carries_tags=True, carries_aspect=False, quality_option="crf", sound=("opus", "vorbis"),
    ),
    "avi": _Container("avi", "mpeg4", {"qmin": "1"}),
    "gif": _Container("gif", "gif", carries_aspect=False),
}  # fmt: skip

# Browsers turn shorter delays into a tenth of a second.
_FASTEST_GIF = Fraction(50)


class ClipEncoder:
    """A video of one size and rate.

    tags: H.273 matrix, primaries, transfer of the frames. quality: the encoder's CRF, where it has one. sound: goes in
    as it is where the container holds its codec, else a notice says that it is left out.
    """

    def __init__(
        self,
        output: FileOutput | StreamOutput,
        kind: str,
        width: int,
        height: int,
        frame_rate: Fraction,
        sample_aspect: Fraction,
        tags: tuple[int, int, int],
        quality: int | None,
        sound: AudioTrack | None,
    ):
        self.notices: list[str] = []
        spec = _CONTAINERS[kind]
        self._is_gif, self._rate, self._n_added = kind == "gif", frame_rate, 0
        if self._is_gif and frame_rate > _FASTEST_GIF:
            raise UsageError(f"GIF plays at most {_FASTEST_GIF} frames per second, not {float(frame_rate):.4g}")
        if self._is_gif and (100 / frame_rate).denominator != 1:
            self.notices.append(
                f"GIF counts in hundredths of a second; {float(frame_rate):.4g} frames per second hold on average only"
            )
        self._pixel_format = "pal8" if self._is_gif else "yuv420p"
        if not spec.takes_odd_sizes and (width % 2 or height % 2):
            self._pixel_format = "yuv444p"
            self.notices.append(f"{width}x{height} is odd, so .{kind} is written as 4:4:4, which some players refuse")
        if sample_aspect != 1 and not spec.carries_aspect:
            self.notices.append(f".{kind} does not keep the shape of pixels ({sample_aspect})")
        matrix = colour.matrix_for_writing(tags[0] if spec.carries_tags else colour.UNSPECIFIED, width, height)
        self._scaler = PixelScaler(colour.scaler_colorspace(matrix, width, height), RANGE_LIMITED)

        options = dict(spec.options)
        if quality is not None and spec.quality_option:
            options[spec.quality_option] = str(quality)
        is_file = output.path is not None
        muxer_options = spec.muxer_options if is_file or spec.muxer_options != _FASTSTART else _FRAGMENTS
        # The prefix keeps FFmpeg from reading a protocol into the name; an output without a path is written to as is.
        place = f"file:{output.path}" if is_file else output
        self._container = av.open(place, "w", format=spec.muxer, container_options=muxer_options)
        self._stream = self._container.add_stream(spec.codec, rate=frame_rate, options=options)
        context = self._stream.codec_context
        context.width, context.height = width, height
        context.pix_fmt = self._pixel_format
        context.sample_aspect_ratio = sample_aspect
        if spec.codec == "mpeg4":
            context.qscale, context.global_quality = True, _MPEG4_QUANTIZER * _LAMBDA_PER_QUANTIZER
        if not self._is_gif:
            context.color_range = RANGE_LIMITED
        if spec.carries_tags:
            context.colorspace = matrix
            context.color_primaries = colour.PRIMARIES_BT709 if tags[1] == colour.UNSPECIFIED else tags[1]
            context.color_trc = colour.TRANSFER_BT709 if tags[2] == colour.UNSPECIFIED else tags[2]

        self._sound = None
        if sound is not None and sound.codec not in spec.sound:
            self.notices.append(no_sound_in(kind, sound.codec))
        elif sound is not None:
            try:
                self._sound = SoundMuxer(self._container, sound)
            except (av.FFmpegError, ValueError, IndexError) as error:
                self.notices.append(f"the sound cannot be put into .{kind} and is left out ({error})")

    def add(self, frame: np.ndarray) -> None:
        picture = _with_palette(frame) if self._is_gif else self._scaler.from_rgb(frame, self._pixel_format)
        picture.pts, picture.time_base = self._n_added, 1 / self._rate
        self._container.mux(self._stream.encode(picture))
        self._n_added += 1
        if self._sound:
            self._sound.write_until(self._n_added / self._rate)

    def finish(self) -> None:
        self._container.mux(self._stream.encode(None))
        if self._sound:
            self._sound.write_until(None)
        self._container.close()

    def release(self) -> None:
        self._container.close()


def no_sound_in(kind: str, codec: str) -> str:
    """The notice for sound that an output cannot hold, and which outputs can."""
    names = [f".{name}" for name, spec in _CONTAINERS.items() if codec in spec.sound]
    return f".{kind} does not hold {codec} sound, which is left out; {', '.join(names)} do"


def _with_palette(frame: np.ndarray) -> av.VideoFrame:
    """A frame with its own 256 colours, diffused: FFmpeg's GIF encoder alone would use one fixed palette."""
    image = Image.fromarray(frame).quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.FLOYDSTEINBERG)
    colours = np.array(image.getpalette("RGB"), dtype=np.uint8).reshape(-1, 3)
    palette = np.full((256, 4), 255, dtype=np.uint8)  # ARGB
    palette[: len(colours), 1:] = colours
    return av.VideoFrame.from_ndarray((np.asarray(image), palette), format="pal8")

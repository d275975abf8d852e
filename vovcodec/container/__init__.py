"""The `.vov` container, specified in FORMAT.md. Standard library only; imports neither torch nor the codec."""

from __future__ import annotations

from vovcodec.container.audio import AudioTrack, audio_of, audio_section
from vovcodec.container.counts import count_of_index, index_of_count
from vovcodec.container.describe import describe, describe_lines, overhead_bytes
from vovcodec.container.files import read_bytes, read_vov, write_vov
from vovcodec.container.framing import DEFAULT_LIMITS, Limits
from vovcodec.container.layout import TRELLIS_MEMORY, VERSION
from vovcodec.container.model import (
    Adaptation,
    CodedAtoms,
    CodedIndices,
    CodedVector,
    Generation,
    RawSection,
    Sampler,
    SectionLayout,
    Segment,
    SegmentCheck,
    StreamHeader,
    VectorUpdate,
    VovFile,
)
from vovcodec.container.reader import parse
from vovcodec.container.writer import serialize

__all__ = ["DEFAULT_LIMITS", "TRELLIS_MEMORY", "VERSION", "Adaptation", "AudioTrack", "CodedAtoms", "CodedIndices",
           "CodedVector", "Generation", "Limits", "RawSection", "Sampler", "SectionLayout", "Segment", "SegmentCheck",
           "StreamHeader", "VectorUpdate", "VovFile", "audio_of", "audio_section", "count_of_index", "describe",
           "describe_lines", "index_of_count",
           "overhead_bytes", "parse", "read_bytes", "read_vov", "serialize",
           "write_vov"]  # fmt: skip

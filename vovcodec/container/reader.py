"""Bytes to `VovFile` (FORMAT.md, sections 2 to 10): one pass, every size checked before anything is allocated.

Strict reading raises the first fault. Tolerant reading returns every segment that is whole, and what was wrong.
"""

from __future__ import annotations

from dataclasses import replace

from vovcodec.container import layout as lay
from vovcodec.container.compressed import unpack_history
from vovcodec.container.errors import (
    FETCH_AGAIN,
    BadAudio,
    BadIndex,
    FieldOutOfRange,
    FormatError,
    LimitExceeded,
    MissingSegment,
    SectionOrder,
    TrailingData,
    TruncatedFile,
    UnknownCriticalSection,
)
from vovcodec.container.framing import DEFAULT_LIMITS, Budget, Frame, Limits, check_prefix, frame_span, read_frame
from vovcodec.container.model import RawSection, SectionLayout, Segment, VovFile
from vovcodec.container.payloads import (
    Parts,
    SegmentIndex,
    read_caption,
    read_generation,
    read_header,
    read_index,
    read_segment,
    read_vector,
)

__all__ = ["parse"]

# Rough sizes in memory, so that a file of very many tiny things is refused before it fills the memory.
_COST_OF_SEGMENT = 1024
_COST_OF_SECTION = 512


def parse(data: bytes | memoryview, *, tolerant: bool = False, limits: Limits = DEFAULT_LIMITS) -> VovFile:
    """The content of a whole file.

    Strict: raises a subclass of `FormatError` at the first fault. Tolerant: still raises if the magic, the version or
    the header is bad (nothing can be decoded without them); otherwise returns the whole segments, and lists the faults
    in `damage` as (segment number, or None for the stream's own sections, error).
    """
    if len(data) > limits.max_file_bytes:
        raise LimitExceeded(
            f"the file has {len(data)} bytes, must be 0..{limits.max_file_bytes}; raise Limits to read it"
        )
    view = memoryview(data)
    check_prefix(view)
    reading = _Reading(view, limits)
    return reading.tolerant() if tolerant else reading.strict()


class _Reading:
    """One file being read: its bytes, what was found so far, and what is left of the memory budget."""

    def __init__(self, data: memoryview, limits: Limits) -> None:
        self.data, self.limits = data, limits
        self.budget = Budget(limits)
        self.layout: list[SectionLayout] = []
        self.damage: list[tuple[int | None, FormatError]] = []
        self.caption: str | None = None
        self.history: tuple[dict, ...] | None = None
        self.extras: list[RawSection] = []
        self.tail_is_whole = False
        frame = read_frame(data, lay.PREFIX_SIZE, limits, crc_from=0)
        if frame.type != lay.HEADER:
            raise SectionOrder(f"the first section is {lay.section_name(frame.type)}, must be header; {FETCH_AGAIN}")
        self.header = read_header(frame.payload)
        self.note(frame)
        self.header_end = frame.end

    def note(self, frame: Frame, segment: int | None = None, parts: tuple[tuple[str, int], ...] = ()) -> None:
        self.budget.charge(_COST_OF_SECTION, "file", "another section")
        name = lay.SECTION_NAMES.get(frame.type, f"type 0x{frame.type:02X}")
        size_bytes = frame.end - frame.start
        self.layout.append(SectionLayout(name=name, type=frame.type, segment=segment, offset=frame.start,
                                         size_bytes=size_bytes, parts=parts))  # fmt: skip

    # --- strict ----------------------------------------------------------------------------------------------------

    def strict(self) -> VovFile:
        n_segments = self.header.n_segments
        offset = first_offset = self.read_shared_caption(self.header_end)
        segments, group_sizes, n_frames = [], [], 0
        for number in range(n_segments):
            segment, end = self.read_group(offset, number, frame_count=n_frames)
            segments.append(segment)
            group_sizes.append(end - offset)
            n_frames += segment.n_frames
            offset = end
        if n_frames != self.header.n_frames:
            raise FieldOutOfRange("header", "n_frames", self.header.n_frames, f"{n_frames}, the sum over the segments")
        tail_start = offset
        offset = self.read_tail(offset)
        if n_segments > 1:
            index, end = self.read_index_at(offset)
            actual = [s.n_frames for s in segments]
            if (index.first_offset, index.group_sizes, index.n_frames, index.tail_size) != (
                first_offset, group_sizes, actual, offset - tail_start):  # fmt: skip
                raise BadIndex(f"index: it does not agree with where the segments are; {FETCH_AGAIN}")
            offset = end
        if offset != len(self.data):
            n_left = len(self.data) - offset
            raise TrailingData(f"{n_left} bytes follow the last section at offset {offset}; {FETCH_AGAIN}")
        return self.result(segments)

    def result(self, segments: list[Segment]) -> VovFile:
        self.layout.sort(key=lambda section: section.offset)
        return VovFile(self.header, tuple(segments), self.caption, tuple(self.extras), self.history or (),
                       tuple(self.layout), tuple(self.damage), divmod(self.data[lay.PREFIX_SIZE - 1], 16))  # fmt: skip

    # --- pieces ----------------------------------------------------------------------------------------------------

    def read_shared_caption(self, offset: int) -> int:
        """The optional CAPTION section at `offset`; returns where the segments start."""
        if offset < len(self.data) and self.data[offset] == lay.CAPTION:
            frame = read_frame(self.data, offset, self.limits)
            self.caption = read_caption(frame.payload)
            self.note(frame)
            return frame.end
        return offset

    def read_group(
        self,
        offset: int,
        number: int | None,
        frame_count: int | None = None,
        stop: int | None = None,
        *,
        is_walking: bool = False,
    ) -> tuple[Segment, int | None]:
        """A SEGMENT section and the sections that belong to it; returns the segment and where they end.

        `number` and `frame_count` (frames before it), where known, must be the segment's own. With `stop` nothing from
        there on is looked at: an index whose entries overlap must not make reading quadratic. `is_walking`: where the
        group ends is not known from elsewhere, so bytes that are no whole section, and do not begin like one that the
        picture depends on, are damage of the file and not of the segment; None where it is unclear how far they go.
        """
        data = self.data[:stop]
        name = lay.section_name(lay.SEGMENT, number) if number is not None else "segment"
        if offset >= len(data):
            count = self.header.n_segments
            raise TruncatedFile(f"{name} of {count} is missing: the file ends at offset {offset}; it was cut short")
        frame = read_frame(data, offset, self.limits)
        if frame.type != lay.SEGMENT:
            raise self.misplaced(frame, f"{name} should be")
        self.budget.charge(_COST_OF_SEGMENT, name, "another segment")
        segment, parts = read_segment(frame.payload, self.header, self.budget, number)
        if number is not None and segment.index != number:
            raise FieldOutOfRange(name, "index", segment.index, str(number))
        if frame_count is not None and segment.first_frame != frame_count:
            expected = f"{frame_count}, where the segment before it ends"
            raise FieldOutOfRange(name, "first_frame", segment.first_frame, expected)
        owned, end = [], frame.end
        while end is not None and end < len(data) and data[end] & lay.OF_SEGMENT:
            try:
                owned.append(read_frame(data, end, self.limits))
            except FormatError as error:
                if not is_walking or data[end] in (lay.VECTOR, lay.GENERATION):
                    raise
                self.damage.append((None, error))
                end = self.skip_group(end)
                break
            self.budget.charge(_COST_OF_SECTION, name, "another section")
            end = owned[-1].end
        segment, parts_of_owned = self.with_owned(segment, owned, name)
        # Only now, so that a group that turns out to be bad leaves no trace.
        self.note(frame, segment.index, parts)
        for extra, extra_parts in zip(owned, parts_of_owned, strict=True):
            self.note(extra, segment.index, extra_parts)
        return segment, end

    def with_owned(self, segment: Segment, frames: list[Frame], name: str) -> tuple[Segment, list[Parts]]:
        """The segment with the content of the sections after it: VECTOR ones, one GENERATION, then ancillary ones."""
        merged, generation, extras, parts = [], None, [], []
        for frame in frames:
            section = lay.section_name(frame.type, segment.index)
            parts.append(())
            if frame.type & lay.ANCILLARY:
                extras.append(RawSection(type=frame.type, payload=bytes(frame.payload)))
            elif frame.type not in (lay.VECTOR, lay.GENERATION) or generation is not None or extras:
                raise self.misplaced(frame, f"{name} goes on")
            elif frame.type == lay.GENERATION:
                generation = read_generation(frame.payload, self.header, segment.atoms, section)
            elif len(merged) == lay.MERGED_VECTORS_MAX:
                expected = f"0..{lay.MERGED_VECTORS_MAX}"
                raise FieldOutOfRange(section, "number of vector sections", len(merged) + 1, expected)
            else:
                update, parts[-1] = read_vector(frame.payload, section)
                merged.append(update)
        if frames:
            segment = replace(segment, merged=tuple(merged), generation=generation, extras=tuple(extras))
        return segment, parts

    def read_tail(self, offset: int) -> int:
        """The stream's ancillary sections; returns where INDEX or the end of the file is."""
        while offset < len(self.data):
            if self.data[offset] == lay.INDEX and self.header.n_segments > 1:
                break
            frame = read_frame(self.data, offset, self.limits)
            if not frame.type & lay.ANCILLARY or frame.type & lay.OF_SEGMENT:
                raise self.misplaced(frame, "the last segment has ended")
            if frame.type == lay.HISTORY:
                if self.history is not None:
                    raise SectionOrder(f"history: a second one at offset {offset}; {FETCH_AGAIN}")
                self.history = unpack_history(frame.payload)
            else:
                self.extras.append(RawSection(type=frame.type, payload=bytes(frame.payload)))
            self.note(frame)
            offset = frame.end
        return offset

    def read_index_at(self, offset: int) -> tuple[SegmentIndex, int]:
        """The INDEX section at `offset`; returns it and where it ends. Its arithmetic is checked, not its truth."""
        if offset >= len(self.data):
            raise TruncatedFile(f"the index is missing: the file ends at offset {offset}; it was cut short")
        frame = read_frame(self.data, offset, self.limits)
        if frame.type != lay.INDEX:
            raise self.misplaced(frame, "the index should be")
        index = read_index(frame.payload, frame.end - frame.start, self.header, self.budget)
        index.check_span(offset)
        self.note(frame)
        return index, frame.end

    @staticmethod
    def misplaced(frame: Frame, where: str) -> FormatError:
        """The error for a whole section that must not stand here."""
        name = lay.section_name(frame.type)
        if frame.type in lay.SECTION_NAMES or frame.type & lay.ANCILLARY:
            return SectionOrder(f"{name} at offset {frame.start} stands where {where}; {FETCH_AGAIN}")
        return UnknownCriticalSection(
            f"critical section of {name} at offset {frame.start} is not known to this version; use a newer vovcodec"
        )

    # --- tolerant --------------------------------------------------------------------------------------------------

    def tolerant(self) -> VovFile:
        index, index_end = self.find_index()
        found: dict[int, Segment] = {}
        if index is not None:
            self.read_by_index(index, index_end, found)
        else:
            self.read_by_walking(found)
        lost = {number for number, _ in self.damage}
        missing = MissingSegment("no trace of this segment was found; the file was cut short or is damaged")
        for number in range(self.header.n_segments):
            if number not in found and number not in lost:
                self.damage.append((number, missing))
        if self.sound_is_lost():
            self.damage.append((None, BadAudio("the sound is lost")))
        for _, error in self.damage:
            error.__traceback__ = error.__context__ = None  # frames would keep buffers alive
        return self.result([found[number] for number in sorted(found)])

    def sound_is_lost(self) -> bool:
        """Whether the source had sound and the file has none where damage may have taken it. Whether any was kept is
        not known then; bytes that follow the last section take nothing."""
        if not self.header.has_audio or self.tail_is_whole or any(each.type == lay.AUDIO for each in self.extras):
            return False
        return any(number is None and not isinstance(error, TrailingData) for number, error in self.damage)

    def find_index(self) -> tuple[SegmentIndex | None, int]:
        """The INDEX section, found from the end of the file; (None, 0) and a note of damage if it is not usable."""
        size = len(self.data)
        if self.header.n_segments == 1:
            return None, 0
        trailer = size - lay.CRC_SIZE - lay.INDEX_TRAILER_SIZE
        section_size = int.from_bytes(self.data[max(trailer, 0) : size - lay.CRC_SIZE], "big")
        offset = size - section_size
        try:
            if offset < self.header_end or section_size < lay.framing_size_min(lay.INDEX):
                raise BadIndex("index: none at the end of the file; it was cut short or is damaged")
            frame = read_frame(self.data, offset, self.limits)
            if frame.type != lay.INDEX or frame.end != size:
                raise BadIndex("index: none at the end of the file; it was cut short or is damaged")
            index = read_index(frame.payload, section_size, self.header, self.budget)
            self.note(frame)
            return index, offset
        except FormatError as error:
            self.damage.append((None, error))
            return None, 0

    def read_by_index(self, index: SegmentIndex, index_offset: int, found: dict[int, Segment]) -> None:
        """Every group at its place counted from the front, else (bytes were lost or added) counted from the index."""
        try:
            index.check_span(index_offset)
            if self.read_shared_caption(self.header_end) != index.first_offset:
                raise SectionOrder(f"the segments do not start at offset {index.first_offset}; {FETCH_AGAIN}")
        except FormatError as error:
            self.damage.append((None, error))
        from_front = index.first_offset
        from_back = index_offset - index.tail_size - sum(index.group_sizes)
        first_frame = 0
        for number, (group_size, n_frames) in enumerate(zip(index.group_sizes, index.n_frames, strict=True)):
            failure = None
            for start in dict.fromkeys((from_front, from_back)):
                if start < self.header_end or start + group_size > index_offset:
                    continue
                try:
                    segment, end = self.read_group(start, number, frame_count=first_frame, stop=start + group_size)
                    if (end - start, segment.n_frames) != (group_size, n_frames):
                        raise BadIndex(f"index: it does not agree with segment {number}; {FETCH_AGAIN}")
                    found[number] = segment
                    break
                except FormatError as error:
                    failure = failure or error
            if number not in found and failure is not None:
                self.damage.append((number, failure))
            from_front += group_size
            from_back += group_size
            first_frame += n_frames
        try:
            tail_start = index_offset - index.tail_size
            if tail_start < self.header_end or self.read_tail(tail_start) != index_offset:
                raise BadIndex(f"index: it does not agree with the sections before it; {FETCH_AGAIN}")
            self.tail_is_whole = True
        except FormatError as error:
            self.damage.append((None, error))

    def read_by_walking(self, found: dict[int, Segment]) -> None:
        """Without an index: from section to section by their lengths, as far as those can be followed."""
        offset, number, n_segments = self.header_end, 0, self.header.n_segments
        try:
            offset = self.read_shared_caption(offset)
        except FormatError as error:
            self.damage.append((None, error))
            offset = self.skip_group(offset)
        while number < n_segments and offset is not None and offset < len(self.data):
            try:
                segment, end = self.read_group(offset, None, is_walking=True)
                if segment.index < number:
                    raise SectionOrder(f"segment {segment.index} comes after segment {number - 1}; {FETCH_AGAIN}")
                found[segment.index] = segment
                number, offset = segment.index + 1, end
            except FormatError as error:
                self.damage.append((number, error))
                number, offset = number + 1, self.skip_group(offset)
        if offset is None or number < n_segments:
            return
        try:
            end = self.read_tail(offset)
            self.tail_is_whole = n_segments == 1 or end < len(self.data)
            if n_segments == 1 and end != len(self.data):
                raise TrailingData(f"bytes follow the last section at offset {end}; {FETCH_AGAIN}")
        except FormatError as error:
            self.damage.append((None, error))

    def skip_group(self, offset: int) -> int | None:
        """Where the section at `offset` and those that belong to it end, from their lengths alone; None if unclear."""
        try:
            while True:
                _, payload, length = frame_span(self.data, offset, self.limits)
                offset = payload + length + lay.crc_size(self.data[offset])
                if offset >= len(self.data) or not self.data[offset] & lay.OF_SEGMENT:
                    return offset
        except FormatError:
            return None

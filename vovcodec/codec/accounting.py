"""Where a file's bytes go and what quality they buy: budgets and shares of segments."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from vovcodec.codec.plans import coded_atoms
from vovcodec.codec.sound import sound_bytes
from vovcodec.container import (
    CodedAtoms,
    CodedIndices,
    CodedVector,
    Sampler,
    Segment,
    SegmentCheck,
    VovFile,
    serialize,
)
from vovcodec.container.counts import ATOMS_MAX, Phases, counts_bits
from vovcodec.container.writer import scene_bits, segment_padding_bits
from vovcodec.errors import UsageError
from vovcodec.metrics import SSIM_EVERY
from vovcodec.progress import ProgressListener
from vovcodec.sampling.schedule import LAST_UNIT
from vovcodec.sampling.steering import SteeringPlan

__all__ = [
    "QualityMean",
    "blank_atoms",
    "blank_check",
    "blank_indices",
    "blank_vector",
    "note_spare_bytes",
    "payload_budget",
    "payload_size",
]

_BLANK_BYTES = 200
_SHORT_BYTES, _LONG_BYTES = 128, 16384  # from here on a size takes two, three bytes in the file
_MOST_BYTES = 2**20  # no segment has as many
_USED_SHARE = 0.95  # of a target; less is worth a word
_LEAST_BYTES = 24  # per payload; less cannot show anything


def blank_vector(size_bytes: int) -> CodedVector:
    """Stands in for a vector that is still to be coded."""
    return CodedVector(step_size_q=10000, model=b"", words=bytes(size_bytes))


def blank_atoms(plan: SteeringPlan, size_bytes: int) -> CodedAtoms:
    """Stands in for atoms that are still to be chosen. Of a path the last count is implied, as in most real ones."""
    return coded_atoms(
        replace(plan, counts=(min(8 * size_bytes, ATOMS_MAX),), last_q=LAST_UNIT // 2), bytes(size_bytes)
    )


def blank_indices(size_bytes: int) -> CodedIndices:
    """Stands in for importance-sampling indices that are still to be chosen."""
    return CodedIndices(log2_candidates=10, indices=bytes(size_bytes))


def blank_check() -> SegmentCheck:
    """Stands in for the check of a segment that is still to be coded."""
    return SegmentCheck(psnr_q=400, thumbnail_width=4, thumbnail_height=2, thumbnail=bytes(4))


def payload_budget(
    stream_with: Callable[[int], VovFile], file_bytes: int, n_blanks: int, less_sound: str = ""
) -> float:
    """Bytes that a file of `file_bytes` leaves for the contents of the `n_blanks` blanks in `stream_with(size_bytes)`,
    the stream with blanks of that size. less_sound: what the user can do to have fewer bytes of it, for the message.

    Raises UsageError when that is too little to show anything.
    """
    stream = stream_with(_BLANK_BYTES)
    fixed = len(serialize(stream)) - _BLANK_BYTES * n_blanks
    blank_bytes = (file_bytes - fixed) // n_blanks
    if file_bytes - fixed < _SHORT_BYTES:
        # Short contents take shorter sizes, which leaves up to two bytes more.
        blank_bytes = max(_LEAST_BYTES, blank_bytes + 2)
        fixed = len(serialize(stream_with(blank_bytes))) - blank_bytes * n_blanks
    elif blank_bytes > _LONG_BYTES // 2:
        # Long ones take longer sizes; segments differ, so that all are taken to be long. Beyond what can be used the
        # sizes stay as they are, and memory is only what is needed.
        blank_bytes = min(max(_LONG_BYTES, blank_bytes), _MOST_BYTES)
        fixed = len(serialize(stream_with(blank_bytes))) - blank_bytes * n_blanks
    least = fixed + _LEAST_BYTES * n_blanks
    if file_bytes < least:
        sound = sound_bytes(stream.extras)
        if sound:
            raise UsageError(
                f"{file_bytes} bytes are too few: the sound takes {sound}, with the picture it needs at least {least}; "
                f"raise the target{less_sound}"
            )
        raise UsageError(
            f"{file_bytes} bytes are too few: {len(stream.segments)} segment(s) with header, caption and check need at "
            f"least {least}; raise the target, shorten the clip or the caption"
        )
    first = stream.segments[0]
    if first.atoms is None or len(stream.segments) > 1:
        return file_bytes - fixed
    # The counts of the blank are paid for, and those that take their place are paid for by the steering, bit by bit.
    # With several segments the bits that each rounds up to whole bytes need that room.
    free_bits = counts_bits(first.atoms.counts, first.atoms.codebook, Phases())
    return file_bytes - fixed + (free_bits + segment_padding_bits(first, stream.header)) / 8


def note_spare_bytes(listener: ProgressListener, size_bytes: int, target_bytes: int | None) -> None:
    """Say so where a file is clearly smaller than was asked for: steering ends where noise is invisible."""
    if target_bytes is not None and size_bytes < _USED_SHARE * target_bytes:
        listener.note(
            f"the file has {size_bytes} of {target_bytes} bytes: for frames of this size the model has no use for "
            "more; encode larger ones (--size)"
        )


def payload_size(segment: Segment, sampler: Sampler) -> int:
    """Bytes of a coded segment that its share of the budget pays for; `sampler`: the header's."""
    vector = segment.vector.size_bytes if segment.vector else 0
    atoms = segment.atoms
    steering = 0
    if atoms:
        phases = Phases(atoms.scene_injections, atoms.scene_ratio_q, sampler.snr_ratio_q)
        field_bits = counts_bits(atoms.counts, atoms.codebook, phases) + scene_bits(atoms)
        steering = len(atoms.words) + math.ceil(field_bits / 8)
    return vector + steering + (len(segment.importance.indices) if segment.importance else 0)


class QualityMean:
    """PSNR over all frames (mean squared error first) and mean SSIM of every 8th, segment by segment; as `vov eval`."""

    def __init__(self) -> None:
        self._n_frames = self._n_compared = 0
        self._squared_error = self._ssim_sum = 0.0

    def add(self, segment: Segment, psnr_db: float, ssim: float) -> None:
        """A segment with its figures, as those of `injection.CodedSegment`."""
        self._n_frames += segment.n_frames
        self._squared_error += segment.n_frames * 10 ** (-psnr_db / 10)
        n_compared = len(range(-segment.first_frame % SSIM_EVERY, segment.n_frames, SSIM_EVERY))
        if n_compared:
            self._n_compared += n_compared
            self._ssim_sum += n_compared * ssim

    @property
    def psnr_db(self) -> float:
        """In dB; infinite where all frames are equal."""
        return -10 * math.log10(self._squared_error / self._n_frames) if self._squared_error else math.inf

    @property
    def ssim(self) -> float:
        """Mean over every 8th frame of the clip."""
        return self._ssim_sum / self._n_compared

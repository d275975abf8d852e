"""Any valid content survives writing and reading, and has one spelling."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from vovcodec.container import (
    Adaptation,
    CodedAtoms,
    CodedIndices,
    CodedVector,
    Generation,
    RawSection,
    Sampler,
    Segment,
    SegmentCheck,
    StreamHeader,
    VectorUpdate,
    VovFile,
    parse,
    serialize,
)
from vovcodec.container.counts import ATOMS_MAX, count_of_index, index_of_count, largest_index
from vovcodec.container.layout import padded_frames
from vovcodec.container.registered import (
    COLOURS,
    FRAME_RATES,
    POCKET_FINGERPRINT,
    SOURCE_SIZES,
    usual_coded_size,
)

BYTE = st.integers(0, 255)
U32 = st.integers(0, 2**32 - 1)
CAPTIONS = st.none() | st.text(max_size=120) | st.sampled_from(["", "a dog in the snow, " * 20, "\0\n"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
NAMES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=32)

ADAPTATIONS = st.builds(
    Adaptation, projection_seed=U32, rank=st.integers(1, 256), targets=st.sampled_from(["qkv", "qkvo", "qkvo_mlp"]),
    last_blocks=st.integers(0, 4095), vector_length=st.integers(1, 2**24), strength_q8=st.integers(-32768, 32767),
)  # fmt: skip
VECTORS = st.builds(CodedVector, step_size_q=st.integers(0, 65535), model=st.binary(max_size=60),
                    words=st.binary(max_size=300))  # fmt: skip
INDICES = st.builds(CodedIndices, log2_candidates=st.integers(1, 24), indices=st.binary(max_size=40))
CHECKS = st.builds(SegmentCheck, psnr_q=st.integers(0, 1023), thumbnail_width=st.integers(0, 8),
                   thumbnail_height=st.integers(0, 8), thumbnail=st.binary(max_size=64))  # fmt: skip


UPDATES = st.lists(st.builds(VectorUpdate, adaptation=ADAPTATIONS, vector=VECTORS), max_size=2).map(tuple)


def generations(n_steered: int) -> st.SearchStrategy:
    return st.builds(Generation, n_injections=st.integers(n_steered + 1, 27), eta_scale_q=st.just(100) | BYTE)


def raw_sections(lowest: int, excluded: int = -1) -> st.SearchStrategy:
    types = st.integers(lowest, lowest + 0x3F).filter(lambda type_: type_ != excluded)
    return st.lists(st.builds(RawSection, type=types, payload=st.binary(max_size=200)), max_size=2).map(tuple)


@st.composite
def samplers(draw) -> Sampler:
    common = {"sampler_id": draw(st.sampled_from(["ode", "eta"])), "seed": draw(U32)}
    if draw(st.booleans()):
        ratio_q = draw(st.integers(1, 256))
        return Sampler(schedule="snr", snr_start_q=draw(BYTE), snr_ratio_q=ratio_q, **common)
    n_steps = draw(st.integers(1, 40) | st.just(1000))
    return Sampler(schedule="shift", n_steps=n_steps, shift_q8=draw(st.integers(1, 65535)), **common)


@st.composite
def atoms(draw, sampler: Sampler) -> CodedAtoms:
    # A ratio of 5, the largest, has room for 27 injections.
    n_most = sampler.n_steps - 1 if sampler.schedule == "shift" else 27
    counts, n_left = [], ATOMS_MAX
    for i in range(draw(st.integers(1, min(n_most, 60))) - 1):
        highest = min(largest_index(i), index_of_count(n_left))
        previous = index_of_count(counts[-1]) if counts else 0
        usual = st.integers(previous, previous + 3).map(lambda k, highest=highest: min(highest, k))
        counts.append(count_of_index(draw(usual | st.integers(0, highest))))
        n_left -= counts[-1]
    counts.append(draw(st.integers(0, n_left)))
    words = draw(st.binary(max_size=300))
    codebook = draw(st.sampled_from(["hadamard", "cyclic-shift", "trellis"]))
    implied = 8 * len(words) - sum(counts[:-1])
    if codebook == "trellis" and implied >= 0 and draw(st.booleans()):
        counts[-1] = implied
    return CodedAtoms(
        codebook=codebook, counts=tuple(counts),
        last_q=draw(st.integers(1, 16)) if sampler.schedule == "snr" else 16, eta_scale_q=draw(st.just(200) | BYTE),
        active_channels=draw(BYTE), words=words,
    )  # fmt: skip


@st.composite
def vov_files(draw) -> VovFile:
    sampler = draw(samplers())
    adaptation = draw(st.none() | ADAPTATIONS)
    still = draw(st.booleans())
    n_segments = 1 if still else draw(st.integers(1, 4))
    lengths = [1] if still else draw(st.lists(st.integers(1, 200), min_size=n_segments, max_size=n_segments))
    rate = (0, 1) if still else draw(st.sampled_from(FRAME_RATES[1:]) | st.tuples(U32.map(lambda x: x or 1), U32.map(
        lambda x: x or 1)))  # fmt: skip
    colour = draw(st.sampled_from(COLOURS) | st.tuples(BYTE, BYTE, BYTE, st.integers(0, 2)))
    source = draw(st.sampled_from(SOURCE_SIZES) | st.tuples(*[st.integers(1, 16384)] * 2))
    backbone_id = draw(st.sampled_from(["pocket", "wan2.1-1.3b", "qwen-image"]) | NAMES)
    sizes = {"source_width": source[0], "source_height": source[1], "backbone_id": backbone_id}
    usual = [min(8192, side) for side in usual_coded_size(sizes)]
    head = StreamHeader(
        source_width=source[0], source_height=source[1],
        coded_width=draw(st.just(max(8, usual[0])) | st.integers(8, 8192)),
        coded_height=draw(st.just(max(8, usual[1])) | st.integers(1, 1024).map(lambda x: 8 * x)),
        frame_rate_num=rate[0], frame_rate_den=rate[1], n_frames=sum(lengths), n_segments=n_segments,
        segment_frames=1 if still else padded_frames(max(lengths)) + 4 * draw(st.integers(0, 2)),
        colour_matrix=colour[0], colour_primaries=colour[1], colour_transfer=colour[2], colour_range=colour[3],
        rotation=draw(st.sampled_from([0, 90, 180, 270])), sample_aspect_num=draw(st.integers(1, 65536)),
        sample_aspect_den=draw(st.integers(1, 65536)), has_audio=not still and draw(st.booleans()),
        backbone_id=backbone_id, backbone_revision=draw(st.just("") | NAMES),
        fingerprint=draw(st.just(POCKET_FINGERPRINT) | st.binary(min_size=4, max_size=4)),
        preset_digest=draw(st.binary(min_size=2, max_size=2)),
        precision=draw(st.sampled_from(["float32", "bfloat16", "float16", "int8-weights"])),
        adaptation=adaptation, sampler=sampler,
    )  # fmt: skip
    generates = sampler.schedule == "snr" and sampler.sampler_id == "eta"
    steers = sampler.sampler_id == "eta" and sampler.n_steps != 1
    segments, first_frame = [], 0
    for index, n_frames in enumerate(lengths):
        coded = draw(st.none() | atoms(sampler)) if steers else None
        n_steered = len(coded.counts) if coded else 0
        segments.append(
            Segment(
                index=index, first_frame=first_frame, n_frames=n_frames, caption=draw(CAPTIONS),
                vector=draw(st.none() | VECTORS) if adaptation else None, merged=draw(UPDATES),
                generation=draw(st.none() | generations(n_steered)) if generates and n_steered < 27 else None,
                atoms=coded, importance=draw(st.none() | INDICES),
                check=draw(st.none() | CHECKS), extras=draw(raw_sections(0xC0)),
            )
        )  # fmt: skip
        first_frame += n_frames
    history = tuple(draw(st.lists(st.dictionaries(st.text(max_size=6), JSON, max_size=3), max_size=3)))
    extras = draw(raw_sections(0x80, excluded=0x81))
    return VovFile(head, tuple(segments), draw(CAPTIONS), extras, history)


@settings(max_examples=150)
@given(vov_files())
def test_any_content_survives_in_both_modes_of_reading(content: VovFile) -> None:
    data = serialize(content)
    read = parse(data)
    assert read == content
    assert serialize(read) == data
    tolerant = parse(data, tolerant=True)
    assert tolerant == content
    assert not tolerant.damage
    assert tolerant.layout == read.layout


@settings(max_examples=50)
@given(vov_files())
def test_layout_covers_the_file_exactly(content: VovFile) -> None:
    data = serialize(content)
    end = 5
    for section in parse(data).layout:
        assert section.offset == end
        assert section.type == data[end]
        end += section.size_bytes
    assert end == len(data)

"""Synthetic `.vov` contents for the container tests, and the script that writes the golden files of this version.

python tests/container_samples.py    # writes tests/golden/v0.12-*.vov; only ever done once per format version
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from vovcodec.container import (
    Adaptation,
    AudioTrack,
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
    audio_section,
    serialize,
)

GOLDEN = Path(__file__).parent / "golden"
CHECK = SegmentCheck(psnr_q=384, thumbnail_width=4, thumbnail_height=2, thumbnail=bytes(range(16, 144, 32)))


SNR_SAMPLER = Sampler(sampler_id="eta", schedule="snr", snr_start_q=60, snr_ratio_q=48)
COUNTS = (4, 10, 20, 28, 40, 64, 80, 112, 160, 224, 192, 320, 448, 731)


def pattern(n_bytes: int, start: int = 1) -> bytes:
    """Bytes without structure that deflate or a bit error could hide in."""
    state, out = start, bytearray()
    for _ in range(n_bytes):
        state = (state * 1103515245 + 12345) % 2**31
        out.append(state >> 16 & 0xFF)
    return bytes(out)


def header(**changes: object) -> StreamHeader:
    """A 33-frame clip on the embedded model; any field can be replaced."""
    values: dict = {
        "source_width": 1280, "source_height": 720, "coded_width": 208, "coded_height": 120,
        "frame_rate_num": 30000, "frame_rate_den": 1001, "n_frames": 33, "segment_frames": 33,
        "colour_matrix": 1, "colour_primaries": 1, "colour_transfer": 1, "colour_range": 1,
        "backbone_id": "pocket", "fingerprint": bytes.fromhex("01234567"),
        "preset_digest": bytes.fromhex("c0fe"), "sampler": SNR_SAMPLER,
    }  # fmt: skip
    return StreamHeader(**(values | changes))


def steering_only(n_words: int = 24, counts: tuple[int, ...] = COUNTS) -> VovFile:
    """One segment: caption, atoms of 14 injections, check."""
    atoms = CodedAtoms(codebook="hadamard", counts=counts, last_q=11, words=pattern(n_words))
    return VovFile(header(), (Segment(index=0, n_frames=33, caption="a red kite", atoms=atoms, check=CHECK),))


def vector_only(n_words: int = 260) -> VovFile:
    """One segment: compressed caption, vector of 1024 entries, check; seeds of full width."""
    head = header(
        sampler=Sampler(n_steps=4, seed=0x89ABCDEF, shift_q8=256),
        adaptation=Adaptation(vector_length=1024, projection_seed=0xDEADBEEF),
    )
    caption = "The camera pans slowly to the left. A man in a white shirt is standing in front of a city street."
    vector = CodedVector(step_size_q=12000, model=pattern(6), words=pattern(n_words, 2))
    return VovFile(head, (Segment(index=0, n_frames=33, caption=caption, vector=vector, check=CHECK),))


def three_segments() -> VovFile:
    """Everything at once: shared and own captions, every part, ancillary sections, history, odd values."""
    head = header(
        source_width=1919, source_height=1079, coded_width=834, coded_height=480, frame_rate_num=12345,
        frame_rate_den=679, n_frames=190, n_segments=3, segment_frames=81, colour_matrix=9, colour_primaries=9,
        colour_transfer=16, colour_range=2, rotation=270, sample_aspect_num=16, sample_aspect_den=15, has_audio=True,
        backbone_id="somebody/else-5b", backbone_revision="0fc3e1d2", precision="int8-weights",
        sampler=Sampler(sampler_id="eta", n_steps=5, seed=7, shift_q8=777),
        adaptation=Adaptation(vector_length=131072, rank=4, targets="qkvo_mlp", last_blocks=3, strength_q8=-300),
    )  # fmt: skip
    vector = CodedVector(step_size_q=65535, model=pattern(40), words=pattern(400, 3))
    atoms = CodedAtoms(codebook="cyclic-shift", counts=(0, 14, 96, 400_000), eta_scale_q=255, active_channels=7,
                       words=pattern(150, 4))  # fmt: skip
    indices = CodedIndices(log2_candidates=18, indices=pattern(9, 5))
    segments = (
        Segment(index=0, n_frames=81, vector=vector, atoms=atoms, importance=indices, check=CHECK),
        Segment(index=1, first_frame=81, n_frames=81, caption="Ein grüner Wald, 森", atoms=atoms,
                extras=(RawSection(type=0xC5, payload=b"a segment's own"), RawSection(type=0xFF, payload=b""))),
        Segment(index=2, first_frame=162, n_frames=28, caption="", importance=indices),
    )  # fmt: skip
    history = ({"edit": "caption", "from": "dog", "to": "panda"}, {"edit": "strength", "value": -1.171875})
    extras = (RawSection(type=0x82, payload=pattern(64, 6)), RawSection(type=0xBF, payload=b"unknown"))
    return VovFile(head, segments, "a forest", extras, history)


def merged() -> VovFile:
    """Two segments after edits: vectors of other files, cut atoms, and generation where the steering ends."""
    head = header(n_frames=54, n_segments=2, adaptation=Adaptation(vector_length=300, projection_id="offset-philox"))
    own = CodedVector(step_size_q=4000, model=pattern(2, 7), words=pattern(50, 8))
    others = (
        VectorUpdate(adaptation=Adaptation(vector_length=2048, projection_seed=9, rank=2, targets="qkv", last_blocks=5,
                                           strength_q8=-128),
                     vector=CodedVector(step_size_q=3500, model=b"", words=b"")),
        VectorUpdate(adaptation=Adaptation(vector_length=1, strength_q8=1),
                     vector=CodedVector(step_size_q=0, model=pattern(3, 9), words=pattern(40, 10))),
    )  # fmt: skip
    atoms = CodedAtoms(counts=COUNTS[:5], words=pattern(30, 11))
    extra = RawSection(type=0xC5, payload=b"unknown")
    segments = (
        Segment(index=0, n_frames=33, vector=own, atoms=atoms, merged=others, generation=Generation(n_injections=25),
                extras=(extra,)),
        Segment(index=1, first_frame=33, n_frames=21, caption="a panda", merged=others[:1],
                generation=Generation(n_injections=1, eta_scale_q=0)),
    )  # fmt: skip
    history = ({"edit": "merge", "name": "other.vov", "weight": -0.5}, {"edit": "keep-structure", "to": 0.35})
    return VovFile(head, segments, "a dog, a cat", history=history)


def trellis() -> VovFile:
    """Two segments steered by paths, of 59 bits (the first injection has none) and of 16, which is implied; a sound of
    3 packets."""
    words = pattern(7, 12) + b"\xa0"
    atoms = CodedAtoms(memory=9, counts=(0, 6, 20, 33), last_q=7, active_channels=3, words=words)
    segments = (
        Segment(index=0, n_frames=33, atoms=atoms),
        Segment(index=1, first_frame=33, n_frames=21, atoms=CodedAtoms(counts=(16,), words=b"\xc5\x81")),
    )
    packets = (pattern(11, 13), b"", pattern(5, 14))
    sound = AudioTrack(n_channels=2, start=960, packets=packets, durations=(2880, 2880, 7))
    head = header(n_frames=54, n_segments=2, has_audio=True)
    return VovFile(head, segments, "a swarm of bees", (audio_section(sound),))


def scenes() -> VovFile:
    """Clips on pictures of their scenes: one that moves, one that is the picture and goes on after an edit, one with a
    camera that moves."""
    moving = CodedAtoms(memory=14, counts=(6, 12, 20, 28, 34), last_q=3, scene_injections=3, scene_last_q=9,
                        clip_start_q=-13, words=pattern(12, 15) + b"\xd0")  # fmt: skip
    panned = replace(moving, camera_path=((-40, 3, 0, -1), (), (0, 2), (700, -90, 0, 0, 5), (1,), ()), camera_step_q=0,
                     margin_x=3, margin_y=15, crop_left=9, crop_bottom=2)  # fmt: skip
    standing = CodedAtoms(counts=(8, 16), last_q=5, scene_injections=2, scene_ratio_q=32, words=pattern(3, 16))
    segments = (
        Segment(index=0, n_frames=33, atoms=moving, check=CHECK),
        Segment(index=1, first_frame=33, n_frames=21, atoms=standing, generation=Generation(n_injections=7)),
        Segment(index=2, first_frame=54, n_frames=33, atoms=panned),
    )
    return VovFile(header(n_frames=87, n_segments=3), segments, "an empty street")


SAMPLES = {
    "steering": steering_only,
    "vector": vector_only,
    "segments": three_segments,
    "merged": merged,
    "trellis": trellis,
    "scenes": scenes,
}

if __name__ == "__main__":
    for name, make in SAMPLES.items():
        (GOLDEN / f"v0.12-{name}.vov").write_bytes(serialize(make()))

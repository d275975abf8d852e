"""The field list of every section: the one place that says what is stored where, how wide, and within which bounds.

Writer, reader, `describe` and the tables of FORMAT.md (sections 4 to 8) follow these lists; a test compares the tables.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from vovcodec.container.camera import PathField, path_is_tame
from vovcodec.container.codes import (
    Bits,
    Choice,
    Flag,
    FourNPlusOne,
    Groups,
    Multiple,
    NameOrText,
    Raw,
    Seed,
    Text,
)
from vovcodec.container.counts import INJECTIONS_MAX, SCENE_INJECTIONS, CountsField
from vovcodec.container.fields import Field, Rule, TableField, Values, When
from vovcodec.container.model import CodedAtoms, StreamHeader
from vovcodec.container.registered import (
    BACKBONES,
    COLOURS,
    FRAME_RATES,
    POCKET_FINGERPRINT,
    SOURCE_SIZES,
    default_fingerprint,
    usual_coded_size,
)

MAGIC = b"\x89VOV"
VERSION = (0, 12)  # each at most 15
TRELLIS_MEMORY = 12  # unless a file says otherwise, and where there is no trellis
SNR_START_Q, SNR_RATIO_Q = 60, 48  # unless a file says otherwise: from 1/181 on, in ratios of 1.75
SCENE_RATIO_Q = 24  # the same for a still and for the picture of a scene: 1.375
CAMERA_STEP_Q = 2  # unless a file says otherwise: quarters of a pixel
PREFIX_SIZE = len(MAGIC) + 1
CRC_SIZE = 4
SHORT_CRC_SIZE = 2  # of the types in SHORT_CRC

# Section types. Bit 7: ancillary (may be skipped when unknown). Bit 6: belongs to the segment before it.
HEADER, CAPTION, SEGMENT, INDEX = 0x01, 0x02, 0x03, 0x04
VECTOR, GENERATION = 0x43, 0x44
HISTORY, AUDIO = 0x81, 0x82
ANCILLARY, OF_SEGMENT = 0x80, 0x40
SHORT_CRC = frozenset({HEADER})
SECTION_NAMES = {
    HEADER: "header",
    CAPTION: "caption",
    SEGMENT: "segment",
    INDEX: "index",
    VECTOR: "vector",
    GENERATION: "generation",
    HISTORY: "history",
    AUDIO: "audio",
}

CAPTION_BYTES_MAX = 8192
HISTORY_BYTES_MAX = 65_536
MODEL_BYTES_MAX = 4096
VECTOR_WORDS_MAX = 64 * 2**20
ATOM_WORDS_MAX = 16 * 2**20
INDICES_BYTES_MAX = 16 * 2**20
THUMBNAIL_BYTES_MAX = 64
PSNR_Q_MAX = 1023
SEGMENTS_MAX = 32_768
MERGED_VECTORS_MAX = 15  # of a segment, beside its own
FRAMES_MAX = 10_000_000
SEGMENT_FRAMES_MAX = 65_533
SOURCE_SIDE_MAX = 16_384
CODED_SIDE_MAX = 8192
RATE_MAX = 2**32 - 1  # numerator and denominator of a frame rate
ASPECT_MAX = 65_536

_MOVING = When("frame_rate_num > 0", lambda v: v["frame_rate_num"] > 0)
_ADAPTED = When("has_adaptation", lambda v: v["has_adaptation"])
_SHIFT = When("schedule is shift", lambda v: v["sampler.schedule"] == "shift")
_SNR = When("schedule is snr", lambda v: v["sampler.schedule"] == "snr")


def padded_frames(n_frames: int) -> int:
    """The smallest 4n + 1 that is at least `n_frames`."""
    return n_frames + (1 - n_frames) % 4


def crc_size(type_: int) -> int:
    """Bytes of the CRC at the end of a section of this type."""
    return SHORT_CRC_SIZE if type_ in SHORT_CRC else CRC_SIZE


def framing_size_min(type_: int) -> int:
    """Type, shortest length and CRC."""
    return 2 + crc_size(type_)


def _default_segment_frames(values: Values) -> int | None:
    """One segment: just long enough. Several: no default (None never equals a value, the flag is then always 1)."""
    return padded_frames(values["n_frames"]) if values["n_segments"] == 1 else None


_ADAPTATION_FIELDS = (
    Field("adaptation.projection_id", Choice(6, {1: "balanced-philox", 2: "offset-philox"}),
          "how θ is spread over the factors",
          when=_ADAPTED, default="balanced-philox"),
    Field("adaptation.projection_seed", Seed(), "seed of the projection", when=_ADAPTED),
    Field("adaptation.rank", Bits(8, 1, 256), "rank of every ΔW", when=_ADAPTED, default=1),
    Field("adaptation.targets", Choice(2, {0: "qkvo", 1: "qkv", 2: "qkvo_mlp"}), "adapted linear layers",
          when=_ADAPTED),
    Field("adaptation.last_blocks", Groups(6, 0, 4095), "only the last so many blocks are adapted; 0 = all",
          when=_ADAPTED, default=0),
    Field("adaptation.vector_length", Groups(7, 1, 2**24), "entries of θ, that is symbols per vector", when=_ADAPTED),
    Field("adaptation.strength_q8", Bits(16, -32768, 32767), "factor on ΔW", "1/256", when=_ADAPTED, default=256),
)  # fmt: skip

HEADER_FIELDS = (
    Field("backbone_id", NameOrText(3, BACKBONES, Text(5, 1, 32)), "the public base model"),
    Field("backbone_revision", Text(6, 1, 64), "its revision, for the person who has to find it", default=""),
    Field("fingerprint", Raw(4), "of the base model's weights", default=default_fingerprint,
          default_text=f"{POCKET_FINGERPRINT.hex()} if backbone_id is pocket (otherwise there is no default: flag 1)"),
    Field("precision", Choice(3, {0: "float32", 1: "bfloat16", 2: "float16", 3: "int8-weights"}),
          "numeric precision of the base model at the encoder", default="float32"),
    TableField(5, SOURCE_SIZES, (
        Field("source_width", Bits(14, 1, SOURCE_SIDE_MAX), "width of the upright source frames", "px"),
        Field("source_height", Bits(14, 1, SOURCE_SIDE_MAX), "height of the upright source frames", "px"),
    )),
    Field("coded_width", Multiple(8, 8, CODED_SIDE_MAX), "width of the frames the backbone sees", "px",
          default=lambda v: usual_coded_size(v)[0], default_text="see 4.1"),
    Field("coded_height", Multiple(8, 8, CODED_SIDE_MAX), "height of the frames the backbone sees", "px",
          default=lambda v: usual_coded_size(v)[1], default_text="see 4.1"),
    TableField(4, FRAME_RATES, (
        Field("frame_rate_num", Groups(8, 1, RATE_MAX), "frames per frame_rate_den seconds; 0/1 = still image", "1/s"),
        Field("frame_rate_den", Groups(8, 1, RATE_MAX), "see frame_rate_num", "s"),
    )),
    Field("n_frames", Groups(7, 1, FRAMES_MAX), "frames of the whole stream, padding not counted", "frames",
          when=_MOVING, absent=1),
    Field("n_segments", Groups(6, 1, SEGMENTS_MAX), "SEGMENT sections in the file", when=_MOVING, absent=1, default=1),
    Field("segment_frames", FourNPlusOne(5, SEGMENT_FRAMES_MAX), "coded frames of a full segment", "frames",
          when=_MOVING, absent=1, default=_default_segment_frames,
          default_text="the smallest 4n + 1 >= n_frames if n_segments is 1 (otherwise there is no default: flag 1)"),
    TableField(3, COLOURS, (
        Field("colour_matrix", Bits(8, 0, 255), "ITU-T H.273 MatrixCoefficients of the source"),
        Field("colour_primaries", Bits(8, 0, 255), "ITU-T H.273 ColourPrimaries of the source"),
        Field("colour_transfer", Bits(8, 0, 255), "ITU-T H.273 TransferCharacteristics of the source"),
        Field("colour_range", Bits(2, 0, 2), "0 unspecified, 1 video (tv), 2 full (pc)"),
    )),
    Field("rotation", Choice(2, {0: 0, 1: 90, 2: 180, 3: 270}),
          "what the source carried; frames are stored upright", "degrees", default=0),
    TableField(1, ((1, 1),), (
        Field("sample_aspect_num", Bits(16, 1, ASPECT_MAX), "width of a pixel relative to its height"),
        Field("sample_aspect_den", Bits(16, 1, ASPECT_MAX), "see sample_aspect_num"),
    )),
    Field("has_audio", Flag(), "the source had sound, whether or not the file has", when=_MOVING, absent=False),
    Field("preset_digest", Raw(2), "of the preset the encoder used"),
    Field("has_adaptation", Flag(), "the adaptation fields follow; needed by every vector"),
    *_ADAPTATION_FIELDS,
    Field("sampler.sampler_id", Choice(2, {0: "ode", 1: "eta"}),
          "ode: no segment injects anything; eta: those with atoms, indices or GENERATION do", default="eta"),
    Field("sampler.noise_id", Choice(6, {1: "philox-normal16"}), "noise generator", default="philox-normal16"),
    Field("sampler.seed", Seed(), "seed of the noise", default=0),
    Field("sampler.schedule", Choice(2, {0: "shift", 1: "snr"}), "how the sampler's times are made", default="snr"),
    Field("sampler.n_steps", Groups(5, 1, 1000), "sampler steps", when=_SHIFT, absent=None),
    Field("sampler.shift_q8", Multiple(256, 1, 65535), "flow shift", "1/256", when=_SHIFT, absent=None),
    Field("sampler.snr_start_q", Bits(8, 0, 255), "first signal-to-noise ratio is 2^(-snr_start_q / 8)", when=_SNR,
          absent=None, default=SNR_START_Q),
    Field("sampler.snr_ratio_q", Bits(8, 1, 256), "each is 1 + snr_ratio_q / 64 times the one before", when=_SNR,
          absent=None, default=lambda v: SNR_RATIO_Q if v["frame_rate_num"] else SCENE_RATIO_Q,
          default_text=f"{SNR_RATIO_Q} if frame_rate_num > 0, otherwise {SCENE_RATIO_Q}"),
)  # fmt: skip

HEADER_RULES = (
    Rule("n_segments", "at most n_frames", lambda v: v["n_segments"] <= v["n_frames"]),
    Rule("n_frames", "at most n_segments * segment_frames",
         lambda v: v["n_frames"] <= v["n_segments"] * v["segment_frames"]),
)  # fmt: skip

CAPTION_FIELDS = (Field("caption_deflated", Flag(), "the text is compressed (section 7)"),)

_IN_SEVERAL = When("n_segments > 1", lambda v: v["header"].n_segments > 1)
_CAPTION = When("has_caption", lambda v: v["has_caption"])
_VECTOR = When("has_vector", lambda v: v["has_vector"])
_ATOMS = When("has_atoms", lambda v: v["has_atoms"])
_ATOMS_SNR = When("has_atoms and schedule is snr",
                  lambda v: v["has_atoms"] and v["header"].sampler.schedule == "snr")  # fmt: skip
_TRELLIS = When("codebook is trellis", lambda v: v["has_atoms"] and v["atoms.codebook"] == "trellis")
_SCENE_ABLE = When(
    "codebook is trellis, active_channels is 0, schedule is snr and n_frames > 1",
    lambda v: v["has_atoms"] and v["atoms.codebook"] == "trellis" and not v["atoms.active_channels"]
    and v["header"].sampler.schedule == "snr" and v["n_frames"] > 1,
)  # fmt: skip
_SCENE = When("scene_injections > 0", lambda v: v["has_atoms"] and v["atoms.scene_injections"] > 0)
_SCENE_AND_CLIP = When(
    "0 < scene_injections < the number of counts",
    lambda v: v["has_atoms"] and 0 < v["atoms.scene_injections"] < len(v["atoms.counts"]),
)
_CAMERA = When("camera_path is not ()", lambda v: v["has_atoms"] and bool(v["atoms.camera_path"]))
_IMPORTANCE = When("has_importance", lambda v: v["has_importance"])
_CHECK = When("has_check", lambda v: v["has_check"])
_CAPTION_NOT_LAST = When("has_caption and (has_vector or has_importance or has_atoms)", lambda v: v["has_caption"] and (
    v["has_vector"] or v["has_importance"] or v["has_atoms"]))  # fmt: skip
_VECTOR_NOT_LAST = When("has_vector and (has_importance or has_atoms)", lambda v: v["has_vector"] and (
    v["has_importance"] or v["has_atoms"]))  # fmt: skip
_IMPORTANCE_NOT_LAST = When("has_importance and has_atoms", lambda v: v["has_importance"] and v["has_atoms"])

_VECTOR_FIELDS = (
    Field("vector.step_size_q", Bits(16, 0, 65535), "Δ = 2^(12 - step_size_q / 2048)", when=_VECTOR),
    Field("vector.model_size", Groups(5, 0, MODEL_BYTES_MAX), "size of the entropy model", "bytes", when=_VECTOR),
)  # fmt: skip

SEGMENT_FIELDS = (
    Field("index", Groups(6, 0, SEGMENTS_MAX - 1), "number of this segment, from 0", when=_IN_SEVERAL, absent=0),
    Field("first_frame", Groups(7, 0, FRAMES_MAX - 1), "first frame it covers", "frames", when=_IN_SEVERAL, absent=0),
    Field("n_frames", Groups(6, 1, SEGMENT_FRAMES_MAX), "frames it covers, padding not counted", "frames",
          when=_IN_SEVERAL, default=lambda v: v["header"].segment_frames, default_text="segment_frames"),
    Field("has_caption", Flag(), "it has its own caption; otherwise the shared one holds"),
    Field("has_vector", Flag(), "it has a coded vector"),
    Field("has_importance", Flag(), "it has importance-sampling indices"),
    Field("has_atoms", Flag(), "it has steering atoms"),
    Field("has_check", Flag(), "it has a check of the decoded frames"),
    Field("check.psnr_q", Bits(10, 0, PSNR_Q_MAX), f"PSNR the encoder saw; {PSNR_Q_MAX} = that much or more", "dB/16",
          when=_CHECK),
    TableField(1, ((4, 2, 4),), (
        Field("check.thumbnail_width", Bits(4, 0, 15), "width of the luma thumbnail", "px"),
        Field("check.thumbnail_height", Bits(4, 0, 15), "height of the luma thumbnail", "px"),
        Field("check.thumbnail_size", Bits(7, 0, THUMBNAIL_BYTES_MAX), "size of the thumbnail", "bytes"),
    ), _CHECK),
    Field("caption_deflated", Flag(), "the caption is compressed (section 7)", when=_CAPTION),
    Field("caption_size", Groups(7, 0, CAPTION_BYTES_MAX), "stored size of the caption", "bytes",
          when=_CAPTION_NOT_LAST),
    *_VECTOR_FIELDS,
    Field("vector.words_size", Groups(7, 0, VECTOR_WORDS_MAX), "size of the vector's words", "bytes",
          when=_VECTOR_NOT_LAST),
    Field("importance.log2_candidates", Bits(5, 1, 24), "bits per index", "bits", when=_IMPORTANCE),
    Field("importance.indices_size", Groups(7, 0, INDICES_BYTES_MAX), "size of the packed indices", "bytes",
          when=_IMPORTANCE_NOT_LAST),
    Field("atoms.codebook", Choice(4, {1: "hadamard", 2: "cyclic-shift", 3: "trellis"}),
          "what the atoms are and how they are coded", when=_ATOMS, default="trellis"),
    Field("atoms.memory", Bits(4, 1, 16), "of the trellis: bits of its state", "bits", when=_TRELLIS,
          absent=TRELLIS_MEMORY, default=TRELLIS_MEMORY),
    Field("atoms.active_channels", Bits(8, 0, 255), "atoms act on the first so many latent channels; 0 = all",
          when=_ATOMS, default=0),
    Field("atoms.scene_injections", SCENE_INJECTIONS, "the first so many make a picture of the scene",
          when=_SCENE_ABLE, absent=0, default=0),
    Field("atoms.scene_ratio_q", Bits(8, 1, 256), "snr_ratio_q of the picture's sampler", when=_SCENE,
          absent=SCENE_RATIO_Q, default=SCENE_RATIO_Q),
    CountsField("atoms.counts", _ATOMS, _TRELLIS),
    Field("atoms.last_q", Bits(4, 1, 16), "how much of a step the last injection is", "1/16", when=_ATOMS_SNR,
          absent=16, default=16),
    Field("atoms.eta_scale_q", Bits(8, 0, 255), "factor on the ancestral noise fraction", "1/200", when=_ATOMS,
          default=200),
    Field("atoms.scene_last_q", Bits(4, 1, 16), "last_q of the picture's sampler", "1/16", when=_SCENE_AND_CLIP,
          absent=16, default=16),
    Field("atoms.clip_start_q", Bits(8, -128, 127), "snr_start_q of the clip's sampler", when=_SCENE_AND_CLIP,
          absent=0, default=0),
    PathField("atoms.camera_path", _SCENE),
    Field("atoms.camera_step_q", Bits(2, 0, 3), "unit of the path is 2^-camera_step_q px", when=_CAMERA,
          absent=CAMERA_STEP_Q, default=CAMERA_STEP_Q),
    Field("atoms.margin_x", Bits(4, 0, 15), "what the picture has on the left and on the right of the frame", "8 px",
          when=_CAMERA, absent=0),
    Field("atoms.margin_y", Bits(4, 0, 15), "the same above and below", "8 px", when=_CAMERA, absent=0),
    Field("atoms.crop_left", Bits(8, 0, 255), "black bar at the left of the frames", "px/4", when=_CAMERA, absent=0,
          default=0),
    Field("atoms.crop_right", Bits(8, 0, 255), "at the right", "px/4", when=_CAMERA, absent=0, default=0),
    Field("atoms.crop_top", Bits(8, 0, 255), "at the top", "px/4", when=_CAMERA, absent=0, default=0),
    Field("atoms.crop_bottom", Bits(8, 0, 255), "at the bottom", "px/4", when=_CAMERA, absent=0, default=0),
)  # fmt: skip

SCENE_FIELDS = tuple(field for field in SEGMENT_FIELDS if field.when in (_SCENE, _SCENE_AND_CLIP, _CAMERA))
"""What a segment says about the picture that it rests on, besides the counts."""


def _frames_fit(values: Values) -> bool:
    header = values["header"]
    return values["first_frame"] + values["n_frames"] <= header.n_frames


def _injections_fit(values: Values) -> bool:
    """Whether the schedule has room for so many injections; exact integers, so that all readers agree."""
    if not values["has_atoms"]:
        return True
    sampler, n_injections = values["header"].sampler, len(values["atoms.counts"])
    if sampler.schedule == "shift":
        return n_injections < sampler.n_steps
    n_scene = values["atoms.scene_injections"]
    return _ratios_fit(values["atoms.scene_ratio_q"], n_scene) and _ratios_fit(
        sampler.snr_ratio_q, n_injections - n_scene
    )


def _ratios_fit(snr_ratio_q: int, n_injections: int) -> bool:
    return (64 + snr_ratio_q) ** n_injections <= 2 ** (6 * n_injections + 64)


def _path_fits(values: Values) -> bool:
    """Whether a path has no more entries than its frames tell apart."""
    rows = values["atoms.camera_path"] if values["has_atoms"] else ()
    return max(map(len, rows), default=0) < padded_frames(values["n_frames"])


def _path_is_tame(values: Values) -> bool:
    if not values["has_atoms"] or not values["atoms.camera_path"]:
        return True
    header, n_frames = values["header"], padded_frames(values["n_frames"])
    path, step_q = values["atoms.camera_path"], values["atoms.camera_step_q"]
    return path_is_tame(path, step_q, n_frames, header.coded_width, header.coded_height)


SEGMENT_RULES = (
    Rule("index", "below n_segments", lambda v: v["index"] < v["header"].n_segments),
    Rule("n_frames", "at most segment_frames", lambda v: v["n_frames"] <= v["header"].segment_frames),
    Rule("first_frame", "such that first_frame + n_frames <= the stream's n_frames", _frames_fit),
    Rule("has_vector", "false unless the header has an adaptation",
         lambda v: not v["has_vector"] or v["header"].adaptation is not None),
    Rule("has_atoms", "false unless sampler_id is eta",
         lambda v: not v["has_atoms"] or v["header"].sampler.sampler_id == "eta"),
    Rule("atoms.counts", "at most n_steps - 1 numbers (schedule shift), or so few (m) that (1 + snr_ratio_q / 64)^m <= "
         "2^64 (schedule snr; of those of the picture of a scene with scene_ratio_q, of the others by themselves)",
         _injections_fit),
    Rule("atoms.camera_path", "of rows shorter than n coded frames, n being the smallest 4 n' + 1 >= n_frames",
         _path_fits),
    Rule("atoms.camera_path", "such that 128 (H a + W d)^2 <= 9 n 4^camera_step_q (W H)^2 for the sums a, d of the "
         "magnitudes in rows 1, 2 and in rows 4, 5; W, H: the coded size", _path_is_tame),
)  # fmt: skip


@dataclass(frozen=True)
class Blob:
    """Bytes after a segment's fields. Its size is the field `size`, or the rest of the section where not stored."""

    name: str
    present: str
    size: str
    size_max: int


BLOBS = (
    Blob("check.thumbnail", "has_check", "check.thumbnail_size", THUMBNAIL_BYTES_MAX),
    Blob("caption", "has_caption", "caption_size", CAPTION_BYTES_MAX),
    Blob("vector.model", "has_vector", "vector.model_size", MODEL_BYTES_MAX),
    Blob("vector.words", "has_vector", "vector.words_size", VECTOR_WORDS_MAX),
    Blob("importance.indices", "has_importance", "importance.indices_size", INDICES_BYTES_MAX),
    Blob("atoms.words", "has_atoms", "atoms.words_size", ATOM_WORDS_MAX),
)

# A further vector of the segment: everything that its own one has in the header and in the segment.
VECTOR_FIELDS = tuple(replace(field, when=None) for field in (*_ADAPTATION_FIELDS, *_VECTOR_FIELDS))
VECTOR_BLOBS = tuple(blob for blob in BLOBS if blob.present == "has_vector")

GENERATION_FIELDS = (
    Field("n_injections", Groups(5, 1, INJECTIONS_MAX), "injections of the segment, those with atoms included"),
    Field("eta_scale_q", Bits(8, 0, 255), "factor on the ancestral noise fraction of those without", "1/200",
          default=100),
)  # fmt: skip


def generation_values(header: StreamHeader, atoms: CodedAtoms | None) -> Values:
    """What `GENERATION_RULES` look at besides the section's fields; `atoms`: of its segment."""
    n_steered, n_scene, ratio_q = (
        (len(atoms.counts), atoms.scene_injections, atoms.scene_ratio_q) if atoms else (0, 0, 1)
    )
    return {"header": header, "n_steered": n_steered, "n_scene": n_scene, "scene_ratio_q": ratio_q}


GENERATION_RULES = (
    Rule("n_injections", "more than counts has", lambda v: v["n_injections"] > v["n_steered"]),
    Rule("n_injections", "absent, with the section, unless schedule is snr and sampler_id is eta",
         lambda v: (v["header"].sampler.schedule, v["header"].sampler.sampler_id) == ("snr", "eta")),
    Rule("n_injections", "absent, with the section, where 0 < scene_injections < the number of counts",
         lambda v: v["n_scene"] in (0, v["n_steered"])),
    Rule("n_injections", "so few (m) that (1 + snr_ratio_q / 64)^m <= 2^64, with scene_ratio_q if scene_injections > 0",
         lambda v: _ratios_fit(v["scene_ratio_q"] if v["n_scene"] else v["header"].sampler.snr_ratio_q,
                               v["n_injections"])),
)  # fmt: skip

# Per segment, n_segments times; then the tail, aligned to a byte at its end.
INDEX_HEAD = (Field("first_offset", Groups(7, PREFIX_SIZE, 2**40), "offset of segment 0 in the file", "bytes"),)
INDEX_ENTRY = (
    Field("group_size", Groups(7, framing_size_min(SEGMENT), 2**40),
          "the segment's section and the sections that belong to it", "bytes"),
    Field("n_frames", Groups(6, 1, SEGMENT_FRAMES_MAX), "as in the segment", "frames",
          default=lambda v: v["header"].segment_frames, default_text="segment_frames"),
)  # fmt: skip
INDEX_TAIL = (Field("tail_size", Groups(7, 0, 2**40), "from the end of the last segment to INDEX", "bytes"),)
INDEX_TRAILER_SIZE = 4  # after the padding: u(32), the size of the whole INDEX section


def section_name(type_: int, segment: int | None = None) -> str:
    """The section's name for messages and dumps."""
    name = SECTION_NAMES.get(type_, f"type 0x{type_:02X}")
    return name if segment is None else f"segment {segment}" if type_ == SEGMENT else f"segment {segment} {name}"

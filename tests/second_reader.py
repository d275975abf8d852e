"""A second reader of `.vov` files, written from FORMAT.md alone (sections 1 to 11 and 16) with the standard library.

It imports nothing from the package: where the two readers disagree about a file, one of them or the text is wrong.
Symbols, atoms and paths are decoded by `reference_entropy.py` (sections 13 and 17 to 20), which stands apart from the
package too.
"""

from __future__ import annotations

import binascii
import json
import math
import zlib
from pathlib import Path
from typing import Any

__all__ = ["Refused", "audio", "n_positions", "read", "step_size"]

MAGIC = bytes.fromhex("89 56 4f 56")
VERSION = (0, 12)
HEADER, CAPTION, SEGMENT, INDEX = 0x01, 0x02, 0x03, 0x04
VECTOR, GENERATION, HISTORY, AUDIO = 0x43, 0x44, 0x81, 0x82
FRAME_RATES = [(0, 1), (24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (50, 1), (60000, 1001), (60, 1),
               (10, 1), (12, 1), (15, 1), (16, 1), (20, 1), (120, 1)]  # fmt: skip
SOURCE_SIZES = [(1920, 1080), (1080, 1920), (1280, 720), (720, 1280), (3840, 2160), (2160, 3840), (2560, 1440),
                (4096, 2160), (960, 540), (854, 480), (852, 480), (848, 480), (832, 480), (480, 832), (640, 360),
                (360, 640), (426, 240), (416, 240), (1440, 1080), (1024, 768), (640, 480), (320, 240), (720, 480),
                (720, 576), (352, 288), (176, 144), (768, 512), (512, 768), (1024, 1024), (512, 512),
                (256, 256)]  # fmt: skip
COLOURS = [(2, 2, 2, 0), (1, 1, 1, 1), (2, 2, 2, 1), (5, 5, 6, 1), (6, 6, 6, 1), (5, 2, 2, 2), (0, 1, 13, 2)]
BACKBONES = ["pocket", "wan2.1-1.3b", "wan2.1-14b", "qwen-image"]
SAMPLE_RATES = [(48000,), (44100,), (32000,), (24000,), (22050,), (16000,), (8000,)]
SOUND_CODECS = ["opus", "aac", "mp3", "vorbis", "flac", "ac3", "eac3", "alac"]
FORMAT = Path(__file__).parent.parent / "vovcodec" / "container" / "FORMAT.md"


class Refused(Exception):
    """The file breaks a MUST of the text."""


def must(condition: object, reason: str) -> None:
    """Refuse unless `condition`."""
    if not condition:
        raise Refused(reason)


def dictionary() -> bytes:
    """Section 7.2: each line break stands for one space, and one space follows the last line."""
    listed = FORMAT.read_text(encoding="utf-8").partition("```text\n")[2].partition("\n```")[0]
    text = (listed.replace("\n", " ") + " ").encode("ascii")
    assert (len(text), zlib.crc32(text)) == (1742, 0xC1C8B75C)
    return text


class Bits:
    """Section 3: the first bit is the most significant one of the first byte."""

    def __init__(self, payload: bytes) -> None:
        self.payload, self.at = payload, 0

    def u(self, n: int) -> int:
        value = 0
        for _ in range(n):
            must(self.at < 8 * len(self.payload), "fields run past the payload")
            value = value << 1 | self.payload[self.at // 8] >> (7 - self.at % 8) & 1
            self.at += 1
        return value

    def b(self, n: int) -> bytes:
        return bytes(self.u(8) for _ in range(n))

    def g(self, n: int) -> int:
        value, shift = 0, 0
        while True:
            more, group = self.u(1), self.u(n)
            value |= group << shift
            shift += n
            if not more:
                must(group or shift == n, "a last group of zero")
                return value
            must(shift < 64, "a number that no bound allows")

    def r(self, n: int) -> int:
        ones = 0
        while self.u(1):
            ones += 1
        return ones * 2**n + self.u(n)

    def seed(self) -> int:
        n = self.u(3)
        must(n <= 4, "a seed of more than 4 bytes")
        text = self.b(n)
        must(not text or text[0], "a seed that starts with a zero byte")
        return int.from_bytes(text, "big")

    def m(self, step: int, short: int, long: int, low: int) -> int:
        if self.u(1):
            return (self.u(short) + 1) * step
        value = self.u(long) + low
        must(value % step, "a multiple in the long form")
        return value

    def default(self, value: Any, stored) -> Any:
        if not self.u(1):
            must(value is not None, "there is no default here")
            return value
        other = stored()
        must(other != value, "the default is stored")
        return other

    def table(self, n: int, rows: list[tuple], explicit) -> tuple:
        row = self.u(n)
        if row < len(rows):
            return rows[row]
        must(row == (1 << n) - 1, "a reserved row")
        values = tuple(explicit())
        must(values not in rows, "a row spelled out")
        return values

    def choice(self, n: int, values: dict[int, Any]) -> Any:
        number = self.u(n)
        must(number in values, "a reserved number")
        return values[number]

    def text(self, n: int) -> str:
        characters = self.b(self.u(n) + 1)
        must(all(0x21 <= c <= 0x7E for c in characters), "not printable ASCII")
        return characters.decode("ascii")

    def align(self) -> int:
        must(self.u(-self.at % 8) == 0, "padding that is not zero")
        return self.at // 8


def within(value: int, low: int, high: int) -> int:
    """Every value is within its bounds."""
    must(low <= value <= high, f"{value} is not {low}..{high}")
    return value


def sections(data: bytes) -> list[tuple[int, bytes, int, int]]:
    """Section 2: (type, payload, start, end) of sections that cover the file exactly."""
    must(data[:4] == MAGIC, "no magic")
    must(len(data) > 4 and divmod(data[4], 16) == VERSION, "another version")
    found, at = [], 5
    while at < len(data):
        start, type_ = at, data[at]
        must(type_ != 0, "a section of type 0")
        length, shift = 0, 0
        while True:
            at += 1
            must(at < len(data) and shift < 35, "no end of the length")
            length |= (data[at] & 0x7F) << shift
            shift += 7
            if data[at] < 0x80:
                must(data[at] or shift == 7, "a length that is not in its shortest form")
                break
        at += 1
        must(length <= 128 << 20, "a payload above 128 MiB")
        n_crc = 2 if type_ == HEADER else 4
        must(at + length + n_crc <= len(data), "the file ends inside a section")
        covered = data[0 if start == 5 else start : at + length]
        crc = zlib.crc32(covered) if n_crc == 4 else binascii.crc_hqx(covered, 0xFFFF)
        must(crc == int.from_bytes(data[at + length : at + length + n_crc], "big"), "a wrong CRC")
        found.append((type_, data[at : at + length], start, at + length + n_crc))
        at += length + n_crc
    return found


def read_header(payload: bytes) -> dict[str, Any]:
    """Section 4."""
    bits, h = Bits(payload), {}
    number = bits.u(3)
    if number < len(BACKBONES):
        h["backbone_id"] = BACKBONES[number]
    else:
        must(number == 7, "a reserved backbone")
        h["backbone_id"] = bits.text(5)
        must(h["backbone_id"] not in BACKBONES, "a registered name spelled out")
    h["backbone_revision"] = bits.default("", lambda: bits.text(6))
    of_package = bytes.fromhex("9006877a") if h["backbone_id"] == "pocket" else None
    h["fingerprint"] = bits.default(of_package, lambda: bits.b(4))
    precisions = dict(enumerate(["float32", "bfloat16", "float16", "int8-weights"]))
    h["precision"] = bits.default("float32", lambda: bits.choice(3, precisions))
    h["source_width"], h["source_height"] = bits.table(5, SOURCE_SIZES, lambda: (bits.u(14) + 1, bits.u(14) + 1))
    width, height = usual_size(h["backbone_id"], h["source_width"], h["source_height"])
    h["coded_width"] = within(bits.default(width, lambda: bits.m(8, 10, 13, 8)), 8, 8192)
    h["coded_height"] = within(bits.default(height, lambda: bits.m(8, 10, 13, 8)), 8, 8192)
    rate = bits.table(4, FRAME_RATES, lambda: [within(bits.g(8) + 1, 1, 2**32 - 1) for _ in range(2)])
    h["frame_rate_num"], h["frame_rate_den"] = rate
    h["n_frames"] = h["n_segments"] = h["segment_frames"] = 1
    if rate[0] > 0:
        h["n_frames"] = within(bits.g(7) + 1, 1, 10_000_000)
        h["n_segments"] = bits.default(1, lambda: within(bits.g(6) + 1, 1, 32_768))
        padded = h["n_frames"] + (1 - h["n_frames"]) % 4 if h["n_segments"] == 1 else None
        h["segment_frames"] = within(bits.default(padded, lambda: 4 * bits.g(5) + 1), 1, 65_533)
    colour = bits.table(3, COLOURS, lambda: (bits.u(8), bits.u(8), bits.u(8), within(bits.u(2), 0, 2)))
    h["colour_matrix"], h["colour_primaries"], h["colour_transfer"], h["colour_range"] = colour
    h["rotation"] = bits.default(0, lambda: 90 * bits.u(2))
    aspect = bits.table(1, [(1, 1)], lambda: (bits.u(16) + 1, bits.u(16) + 1))
    h["sample_aspect_num"], h["sample_aspect_den"] = aspect
    h["has_audio"] = rate[0] > 0 and bool(bits.u(1))
    h["preset_digest"] = bits.b(2)
    h["adaptation"] = read_adaptation(bits) if bits.u(1) else None
    h["sampler"] = read_sampler(bits, 48 if rate[0] > 0 else 24)
    must(bits.align() == len(payload), "bytes follow the header's last field")
    must(h["n_segments"] <= h["n_frames"], "more segments than frames")
    must(h["n_frames"] <= h["n_segments"] * h["segment_frames"], "more frames than the segments hold")
    return h


def usual_size(backbone_id: str, width: int, height: int) -> tuple[int, int]:
    """Section 4.1."""
    short, long = min(width, height), max(width, height)
    if backbone_id != "pocket" or short < 128:
        return width, height
    a = 16 * (128 * long // (16 * short))
    if (128 * long) ** 2 >= a * (a + 16) * short**2:
        a += 16
    return (a, 128) if width >= height else (128, a)


def read_adaptation(bits: Bits) -> dict[str, Any]:
    """The adaptation fields of section 4."""
    projections = {1: "balanced-philox", 2: "offset-philox"}
    return {
        "projection_id": bits.default("balanced-philox", lambda: bits.choice(6, projections)),
        "projection_seed": bits.seed(),
        "rank": bits.default(1, lambda: bits.u(8) + 1),
        "targets": bits.choice(2, dict(enumerate(["qkvo", "qkv", "qkvo_mlp"]))),
        "last_blocks": bits.default(0, lambda: within(bits.g(6), 0, 4095)),
        "vector_length": within(bits.g(7) + 1, 1, 2**24),
        "strength_q8": bits.default(256, lambda: bits.u(16) - 32768),
    }


def read_sampler(bits: Bits, usual_ratio: int) -> dict[str, Any]:
    """The sampler fields of section 4."""
    s: dict[str, Any] = {"sampler_id": bits.default("eta", lambda: bits.choice(2, {0: "ode", 1: "eta"}))}
    s["noise_id"] = bits.default("philox-normal16", lambda: bits.choice(6, {1: "philox-normal16"}))
    s["seed"] = bits.default(0, bits.seed)
    s["schedule"] = bits.default("snr", lambda: bits.choice(2, {0: "shift", 1: "snr"}))
    shift = s["schedule"] == "shift"
    s["n_steps"] = within(bits.g(5) + 1, 1, 1000) if shift else None
    s["shift_q8"] = within(bits.m(256, 8, 16, 1), 1, 65_535) if shift else None
    s["snr_start_q"] = None if shift else bits.default(60, lambda: bits.u(8))
    s["snr_ratio_q"] = None if shift else bits.default(usual_ratio, lambda: bits.u(8) + 1)
    return s


def read_caption(stored: bytes, deflated: bool) -> str:
    """Section 7."""
    if deflated:
        stored = inflated(stored, 8192, dictionary())
    must(len(stored) <= 8192, "a caption above 8192 bytes")
    try:
        return stored.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("a caption that is no UTF-8") from None


def inflated(stored: bytes, most: int, preset: bytes = b"") -> bytes:
    """One raw deflate stream that ends exactly with the stored bytes, at most `most` bytes out."""
    stream = zlib.decompressobj(-15, preset) if preset else zlib.decompressobj(-15)
    try:
        text = stream.decompress(stored, most + 1)
    except zlib.error:
        raise Refused("no deflate data") from None
    must(len(text) <= most and stream.eof and not stream.unused_data, "deflate data too long or not ending here")
    return text


def grid(k: int) -> int:
    """Section 6.2: M_k."""
    return k if k < 4 else (4 + k % 4) * 2 ** (k // 4 - 1)


def read_unusual(bits: Bits) -> int:
    """Section 6.2, point 2: e."""
    if not bits.u(1):
        return -1
    if not bits.u(1):
        return 1
    number = within(bits.r(2), 0, 142)
    return (number // 2 + 2) * (1 if number % 2 else -1)


def read_phase(bits: Bits, n: int, usual: int) -> list[int]:
    """Section 6.2, point 2: so many indices of a phase."""
    ks = [bits.u(6) for _ in range(min(n, 2))]
    while len(ks) < n:
        run = bits.r(2)
        must(run <= n - len(ks), "a run beyond the end of its phase")
        for _ in range(run):
            ks.append(within(ks[-1] + usual, 0, 71))
        if len(ks) < n:
            ks.append(within(ks[-1] + usual + read_unusual(bits), 0, 71))
    return ks


def read_counts(bits: Bits, path: bool, a: dict[str, Any], ratio_q: int | None) -> list[int | None]:
    """Section 6.2; the last is None where it is implied."""
    n_scene = a["scene_injections"]
    if n_scene == 0:
        m = bits.g(6) + 1
    else:
        m = n_scene + bits.g(6) + 1 if bits.u(1) else n_scene
    within(m, 1, 1000)
    ks = []
    if n_scene:
        ks += read_phase(bits, min(n_scene, m - 1), 1 if a["scene_ratio_q"] < 36 else 2)
    ks += read_phase(bits, m - 1 - len(ks), 1 if ratio_q is not None and ratio_q < 36 else 2)
    counts: list[int | None] = [grid(k) for k in ks]
    counts.append(within(bits.g(7), 0, 500_000) if not path or bits.u(1) else None)
    return counts


def completed_counts(counts: list[int | None], path: bool, n_words: int) -> tuple[int, ...]:
    """Section 6.2, point 3."""
    implied = 8 * n_words - sum(counts[:-1])
    if counts[-1] is None:
        counts[-1] = within(implied, 0, 500_000)
    else:
        must(not path or counts[-1] != implied, "an implied last count is stored")
    must(sum(counts) <= 500_000, "more than 500,000 atoms")
    return tuple(counts)


def ratios_fit(ratio_q: int, m: int) -> bool:
    """Sections 6 and 6.5: (1 + snr_ratio_q / 64)^m <= 2^64."""
    return (64 + ratio_q) ** m <= 2**64 * 64**m


def read_entry(bits: Bits, k: int) -> int:
    """Section 6.6, the code of an entry."""
    e = 0
    while e < 15 and bits.u(1):
        e += 1
    if e < 15:
        v = e * 2**k + bits.u(k)
    else:
        v = bits.u(15)
        must(v // 2**k >= 15, "a short entry in the long form")
    return -v if v and bits.u(1) else v


def read_path(bits: Bits) -> tuple[tuple[int, ...], ...]:
    """Section 6.6."""
    if not bits.u(1):
        return ()
    rows = []
    for _ in range(6):
        row, a = [], 128
        for _ in range(bits.u(6)):
            row.append(read_entry(bits, max(0, (a // 16).bit_length() - 1)))
            a = (a + 16 * abs(row[-1])) // 2
        must(not row or row[-1], "a row that ends with a zero")
        rows.append(tuple(row))
    must(any(rows), "a path of nothing")
    return tuple(rows)


def read_camera(bits: Bits) -> dict[str, Any]:
    """Section 6, the last fields."""
    camera: dict[str, Any] = {"camera_path": read_path(bits)}
    moves = bool(camera["camera_path"])
    camera["camera_step_q"] = bits.default(2, lambda: bits.u(2)) if moves else 2
    camera["margin_x"], camera["margin_y"] = (bits.u(4), bits.u(4)) if moves else (0, 0)
    for side in ("left", "right", "top", "bottom"):
        camera[f"crop_{side}"] = bits.default(0, lambda: bits.u(8)) if moves else 0
    return camera


def path_fits(a: dict[str, Any], n_frames: int, width: int, height: int) -> bool:
    """Section 6, the rules for camera_path."""
    path, n = a["camera_path"], n_frames + (1 - n_frames) % 4
    if not path:
        return True
    sums = [sum(abs(entry) for entry in row) for row in path]
    most = max(height * sums[1] + width * sums[2], height * sums[4] + width * sums[5])
    tame = 128 * most**2 <= 9 * n * 4 ** a["camera_step_q"] * (width * height) ** 2
    return tame and all(len(row) < n for row in path)


def read_scene(bits: Bits, a: dict[str, Any], n_frames: int, sampler: dict[str, Any]) -> dict[str, int]:
    """Section 6, the fields of a scene before the counts."""
    scene = {"scene_injections": 0, "scene_ratio_q": 24}
    is_able = a["codebook"] == "trellis" and a["active_channels"] == 0 and sampler["schedule"] == "snr"
    if is_able and n_frames > 1:
        scene["scene_injections"] = within(bits.default(0, lambda: bits.g(6)), 0, 1000)
    if scene["scene_injections"] > 0:
        scene["scene_ratio_q"] = bits.default(24, lambda: bits.u(8) + 1)
    return scene


def read_rest_of_scene(bits: Bits, a: dict[str, Any]) -> dict[str, int]:
    """Section 6, the fields of a scene after the counts, and those of its camera."""
    scene = {"scene_last_q": 16, "clip_start_q": 0}
    scene |= {"camera_path": (), "camera_step_q": 2, "margin_x": 0, "margin_y": 0}
    scene |= {"crop_left": 0, "crop_right": 0, "crop_top": 0, "crop_bottom": 0}
    if 0 < a["scene_injections"] < len(a["counts"]):
        scene["scene_last_q"] = bits.default(16, lambda: bits.u(4) + 1)
        scene["clip_start_q"] = bits.default(0, lambda: bits.u(8) - 128)
    return scene | (read_camera(bits) if a["scene_injections"] > 0 else {})


def read_segment(payload: bytes, h: dict[str, Any]) -> dict[str, Any]:
    """Section 6."""
    bits, s = Bits(payload), {"index": 0, "first_frame": 0, "n_frames": h["n_frames"]}
    sampler = h["sampler"]
    if h["n_segments"] > 1:
        s["index"] = within(bits.g(6), 0, 32_767)
        s["first_frame"] = within(bits.g(7), 0, 9_999_999)
        s["n_frames"] = bits.default(h["segment_frames"], lambda: within(bits.g(6) + 1, 1, 65_533))
    caption, vector, importance, atoms, check = (bool(bits.u(1)) for _ in range(5))
    if check:
        c = {"psnr_q": bits.u(10)}
        shape = bits.table(1, [(4, 2, 4)], lambda: (bits.u(4), bits.u(4), within(bits.u(7), 0, 64)))
        c["thumbnail_width"], c["thumbnail_height"], thumbnail_size = shape
    deflated = caption and bool(bits.u(1))
    sizes: list[int | None] = []
    if caption and (vector or importance or atoms):
        sizes.append(within(bits.g(7), 0, 8192))
    elif caption:
        sizes.append(None)
    if vector:
        v = {"step_size_q": bits.u(16)}
        sizes.append(within(bits.g(5), 0, 4096))
        sizes.append(within(bits.g(7), 0, 67_108_864) if importance or atoms else None)
    if importance:
        i = {"log2_candidates": within(bits.u(5) + 1, 1, 24)}
        sizes.append(within(bits.g(7), 0, 16_777_216) if atoms else None)
    if atoms:
        codebooks = {1: "hadamard", 2: "cyclic-shift", 3: "trellis"}
        a: dict[str, Any] = {"codebook": bits.default("trellis", lambda: bits.choice(4, codebooks))}
        # The reader of the package says 12 where there is no trellis; the text has no such value.
        a["memory"] = bits.default(12, lambda: bits.u(4) + 1) if a["codebook"] == "trellis" else 12
        a["active_channels"] = bits.default(0, lambda: bits.u(8))
        a |= read_scene(bits, a, s["n_frames"], sampler)
        a["counts"] = read_counts(bits, a["codebook"] == "trellis", a, sampler["snr_ratio_q"])
        a["last_q"] = bits.default(16, lambda: bits.u(4) + 1) if sampler["schedule"] == "snr" else 16
        a["eta_scale_q"] = bits.default(200, lambda: bits.u(8))
        a |= read_rest_of_scene(bits, a)
        sizes.append(None)
    must(s["index"] < h["n_segments"], "an index beyond n_segments")
    must(s["n_frames"] <= h["segment_frames"], "more frames than segment_frames")
    must(s["first_frame"] + s["n_frames"] <= h["n_frames"], "frames beyond the stream's")
    must(not vector or h["adaptation"], "a vector without an adaptation")
    must(not atoms or sampler["sampler_id"] == "eta", "atoms with ode")
    if atoms and sampler["schedule"] == "shift":
        must(len(a["counts"]) <= sampler["n_steps"] - 1, "more injections than steps")
    elif atoms:
        n_scene = a["scene_injections"]
        must(path_fits(a, s["n_frames"], h["coded_width"], h["coded_height"]), "a path that its frames do not bear")
        must(ratios_fit(a["scene_ratio_q"], n_scene), "more injections than scene_ratio_q allows")
        must(ratios_fit(sampler["snr_ratio_q"], len(a["counts"]) - n_scene), "more injections than the ratio allows")
    at, blobs = bits.align(), []
    for size in ([thumbnail_size] if check else []) + sizes:
        size = len(payload) - at if size is None else size
        must(at + size <= len(payload), "a blob runs past the payload")
        blobs.append(payload[at : at + size])
        at += size
    must(at == len(payload), "bytes follow the last blob")
    s["check"] = c | {"thumbnail": blobs.pop(0)} if check else None
    s["caption"] = read_caption(blobs.pop(0), deflated) if caption else None
    s["vector"] = v | {"model": blobs.pop(0), "words": blobs.pop(0)} if vector else None
    s["importance"] = i | {"indices": blobs.pop(0)} if importance else None
    s["atoms"] = a | {"words": blobs.pop(0)} if atoms else None
    if atoms:
        a = s["atoms"]
        a["counts"] = completed_counts(a["counts"], a["codebook"] == "trellis", len(a["words"]))
    if vector:
        must(len(s["vector"]["words"]) <= 67_108_864, "words above 64 MiB")
    for part, name in (("importance", "indices"), ("atoms", "words")):
        must(s[part] is None or len(s[part][name]) <= 16_777_216, "a blob above 16 MiB")
    return s


def read_vector(payload: bytes) -> dict[str, Any]:
    """Section 6.4."""
    bits = Bits(payload)
    adaptation = read_adaptation(bits)
    step_size_q, model_size = bits.u(16), within(bits.g(5), 0, 4096)
    blobs = payload[bits.align() :]
    must(model_size <= len(blobs) <= model_size + 67_108_864, "a model beyond the payload, or words above 64 MiB")
    vector = {"step_size_q": step_size_q, "model": blobs[:model_size], "words": blobs[model_size:]}
    return {"adaptation": adaptation, "vector": vector}


def read_generation(payload: bytes, sampler: dict[str, Any], atoms: dict[str, Any] | None) -> dict[str, Any]:
    """Section 6.5."""
    bits = Bits(payload)
    g = {"n_injections": within(bits.g(5) + 1, 1, 1000), "eta_scale_q": bits.default(100, lambda: bits.u(8))}
    must(bits.align() == len(payload), "bytes follow the generation's last field")
    n_steered, n_scene = (len(atoms["counts"]), atoms["scene_injections"]) if atoms else (0, 0)
    must(g["n_injections"] > n_steered, "not more injections than have atoms")
    must(n_scene in (0, n_steered), "a generation after a clip on a picture")
    must((sampler["schedule"], sampler["sampler_id"]) == ("snr", "eta"), "a generation that the sampler cannot have")
    ratio_q = atoms["scene_ratio_q"] if n_scene else sampler["snr_ratio_q"]
    must(ratios_fit(ratio_q, g["n_injections"]), "more injections than the ratio allows")
    return g


def read_index(payload: bytes, section_size: int, h: dict[str, Any]) -> tuple[int, list[tuple[int, int]], int]:
    """Section 8."""
    bits, most = Bits(payload), 2**40
    first = within(bits.g(7) + 5, 5, most)
    entries = []
    for _ in range(h["n_segments"]):
        size = within(bits.g(7) + 6, 6, most)
        entries.append((size, bits.default(h["segment_frames"], lambda: within(bits.g(6) + 1, 1, 65_533))))
    tail = within(bits.g(7), 0, most)
    bits.align()
    must(bits.u(32) == section_size, "an index of another size")
    must(bits.align() == len(payload), "bytes follow the index's last field")
    return first, entries, tail


def read_history(payload: bytes) -> list[dict]:
    """Section 9."""

    def refuse(text: str) -> None:
        raise Refused(f"{text} is no JSON")

    entries = []
    try:
        for line in inflated(payload, 65_536).decode("utf-8").split("\n"):
            entries.append(json.loads(line, parse_constant=refuse))
            must(isinstance(entries[-1], dict), "a line that is no object")
            must(finite(entries[-1]), "a number beyond float64")
            json.dumps(entries[-1], ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise Refused("a history that cannot be read") from None
    return entries


def read_audio(payload: bytes) -> dict[str, Any]:
    """Section 9.1."""
    bits, most = Bits(payload), 2**40
    t: dict[str, Any] = {"codec": bits.choice(4, dict(enumerate(SOUND_CODECS)))}
    (t["sample_rate"],) = bits.table(3, SAMPLE_RATES, lambda: [within(bits.g(8) + 1, 1, 2**20)])
    t["n_channels"] = bits.u(3) + 1
    t["start"] = bits.default(0, lambda: within(bits.g(7), 0, most))
    t["pre_skip"] = bits.default(312, lambda: bits.u(16))
    config_size = bits.default(0, lambda: within(bits.g(7) + 1, 1, 65_536))
    packet_samples = bits.default(2880, lambda: within(bits.g(7) + 1, 1, 2**20))
    n_packets = within(bits.g(7) + 1, 1, 2**20)
    sizes, durations = [config_size], []
    for _ in range(n_packets):
        sizes.append(within(bits.g(8), 0, 2**20))
        durations.append(bits.default(packet_samples, lambda: within(bits.g(7), 0, most)))
    at, blobs = bits.align(), []
    for size in sizes:
        blobs.append(payload[at : at + size])
        at += size
    must(at == len(payload), "packets that do not fill the payload")
    must(t["codec"] != "opus" or t["sample_rate"] == 48000, "opus at another rate")
    return t | {"config": blobs[0], "packets": tuple(blobs[1:]), "durations": tuple(durations)}


def finite(value: object) -> bool:
    """Whether all numbers in a JSON value are."""
    if isinstance(value, dict):
        return all(finite(each) for each in value.values())
    if isinstance(value, list):
        return all(finite(each) for each in value)
    return not isinstance(value, float) or math.isfinite(value)


def read(data: bytes) -> dict[str, Any]:
    """A whole file, strictly (sections 1 and 10). Raises `Refused`."""
    pending = sections(data)
    must(pending and pending[0][0] == HEADER, "the first section is not HEADER")
    h = read_header(pending.pop(0)[1])
    content: dict[str, Any] = {"header": h, "caption": None, "segments": [], "history": [], "extras": []}
    if pending and pending[0][0] == CAPTION:
        payload = pending.pop(0)[1]
        bits = Bits(payload)
        deflated = bool(bits.u(1))
        content["caption"] = read_caption(payload[bits.align() :], deflated)
    groups, frames = [], 0
    for number in range(h["n_segments"]):
        must(pending and pending[0][0] == SEGMENT, "a segment is missing")
        _, payload, start, end = pending.pop(0)
        segment = read_segment(payload, h) | {"merged": (), "generation": None, "extras": []}
        must(segment["index"] == number and segment["first_frame"] == frames, "segments out of order")
        frames += segment["n_frames"]
        while pending and pending[0][0] == VECTOR:
            _, payload, _, end = pending.pop(0)
            segment["merged"] += (read_vector(payload),)
        must(len(segment["merged"]) <= 15, "more than 15 further vectors")
        if pending and pending[0][0] == GENERATION:
            _, payload, _, end = pending.pop(0)
            segment["generation"] = read_generation(payload, h["sampler"], segment["atoms"])
        while pending and pending[0][0] >= 0xC0:
            type_, payload, _, end = pending.pop(0)
            segment["extras"].append((type_, payload))
        content["segments"].append(segment)
        groups.append((start, end))
    must(frames == h["n_frames"], "segments that do not cover the stream")
    seen_history = False
    while pending and 0x80 <= pending[0][0] < 0xC0:
        type_, payload, _, _ = pending.pop(0)
        if type_ == HISTORY:
            must(not seen_history, "a second history")
            seen_history, content["history"] = True, read_history(payload)
        else:
            content["extras"].append((type_, payload))
    if h["n_segments"] > 1:
        must(pending and pending[0][0] == INDEX, "no index")
        _, payload, start, end = pending.pop(0)
        actual = [(b - a, s["n_frames"]) for (a, b), s in zip(groups, content["segments"], strict=True)]
        expected = (groups[0][0], actual, start - groups[-1][1])
        must(read_index(payload, end - start, h) == expected, "an index that does not agree")
    must(not pending, "a section where none must stand")
    return content


def audio(content: dict[str, Any]) -> dict[str, Any] | None:
    """The sound of what `read` gave, which can be had without it. Raises `Refused`."""
    found = [payload for type_, payload in content["extras"] if type_ == AUDIO]
    must(len(found) <= 1, "a second sound")
    return read_audio(found[0]) if found else None


# --- what the values mean --------------------------------------------------------------------------------------------


def step_size(step_size_q: int) -> float:
    """Section 16: 2^(12 - q / 2048), correctly rounded."""
    root, value = 2**127, 2**128
    for j in range(12):
        if step_size_q % 2048 & 2048 >> j and j:
            value = value * root >> 128
        root = math.isqrt(root * 2**128)
    return math.ldexp(float(value), 12 - 128 - step_size_q // 2048)


def n_positions(atoms: dict[str, Any], channels: int, latent_frames: int, height: int, width: int) -> int:
    """Section 20: P for latents of so many channels, frames, rows and columns."""
    active = atoms["active_channels"]
    n = (min(active, channels) or channels) * latent_frames * height * width
    return n if atoms["codebook"] == "cyclic-shift" else 1 << (n - 1).bit_length()

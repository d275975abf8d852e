"""Encode and decode end to end on a tiny random model of the real classes of `pocket`."""

from __future__ import annotations

import errno
import io
import math
import shutil
import sys
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tiny_models import save_tiny_pocket

from vovcodec.backbone.geometry import token_phases
from vovcodec.backbone.locate import MODELS_VARIABLE
from vovcodec.backbone.pocket.backbone import PocketBackbone
from vovcodec.codec import encode as encode_module
from vovcodec.codec.accounting import QualityMean
from vovcodec.codec.decode import decode
from vovcodec.codec.encode import encode
from vovcodec.codec.header import nearest_fraction
from vovcodec.codec.options import DecodeOptions, EncodeOptions, ScaleOptions
from vovcodec.codec.scale import scale
from vovcodec.container import Segment, read_vov, write_vov
from vovcodec.errors import FormatError, Interrupted, MediaError, ModelError, OutputExistsError, UsageError
from vovcodec.media import open_frames
from vovcodec.metrics import psnr, ssim
from vovcodec.progress import SilentListener
from vovcodec.sampling.schedule import REALISM_STEPS

WIDTH, HEIGHT = 64, 48
PRESET = """
description: tiny
backbone: {{id: pocket, path: "{path}"}}
geometry: {{short_side: 48, multiple: 16, segment_frames: 33}}
adaptation: {{vector_length: 64}}
steering: {{method: atoms, snr_start: 0.01, snr_ratio: 3.0, scene: false, bytes: 300}}
fitting: {{stage1: {{steps: 3, lr: 1e-2}}, stage2: {{steps: 3, lr: 5e-3}}}}
rate: {{bytes: 600, still_bytes: 300}}
efforts:
  fast: {{}}
  instant: {{adaptation: {{vector_length: 0}}}}
  offset: {{adaptation: {{projection: offset-philox}}}}
  plain:
    sampler: {{steps: 3, shift: 3.0}}
    steering: {{method: none, bytes: 0}}
"""

EXTRA = len(token_phases(is_clip=True, is_last=True)) - 1  # of the last step


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_tiny_pocket(tmp_path_factory.mktemp("shelf") / "pocket")


@pytest.fixture
def preset(model, tmp_path, monkeypatch):
    """A preset that names the model by path; a decoder finds it on the shelf."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv(MODELS_VARIABLE, str(model.parent))
    path = tmp_path / "tiny.yaml"
    path.write_text(PRESET.format(path=model))
    return path


def picture(number: float = 0, width: int = WIDTH, height: int = HEIGHT, noise: int = 40) -> np.ndarray:
    """Texture under a slowly moving bright disc: something for every latent channel."""
    y, x = np.mgrid[:height, :width]
    grain = np.random.default_rng(7).integers(-noise, noise + 1, (height, width, 1))
    disc = 90 * ((x - 20 - 0.8 * number) ** 2 + (y - 22) ** 2 < 150)
    plane = np.stack([60 + x + disc, 150 - y, 70 + x + y - disc // 2], axis=-1) + grain
    return plane.clip(0, 255).astype(np.uint8)


def y4m(
    n_frames: int, width: int = WIDTH, height: int = HEIGHT, rate: str = "25:1", speed: float = 1.0, noise: int = 40
) -> bytes:
    header = f"YUV4MPEG2 W{width} H{height} F{rate} Ip A1:1 C444\n".encode()
    pictures = (picture(speed * i, width, height, noise) for i in range(n_frames))
    planes = (shown.transpose(2, 0, 1).tobytes() for shown in pictures)
    return header + b"".join(b"FRAME\n" + plane for plane in planes)


def clip(folder, n_frames: int, width: int = WIDTH, height: int = HEIGHT, **kwargs):
    path = folder / f"in-{n_frames}-{width}x{height}.y4m"
    path.write_bytes(y4m(n_frames, width, height, **kwargs))
    return path


def frames_of_plain(coded, folder) -> np.ndarray:
    decode(coded, folder / "plain.y4m", DecodeOptions(), SilentListener())
    return frames_of(folder / "plain.y4m")


def frames_of(path) -> np.ndarray:
    with open_frames(path) as reader:
        return np.stack(list(reader))


class Listener(SilentListener):
    """Remembers stages and warnings; raises `error` at one advance of a stage."""

    def __init__(self, stop_at: tuple[str, int] | None = None, skip_stages: int = 0) -> None:
        self.stages, self.notes, self.warnings = [], [], []
        self._stop_at, self._skip = stop_at, skip_stages
        self._name, self._n = "", 0

    def stage(self, name, n_units, done=0):
        self.stages.append((name, n_units, done))
        self._name, self._n = name, 0

    def advance(self, n_units=1, **figures):
        assert all(math.isfinite(figure) for figure in figures.values())
        self._n += 1
        if self._stop_at == (self._name, self._n):
            if self._skip:
                self._skip -= 1
            else:
                raise KeyboardInterrupt

    def note(self, message):
        self.notes.append(message)

    def warn(self, message):
        self.warnings.append(message)


@pytest.mark.parametrize("effort", ["instant", "fast"])
@pytest.mark.parametrize("n_frames", [1, 4, 5, 33, 40])
def test_clips_of_any_length(preset, tmp_path, n_frames, effort):
    source, coded, shown = clip(tmp_path, n_frames), tmp_path / "out.vov", tmp_path / "out%03d.png"
    options = EncodeOptions(preset=preset, effort=effort, target_bytes=900)
    report = encode(source, coded, options, Listener())
    assert (report.n_frames, report.segments) == (n_frames, 2 if n_frames == 40 else 1)
    assert (report.coded_size, report.source_size) == ((WIDTH, HEIGHT), (WIDTH, HEIGHT))
    assert report.size_bytes == coded.stat().st_size == sum(report.sections.values()) <= 900
    assert ("vector" in report.sections) == (effort == "fast") and report.sections["atoms"] > 0
    listener = Listener()
    decoded = decode(coded, shown, DecodeOptions(verify=True), listener)
    assert (decoded.n_frames, decoded.size, decoded.frame_rate) == (n_frames, (WIDTH, HEIGHT), Fraction(25))
    assert decoded.drift_db == math.inf and not listener.warnings
    frames = frames_of(shown)
    assert frames.shape == (n_frames, HEIGHT, WIDTH, 3)
    # What the encoder says is what the decoder shows (y4m would halve the chroma of a network that knows nothing yet).
    assert psnr(frames_of(source), frames) == pytest.approx(report.psnr_db, abs=0.1)
    # Of 40 frames the second segment begins at the 22nd: every 8th is counted from the clip's start.
    assert ssim(frames_of(source), frames) == pytest.approx(report.ssim, abs=1e-6)
    flat = np.broadcast_to(frames_of(source).mean(axis=(0, 1, 2)).astype(np.uint8), frames.shape)
    assert report.psnr_db > psnr(frames_of(source), np.ascontiguousarray(flat)) + 0.4, "the picture is recognised"


def test_a_segment_without_an_eighth_frame_does_not_count_for_ssim():
    quality = QualityMean()
    spans = ((0, 9, 0.5), (9, 5, math.nan), (14, 3, 0.8))
    for index, (first_frame, n_frames, value) in enumerate(spans):
        quality.add(Segment(index=index, first_frame=first_frame, n_frames=n_frames), 20.0, value)
    assert quality.ssim == pytest.approx((2 * 0.5 + 0.8) / 3) and quality.psnr_db == pytest.approx(20.0)


@pytest.mark.parametrize("effort", ["instant", "fast", "offset", "plain"])
def test_a_still_of_odd_size(preset, tmp_path, effort):
    source, coded, shown = (tmp_path / name for name in ("in.png", "out.vov", "out.png"))
    Image.fromarray(picture(0, 101, 67)).save(source)
    report = encode(source, coded, EncodeOptions(preset=preset, effort=effort), Listener())
    assert (report.n_frames, report.frame_rate, report.source_size) == (1, 0, (101, 67))
    assert report.size_bytes <= 300
    header = read_vov(coded).header
    assert header.coded_width % 16 == header.coded_height % 16 == 0
    decoded = decode(coded, shown, DecodeOptions(verify=True), Listener())
    assert decoded.drift_db == math.inf and Image.open(shown).size == (101, 67)
    decode(coded, shown, DecodeOptions(size="coded", overwrite=True), Listener())
    assert Image.open(shown).size == (header.coded_width, header.coded_height)
    listener = Listener()
    decode(coded, shown, DecodeOptions(duration_s=3, overwrite=True), listener)
    assert "without effect on a still: -t" in listener.notes
    with pytest.raises(UsageError, match="no time"):
        decode(coded, shown, DecodeOptions(start_s=1, overwrite=True), Listener())


def test_an_odd_clip_with_an_odd_rate_and_a_coded_size(preset, tmp_path):
    source, coded, shown = clip(tmp_path, 5, 75, 53, rate="30000:1001"), tmp_path / "out.vov", tmp_path / "out.y4m"
    report = encode(source, coded, EncodeOptions(preset=preset, effort="instant", size=(48, 32)), Listener())
    assert (report.source_size, report.coded_size, report.frame_rate) == ((75, 53), (48, 32), Fraction(30000, 1001))
    decode(coded, shown, DecodeOptions(), Listener())
    assert frames_of(shown).shape == (5, 53, 75, 3)
    decode(coded, shown, DecodeOptions(size=(40, 30), overwrite=True), Listener())
    assert frames_of(shown).shape == (5, 30, 40, 3)
    with pytest.raises(UsageError, match="multiples of 16"):
        encode(source, coded, EncodeOptions(preset=preset, size=(50, 32), overwrite=True), Listener())


def test_pipes_both_ways(preset, tmp_path, monkeypatch):
    """`-` in and out gives the bytes that files give."""
    options = EncodeOptions(preset=preset, effort="fast", target_bytes=500)
    encode(clip(tmp_path, 5), tmp_path / "out.vov", options, Listener())
    piped = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(y4m(5))))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=piped))
    encode("-", "-", options, Listener())
    assert piped.getvalue() == (tmp_path / "out.vov").read_bytes()
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(piped.getvalue())))
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=shown))
    decode("-", "-", DecodeOptions(), Listener())
    decode(tmp_path / "out.vov", tmp_path / "out.y4m", DecodeOptions(), Listener())
    assert shown.getvalue() == (tmp_path / "out.y4m").read_bytes() != b""


@pytest.mark.parametrize("effort", ["instant", "fast"])
@pytest.mark.parametrize("target_bytes", [300, 450, 800, 1500, 4000])
def test_byte_targets_are_hit_from_below(preset, tmp_path, target_bytes, effort):
    options = EncodeOptions(preset=preset, effort=effort, target_bytes=target_bytes)
    report = encode(clip(tmp_path, 21, 112, 80), tmp_path / "out.vov", options, Listener())
    assert 0.98 * target_bytes <= report.size_bytes <= target_bytes


@pytest.mark.parametrize("codebook", ["trellis", "hadamard", "cyclic"])
def test_no_byte_target_is_exceeded(preset, tmp_path, codebook):
    text = preset.read_text().replace("{method: atoms,", f"{{method: atoms, codebook: {codebook},", 1)
    path = tmp_path / "other.yaml"
    path.write_text(text)
    source = clip(tmp_path, 5)
    for target_bytes in range(200, 216, 3):
        options = EncodeOptions(preset=path, effort="instant", target_bytes=target_bytes, overwrite=True)
        report = encode(source, tmp_path / "out.vov", options, Listener())
        assert target_bytes - (2 if codebook == "trellis" else 8) <= report.size_bytes <= target_bytes


@pytest.mark.parametrize("target_bytes", [68, 76, 94])
def test_byte_targets_of_a_vector_alone(preset, tmp_path, target_bytes):
    options = EncodeOptions(preset=preset, effort="plain", target_bytes=target_bytes)
    report = encode(clip(tmp_path, 5), tmp_path / "out.vov", options, Listener())
    assert target_bytes - 3 <= report.size_bytes <= target_bytes
    assert set(report.sections) == {"overhead", "vector"}
    decoded = decode(tmp_path / "out.vov", tmp_path / "out.y4m", DecodeOptions(verify=True), Listener())
    assert decoded.drift_db == math.inf


@pytest.mark.parametrize(("split", "part"), [((1.0, 0.0), "vector"), ((0.0, 1.0), "atoms")])
def test_either_part_may_be_empty(preset, tmp_path, split, part):
    options = EncodeOptions(preset=preset, target_bytes=110, split=split)
    report = encode(clip(tmp_path, 5), tmp_path / "out.vov", options, Listener())
    assert set(report.sections) == {"overhead", part} and 105 <= report.size_bytes <= 110
    decoded = decode(tmp_path / "out.vov", tmp_path / "out.y4m", DecodeOptions(verify=True), Listener())
    assert decoded.drift_db == math.inf


@pytest.mark.parametrize(
    ("n_frames", "options", "has_vector"),
    [
        (1, {}, False),
        (5, {}, False),
        (5, {"split": (0.3, 0.7)}, True),
        (1, {"lambda_": 1e-3}, True),
        (5, {"lambda_": 1e-3, "split": (0.3, 0.7)}, True),
    ],
)
def test_a_preset_may_leave_the_vector_out_until_it_is_asked_for(preset, tmp_path, n_frames, options, has_vector):
    text = preset.read_text().replace("still_bytes: 300}", "still_bytes: 300, split: [0, 1]}")
    preset.write_text(text + "    rate: {split: null}\n")  # of `plain`, which does not steer
    source, coded = tmp_path / "in.png", tmp_path / "out.vov"
    if n_frames == 1:
        Image.fromarray(picture()).save(source)
    else:
        source = clip(tmp_path, n_frames)
    target = {} if "lambda_" in options else {"target_bytes": 400}
    encode(source, coded, EncodeOptions(preset=preset, **target, **options), Listener())
    stream = read_vov(coded)
    assert (stream.header.adaptation is not None) == (stream.segments[0].vector is not None) == has_vector
    assert stream.segments[0].atoms is not None and (not target or coded.stat().st_size <= 400)


@pytest.mark.parametrize("target_bytes", [500, 2000])
def test_byte_targets_with_two_segments_and_a_caption(preset, tmp_path, target_bytes):
    options = EncodeOptions(preset=preset, target_bytes=target_bytes, caption="a bright disc over noise, slowly moving")
    report = encode(clip(tmp_path, 40), tmp_path / "out.vov", options, Listener())
    assert 0.98 * target_bytes <= report.size_bytes <= target_bytes
    sizes = [len(segment.atoms.words) for segment in read_vov(tmp_path / "out.vov").segments]
    assert 1.05 < sizes[0] / sizes[1] < 1.2, "21 and 19 frames share the bytes by their number"


def test_other_rate_targets(preset, tmp_path):
    source = clip(tmp_path, 25)
    report = encode(source, tmp_path / "a.vov", EncodeOptions(preset=preset, target_bitrate=6400), Listener())
    assert 0.98 * 800 <= report.size_bytes <= 800, "one second"
    report = encode(source, tmp_path / "b.vov", EncodeOptions(preset=preset, target_bpp=0.1), Listener())
    assert 0.98 * 960 <= report.size_bytes <= 960 and report.bpp <= 0.1
    report = encode(source, tmp_path / "c.vov", EncodeOptions(preset=preset, lambda_=1e-2), Listener())
    assert 250 < report.sections["atoms"] <= 300, "no target: the preset's steering.bytes"
    report = encode(source, tmp_path / "d.vov", EncodeOptions(preset=preset), Listener())
    assert report.size_bytes <= math.ceil(600 * 25 / 33)


@pytest.mark.parametrize("effort", ["instant", "fast"])
def test_an_unreachable_target_names_the_least_and_the_least_works(preset, tmp_path, effort):
    source, coded = clip(tmp_path, 5), tmp_path / "out.vov"
    with pytest.raises(UsageError, match=r"10 bytes are too few.*at least (\d+)") as caught:
        encode(source, coded, EncodeOptions(preset=preset, effort=effort, target_bytes=10), Listener())
    assert not coded.exists()
    least = int(str(caught.value).split("at least ")[1].split(";")[0])
    options = EncodeOptions(preset=preset, effort=effort, target_bytes=least)
    assert encode(source, coded, options, Listener()).size_bytes <= least
    decode(coded, tmp_path / "out.y4m", DecodeOptions(), Listener())


def test_a_target_that_is_too_large_to_be_of_use_is_said_to_be(preset, tmp_path):
    Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(tmp_path / "flat.png")
    for target_bytes, is_too_large in ((150, False), (100_000, True)):
        listener = Listener()
        options = EncodeOptions(preset=preset, effort="instant", target_bytes=target_bytes, overwrite=True)
        report = encode(tmp_path / "flat.png", tmp_path / "out.vov", options, listener)
        said = [line for line in listener.notes if "no use for more" in line]
        assert bool(said) == is_too_large
        assert (report.size_bytes < 0.95 * target_bytes) == is_too_large


@pytest.mark.parametrize("effort", ["instant", "fast", "plain"])
@pytest.mark.parametrize("n_frames", [1, 5])
def test_reports_count_the_calls_of_the_model(preset, tmp_path, monkeypatch, effort, n_frames):
    from vovcodec.backbone.pocket.transformer import WanTransformer

    n_calls = 0
    forward = WanTransformer.forward

    def counted(self, *inputs):
        nonlocal n_calls
        n_calls += 1
        return forward(self, *inputs)

    monkeypatch.setattr(WanTransformer, "forward", counted)
    source, coded = tmp_path / "in.png", tmp_path / "out.vov"
    if n_frames == 1:
        Image.fromarray(picture()).save(source)
    else:
        source = clip(tmp_path, n_frames)
    for steps in (None, 2):
        shown = tmp_path / ("out.png" if n_frames == 1 else "out.y4m")
        if steps is None:
            report = encode(source, coded, EncodeOptions(preset=preset, effort=effort), Listener())
            assert report.n_network_evaluations == n_calls > 0
        n_calls = 0
        report = decode(coded, shown, DecodeOptions(steps=steps, overwrite=True), Listener())
        assert report.n_network_evaluations == n_calls > 0
    n_calls = 0
    report = decode(coded, shown, DecodeOptions(realism=1.0, overwrite=True), Listener())
    assert report.n_network_evaluations == n_calls > 0


def test_a_preview_takes_one_step(preset, tmp_path):
    coded, shown = tmp_path / "out.vov", tmp_path / "out.y4m"
    encode(clip(tmp_path, 5), coded, EncodeOptions(preset=preset, effort="instant", target_bytes=800), Listener())
    full = decode(coded, shown, DecodeOptions(), Listener())
    listener = Listener()
    preview = decode(coded, tmp_path / "preview.y4m", DecodeOptions(steps=1), listener)
    assert preview.n_network_evaluations == 1 + EXTRA < full.n_network_evaluations
    assert listener.stages == [("decoding", 1, 0)]
    assert listener.notes[0].startswith(f"a preview: 1 of {full.n_network_evaluations - EXTRA} steps")
    assert not np.array_equal(frames_of(shown), frames_of(tmp_path / "preview.y4m"))
    with pytest.raises(UsageError, match="steps takes fewer"):
        decode(coded, shown, DecodeOptions(steps=99, overwrite=True), Listener())


def test_realism_goes_on_from_where_the_file_ends(preset, tmp_path):
    coded, source = tmp_path / "out.vov", clip(tmp_path, 5)
    encode(source, coded, EncodeOptions(preset=preset, effort="instant", target_bytes=800), Listener())
    shown = {}
    for realism in (0.0, 0.5, 1.0):
        path, listener = tmp_path / f"{realism}.y4m", Listener()
        report = decode(coded, path, DecodeOptions(realism=realism), listener)
        (stage,) = listener.stages
        assert stage[1] == report.n_network_evaluations - EXTRA, "progress counts the steps that are added"
        shown[realism] = frames_of(path).astype(float)
    assert np.array_equal(shown[0.0], frames_of_plain(coded, tmp_path))
    assert np.abs(shown[0.5] - (shown[0.0] + shown[1.0]) / 2).mean() < 1 < np.abs(shown[0.0] - shown[1.0]).mean()
    for wrong in (
        {"realism": 1.5},
        {"realism": math.nan},
        {"realism": 1.0, "steps": 2},
        {"realism": 1.0, "verify": True},
    ):
        with pytest.raises(UsageError, match="realism"):
            DecodeOptions(**wrong)
    with pytest.raises(UsageError, match="with steps the picture is another one"):
        DecodeOptions(steps=3, verify=True)


def test_a_file_cut_short_is_named(preset, tmp_path):
    coded, short = tmp_path / "out.vov", tmp_path / "short.vov"
    encode(clip(tmp_path, 5), coded, EncodeOptions(preset=preset, effort="instant"), Listener())
    short.write_bytes(coded.read_bytes()[:80])
    for strict in (False, True):
        with pytest.raises(FormatError, match=r"short\.vov: section at offset"):
            decode(short, tmp_path / "out.y4m", DecodeOptions(strict=strict), Listener())
    assert not (tmp_path / "out.y4m").exists()


def test_realism_of_several_segments_and_of_a_part(preset, tmp_path):
    source, coded = clip(tmp_path, 40), tmp_path / "out.vov"
    encode(source, coded, EncodeOptions(preset=preset, effort="instant", target_bytes=900), Listener())
    decode(coded, tmp_path / "whole.y4m", DecodeOptions(realism=1.0), Listener())
    options = DecodeOptions(realism=1.0, start_s=1.4)
    report = decode(coded, tmp_path / "part.y4m", options, Listener())
    assert np.array_equal(frames_of(tmp_path / "part.y4m"), frames_of(tmp_path / "whole.y4m")[35:])
    last = read_vov(coded).segments[1]
    assert report.n_network_evaluations == 1 + len(last.atoms.counts) + EXTRA + REALISM_STEPS


def test_more_bytes_than_any_file_can_use(preset, tmp_path):
    listener = Listener()
    options = EncodeOptions(preset=preset, effort="instant", target_bytes=10**12)
    report = encode(clip(tmp_path, 1), tmp_path / "out.vov", options, listener)
    assert report.size_bytes < 100_000 and report.peak_memory_bytes < 4e9
    assert any("has no use for more" in note for note in listener.notes)


def test_pictures_that_no_file_can_name_are_refused_before_they_are_read(preset, tmp_path, monkeypatch):
    wide = tmp_path / "wide.png"
    Image.new("RGB", (16400, 2)).save(wide)
    monkeypatch.setattr(encode_module.FrameSpool, "append", lambda *_: pytest.fail("the input was read"))
    with pytest.raises(MediaError, match="up to 16384x16384 can be coded, not of 16400x2"):
        encode(wide, tmp_path / "out.vov", EncodeOptions(preset=preset))
    with pytest.raises(UsageError, match="multiples of 16, up to 8192; 8208x16 is not one, the nearest is 8192x16"):
        encode(clip(tmp_path, 1), tmp_path / "out.vov", EncodeOptions(preset=preset, size=(8208, 16)))


@pytest.mark.parametrize(("aspect", "expected"), [("100000:99999", (65536, 65535)), ("3:100000", (1, 33333))])
def test_what_the_header_cannot_hold_exactly_is_rounded(preset, tmp_path, aspect, expected):
    source = clip(tmp_path, 1)
    source.write_bytes(source.read_bytes().replace(b"A1:1", f"A{aspect}".encode(), 1))
    encode(source, tmp_path / "out.vov", EncodeOptions(preset=preset, effort="instant", target_bytes=300))
    header = read_vov(tmp_path / "out.vov").header
    assert (header.sample_aspect_num, header.sample_aspect_den) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Fraction(0), Fraction(0)),
        (Fraction(7, 10), Fraction(7, 10)),
        (Fraction(10, 7), Fraction(10, 7)),
        (Fraction(314, 100), Fraction(91, 29)),
        (Fraction(100, 314), Fraction(29, 91)),
        (Fraction(1, 1000), Fraction(1, 100)),
        (Fraction(1000), Fraction(100)),
    ],
)
def test_fractions_of_small_numbers(value, expected):
    assert nearest_fraction(value, 100) == expected


def test_a_missing_model_is_told_before_the_input_is_opened(preset, tmp_path):
    with pytest.raises(ModelError, match="no folder"):
        encode(tmp_path / "none.mp4", tmp_path / "out.vov", EncodeOptions(preset=preset, model=tmp_path / "nowhere"))


def test_only_those_who_say_so_share_the_work_with_the_processes_of_torchrun(preset, tmp_path, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    encode(clip(tmp_path, 1), tmp_path / "out.vov", EncodeOptions(preset=preset, effort="instant"))
    with pytest.raises(UsageError, match="several processes cannot read one standard input"):
        encode("-", tmp_path / "out.vov", EncodeOptions(preset=preset, effort="instant"), together=True)


def test_a_split_where_no_vector_is_fitted_is_refused(preset, tmp_path):
    source, target = clip(tmp_path, 1), tmp_path / "out.vov"
    with pytest.raises(UsageError, match="effort instant fits no vector"):
        encode(source, target, EncodeOptions(preset=preset, effort="instant", split=(0.1, 0.9)))
    encode(source, target, EncodeOptions(preset=preset, effort="instant", split=(0.0, 1.0)))


def test_realism_of_a_sampler_that_ends_without_noise_changes_nothing(preset, tmp_path):
    coded = tmp_path / "out.vov"
    text = preset.read_text().replace("steps: 3, shift: 3.0", "steps: 60, shift: 1.0")
    preset.write_text(text)
    encode(clip(tmp_path, 1), coded, EncodeOptions(preset=preset, effort="plain", target_bytes=300), Listener())
    plain = decode(coded, tmp_path / "plain.y4m", DecodeOptions(), Listener())
    listener = Listener()
    report = decode(coded, tmp_path / "real.y4m", DecodeOptions(realism=1.0), listener)
    assert any("realism changes nothing" in note for note in listener.notes)
    assert report.n_network_evaluations == plain.n_network_evaluations
    assert np.array_equal(frames_of(tmp_path / "plain.y4m"), frames_of(tmp_path / "real.y4m"))


def test_a_part_of_a_clip_touches_its_segment_only(preset, tmp_path):
    source, coded, shown = clip(tmp_path, 40), tmp_path / "out.vov", tmp_path / "out.y4m"
    encode(source, coded, EncodeOptions(preset=preset, effort="instant", target_bytes=900), Listener())
    whole = decode(coded, shown, DecodeOptions(), Listener())
    segments = read_vov(coded).segments
    for start_s, duration_s, first, last, wanted in [
        (1.4, None, 35, 40, [1]),
        (0.0, 0.2, 0, 5, [0]),
        (0.72, 0.24, 18, 24, [0, 1]),
        (None, 0.001, 0, 1, [0]),
        (1.56, 100.0, 39, 40, [1]),
    ]:
        part = tmp_path / "part.y4m"
        options = DecodeOptions(start_s=start_s, duration_s=duration_s, overwrite=True)
        report = decode(coded, part, options, Listener())
        assert np.array_equal(frames_of(part), frames_of(shown)[first:last])
        assert report.n_frames == last - first
        assert report.n_network_evaluations == sum(1 + len(segments[i].atoms.counts) + EXTRA for i in wanted)
    assert whole.n_network_evaluations == sum(1 + len(s.atoms.counts) + EXTRA for s in segments)
    with pytest.raises(MediaError, match=r"no frame at 1\.59 s: the last one is at 1\.56 s"):
        decode(coded, tmp_path / "none.y4m", DecodeOptions(start_s=1.59), Listener())
    assert not (tmp_path / "none.y4m").exists()


def test_other_weights_are_refused_with_both_fingerprints(preset, tmp_path, monkeypatch):
    coded, shown = tmp_path / "out.vov", tmp_path / "out.y4m"
    encode(clip(tmp_path, 5), coded, EncodeOptions(preset=preset, effort="instant"), Listener())
    other = save_tiny_pocket(tmp_path / "others" / "pocket", seed=9)
    monkeypatch.setenv(MODELS_VARIABLE, str(other.parent))
    with pytest.raises(ModelError) as caught:
        decode(coded, shown, DecodeOptions(), Listener())
    for fingerprint in (read_vov(coded).header.fingerprint, PocketBackbone(other).fingerprint):
        assert fingerprint.hex() in str(caught.value)
    assert not shown.exists() and not list(tmp_path.glob(".*.tmp"))
    listener = Listener()
    report = decode(coded, shown, DecodeOptions(force=True, verify=True), listener)
    assert report.n_frames == 5 and report.drift_db < math.inf


def test_a_model_moved_to_another_folder_still_decodes(preset, model, tmp_path, monkeypatch):
    """On encode, decode and scale --model names the folder; the fingerprint tells whether it is the right one."""
    coded, shown = tmp_path / "out.vov", tmp_path / "out.y4m"
    moved = shutil.copytree(model, tmp_path / "elsewhere")
    source = clip(tmp_path, 5)
    encode(source, coded, EncodeOptions(preset=preset, effort="instant", model=moved), Listener())
    monkeypatch.delenv(MODELS_VARIABLE)
    with pytest.raises(ModelError, match=r"--model"):
        decode(coded, shown, DecodeOptions(), Listener())
    report = decode(coded, shown, DecodeOptions(model=moved, verify=True), Listener())
    assert report.drift_db == math.inf
    bigger = tmp_path / "bigger.vov"
    scale(coded, source, bigger, ScaleOptions(target_bytes=900, model=moved), Listener())
    assert bigger.stat().st_size > coded.stat().st_size
    other = save_tiny_pocket(tmp_path / "other", seed=9)
    with pytest.raises(ModelError) as caught:
        decode(coded, shown, DecodeOptions(model=other, overwrite=True), Listener())
    for fingerprint in (read_vov(coded).header.fingerprint, PocketBackbone(other).fingerprint):
        assert fingerprint.hex() in str(caught.value)


def test_a_big_model_says_what_it_needs_before_it_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(MODELS_VARIABLE, raising=False)
    monkeypatch.setattr("vovcodec.backbone.memory.free_memory_bytes", lambda device: 9 << 30)
    monkeypatch.setattr(encode_module, "require_model", lambda *_: None)
    options, listener = EncodeOptions(preset="wan2.1-14b", device="cpu", compiled=True), Listener()
    with pytest.raises(ModelError, match="not on this machine"):
        encode(clip(tmp_path, 5), tmp_path / "out.vov", options, listener)
    (need,) = [note for note in listener.notes if "needs about" in note]
    assert "wan2.1-14b in bfloat16" in need and "free on cpu: 9.0 GiB" in need
    assert any("--compile" in note for note in listener.notes)
    assert len(listener.warnings) == 1 and "--precision int8-weights" in listener.warnings[0]


STOPS = {
    "tracing": (("tracing the sampler", 2), 0),
    "first step": (("fitting", 1), 0),
    "stage border": (("fitting", 3), 0),
    "second stage": (("fitting", 5), 0),
    "end of the fit": (("fitting", 6), 0),
    "steering": (("steering", 2), 0),
    "second segment's fit": (("fitting", 4), 1),
    "second segment's steering": (("steering", 1), 1),
}


@pytest.fixture(scope="module")
def uninterrupted(model, tmp_path_factory):
    """The bytes and the report of the encode that the next test interrupts."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    (folder / "tiny.yaml").write_text(PRESET.format(path=model))
    options = EncodeOptions(preset=folder / "tiny.yaml", state_dir=folder / "states", target_bytes=700)
    report = encode(clip(folder, 40), folder / "out.vov", options, Listener())
    assert not any((folder / "states").rglob("*.*")), "nothing is left behind"
    return (folder / "out.vov").read_bytes(), report


@pytest.mark.parametrize("stop", STOPS)
def test_an_interrupted_encode_continues_to_the_same_bytes(preset, tmp_path, uninterrupted, stop):
    source, states = clip(tmp_path, 40), tmp_path / "states"
    options = EncodeOptions(preset=preset, state_dir=states, target_bytes=700)
    expected_bytes, expected = uninterrupted
    stop_at, skip = STOPS[stop]
    coded = tmp_path / "out.vov"
    with pytest.raises(Interrupted, match="kept") as caught:
        encode(source, coded, options, Listener(stop_at, skip))
    told = "the work so far is kept" if [*states.rglob("*.*")] else "nothing is kept: no segment is finished"
    assert str(caught.value) == f"stopped; {told}" and not coded.exists()
    n_kept = len(list(states.rglob("*.part")))
    assert n_kept == (1 if stop.startswith("second seg") else 0)
    listener = Listener()
    report = encode(source, coded, options, listener)
    assert coded.read_bytes() == expected_bytes
    assert report.n_network_evaluations == expected.n_network_evaluations
    fits = [stage for stage in listener.stages if stage[0] == "fitting"]
    assert len(fits) == 2 - n_kept
    if stop_at[0] == "fitting":
        assert fits[0] == ("fitting", 6, stop_at[1]), "the bar starts at the true percentage"
    assert not any(states.rglob("*.*")), "state is removed afterwards"


def changed_preset(preset, old: str, new: str):
    """A preset of the same name in another folder."""
    text, folder = preset.read_text(), preset.parent / new.replace(":", "").replace(" ", "")
    assert old in text
    folder.mkdir()
    (folder / preset.name).write_text(text.replace(old, new))
    return folder / preset.name


def test_state_serves_no_other_input_settings_or_weights(preset, tmp_path):
    states, coded = tmp_path / "states", tmp_path / "out.vov"
    options = EncodeOptions(preset=preset, state_dir=states, target_bytes=500)
    with pytest.raises(Interrupted):
        encode(clip(tmp_path, 5), coded, options, Listener(("fitting", 2)))
    shifted = tmp_path / "other.y4m"
    header, *planes = y4m(6).split(b"FRAME\n")
    shifted.write_bytes(header + b"".join(b"FRAME\n" + plane for plane in planes[1:]))
    for source, changed in [
        (shifted, options),
        (clip(tmp_path, 5), replace(options, seed=1)),
        (clip(tmp_path, 5), replace(options, caption="other")),
        (clip(tmp_path, 5), replace(options, target_bytes=501)),
        (clip(tmp_path, 5), replace(options, preset=changed_preset(preset, "lr: 1e-2", "lr: 2e-2"))),
        (clip(tmp_path, 5), replace(options, preset=changed_preset(preset, "snr_ratio: 3.0", "snr_ratio: 2.0"))),
        (clip(tmp_path, 5), replace(options, preset=changed_preset(preset, "ratio: 3.0,", "ratio: 3.0, reach: 1.1,"))),
    ]:
        listener = Listener()
        encode(source, coded, replace(changed, overwrite=True), listener)
        fits = [stage for stage in listener.stages if stage[0] == "fitting"]
        assert fits == [("fitting", 6, 0)]
    listener = Listener()
    encode(clip(tmp_path, 5), coded, replace(options, overwrite=True, resume=False), listener)
    assert ("fitting", 6, 0) in listener.stages, "--no-resume starts again"


def test_damaged_parts_are_encoded_again(preset, tmp_path):
    source, states, coded = clip(tmp_path, 40), tmp_path / "states", tmp_path / "out.vov"
    options = EncodeOptions(preset=preset, effort="instant", state_dir=states, target_bytes=700)
    encode(source, tmp_path / "whole.vov", options, Listener())
    with pytest.raises(Interrupted):
        encode(source, coded, options, Listener(("steering", 1), 1))
    (part,) = states.rglob("*.part")
    part.write_bytes(part.read_bytes()[:-9])
    encode(source, coded, options, Listener())
    assert coded.read_bytes() == (tmp_path / "whole.vov").read_bytes()


def test_an_interruption_without_a_place_for_state_does_not_claim_one(preset, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    options = EncodeOptions(preset=preset, state_dir=tmp_path / "file" / "states")
    with pytest.raises(Interrupted, match=r"nothing is kept.*--state-dir"):
        encode(clip(tmp_path, 5), tmp_path / "out.vov", options, Listener(("fitting", 4)))
    encode(clip(tmp_path, 5), tmp_path / "out.vov", options, Listener())
    assert (tmp_path / "out.vov").exists()


@pytest.fixture
def no_work(monkeypatch):
    """Fails the test when an encode gets as far as opening its input."""

    def forbidden(*arguments, **keywords):
        raise AssertionError("work was done before the output was looked at")

    monkeypatch.setattr(encode_module, "open_frames", forbidden)
    monkeypatch.setattr(encode_module, "load_preset_backbone", forbidden)


def test_an_existing_output_is_refused_before_any_work(preset, tmp_path, no_work):
    coded = tmp_path / "out.vov"
    coded.write_bytes(b"precious")
    with pytest.raises(OutputExistsError):
        encode(clip(tmp_path, 5), coded, EncodeOptions(preset=preset), Listener())
    assert coded.read_bytes() == b"precious"


@pytest.mark.parametrize("kind", ["no folder", "a folder", "file as folder", "no permission"])
def test_an_output_that_cannot_be_written_is_refused_before_any_work(preset, tmp_path, no_work, monkeypatch, kind):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    names = {"no folder": "none/out.vov", "a folder": "folder", "file as folder": "file/out.vov"}
    if kind == "no permission":

        def refused(*arguments, **keywords):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr("vovcodec.codec.output.tempfile.TemporaryFile", refused)
    with pytest.raises(MediaError):
        encode(clip(tmp_path, 5), tmp_path / names.get(kind, "out.vov"), EncodeOptions(preset=preset), Listener())


def test_the_python_interface_needs_no_listener(preset, tmp_path):
    from vovcodec import EncodeOptions, decode, encode

    report = encode(clip(tmp_path, 1), tmp_path / "out.vov", EncodeOptions(preset=preset, effort="instant"))
    assert report.size_bytes == (tmp_path / "out.vov").stat().st_size
    assert decode(tmp_path / "out.vov", tmp_path / "out.y4m").n_frames == 1


def test_overwriting_when_allowed(preset, tmp_path):
    coded = tmp_path / "out.vov"
    coded.write_bytes(b"old")
    encode(clip(tmp_path, 1), coded, EncodeOptions(preset=preset, effort="instant", overwrite=True), Listener())
    assert read_vov(coded).header.n_frames == 1
    shown = tmp_path / "out.y4m"
    shown.write_bytes(b"old")
    with pytest.raises(OutputExistsError):
        decode(coded, shown, DecodeOptions(), Listener())
    assert shown.read_bytes() == b"old"
    decode(coded, shown, DecodeOptions(overwrite=True), Listener())
    assert frames_of(shown).shape[0] == 1


def test_a_model_that_codes_other_sizes_than_the_preset_says(preset, tmp_path):
    text = preset.read_text().replace("multiple: 16", "multiple: 8")
    preset.write_text(text)
    with pytest.raises(UsageError, match="multiples of 16"):
        encode(clip(tmp_path, 5, 56, 40), tmp_path / "out.vov", EncodeOptions(preset=preset), Listener())


def test_a_file_with_an_impossible_size_is_a_format_error(preset, tmp_path):
    coded = tmp_path / "out.vov"
    encode(clip(tmp_path, 1), coded, EncodeOptions(preset=preset, effort="instant"), Listener())
    stream = read_vov(coded)
    write_vov(coded, replace(stream, header=replace(stream.header, coded_width=40)), overwrite=True)
    with pytest.raises(FormatError, match="40x48"):
        decode(coded, tmp_path / "out.y4m", DecodeOptions(), Listener())

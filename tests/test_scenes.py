"""Clips that rest on a picture of their scene (FORMAT.md, 22.1), end to end on a tiny model of the real classes.

Two kinds of file are made from clips that hardly move: `alone` is nothing but the picture, `moves` is a picture and the
clip that follows it.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import container_samples as samples
import numpy as np
import pytest
import test_sampling_steering as toys
import torch
from test_codec_roundtrip import clip, frames_of
from tiny_clips import write_clip
from tiny_models import save_tiny_pocket

from vovcodec.backbone.fingerprint import fingerprint_folder
from vovcodec.backbone.pocket.backbone import PocketBackbone
from vovcodec.codec import scene as scene_module
from vovcodec.codec import segment as segment_module
from vovcodec.codec import view as view_module
from vovcodec.codec.decode import decode
from vovcodec.codec.edit import edit
from vovcodec.codec.encode import encode
from vovcodec.codec.inspect import inspect
from vovcodec.codec.limits import decode_cost, require_within, steering_cost
from vovcodec.codec.measure import evaluations_by_length, n_evaluations_of
from vovcodec.codec.options import DecodeLimits, DecodeOptions, EditOptions, EncodeOptions, ScaleOptions
from vovcodec.codec.regenerate import Adapters, regenerate_latents
from vovcodec.codec.scale import scale
from vovcodec.codec.view import View
from vovcodec.container import CodedAtoms, Generation, Segment, VovFile, layout, parse, read_vov, serialize, write_vov
from vovcodec.container.bits import BitReader, BitWriter
from vovcodec.container.codes import Groups
from vovcodec.container.errors import FieldOutOfRange, LimitExceeded, NonCanonical
from vovcodec.entropy.choices import encode_choices
from vovcodec.errors import FormatError, Interrupted, UsageError
from vovcodec.metrics import psnr
from vovcodec.presets import load_preset
from vovcodec.progress import SilentListener
from vovcodec.sampling.noise import Purpose, Stream, normal
from vovcodec.sampling.sampler import estimate, initial_noise
from vovcodec.sampling.scene import SceneVelocity, scene_start
from vovcodec.sampling.schedule import LEAST_TIME, REALISM_STEPS, full_grid_injections
from vovcodec.sampling.steering import follow, steer
from vovcodec.sampling.trellis import TrellisCodebook

WIDTH, HEIGHT, N_FRAMES = 48, 32, 9
PRESET = """
backbone: {id: pocket}
geometry: {short_side: 32, multiple: 16, segment_frames: 9, scene_frames: 9}
adaptation: {vector_length: 0}
sampler: {seed: 3}
steering: {method: atoms, memory: 6, snr_start: 0.01, snr_ratio: 2.0, still_snr_ratio: 3.0, bytes: 300}
fitting: {stage1: {steps: 1}, stage2: {steps: 1, warmup_steps: 1}}
rate: {bytes: 300}
efforts:
  fast: {}
  short: {geometry: {segment_frames: 5}}
  none: {steering: {scene: false}}
  hadamard: {steering: {codebook: hadamard}}
  channels: {steering: {active_channels: 9}}
  vector: {adaptation: {vector_length: 16}, rate: {split: [0.02, 0.98]}}
  fine: {steering: {still_snr_ratio: 1.375}}
  coarse: {steering: {snr_ratio: 4.5, still_snr_ratio: 1.5}}
"""
SOURCES = {"alone": {"speed": 0.1, "noise": 40}, "moves": {"speed": 0.8, "noise": 10}}
SIZES = {"alone": 220, "moves": 236}
SCENE_RATIO_Q = 128
KINDS = pytest.mark.parametrize("kind", SOURCES)


class Progress(SilentListener):
    """Counts what was announced and what came, and keeps what a user would read."""

    def __init__(self, stop_at: str | None = None) -> None:
        self.announced, self.advanced, self.stop_at = 0, 0, stop_at
        self.lines: list[str] = []

    def stage(self, name, n_units, done=0):
        self.announced += n_units

    def advance(self, n_units=1, **figures):
        assert all(math.isfinite(figure) for figure in figures.values())
        self.advanced += n_units

    def note(self, message):
        self.lines.append(message)
        if self.stop_at is not None and self.stop_at in message:
            raise KeyboardInterrupt

    def warn(self, message):
        self.lines.append(f"warning: {message}")


@contextmanager
def preferring(kind: str) -> Iterator[None]:
    """The encoder takes every clip for one that stands still, and codes it in this way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(view_module, "_LEAST_STILL_DB", -99.0)
        patch.setattr(view_module, "_STILL_ENOUGH_DB", -99.0)
        patch.setattr(view_module, "_ALONE_DB", {"alone": 99.0, "moves": -99.0}[kind])
        yield


def encoded(home, target, source, size_bytes, effort="fast", listener=None, **options):
    options = {"caption": "a street", "resume": False, "state_dir": home.folder / "states"} | options
    settings = EncodeOptions(preset=home.folder / "tiny.yaml", effort=effort, target_bytes=size_bytes, overwrite=True,
                             device="cpu", **options)  # fmt: skip
    return encode(source, target, settings, listener or SilentListener())


@contextmanager
def tiny_home(folder: Path, preset: str) -> Iterator[SimpleNamespace]:
    """A folder with the tiny model, loaded once for all, and a preset: what `encoded` and `shown` then use. For a
    module's clips (`sources`) and files, and what encoding these reported."""
    save_tiny_pocket(folder / "pocket")
    (folder / "tiny.yaml").write_text(preset)
    found = SimpleNamespace(folder=folder, sources={}, files={}, reports={})
    found.backbone = PocketBackbone(folder / "pocket")
    found.backbone.transformer.blocks = found.backbone.transformer.blocks[:1]  # for speed, as all that follows
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOVCODEC_MODELS", str(folder))
        patch.setattr("vovcodec.backbone.registry.load_backbone", lambda backbone_id, **settings: found.backbone)
        for place in ("encode", "resteer"):
            patch.setattr(f"vovcodec.codec.{place}.load_preset", functools.cache(load_preset))
        patch.setattr("vovcodec.backbone.geometry.fingerprint_folder", functools.cache(fingerprint_folder))
        yield found


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """The tiny model, a clip and a file of each kind, what encoding reported, and the streams."""
    folder = tmp_path_factory.mktemp("scenes")
    with tiny_home(folder, PRESET) as found:
        found.streams = {}
        for kind, settings in SOURCES.items():
            (folder / kind).mkdir()
            found.sources[kind] = clip(folder / kind, N_FRAMES, WIDTH, HEIGHT, **settings)
            found.files[kind] = folder / f"{kind}.vov"
            with preferring(kind):
                found.reports[kind] = encoded(found, found.files[kind], found.sources[kind], SIZES[kind])
            found.streams[kind] = read_vov(found.files[kind])
        yield found


@pytest.fixture
def backbone(home):
    return home.backbone


def shown(path, folder, listener=None, **options):
    """(frames, report) of one decode, as exact pixels."""
    for old in folder.glob("shown*.png"):
        old.unlink()
    options = {"device": "cpu"} | options
    report = decode(path, folder / "shown%03d.png", DecodeOptions(**options), listener or SilentListener())
    return frames_of(folder / "shown%03d.png"), report


def atoms_of(stream: VovFile) -> list[CodedAtoms | None]:
    return [segment.atoms for segment in stream.segments]


def pictures_of(path) -> list[int]:
    """Injections of each segment's picture."""
    return [atoms.scene_injections if atoms else 0 for atoms in atoms_of(read_vov(path))]


def written(path: Path, stream: VovFile) -> Path:
    write_vov(path, stream, overwrite=True)
    return path


def with_atoms(stream: VovFile, **changes) -> VovFile:
    """The stream with other atoms in its only segment, which then has no check."""
    (segment,) = stream.segments
    atoms = replace(segment.atoms, **changes)
    return replace(stream, segments=(replace(segment, atoms=atoms, check=None),), layout=())


def stands_still(frames: np.ndarray) -> bool:
    return bool((frames == frames[:1]).all())


# --- what a decoder shows ------------------------------------------------------------------------------------------


def test_the_two_kinds_are_what_their_names_say(home):
    (alone,), (moves,) = atoms_of(home.streams["alone"]), atoms_of(home.streams["moves"])
    assert alone.scene_injections == len(alone.counts) > 3
    assert (alone.scene_last_q, alone.clip_start_q) == (16, 0)
    assert 3 < moves.scene_injections <= len(moves.counts) - 2
    assert alone.scene_ratio_q == moves.scene_ratio_q == SCENE_RATIO_Q, "the preset's still_snr_ratio"


@KINDS
def test_a_decoder_shows_what_the_encoder_saw(home, tmp_path, kind):
    report, listener = home.reports[kind], Progress()
    frames, decoded = shown(home.files[kind], tmp_path, listener, verify=True)
    assert decoded.drift_db == math.inf and not any("warning" in line for line in listener.lines)
    assert frames.shape == (N_FRAMES, HEIGHT, WIDTH, 3)
    original = frames_of(home.sources[kind])
    assert psnr(original, frames) == pytest.approx(report.psnr_db, abs=1e-6)
    assert decoded.verify_psnr_db == pytest.approx(report.psnr_db, abs=1 / 32)
    assert stands_still(frames) == (kind == "alone")
    assert report.size_bytes == home.files[kind].stat().st_size == sum(report.sections.values())
    flat = np.broadcast_to(original.mean(axis=(0, 1, 2)).astype(np.uint8), frames.shape)
    assert report.psnr_db > psnr(original, np.ascontiguousarray(flat)) + 0.5, "the picture is recognised"


@KINDS
def test_segments_shorter_than_what_is_coded(home, tmp_path, kind, n_frames=2):
    source = clip(tmp_path, n_frames, WIDTH, HEIGHT, **SOURCES[kind])
    with preferring(kind):
        report = encoded(home, tmp_path / "out.vov", source, 200)
    assert pictures_of(tmp_path / "out.vov")[0] > 0
    frames, decoded = shown(tmp_path / "out.vov", tmp_path, verify=True)
    assert frames.shape[0] == decoded.n_frames == n_frames and decoded.drift_db == math.inf
    assert psnr(frames_of(source), frames) == pytest.approx(report.psnr_db, abs=1e-6)


def as_the_format_says(stream: VovFile, backbone: PocketBackbone) -> torch.Tensor:
    """Latents of the only segment, by the text of FORMAT.md, sections 20 to 22.1, and none of the sampler's code."""
    header, (segment,) = stream.header, stream.segments
    atoms, sampler, s = segment.atoms, header.sampler, segment.atoms.scene_injections
    ends = np.cumsum((0, *atoms.counts))
    bits = np.unpackbits(np.frombuffer(atoms.words, dtype=np.uint8))
    condition = backbone.embed_caption(stream.caption_of(segment))

    def gaussians(purpose, number, shape):
        return torch.from_numpy(normal(Stream(sampler.seed, purpose, (segment.index, number)), shape))

    def snr(t):
        return ((1 - t) / t) ** 2

    def sampled(shape, start_q, ratio_q, numbers, last_q, n_all, first_noise, clean_of):
        r, m = 1 + ratio_q / 64, len(numbers)
        snrs = [2 ** (-start_q / 8) * r**i for i in range(max(m, n_all))]
        if last_q < 16:
            snrs[m - 1] = (snrs[m - 2] if m > 1 else snrs[0] / r) * r ** (last_q / 16)
        x = gaussians(Purpose.INITIAL_NOISE, first_noise, shape)
        for i, (t, after) in enumerate(itertools.pairwise([1.0, *(1 / (1 + math.sqrt(q)) for q in snrs), 0.0])):
            clean = clean_of(x, t, after == 0)
            if after == 0:
                return clean
            eps = (x - (1 - t) * clean) / t
            z = None
            if i >= m:
                z, scale_q = gaussians(Purpose.STEP_NOISE, i, shape), segment.generation.eta_scale_q
            elif atoms.counts[numbers[i]]:
                path = bits[ends[numbers[i]] : ends[numbers[i] + 1]]
                code = TrellisCodebook(sampler.seed, segment.index, numbers[i], math.prod(shape), atoms.memory)
                z, scale_q = torch.from_numpy(code.combine(path)).reshape(shape), atoms.eta_scale_q
            if z is not None:
                eta = min(1.0, scale_q / 200 * math.sqrt(1 - snr(t) / snr(after)))
                eps = math.sqrt(1 - eta * eta) * eps + eta * z
            x = (1 - after) * clean + after * eps
        raise AssertionError("the grid ends at 0")

    def plain(x, t, is_last):
        return x - t * backbone.sampler_velocity(x, t, condition, last=is_last)

    h, w, m = header.coded_height // 8, header.coded_width // 8, len(atoms.counts)
    n_all = segment.generation.n_injections if segment.generation else 0
    last_q = atoms.last_q if s == m else atoms.scene_last_q
    picture = sampled((1, 192, 1, h, w), sampler.snr_start_q, atoms.scene_ratio_q, range(s), last_q, n_all, 0, plain)
    if s == m:
        return picture
    n = -(-(segment.n_frames - 1) // 4) * 4 + 1
    y = backbone._clips.encode(backbone._pictures.decode(picture).clamp(-1, 1).expand(-1, -1, n, -1, -1))
    d = [2 / math.sqrt(n + 3), *[1 / math.sqrt(n + 3)] * (n - 1)]

    def resting(x, t, is_last):
        if t == 1:
            return y
        clean = with_standing_part(plain(x, t, is_last))
        return with_standing_part(backbone._clips.along_motion(clean, t)) if t <= 0.6 else clean

    def with_standing_part(clean):
        missing = sum(d[g] * (y[:, :, g] - clean[:, :, g]) for g in range(n))
        return torch.stack([clean[:, :, f] + d[f] * missing for f in range(n)], dim=2)

    numbers = range(s, m)
    shape = (1, 96, n, h, w)
    return sampled(shape, atoms.clip_start_q, sampler.snr_ratio_q, numbers, atoms.last_q, 0, s, resting)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["moves", "partial", "generated"])
def test_the_decoder_does_what_the_format_says(home, backbone, kind):
    if kind == "partial":  # every field at a value of its own, injections without bits among them
        counts = (3, 0, 7, 12, 7, 3, 0, 10, 28)
        words = np.packbits(np.random.default_rng(1).integers(0, 2, sum(counts), dtype=np.uint8)).tobytes()
        stream = with_atoms(home.streams["moves"], counts=counts, words=words, last_q=7, scene_injections=4,
                            scene_ratio_q=200, scene_last_q=3, clip_start_q=11, eta_scale_q=150)  # fmt: skip
    elif kind == "generated":
        stream = with_atoms(home.streams["alone"])
        generation = Generation(n_injections=len(stream.segments[0].atoms.counts) + 4, eta_scale_q=60)
        stream = replace(stream, segments=(replace(stream.segments[0], generation=generation),))
    else:
        stream = home.streams[kind]
    stream = parse(serialize(stream))
    (segment,) = stream.segments
    latents = regenerate_latents(backbone, stream.header, segment, stream.caption_of(segment), Adapters(backbone),
                                 n_coded_frames=N_FRAMES)  # fmt: skip
    expected = as_the_format_says(stream, backbone)
    assert latents.shape == expected.shape
    assert torch.allclose(latents, expected, atol=2e-3 * float(expected.std())), "up to rounding"


@pytest.mark.parametrize("clip_start_q", [-128, 127])
def test_the_first_injection_of_the_clip_may_lead_anywhere(home, tmp_path, clip_start_q):
    path = written(tmp_path / "far.vov", with_atoms(home.streams["moves"], clip_start_q=clip_start_q))
    frames, _ = shown(path, tmp_path, realism=0.5)
    assert frames.shape[0] == N_FRAMES and frames.std() > 5


def test_a_part_of_a_clip_is_cut_out_of_its_segment(home, tmp_path, calls):
    for kind in SOURCES:
        whole, full = shown(home.files[kind], tmp_path)
        calls.clear()
        part, report = shown(home.files[kind], tmp_path, start_s=0.2, duration_s=0.12)
        assert np.array_equal(part, whole[5:8])
        assert report.n_network_evaluations == full.n_network_evaluations == len(calls)


# --- previews, evaluations, realism, guidance ----------------------------------------------------------------------


@KINDS
def test_evaluations_and_progress_are_as_announced(home, tmp_path, kind, calls):
    """Of everything, of previews around the border of picture and clip, with realism, with guidance."""
    (segment,), header = home.streams[kind].segments, home.streams[kind].header
    s, m = segment.atoms.scene_injections, len(segment.atoms.counts)
    for steps in sorted({2, s, s + 1, min(s + 2, m + 1)}):
        calls.clear()
        listener = Progress()
        _, report = shown(home.files[kind], tmp_path, listener, steps=steps)
        assert report.n_network_evaluations == len(calls) == n_evaluations_of(header, segment, steps)
        assert listener.advanced == listener.announced == steps
        by_length = evaluations_by_length(header, segment, steps)
        assert by_length.get(N_FRAMES, 0) == sum(n > 1 for n in calls) == 0 if steps <= s + 1 else True
        assert by_length[1] == calls.count(1)
    for options, n_more in (({}, 0), ({"realism": 0.5}, REALISM_STEPS), ({"guidance": 3.0}, 0)):
        calls.clear()
        listener = Progress()
        frames, report = shown(home.files[kind], tmp_path, listener, **options)
        assert stands_still(frames) == (kind == "alone")
        told = {"realism": options.get("realism", 0.0), "is_guided": "guidance" in options}
        assert report.n_network_evaluations == len(calls) == n_evaluations_of(header, segment, **told)
        assert listener.advanced == listener.announced == m + 1 + n_more
    with pytest.raises(UsageError, match=f"decodes in {m + 1} steps"):
        shown(home.files[kind], tmp_path, steps=m + 2)


@KINDS
def test_the_cost_knows_pictures_from_clips(home, kind):
    header, (segment,) = home.streams[kind].header, home.streams[kind].segments
    plain = replace(segment, atoms=replace(segment.atoms, scene_injections=0))
    cost, of_clip = decode_cost(header, [segment]), decode_cost(header, [plain])
    assert cost.n_evaluations == home_evaluations(home, kind) and cost.flop < of_clip.flop
    assert (cost.work_bytes < of_clip.work_bytes) == (kind == "alone"), "as much memory as the clip that follows"
    limit = cost.n_evaluations
    require_within(home.streams[kind], DecodeLimits(evaluations=limit))
    with pytest.raises(LimitExceeded, match=f"evaluations={limit}"):
        require_within(home.streams[kind], DecodeLimits(evaluations=limit - 1))


def home_evaluations(home, kind: str) -> int:
    (segment,) = home.streams[kind].segments
    s, m = segment.atoms.scene_injections, len(segment.atoms.counts)
    return 2 * s + 4 + (m - s + 1 if m > s else 0)  # two a step of a picture, four in the last; one and two of a clip


@KINDS
def test_encoding_counts_its_evaluations(home, tmp_path, kind, calls):
    with preferring(kind):
        report = encoded(home, tmp_path / "out.vov", home.sources[kind], SIZES[kind])
        assert report.n_network_evaluations == len(calls) > home_evaluations(home, kind) - 1
        assert (tmp_path / "out.vov").read_bytes() == home.files[kind].read_bytes(), "the same every time"
        calls.clear()
        report = scale(home.files[kind], home.sources[kind], tmp_path / "scaled.vov",
                       ScaleOptions(target_bytes=150, device="cpu"), SilentListener())  # fmt: skip
        assert report.n_network_evaluations == len(calls) > 0


def test_an_attempt_in_vain_is_counted_too(home, tmp_path, calls):
    """Pictures of flat colours are finished long before the bytes are: the clip is coded as all others are."""
    frames = np.full((5, 16, 32, 3), 60, dtype=np.uint8)
    for number, frame in enumerate(frames):
        frame[5:9, 5 + number : 8 + number] = 90
    with preferring("moves"):
        report = encoded(home, tmp_path / "out.vov", write_clip(tmp_path / "in.y4m", frames), 3000, size=(32, 16))
    assert pictures_of(tmp_path / "out.vov") == [0]
    assert report.n_network_evaluations == len(calls) and 1 in calls
    assert shown(tmp_path / "out.vov", tmp_path, verify=True)[1].drift_db == math.inf


@KINDS
def test_realism_goes_on_from_where_the_file_ends(home, tmp_path, kind):
    none, half, all_ = (shown(home.files[kind], tmp_path, realism=r)[0].astype(float) for r in (0.0, 0.5, 1.0))
    assert np.abs(half - (none + all_) / 2).mean() < 1 < np.abs(none - all_).mean()
    assert stands_still(half) == stands_still(all_) == (kind == "alone")


def test_realism_of_a_clip_leaves_what_stands(home, backbone):
    """What the model invents may move; the picture that the file holds stays where it is."""
    stream = home.streams["moves"]
    (segment,) = stream.segments
    common = (backbone, stream.header, segment, "a street", Adapters(backbone))
    with_it = regenerate_latents(*common, n_coded_frames=N_FRAMES, realism=1.0)
    without = regenerate_latents(*common, n_coded_frames=N_FRAMES)
    assert float((with_it - without).abs().mean()) > 1e-3
    assert torch.allclose(backbone.scene.impose(with_it, without), with_it, atol=1e-4)


# --- byte targets --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target_bytes", [121, 183, 266])
@KINDS
def test_byte_targets_are_hit_from_below(home, tmp_path, kind, target_bytes):
    with preferring(kind):
        report = encoded(home, tmp_path / "out.vov", home.sources[kind], target_bytes)
    assert target_bytes - 5 <= report.size_bytes <= target_bytes
    (atoms,) = atoms_of(read_vov(tmp_path / "out.vov"))
    assert atoms.scene_injections > 0 and (kind == "alone") == (atoms.scene_injections == len(atoms.counts))


@pytest.mark.parametrize(("kind", "target_bytes"), [("alone", 130), ("moves", 130), ("moves", 301)])
def test_scale_hits_its_targets_from_below(home, tmp_path, kind, target_bytes):
    with preferring(kind):
        report = scale(home.files[kind], home.sources[kind], tmp_path / "out.vov",
                       ScaleOptions(target_bytes=target_bytes, device="cpu"), SilentListener())  # fmt: skip
    assert target_bytes - 5 <= report.size_bytes <= target_bytes
    assert pictures_of(tmp_path / "out.vov")[0] > 0
    frames, decoded = shown(tmp_path / "out.vov", tmp_path, verify=True)
    assert decoded.drift_db == math.inf
    assert psnr(frames_of(home.sources[kind]), frames) == pytest.approx(report.psnr_db, abs=1e-6)


def test_scaling_repeats_what_encode_does(home, tmp_path):
    with preferring("moves"):
        encoded(home, tmp_path / "coded.vov", home.sources["moves"], 110, "fine")  # the shipped preset's scene ratio
        scale(tmp_path / "coded.vov", home.sources["moves"], tmp_path / "again.vov",
              ScaleOptions(target_bytes=110, device="cpu"), SilentListener())  # fmt: skip
    assert (tmp_path / "again.vov").read_bytes() == (tmp_path / "coded.vov").read_bytes()


def test_scaling_keeps_the_grid_of_the_picture(home, tmp_path):
    with preferring("alone"):
        scale(home.files["alone"], home.sources["alone"], tmp_path / "again.vov",
              ScaleOptions(target_bytes=SIZES["alone"], device="cpu"), SilentListener())  # fmt: skip
    assert atoms_of(read_vov(tmp_path / "again.vov"))[0].scene_ratio_q == SCENE_RATIO_Q


def test_no_target_is_exceeded_by_several_segments(home, tmp_path):
    """What the fields of a scene take is not given to the next segments again."""
    source = clip(tmp_path, 20, 16, 16, **SOURCES["moves"])
    with preferring("moves"):
        report = encoded(home, tmp_path / "out.vov", source, 771, "short", size=(16, 16), caption=None)
        assert report.segments == 4 and all(pictures_of(tmp_path / "out.vov"))
        scaled = scale(tmp_path / "out.vov", source, tmp_path / "scaled.vov",
                       ScaleOptions(target_bytes=643, device="cpu"), SilentListener())  # fmt: skip
        assert all(pictures_of(tmp_path / "scaled.vov"))
    assert 0.97 * 771 <= report.size_bytes <= 771 and 0.97 * 643 <= scaled.size_bytes <= 643


# --- which clips ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts(home):
    """A file of three segments: one that stands, noise of which every frame is another, one that hardly moves."""
    folder = home.folder / "parts"
    folder.mkdir()
    still = frames_of(clip(folder, N_FRAMES, WIDTH, HEIGHT, speed=0.0, noise=10))
    noise = np.random.default_rng(5).integers(0, 256, still.shape).astype(np.uint8)
    slow = frames_of(clip(folder, N_FRAMES, WIDTH, HEIGHT, speed=0.2, noise=10))[:, ::-1]
    source = write_clip(folder / "parts.y4m", np.concatenate([still, noise, slow]))
    report = encoded(home, folder / "parts.vov", source, 700)
    path = folder / "parts.vov"
    return SimpleNamespace(source=source, path=path, report=report, stream=read_vov(path), frames=frames_of(source))


def test_each_segment_decides_for_itself(home, parts, tmp_path, calls):
    first, second, third = pictures_of(parts.path)
    assert first > 0 == second < third
    assert 0.95 * 700 <= parts.report.size_bytes <= 700
    listener = Progress()
    frames, report = shown(parts.path, tmp_path, listener, verify=True)
    assert psnr(parts.frames, frames) == pytest.approx(parts.report.psnr_db, abs=1e-6)
    assert stands_still(frames[:9]) and not stands_still(frames[9:18]) and report.drift_db == math.inf
    segments, header = parts.stream.segments, parts.stream.header
    assert report.n_network_evaluations == len(calls) == sum(n_evaluations_of(header, each) for each in segments)
    assert listener.advanced == listener.announced
    for start_s, wanted in ((0.4, [1, 2]), (0.8, [2])):
        calls.clear()
        listener = Progress()
        part, _ = shown(parts.path, tmp_path, listener, start_s=start_s, realism=0.5)
        assert len(part) == 27 - round(25 * start_s)
        assert len(calls) == sum(n_evaluations_of(header, segments[i], realism=0.5) for i in wanted)
        assert listener.advanced == listener.announced
    steps = max(len(each.atoms.counts) for each in segments)
    listener = Progress()
    calls.clear()
    _, report = shown(parts.path, tmp_path, listener, steps=steps)
    assert report.n_network_evaluations == len(calls) and listener.advanced == listener.announced


def test_segments_are_truncated_and_edited_by_themselves(home, parts, tmp_path):
    sizes = []
    for target_bytes in (500, 260):
        report = scale(parts.path, None, tmp_path / "less.vov",
                       ScaleOptions(target_bytes=target_bytes, overwrite=True), SilentListener())  # fmt: skip
        assert report.size_bytes <= target_bytes
        sizes.append(report.size_bytes)
        for before, after in zip(atoms_of(parts.stream), atoms_of(read_vov(tmp_path / "less.vov")), strict=True):
            assert after.counts == before.counts[: len(after.counts)]
            assert after.scene_injections == min(before.scene_injections, len(after.counts))
        assert len(shown(tmp_path / "less.vov", tmp_path)[0]) == 27
    assert sizes == sorted(sizes, reverse=True)
    edit(parts.path, tmp_path / "edited.vov", EditOptions(caption="a dog", keep_structure=0.5))
    after = read_vov(tmp_path / "edited.vov")
    for old, new in zip(parts.stream.segments, after.segments, strict=True):
        n_kept = min(int(0.5 * len(old.atoms.counts) + 0.5), old.atoms.scene_injections or 99)
        assert new.atoms.counts == old.atoms.counts[:n_kept] and new.generation
        assert new.atoms.scene_injections == (n_kept if old.atoms.scene_injections else 0)
    frames, report = shown(tmp_path / "edited.vov", tmp_path)
    assert stands_still(frames[:9]) and not stands_still(frames[9:18])
    assert report.n_network_evaluations == sum(n_evaluations_of(after.header, each) for each in after.segments)


def test_a_lost_scene_leaves_the_others(home, parts, tmp_path):
    data, sections = bytearray(parts.path.read_bytes()), {each.segment: each for each in parts.stream.layout}
    data[sections[0].offset + 20] ^= 1
    (tmp_path / "damaged.vov").write_bytes(data)
    whole, _ = shown(parts.path, tmp_path, start_s=0.36)
    frames, report = shown(tmp_path / "damaged.vov", tmp_path)
    assert len(frames) == 27 and np.array_equal(frames[9:], whole)
    assert len(report.damage) == 1 and "\n" not in report.damage[0]
    with pytest.raises(FormatError, match=r"damaged\.vov: section at offset") as caught:
        shown(tmp_path / "damaged.vov", tmp_path, strict=True)
    assert "\n" not in str(caught.value)


def test_a_finished_scene_is_not_made_again(home, parts, tmp_path, monkeypatch):
    states, target, listener = tmp_path / "states", tmp_path / "out.vov", Progress(stop_at="segment 2 of 3")
    with pytest.raises(Interrupted, match="kept"):
        encoded(home, target, parts.source, 700, resume=True, state_dir=states, listener=listener)
    assert len(list(states.rglob("*.part"))) == 1 and not target.exists()
    made, inject_scene = [], segment_module.inject_scene

    def watched(*inputs, **named):
        made.append(inputs[6])
        return inject_scene(*inputs, **named)

    monkeypatch.setattr(segment_module, "inject_scene", watched)
    report = encoded(home, target, parts.source, 700, resume=True, state_dir=states)
    assert made == [1, 2], "the first was kept"
    assert target.read_bytes() == parts.path.read_bytes()
    assert report.n_network_evaluations == parts.report.n_network_evaluations
    assert report.psnr_db == pytest.approx(parts.report.psnr_db)
    assert not any(states.rglob("*.*"))


@pytest.mark.parametrize("effort", ["none", "hadamard", "channels"])
def test_settings_that_cannot_or_do_not_want_to(home, tmp_path, effort):
    still = np.repeat(frames_of(home.sources["alone"])[:1], 5, axis=0)
    encoded(home, tmp_path / "out.vov", write_clip(tmp_path / "in.y4m", still), 200, effort)
    assert pictures_of(tmp_path / "out.vov") == [0]
    assert shown(tmp_path / "out.vov", tmp_path, verify=True)[1].drift_db == math.inf
    if effort != "none":
        return
    scale(tmp_path / "out.vov", tmp_path / "in.y4m", tmp_path / "more.vov",
          ScaleOptions(target_bytes=230, device="cpu"), SilentListener())  # fmt: skip
    assert pictures_of(tmp_path / "more.vov") == [0], "settings that are not known here had none before"


@pytest.mark.parametrize(("split", "has_scene"), [((0.05, 0.95), True), ((0.5, 0.5), False)])
def test_a_vector_that_was_asked_for_comes_first(home, tmp_path, split, has_scene):
    still = np.repeat(frames_of(home.sources["alone"])[:1], 5, axis=0)
    source = write_clip(tmp_path / "in.y4m", still)
    report = encoded(home, tmp_path / "out.vov", source, 230, "vector", split=split)
    (segment,) = read_vov(tmp_path / "out.vov").segments
    assert (segment.vector is None) == bool(segment.atoms.scene_injections) == has_scene
    assert 0.95 * 230 <= report.size_bytes <= 230
    assert shown(tmp_path / "out.vov", tmp_path, verify=True)[1].drift_db == math.inf


def test_what_moves_or_is_a_still_rests_on_no_picture(home, tmp_path):
    with preferring("alone"):
        encoded(home, tmp_path / "one.vov", clip(tmp_path, 1, WIDTH, HEIGHT), 200)
    noise = np.random.default_rng(0).integers(0, 256, (5, 16, 32, 3)).astype(np.uint8)
    encoded(home, tmp_path / "noise.vov", write_clip(tmp_path / "noise.y4m", noise), 200, size=(32, 16))
    assert pictures_of(tmp_path / "one.vov") == pictures_of(tmp_path / "noise.vov") == [0]


def test_a_clip_of_one_colour(home, tmp_path):
    frames = np.zeros((5, 16, 16, 3), dtype=np.uint8)
    report = encoded(home, tmp_path / "out.vov", write_clip(tmp_path / "in.y4m", frames), 160, size=(16, 16))
    assert pictures_of(tmp_path / "out.vov")[0] > 0 and report.psnr_db > 20
    assert stands_still(shown(tmp_path / "out.vov", tmp_path)[0])


# --- less of a file ------------------------------------------------------------------------------------------------


@KINDS
def test_truncation_through_the_clip_to_the_picture_and_into_it(home, tmp_path, kind):
    """A shorter file shows what the preview of as many steps shows, and exactly the picture is the picture alone."""
    stream = home.streams[kind]
    (segment,) = stream.segments
    s, m = segment.atoms.scene_injections, len(segment.atoms.counts)
    sizes = [home.files[kind].stat().st_size]
    words = np.unpackbits(np.frombuffer(segment.atoms.words, dtype=np.uint8))
    for n in sorted({m - 1, s + 1, s, s - 1, s - 3} & set(range(1, m)), reverse=True):
        counts = segment.atoms.counts[:n]
        kept = replace(segment.atoms, counts=counts, words=np.packbits(words[: sum(counts)]).tobytes(), last_q=16)
        if n <= s:
            kept = replace(kept, scene_injections=n, scene_last_q=16, clip_start_q=0)
        expected = replace(stream, segments=(replace(segment, atoms=kept, check=None),), layout=())
        target_bytes = len(serialize(expected))
        report = scale(home.files[kind], None, tmp_path / f"{n}.vov", ScaleOptions(target_bytes=target_bytes),
                       SilentListener())  # fmt: skip
        assert read_vov(tmp_path / f"{n}.vov") == expected
        assert report.size_bytes == target_bytes < sizes[-1] and report.psnr_db is None
        sizes.append(target_bytes)
        assert inspect(tmp_path / f"{n}.vov", verify=True)["check"]["atoms"] == sum(counts)
        short, _ = shown(tmp_path / f"{n}.vov", tmp_path)
        preview, _ = shown(home.files[kind], tmp_path, steps=n + 1)
        assert np.array_equal(short, preview) and stands_still(short) == (n <= s)
    bare = replace(stream, segments=(replace(segment, atoms=None, check=None),), layout=())
    report = scale(home.files[kind], None, tmp_path / "bare.vov", ScaleOptions(target_bytes=len(serialize(bare))),
                   SilentListener())  # fmt: skip
    assert read_vov(tmp_path / "bare.vov") == bare and report.size_bytes < sizes[-1]
    with pytest.raises(UsageError, match="without any steering the file still has"):
        scale(home.files[kind], None, tmp_path / "no.vov", ScaleOptions(target_bytes=report.size_bytes - 1),
              SilentListener())  # fmt: skip


def test_cutting_keeps_the_part_of_a_step_that_the_picture_ended_with():
    atoms = CodedAtoms(counts=(6, 12, 20, 28, 34), last_q=3, scene_injections=3, scene_last_q=9, clip_start_q=-13,
                       scene_ratio_q=32, words=b"")  # fmt: skip
    for n, wanted in {
        4: {"last_q": 16, "scene_injections": 3, "scene_last_q": 9, "clip_start_q": -13},
        3: {"last_q": 9, "scene_injections": 3, "scene_last_q": 16, "clip_start_q": 0},
        2: {"last_q": 16, "scene_injections": 2, "scene_last_q": 16, "clip_start_q": 0},
    }.items():
        assert atoms.cut(n, b"x") == replace(atoms, counts=atoms.counts[:n], words=b"x", **wanted)
    plain = CodedAtoms(codebook="hadamard", counts=(6, 12), last_q=3, words=b"")
    assert plain.cut(1, b"x") == replace(plain, counts=(6,), last_q=16, words=b"x")
    picture = CodedAtoms(counts=(6, 12, 20), last_q=3, scene_injections=3, words=b"")
    assert picture.cut(2, b"") == replace(picture, counts=(6, 12), last_q=16, scene_injections=2)


# --- edits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "share"), [("alone", None), ("moves", 0.0), *itertools.product(SOURCES, (0.5, 1.0))])
def test_a_new_caption_goes_on_in_the_picture(home, tmp_path, kind, share, calls):
    (old,) = home.streams[kind].segments
    s, m = old.atoms.scene_injections, len(old.atoms.counts)
    edit(home.files[kind], tmp_path / "out.vov", EditOptions(caption="a dog", keep_structure=share))
    after = read_vov(tmp_path / "out.vov")
    (new,) = after.segments
    n_kept = min(s, int((share or 0) * m + 0.5))
    assert new.check is None and new.generation.n_injections > n_kept
    if not n_kept:
        assert new.atoms is None
    else:
        assert new.atoms.counts == old.atoms.counts[:n_kept] and new.atoms.scene_injections == n_kept
        assert new.atoms.scene_ratio_q == old.atoms.scene_ratio_q
        is_whole = kind == "alone" and share == 1.0
        assert new.atoms.last_q == (old.atoms.last_q if is_whole else 16)
        # As far down as a grid of the picture's ratio leads, and no further.
        snr = 2 ** (-after.header.sampler.snr_start_q / 8) * 3.0 ** (new.generation.n_injections - 1)
        assert snr / 3 < ((1 - LEAST_TIME) / LEAST_TIME) ** 2 <= snr
    realism = 1.0 if share == 0.5 else 0.0
    listener = Progress()
    frames, report = shown(tmp_path / "out.vov", tmp_path, listener, realism=realism)
    assert report.n_network_evaluations == len(calls) == n_evaluations_of(after.header, new, realism=realism)
    assert listener.advanced == listener.announced
    assert frames.shape[0] == N_FRAMES and stands_still(frames) == (n_kept > 0)
    if n_kept:
        kept, _ = shown(tmp_path / "out.vov", tmp_path, steps=n_kept + 1)
        before, _ = shown(home.files[kind], tmp_path, steps=n_kept + 1)
        assert stands_still(kept) and np.abs(kept.astype(float) - before).mean() < 25, "all but the caption is the same"
        assert not np.array_equal(kept, frames), "the sampler goes on"


@KINDS
def test_kept_steps_are_those_of_the_original(home, tmp_path, kind):
    edit(home.files[kind], tmp_path / "out.vov", EditOptions(keep_structure=0.5))
    (segment,) = read_vov(tmp_path / "out.vov").segments
    steps = len(segment.atoms.counts) + 1
    kept, _ = shown(tmp_path / "out.vov", tmp_path, steps=steps)
    assert np.array_equal(kept, shown(home.files[kind], tmp_path, steps=steps)[0])


@KINDS
def test_an_edited_scene_can_be_truncated_and_steered_anew(home, tmp_path, kind):
    edit(home.files[kind], tmp_path / "out.vov", EditOptions(caption="a dog", keep_structure=1.0))
    (before,) = read_vov(tmp_path / "out.vov").segments
    size_bytes = (tmp_path / "out.vov").stat().st_size
    scale(tmp_path / "out.vov", None, tmp_path / "less.vov", ScaleOptions(target_bytes=size_bytes - 20),
          SilentListener())  # fmt: skip
    (less,) = read_vov(tmp_path / "less.vov").segments
    assert less.generation == before.generation
    assert 0 < less.atoms.scene_injections == len(less.atoms.counts) < len(before.atoms.counts)
    assert stands_still(shown(tmp_path / "less.vov", tmp_path)[0])
    with preferring(kind):
        scale(tmp_path / "out.vov", home.sources[kind], tmp_path / "anew.vov",
              ScaleOptions(target_bytes=300, device="cpu"), SilentListener())  # fmt: skip
    (anew,) = read_vov(tmp_path / "anew.vov").segments
    assert anew.generation is None and anew.atoms.scene_injections > 0
    assert shown(tmp_path / "anew.vov", tmp_path, verify=True)[1].drift_db == math.inf


def test_an_edited_scene_of_a_coarse_clip_can_be_truncated(home, tmp_path):
    with preferring("alone"):
        encoded(home, tmp_path / "coded.vov", home.sources["alone"], 220, "coarse")
    edit(tmp_path / "coded.vov", tmp_path / "out.vov", EditOptions(keep_structure=1.0))
    size_bytes = (tmp_path / "out.vov").stat().st_size
    scale(tmp_path / "out.vov", None, tmp_path / "less.vov", ScaleOptions(target_bytes=size_bytes - 20),
          SilentListener())  # fmt: skip
    assert pictures_of(tmp_path / "less.vov")[0] > 0
    with pytest.raises(UsageError, match="without any steering the file still has") as caught:
        scale(tmp_path / "out.vov", None, tmp_path / "no.vov", ScaleOptions(target_bytes=40), SilentListener())
    bare_bytes = int(str(caught.value).split()[-1])
    scale(tmp_path / "out.vov", None, tmp_path / "bare.vov", ScaleOptions(target_bytes=bare_bytes), SilentListener())
    stream = read_vov(tmp_path / "bare.vov")
    (segment,), sampler = stream.segments, stream.header.sampler
    assert segment.atoms is None
    assert segment.generation.n_injections == full_grid_injections(sampler.snr_start_q, sampler.snr_ratio_q, 1000)
    assert not stands_still(shown(tmp_path / "bare.vov", tmp_path)[0]), "a clip from the caption alone"


@KINDS
def test_other_lengths_sizes_and_rates(home, tmp_path, kind):
    (old,) = home.streams[kind].segments
    whole, _ = shown(home.files[kind], tmp_path)
    edit(home.files[kind], tmp_path / "8.vov", EditOptions(n_frames=8))
    (shorter,) = read_vov(tmp_path / "8.vov").segments
    assert (shorter.atoms, shorter.check, shorter.generation) == (old.atoms, None, None), "as many coded frames"
    assert np.array_equal(shown(tmp_path / "8.vov", tmp_path)[0], whole[:8])
    for name, options, shape in (
        ("1", {"n_frames": 1}, (1, HEIGHT, WIDTH, 3)),
        ("13", {"n_frames": 13}, (13, HEIGHT, WIDTH, 3)),
        ("size", {"size": (32, 48)}, (N_FRAMES, 48, 32, 3)),
    )[: 3 if kind == "moves" else 1]:
        edit(home.files[kind], tmp_path / f"{name}.vov", EditOptions(**options))
        (segment,) = read_vov(tmp_path / f"{name}.vov").segments
        assert segment.atoms is None and segment.generation
        frames, report = shown(tmp_path / f"{name}.vov", tmp_path)
        assert frames.shape == shape
        assert report.n_network_evaluations == n_evaluations_of(read_vov(tmp_path / f"{name}.vov").header, segment)
        with pytest.raises(UsageError, match="leave out --keep-structure"):
            edit(home.files[kind], tmp_path / "no.vov", EditOptions(keep_structure=0.5, **options))


@pytest.mark.parametrize("n_frames", [2, 13, 30])
def test_a_picture_alone_holds_for_any_length(home, tmp_path, n_frames):
    (old,) = home.streams["alone"].segments
    whole, _ = shown(home.files["alone"], tmp_path)
    told = Progress()
    edit(home.files["alone"], tmp_path / "out.vov", EditOptions(n_frames=n_frames), told)
    (segment,) = read_vov(tmp_path / "out.vov").segments
    assert segment.atoms == old.atoms and segment.generation is None and not told.lines
    frames, _ = shown(tmp_path / "out.vov", tmp_path)
    assert np.array_equal(frames, np.repeat(whole[:1], n_frames, axis=0))
    edit(home.files["alone"], tmp_path / "half.vov", EditOptions(n_frames=n_frames, keep_structure=0.5))
    (half,) = read_vov(tmp_path / "half.vov").segments
    assert 0 < half.atoms.scene_injections < old.atoms.scene_injections and half.generation


@pytest.mark.parametrize(
    ("kind", "share", "is_told"), [("moves", 1.0, True), ("moves", 0.2, False), ("alone", 1.0, False)]
)
def test_what_moves_is_not_dropped_in_silence(home, tmp_path, kind, share, is_told):
    told = Progress()
    edit(home.files[kind], tmp_path / "out.vov", EditOptions(caption="a dog", keep_structure=share), told)
    assert any("what moves in front of it is dropped" in line for line in told.lines) == is_told


def test_a_merged_vector_acts_on_picture_and_clip(home, tmp_path):
    kind = "moves"
    encoded(home, tmp_path / "vector.vov", home.sources["moves"], 300, "vector", split=(0.5, 0.5), caption="a street")
    edit(home.files[kind], tmp_path / "both.vov",
         EditOptions(merge=tmp_path / "vector.vov", merge_weight=100, keep_structure=1.0))  # fmt: skip
    frames, report = shown(tmp_path / "both.vov", tmp_path)
    assert stands_still(frames) and report.n_frames == N_FRAMES
    (segment,) = read_vov(tmp_path / "both.vov").segments
    assert segment.merged and segment.atoms.scene_injections
    with preferring(kind):
        report = scale(tmp_path / "both.vov", home.sources[kind], tmp_path / "anew.vov",
                       ScaleOptions(target_bytes=420, device="cpu"), SilentListener())  # fmt: skip
    (anew,) = read_vov(tmp_path / "anew.vov").segments
    assert anew.merged == segment.merged and anew.atoms.scene_injections and report.size_bytes <= 420
    frames, decoded = shown(tmp_path / "anew.vov", tmp_path, verify=True)
    assert decoded.drift_db == math.inf
    assert psnr(frames_of(home.sources[kind]), frames) == pytest.approx(report.psnr_db, abs=1e-6)


# --- what is refused -----------------------------------------------------------------------------------------------


def with_scene_of(stream: VovFile, number: int, **changes) -> VovFile:
    segments = list(stream.segments)
    atoms = replace(segments[number].atoms, **changes)
    segments[number] = replace(segments[number], atoms=atoms)
    return replace(stream, segments=tuple(segments))


MOVES, STANDS = 0, 1  # the segments of samples.scenes()
UNWRITABLE = {
    "more than counts": (
        STANDS,
        {"scene_injections": 3},
        r"number of atoms.counts is 2, must be at least 3",
    ),
    "negative": (MOVES, {"scene_injections": -1}, r"scene_injections is -1, must be 0..1,?000"),
    "very many": (MOVES, {"scene_injections": 1001}, r"scene_injections is 1,?001, must be 0..1,?000"),
    "no ratio": (MOVES, {"scene_ratio_q": 0}, r"scene_ratio_q is 0, must be 1..256"),
    "large ratio": (MOVES, {"scene_ratio_q": 257}, r"scene_ratio_q is 257, must be 1..256"),
    "no last step": (MOVES, {"scene_last_q": 0}, r"scene_last_q is 0, must be 1..16"),
    "long last step": (MOVES, {"scene_last_q": 17}, r"scene_last_q is 17, must be 1..16"),
    "early start": (MOVES, {"clip_start_q": 128}, r"clip_start_q is 128, must be -128..127"),
    "late start": (MOVES, {"clip_start_q": -129}, r"clip_start_q is -129, must be -128..127"),
    "hadamard": (MOVES, {"codebook": "hadamard", "memory": 12}, r"scene_injections is 3, must be 0 unless codebook is"),
    "cyclic": (MOVES, {"codebook": "cyclic-shift", "memory": 12}, r"must be 0 unless codebook is trellis"),
    "channels": (MOVES, {"active_channels": 3}, r"must be 0 unless .*active_channels is 0"),
    "ratio of none": (MOVES, {"scene_injections": 0, "scene_ratio_q": 30}, r"must be 24 unless scene_injections > 0"),
    "last step of none": (STANDS, {"scene_last_q": 9}, r"must be 16 unless 0 < scene_injections < the number of"),
    "start of none": (STANDS, {"clip_start_q": 1}, r"must be 0 unless 0 < scene_injections < the number of counts"),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_what_the_writer_refuses(name):
    number, changes, message = UNWRITABLE[name]
    with pytest.raises(FieldOutOfRange, match=message) as caught:
        serialize(with_scene_of(samples.scenes(), number, **changes))
    assert str(caught.value).startswith(f"segment {number}: ") and "\n" not in str(caught.value)


def test_a_still_or_a_shifted_grid_has_no_scene():
    """Neither has a bit that could say so."""
    atoms = CodedAtoms(counts=(8, 16), scene_injections=1, words=bytes(3))
    for changes in ({"n_frames": 1, "segment_frames": 1}, {"sampler": samples.vector_only().header.sampler}):
        header = samples.header(**changes)
        header = replace(header, sampler=replace(header.sampler, sampler_id="eta"))
        segment = Segment(index=0, n_frames=header.n_frames, atoms=atoms)
        with pytest.raises(FieldOutOfRange, match=r"scene_injections is 1, must be 0 unless"):
            serialize(VovFile(header, (segment,)))
        plain = replace(segment, atoms=replace(atoms, scene_injections=0))
        assert parse(serialize(VovFile(header, (plain,)))).segments == (plain,)
    # One frame of a longer clip is the same.
    header = samples.header(n_frames=34, n_segments=2)
    segments = (Segment(index=0, n_frames=33, atoms=atoms), Segment(index=1, first_frame=33, n_frames=1, atoms=atoms))
    with pytest.raises(FieldOutOfRange, match=r"segment 1: atoms\.scene_injections"):
        serialize(VovFile(header, segments))


def faulty(stream: VovFile, monkeypatch, **without) -> bytes:
    """What a writer makes of it that checks no rules (or has other fields)."""
    with monkeypatch.context() as patch:
        for name, value in (without or {"SEGMENT_RULES": (), "GENERATION_RULES": ()}).items():
            patch.setattr(layout, name, value)
        return serialize(stream)


def field_changed(name: str, **changes):
    return tuple(replace(f, **changes) if getattr(f, "name", "") == name else f for f in layout.SEGMENT_FIELDS)


def test_more_injections_of_a_picture_than_any_segment_has():
    """More than the segment itself has, no file can say."""
    (field,) = (field for field in layout.SEGMENT_FIELDS if field.names == ("atoms.scene_injections",))
    out = BitWriter()
    out.put(1, 1)
    Groups(6, 0, 20_000).put(out, 1001)
    values = {"has_atoms": True, "atoms.codebook": "trellis", "atoms.active_channels": 0, "n_frames": 33,
              "header": samples.header()}  # fmt: skip
    with pytest.raises(FieldOutOfRange, match=r"atoms.scene_injections is 1,?001, must be 0..1,?000"):
        field.get(BitReader(out.to_bytes(), "test"), values)


@pytest.mark.parametrize(
    ("number", "name", "value"),
    [(MOVES, "scene_last_q", 16), (MOVES, "clip_start_q", 0), (MOVES, "scene_ratio_q", 24)],
)
def test_defaults_are_not_spelled_out(monkeypatch, number, name, value):
    stream = with_scene_of(samples.scenes(), number, **{name: value})
    assert parse(serialize(stream)) == stream
    data = faulty(stream, monkeypatch, SEGMENT_FIELDS=field_changed(f"atoms.{name}", default=value - 1))
    with pytest.raises(NonCanonical, match=f"atoms.{name} is stored although it has its default value"):
        parse(data)


def test_no_generation_after_a_clip_on_a_picture(monkeypatch):
    stream = samples.scenes()
    generating = replace(stream.segments[MOVES], generation=Generation(n_injections=20))
    stream = replace(stream, segments=(generating, *stream.segments[1:]))
    message = r"segment 0 generation: n_injections is 20, must be absent, with the section, where 0 < scene_injections"
    with pytest.raises(FieldOutOfRange, match=message):
        serialize(stream)
    with pytest.raises(FieldOutOfRange, match=message):
        parse(faulty(stream, monkeypatch))


@pytest.mark.parametrize(
    ("ratio_q", "scene_ratio_q", "n_picture", "n_clip", "fits"),
    [
        (256, 1, 900, 27, True),  # 5^27 < 2^64
        (256, 1, 900, 28, False),
        (1, 256, 27, 900, True),
        (1, 256, 28, 900, False),
        (256, 256, 27, 27, True),  # each by itself
        (1, 256, 28, 0, False),
        (256, 1, 28, 0, True),
    ],
)
def test_each_grid_has_room_for_its_own_injections(monkeypatch, ratio_q, scene_ratio_q, n_picture, n_clip, fits):
    header = samples.header(sampler=replace(samples.SNR_SAMPLER, snr_ratio_q=ratio_q))
    counts = (2,) * (n_picture + n_clip)
    atoms = CodedAtoms(counts=counts, scene_injections=n_picture, scene_ratio_q=scene_ratio_q,
                       words=bytes(-(-sum(counts) // 8)))  # fmt: skip
    stream = VovFile(header, (Segment(index=0, n_frames=33, atoms=atoms),))
    if fits:
        assert parse(serialize(stream)) == stream
    else:
        for attempt in (lambda: serialize(stream), lambda: parse(faulty(stream, monkeypatch))):
            with pytest.raises(FieldOutOfRange, match=r"atoms\.counts"):
                attempt()


@pytest.mark.parametrize(("scene_ratio_q", "n_injections", "fits"), [(64, 64, True), (64, 65, False), (24, 139, True)])
def test_a_generation_has_the_room_of_the_pictures_grid(monkeypatch, scene_ratio_q, n_injections, fits):
    stream = with_scene_of(samples.scenes(), STANDS, scene_ratio_q=scene_ratio_q)
    generating = replace(stream.segments[STANDS], generation=Generation(n_injections=n_injections))
    stream = replace(stream, segments=(stream.segments[MOVES], generating, *stream.segments[2:]))
    if fits:
        assert parse(serialize(stream)) == stream
    else:
        for attempt in (lambda: serialize(stream), lambda: parse(faulty(stream, monkeypatch))):
            with pytest.raises(FieldOutOfRange, match="with scene_ratio_q if scene_injections > 0"):
                attempt()


def test_all_values_in_bounds_survive():
    stream = samples.scenes()
    for changes in (
        {"scene_injections": n, "scene_last_q": last_q, "clip_start_q": start_q, "scene_ratio_q": ratio_q}
        for n, last_q, start_q, ratio_q in [(1, 1, -128, 1), (4, 15, 127, 256), (2, 16, 0, 24), (3, 8, -1, 25)]
    ):
        changed = with_scene_of(stream, MOVES, **changes)
        assert parse(serialize(changed)) == changed
    changed = with_scene_of(stream, MOVES, scene_injections=5, scene_last_q=16, clip_start_q=0)
    assert parse(serialize(changed)) == changed


@KINDS
def test_damage_is_one_clear_line(home, tmp_path, kind):
    data = home.files[kind].read_bytes()
    for size in range(len(data)):
        with pytest.raises(FormatError) as caught:
            parse(data[:size])
        assert "\n" not in str(caught.value)
    for place in range(len(data)):
        with pytest.raises(FormatError) as caught:
            parse(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        assert "\n" not in str(caught.value)
    (tmp_path / "cut.vov").write_bytes(data[:-9])
    for strict in (False, True):
        with pytest.raises(FormatError, match=r"cut\.vov: ") as caught:
            shown(tmp_path / "cut.vov", tmp_path, strict=strict)
        assert "\n" not in str(caught.value) and not list(tmp_path.glob("shown*"))


@KINDS
def test_paths_that_do_not_fill_their_bytes_are_refused(home, tmp_path, kind):
    stream = home.streams[kind]
    (atoms,) = atoms_of(stream)
    for words, message in ((atoms.words + b"\1", "path bits take"), (atoms.words[:-1], "path bits take")):
        path = written(
            tmp_path / "faulty.vov", with_atoms(stream, counts=(*atoms.counts[:-1], atoms.counts[-1] - 7), words=words)
        )
        with pytest.raises(FormatError, match=rf"faulty\.vov: .*{message}"):
            shown(path, tmp_path)
        with pytest.raises(FormatError, match="damaged"):
            inspect(path, verify=True)


def test_atoms_on_a_shifted_grid_are_refused(home, tmp_path):
    """The format has them, this decoder does not: leaving them out would show another picture."""
    stream = home.streams["moves"]
    sampler = replace(samples.vector_only().header.sampler, sampler_id="eta", n_steps=4)
    segment = Segment(index=0, n_frames=N_FRAMES, atoms=CodedAtoms(counts=(8, 16), words=bytes(3)))
    stream = replace(stream, header=replace(stream.header, sampler=sampler), segments=(segment,), layout=())
    with pytest.raises(FormatError, match="steering on a shifted time grid"):
        shown(written(tmp_path / "shifted.vov", stream), tmp_path)


def test_a_clip_on_a_picture_is_nothing_that_another_model_knows(home, tmp_path, monkeypatch):
    monkeypatch.setattr(home.backbone, "scene", None)
    with pytest.raises(FormatError, match=r"moves\.vov: .*picture of their scene .* pocket") as caught:
        shown(home.files["moves"], tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("shown*"))
    assert stands_still(shown(home.files["alone"], tmp_path)[0]), "a picture is one for every model"
    still = np.repeat(frames_of(home.sources["alone"])[:1], 5, axis=0)
    encoded(home, tmp_path / "out.vov", write_clip(tmp_path / "in.y4m", still), 200)
    assert pictures_of(tmp_path / "out.vov") == [0], "and an encoder makes none for it"


def test_another_model_refuses_before_it_computes(home, tmp_path, monkeypatch, calls):
    monkeypatch.setattr(home.backbone, "scene", None)
    with pytest.raises(FormatError):
        shown(home.files["moves"], tmp_path)
    assert not calls


def test_a_picture_has_fewer_atoms_than_the_clip(home, tmp_path):
    """FORMAT.md, 20: a reader MUST refuse a count above P, here 8192 of the picture and 32768 of the clip."""
    counts = (28, 192, 1280, 8192, 28_672)
    words = bytes(-(-sum(counts) // 8))
    stream = with_atoms(home.streams["alone"], counts=counts, words=words, scene_injections=5)
    path = written(tmp_path / "many.vov", stream)
    refused = 0
    for attempt in (lambda: shown(path, tmp_path), lambda: inspect(path, verify=True)):
        try:
            attempt()
        except FormatError:
            refused += 1
    assert refused == 2


# --- limits --------------------------------------------------------------------------------------------------------


def test_the_estimate_knows_how_often_a_picture_is_shown():
    atoms = CodedAtoms(counts=(8, 16), scene_injections=2, words=bytes(3))
    size = {"coded_width": 256, "coded_height": 256, "source_width": 256, "source_height": 256}
    header = samples.header(n_frames=65_533, segment_frames=65_533, **size)
    segment = Segment(index=0, n_frames=65_533, atoms=atoms)
    assert len(serialize(VovFile(header, (segment,)))) < 50
    assert decode_cost(header, [segment]).memory_bytes > 65_533 * 256 * 256 * 3


def test_the_estimate_of_steering_anew_is_that_of_clips():
    atoms = CodedAtoms(counts=(8, 16), scene_injections=2, words=bytes(3))
    header, segment = samples.header(), Segment(index=0, n_frames=33, atoms=atoms)
    plain = replace(segment, atoms=replace(atoms, scene_injections=0))
    scene_cost, clip_cost = (steering_cost(header, [each], 20) for each in (segment, plain))
    assert scene_cost.memory_bytes >= clip_cost.memory_bytes
    assert scene_cost.flop >= clip_cost.flop


def test_the_estimate_of_steering_anew_counts_the_picture(home, tmp_path, monkeypatch):
    estimates = []

    def watched(*inputs):
        estimates.append(steering_cost(*inputs))
        return estimates[-1]

    monkeypatch.setattr("vovcodec.codec.resteer.steering_cost", watched)
    with preferring("moves"):
        report = scale(home.files["moves"], home.sources["moves"], tmp_path / "out.vov",
                       ScaleOptions(target_bytes=400, device="cpu"), SilentListener())  # fmt: skip
    assert report.n_network_evaluations <= estimates[0].n_evaluations


# --- the parts -----------------------------------------------------------------------------------------------------


@pytest.fixture
def clips(backbone):
    """The tiny network of clips with colours that mix."""
    network, mix = backbone._clips, torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    before = network.colours.clone()
    network.colours.copy_(torch.linalg.qr(mix)[0])
    yield network
    network.colours.copy_(before)


def latents(n_frames: int, seed: int) -> torch.Tensor:
    return torch.randn(2, 96, n_frames, 2, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n_frames", [5, 9, 33, 129])
def test_a_standing_clip_is_encoded_from_its_picture(clips, n_frames):
    picture = torch.rand(2, 3, 1, 16, 24, generator=torch.Generator().manual_seed(n_frames)) * 2 - 1
    standing = clips.encode_standing(picture, n_frames)
    assert standing.shape == (2, 96, n_frames, 2, 3)
    assert torch.allclose(standing, clips.encode(picture.expand(-1, -1, n_frames, -1, -1)), atol=2e-5)
    # It lies along d: the first frame counts twice, all others are alike.
    assert torch.allclose(standing[:, :, 0], 2 * standing[:, :, 1], atol=2e-5)
    assert torch.allclose(clips.impose(torch.zeros_like(standing), standing), standing, atol=2e-5)


@pytest.mark.parametrize("n_frames", [5, 9, 33])
def test_imposing_a_scene(clips, n_frames):
    clean, standing = latents(n_frames, 1), latents(n_frames, 2)
    imposed = clips.impose(clean, standing)
    d = torch.tensor([2.0, *[1.0] * (n_frames - 1)]) / math.sqrt(n_frames + 3)
    assert float(d.norm()) == pytest.approx(1.0)
    part = torch.einsum("f,bcfij->bcij", d, standing - clean)
    by_the_format = torch.stack([clean[:, :, f] + d[f] * part for f in range(n_frames)], dim=2)
    assert torch.allclose(imposed, by_the_format, atol=1e-5)
    assert torch.allclose(clips.impose(imposed, standing), imposed, atol=1e-5), "once is enough"
    assert torch.allclose(clips.impose(clean, clean), clean, atol=1e-6)
    along = torch.einsum("f,bcfij->bcij", d, imposed)
    assert torch.allclose(along, torch.einsum("f,bcfij->bcij", d, standing), atol=1e-5), "the standing part is s's"

    def across(x):
        return x - torch.einsum("f,bcij->bcfij", d, torch.einsum("f,bcfij->bcij", d, x))

    assert torch.allclose(across(imposed), across(clean), atol=1e-5), "the rest is left alone"


def test_a_pictures_latents_are_those_of_a_still(backbone):
    frames = np.random.default_rng(0).integers(0, 256, (9, 16, 32, 3)).astype(np.uint8)
    mean = torch.from_numpy(frames.mean(axis=0, dtype=np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
    target = backbone.scene.target(mean)
    assert target.shape == (1, 192, 1, 2, 4)
    shown_mean = backbone.to_frames(target)[0].astype(float)
    assert np.abs(shown_mean - frames.mean(axis=0)).max() <= 0.51
    still = backbone.to_latents(frames[:1])
    first = torch.from_numpy(frames[:1]).permute(0, 3, 1, 2) / 127.5 - 1
    assert torch.allclose(backbone.scene.target(first), still, atol=1e-5)
    standing = backbone.scene.standing(still, 5)
    assert torch.allclose(standing, backbone.to_latents(np.repeat(frames[:1], 5, axis=0)), atol=1e-3)
    # What is beyond black and white is not in the clip.
    bright = backbone._pictures.encode(torch.full((1, 3, 1, 16, 32), 1.5))
    white = np.full((5, 16, 32, 3), 255, dtype=np.uint8)
    assert torch.allclose(backbone.scene.standing(bright, 5), backbone.to_latents(white), atol=1e-3)


class Recorder:
    """The toy's velocity, and when it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []

    def __call__(self, x_t, t):
        self.asked.append(("plain", t))
        return toys.gaussian(toys.SHAPE)(x_t, t)

    def last(self, x_t, t):
        self.asked.append(("last", t))
        return 0.5 * toys.gaussian(toys.SHAPE)(x_t, t)


def impose(clean, standing):
    """Of two latent frames: the mean is the scene."""
    return clean + (standing - clean).mean(dim=2, keepdim=True)


def as_it_is(clean, t):
    return clean


def test_the_network_is_not_asked_where_nothing_is_known():
    inner, standing = Recorder(), toys.picture(toys.SHAPE)[:, :, :1].expand(toys.SHAPE)
    velocity, x_t = SceneVelocity(inner, standing, impose, as_it_is), initial_noise(0, 0, toys.SHAPE)
    for is_last in (False, True):
        assert torch.allclose(estimate(velocity, x_t, 1.0, is_last=is_last), standing, atol=1e-5)
    assert not inner.asked
    for is_last in (False, True):
        clean = estimate(velocity, x_t, 0.7, is_last=is_last)
        plain = x_t - 0.7 * (inner.last if is_last else inner)(x_t, 0.7)
        assert torch.allclose(clean, impose(plain, standing), atol=1e-5)
        assert torch.allclose(clean.mean(dim=2), standing.mean(dim=2), atol=1e-5)
    assert [name for name, _ in inner.asked] == ["plain", "plain", "last", "last"]
    without = SceneVelocity(toys.gaussian(toys.SHAPE), standing, impose, as_it_is)
    assert torch.equal(without.last(x_t, 0.5), without(x_t, 0.5)), "a velocity need not know better"


@pytest.mark.parametrize("size_bytes", [21.0, 37.3, 80.0])
def test_injections_after_a_picture_are_numbered_on_and_share_its_bytes(size_bytes):
    before = (5, 7, 12, 20)
    plan = replace(toys.PLAN, before=before)
    velocity, target = toys.gaussian(toys.SHAPE), toys.picture(toys.SHAPE)
    steered, chosen, clean = steer(velocity, target, plan, 2, size_bytes=size_bytes)
    assert steered.before == before and [len(path) for path in chosen] == list(steered.counts)
    first = [np.ones(n, dtype=np.uint8) for n in before]
    counts = (*before, *steered.counts)
    spent = len(encode_choices("trellis", [*first, *chosen], 0)) + plan.counts_bits(counts) / 8
    assert size_bytes - 3 <= spent <= size_bytes
    assert torch.equal(follow(velocity, chosen, steered, 2, toys.SHAPE, toys.CPU), clean)
    for other in ((), before[:-1]):
        wrong = follow(velocity, chosen, replace(steered, before=other), 2, toys.SHAPE, toys.CPU)
        assert not torch.allclose(wrong, clean, atol=1e-2)
    atoms = CodedAtoms(counts=counts, scene_injections=4, last_q=steered.last_q, clip_start_q=3,
                       words=encode_choices("trellis", [*first, *chosen], 0))  # fmt: skip
    stream = VovFile(samples.header(), (Segment(index=0, n_frames=33, atoms=atoms),))
    assert parse(serialize(stream)) == stream, "the counts can be stored one after the other"


def test_the_noise_of_the_clip_has_an_address_of_its_own():
    shape = (1, 4, 2, 3, 3)
    for n_before in (0, 1, 7):
        expected = normal(Stream(9, Purpose.INITIAL_NOISE, (4, n_before)), shape)
        assert np.array_equal(initial_noise(9, 4, shape, n_before).numpy(), expected)
    assert torch.equal(initial_noise(9, 4, shape), initial_noise(9, 4, shape, 0))
    assert not torch.equal(initial_noise(9, 4, shape, 1), initial_noise(9, 4, shape))


def test_what_moves_much_begins_at_more_noise():
    starts = [scene_start(torch.full((4,), level)) for level in (0.0, 1e-4, 0.01, 0.1, 1.0, 30.0, 1e6)]
    assert starts == sorted(starts) and starts[0] == -128 and starts[-1] == 127
    assert len(set(starts)) == 7 or starts[-2] == 127


def test_evaluations_of_a_clip_that_nothing_is_left_for(home, tmp_path, monkeypatch, calls):
    monkeypatch.setattr(scene_module, "_field_bytes", lambda scene_plan, plan, camera: (2, 152))
    with preferring("moves"):
        report = encoded(home, tmp_path / "out.vov", home.sources["moves"], 160)
    assert pictures_of(tmp_path / "out.vov") == [0]
    assert report.n_network_evaluations == len(calls)


@pytest.mark.parametrize(("error", "alone_db"), [(1.0, math.inf), (6.4, math.inf), (6.7, -1.5), (400.0, -1.5)])
def test_what_hardly_moves_is_not_coded(error, alone_db):
    """E is 40 dB below the peak at 6.5 grey levels squared."""
    shown = np.zeros((1, 8, 8, 3), np.float32)
    view = View(scene=None, path=None, picture=torch.zeros(1, 3, 8, 8), shown=shown, missed=np.full((5, 1, 1), error))
    assert view.alone_db == alone_db

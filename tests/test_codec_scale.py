"""`scale` end to end on a tiny model of the real classes: byte targets, what is kept, truncation, what is refused."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from container_samples import SNR_SAMPLER, three_segments
from tiny_clips import HEIGHT, N_FRAMES, WIDTH, Notes, picture, write_clip
from tiny_models import save_tiny_pocket

from vovcodec.backbone.geometry import evaluations_of_steps
from vovcodec.codec import truncate
from vovcodec.codec.decode import decode
from vovcodec.codec.encode import encode
from vovcodec.codec.inspect import inspect
from vovcodec.codec.options import DecodeOptions, EncodeOptions, ScaleOptions
from vovcodec.codec.regenerate import Adapters, load_matching_backbone, regenerate_latents, segment_indices
from vovcodec.codec.resteer import preset_of_header, read_reference
from vovcodec.codec.scale import scale
from vovcodec.codec.spool import FrameSpool
from vovcodec.container import CodedAtoms, read_vov, serialize, write_vov
from vovcodec.errors import FormatError, MediaError, ModelError, OutputExistsError, UsageError
from vovcodec.media import open_frames
from vovcodec.metrics import psnr
from vovcodec.presets import load_preset, preset_digest, resolve
from vovcodec.progress import SilentListener
from vovcodec.sampling.steering import SteeringPlan

PRESET = """
backbone: {id: pocket}
geometry: {short_side: 32, multiple: 16, segment_frames: 9, scene_frames: 9}
adaptation: {vector_length: 16}
sampler: {steps: 4, shift: 2.0, seed: 5}
steering: {method: atoms, snr_start: 0.01, snr_ratio: 2.5, scene: false}
fitting: {stage1: {steps: 2}, stage2: {steps: 2, warmup_steps: 1}}
rate: {bytes: 500}
efforts:
  plain: {steering: {method: none}}
  importance: {adaptation: {vector_length: 0}, steering: {method: importance}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with the tiny model, a clip, and files made from it."""
    folder = tmp_path_factory.mktemp("scale")
    save_tiny_pocket(folder / "pocket")
    (folder / "tiny.yaml").write_text(PRESET)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOVCODEC_MODELS", str(folder))
        write_clip(folder / "clip.y4m", picture())
        for name, effort, bytes_ in (("steered", None, 600), ("vector", "plain", 300)):
            make(folder, name, effort, bytes_)
    return folder


def make(folder: Path, name: str, effort: str | None, bytes_: int) -> Path:
    options = EncodeOptions(preset=folder / "tiny.yaml", effort=effort, caption="waves", target_bytes=bytes_,
                            device="cpu", resume=False, state_dir=folder / "state")  # fmt: skip
    encode(folder / "clip.y4m", folder / f"{name}.vov", options, SilentListener())
    return folder / f"{name}.vov"


@pytest.fixture(autouse=True)
def model(monkeypatch, home):
    monkeypatch.setenv("VOVCODEC_MODELS", str(home))


@pytest.fixture
def few_candidates(monkeypatch):
    """At most 32 per step, for speed."""
    monkeypatch.setattr("vovcodec.codec.importance.MOST_LOG2_CANDIDATES", 5)


class Stages(SilentListener):
    """Where each stage stood after every unit, as (name, shares done)."""

    def __init__(self) -> None:
        self.shares: list[tuple[str, list[float]]] = []

    def stage(self, name, n_units, done=0):
        self._n_units, self._done = n_units, done
        self.shares.append((name, []))

    def advance(self, n_units=1, **figures):
        self._done += n_units
        if n_units:
            self.shares[-1][1].append(self._done / self._n_units)


def scaled(home, tmp_path, source="steered", reference="clip.y4m", listener=None, name="out.vov", **options):
    """(report, the new file as read) of one scale."""
    target = tmp_path / name
    from_file = None if reference is None else home / reference
    report = scale(home / f"{source}.vov", from_file, target, ScaleOptions(device="cpu", **options),
                   listener or SilentListener())  # fmt: skip
    assert report.size_bytes == target.stat().st_size
    assert sum(report.sections.values()) == report.size_bytes
    return report, read_vov(target)


def decoded(home, path, tmp_path) -> np.ndarray:
    decode(path, tmp_path / "out%03d.png", DecodeOptions(device="cpu", overwrite=True, size="coded"), SilentListener())
    with open_frames(tmp_path / "out%03d.png") as reader:
        return np.stack(list(reader))


@pytest.mark.parametrize("source", ["steered", "vector"])
@pytest.mark.parametrize("target_bytes", [430, 900, 2000])
def test_the_target_is_hit_from_below_and_the_rest_is_kept(home, tmp_path, source, target_bytes):
    before = read_vov(home / f"{source}.vov")
    report, after = scaled(home, tmp_path, source, target_bytes=target_bytes)
    assert 0.98 * target_bytes <= report.size_bytes <= target_bytes
    assert [s.vector for s in after.segments] == [s.vector for s in before.segments]
    assert all(s.vector is not None and s.atoms is not None and s.importance is None for s in after.segments)
    assert after.caption == before.caption == "waves"
    assert (after.header.sampler.schedule, after.header.sampler.sampler_id) == ("snr", "eta")
    assert after.header.sampler.seed == before.header.sampler.seed == 5
    assert dataclasses.replace(after.header, sampler=before.header.sampler) == before.header
    assert len(after.segments) == 2, "9 and 3 frames"


@pytest.mark.parametrize("target_bytes", [600, 5000])
def test_every_stage_is_complete_at_its_end_and_not_before(home, tmp_path, target_bytes):
    """However many steps the bytes pay for."""
    encoding, scaling = Stages(), Stages()
    options = EncodeOptions(preset=home / "tiny.yaml", effort=None, target_bytes=target_bytes, device="cpu",
                            resume=False, state_dir=tmp_path / "state")  # fmt: skip
    encode(home / "clip.y4m", tmp_path / "made.vov", options, encoding)
    assert [name for name, _ in encoding.shares] == ["tracing the sampler", "fitting", "steering"] * 2
    scaled(home, tmp_path, listener=scaling, target_bytes=target_bytes)
    assert [name for name, _ in scaling.shares] == ["steering"] * 2
    for name, shares in encoding.shares + scaling.shares:
        assert shares[-1] == 1.0 and (len(shares) == 1 or shares[-2] < 1.0), name


def test_what_it_reports_is_what_a_decoder_shows(home, tmp_path):
    report, after = scaled(home, tmp_path, target_bytes=1500)
    shown = decoded(home, tmp_path / "out.vov", tmp_path)
    assert psnr(picture(), shown) == pytest.approx(report.psnr_db, abs=0.1)
    assert report.n_network_evaluations == sum(
        evaluations_of_steps("pocket", len(s.atoms.counts) + 1, True) for s in after.segments
    )
    assert report.n_frames == N_FRAMES


def test_more_bytes_make_it_better(home, tmp_path):
    reports = [scaled(home, tmp_path, "vector", target_bytes=n, name=f"{n}.vov")[0] for n in (500, 2500)]
    assert reports[1].psnr_db > reports[0].psnr_db + 1.0


def test_scaling_repeats_what_encode_does_without_a_vector(home, tmp_path):
    """Frames, latents, segments and shares are those of encode: the same bytes come out."""
    preset = home / "bare.yaml"
    preset.write_text(PRESET.replace("vector_length: 16", "vector_length: 0"))
    options = EncodeOptions(preset=preset, effort=None, target_bytes=700, device="cpu", state_dir=home / "state")
    encode(home / "clip.y4m", home / "bare.vov", options, SilentListener())
    _, after = scaled(home, tmp_path, "bare", target_bytes=700)
    assert after == read_vov(home / "bare.vov")


def test_without_a_reference_trailing_injections_go(home, tmp_path):
    full = read_vov(scaled_path(home, tmp_path, 2000))
    sizes = []
    for target_bytes in (1500, 900, 400):
        report = scale(tmp_path / "full.vov", None, tmp_path / "less.vov",
                       ScaleOptions(target_bytes=target_bytes, overwrite=True), SilentListener())  # fmt: skip
        less = read_vov(tmp_path / "less.vov")
        assert report.size_bytes <= target_bytes
        assert report.n_network_evaluations == 0 and report.psnr_db is None
        for old, new in zip(full.segments, less.segments, strict=True):
            kept = new.atoms.counts if new.atoms else ()
            assert kept == old.atoms.counts[: len(kept)]
            assert (new.check is None) == (len(kept) < len(old.atoms.counts))
            assert (new.vector, new.caption, new.n_frames) == (old.vector, old.caption, old.n_frames)
        sizes.append(report.size_bytes)
        shown = decoded(home, tmp_path / "less.vov", tmp_path)
        assert shown.shape == (N_FRAMES, HEIGHT, WIDTH, 3)
    assert sizes == sorted(sizes, reverse=True)
    counts = [len(segment.atoms.counts) if segment.atoms else 0 for segment in less.segments]
    assert 0 < max(counts) < 9
    assert max(counts) - min(counts) <= 1


def scaled_path(home, tmp_path, target_bytes) -> Path:
    scaled(home, tmp_path, target_bytes=target_bytes, name="full.vov")
    return tmp_path / "full.vov"


def test_truncating_many_segments_tries_few_lengths(home, tmp_path, monkeypatch):
    stream = read_vov(home / "steered.vov")
    (first,) = stream.segments[:1]
    n_segments = 200
    header = dataclasses.replace(
        stream.header, n_segments=n_segments, n_frames=n_segments * first.n_frames, segment_frames=first.n_frames
    )
    segments = tuple(
        dataclasses.replace(first, index=number, first_frame=number * first.n_frames) for number in range(n_segments)
    )
    many = dataclasses.replace(stream, header=header, segments=segments, layout=())
    sizes = []
    monkeypatch.setattr(truncate, "serialize", lambda each: sizes.append(serialize(each)) or sizes[-1])
    target = int(0.7 * len(serialize(many)))
    left = [len(segment.atoms.counts) for segment in truncate.truncated(many, target).segments]
    assert left == sorted(left, reverse=True) and 1 < len(set(left)) <= 2 and len(sizes) < 20
    assert 0.99 * target < len(serialize(truncate.truncated(many, target))) <= target


def test_truncation_uses_the_first_injections_as_they_were(home, tmp_path):
    """The latents of a shorter file are the estimate that the longer one had at that injection."""
    full = read_vov(scaled_path(home, tmp_path, 1500))
    scale(tmp_path / "full.vov", None, tmp_path / "less.vov", ScaleOptions(target_bytes=800), SilentListener())
    less = read_vov(tmp_path / "less.vov")
    backbone = load_matching_backbone(full.header, device="cpu", force=False)
    adapters = Adapters(backbone)
    n_kept = len(less.segments[0].atoms.counts)
    common = {"n_coded_frames": 9}
    short = regenerate_latents(backbone, less.header, less.segments[0], "waves", adapters, **common)
    preview = regenerate_latents(
        backbone, full.header, full.segments[0], "waves", adapters, n_steps=n_kept + 1, **common
    )
    assert torch.equal(short, preview)


def test_truncation_needs_no_torch(home, tmp_path):
    script = (
        "import sys\n"
        "from vovcodec.cli.app import run\n"
        "code = run(['scale', sys.argv[1], '-o', sys.argv[2], '--bytes', '450', '--json'])\n"
        "print([code, 'torch' in sys.modules], file=sys.stderr)"
    )
    paths = [str(home / "steered.vov"), str(tmp_path / "less.vov")]
    done = subprocess.run([sys.executable, "-c", script, *paths], capture_output=True, text=True, timeout=120)
    assert done.stderr.splitlines()[-1] == "[0, False]"
    assert json.loads(done.stdout)["psnr_db"] is None
    assert Path(paths[1]).stat().st_size <= 450


def test_importance_sampling_round_trip(home, tmp_path):
    notes = Notes()
    options = {"method": "importance", "steps": 12, "candidates": 32, "target_bytes": 330}
    report, after = scaled(home, tmp_path, "vector", **options, listener=notes)
    assert report.size_bytes <= 330
    assert {s.importance.log2_candidates for s in after.segments} == {5}, "bytes are left rather than time taken"
    assert any("12 steps" in line and line.startswith("warning") for line in notes.lines)
    sampler = after.header.sampler
    assert (sampler.schedule, sampler.sampler_id, sampler.n_steps) == ("shift", "eta", 12)
    assert all(s.importance is not None and s.atoms is None and s.vector is not None for s in after.segments)
    assert report.n_network_evaluations == 2 * evaluations_of_steps("pocket", 12, True)
    shown = decoded(home, tmp_path / "out.vov", tmp_path)
    assert psnr(picture(), shown) == pytest.approx(report.psnr_db, abs=0.1)
    checked = inspect(tmp_path / "out.vov", verify=True)["check"]
    assert checked["indices"] == 22 and checked["symbols"] == 32


def test_importance_sampling_has_a_most_of_candidates_unless_more_are_asked_for(home, tmp_path, monkeypatch):
    monkeypatch.setattr("vovcodec.codec.resteer._MOST_LOG2_CANDIDATES", 4)  # 16 candidates are faster than 2^14
    _, after = scaled(home, tmp_path, method="importance", steps=3, target_bytes=330)
    assert {s.importance.log2_candidates for s in after.segments} == {4}
    _, after = scaled(home, tmp_path, method="importance", steps=3, target_bytes=330, candidates=64, name="more.vov")
    assert {s.importance.log2_candidates for s in after.segments} == {6}
    with pytest.raises(UsageError, match="power of two from 2 to 262144, not 48"):
        ScaleOptions(method="importance", candidates=48)
    with pytest.raises(UsageError, match="candidates go with the method importance"):
        ScaleOptions(candidates=64)


def test_importance_sampling_takes_as_many_steps_as_the_bytes_pay_for(home, tmp_path):
    report, after = scaled(home, tmp_path, method="importance", candidates=16, target_bytes=260)
    assert 254 <= report.size_bytes <= 260
    assert after.header.sampler.n_steps > 20
    again, less = scaled(home, tmp_path, method="importance", steps=3, candidates=16, name="fixed.vov")
    assert {s.importance.log2_candidates for s in less.segments} == {4}, "without a target"
    assert again.size_bytes < report.size_bytes


def test_indices_a_decoder_must_refuse():
    stream = three_segments()
    both, _, alone = stream.segments
    assert len(segment_indices(stream.header, alone)) == 4, "5 steps"
    with pytest.raises(FormatError, match="one of them only"):
        segment_indices(stream.header, both)
    for sampler in (SNR_SAMPLER, dataclasses.replace(stream.header.sampler, sampler_id="ode")):
        with pytest.raises(FormatError, match="schedule shift"):
            segment_indices(dataclasses.replace(stream.header, sampler=sampler), alone)
    longer = dataclasses.replace(stream.header, sampler=dataclasses.replace(stream.header.sampler, n_steps=6))
    with pytest.raises(FormatError, match="take 12 bytes"):
        segment_indices(longer, alone)


def test_encode_with_importance_sampling(home, tmp_path, few_candidates):
    path = make(home, "sampled", "importance", 200)
    stream = read_vov(path)
    assert path.stat().st_size <= 200
    assert all(s.importance is not None and s.atoms is None for s in stream.segments)
    assert decoded(home, path, tmp_path).shape == (N_FRAMES, HEIGHT, WIDTH, 3)


def test_info_check_decodes_atoms_without_the_model_loaded(home, monkeypatch, tmp_path):
    stream = read_vov(home / "steered.vov")
    n_atoms = sum(sum(segment.atoms.counts) for segment in stream.segments)
    assert inspect(home / "steered.vov", verify=True)["check"]["atoms"] == n_atoms
    faulty = [dataclasses.replace(s, atoms=dataclasses.replace(s.atoms, words=b"\xff" * 5000)) for s in stream.segments]
    write_vov(tmp_path / "faulty.vov", dataclasses.replace(stream, segments=tuple(faulty)))
    with pytest.raises(FormatError, match="segment 1"):
        inspect(tmp_path / "faulty.vov", verify=True)
    other = dataclasses.replace(stream, header=dataclasses.replace(stream.header, fingerprint=bytes(4)))
    write_vov(tmp_path / "other.vov", other)
    assert "not at hand" in inspect(tmp_path / "other.vov", verify=True)["check"]["atoms"]


@pytest.mark.parametrize(
    ("frames", "rate", "message"),
    [
        (picture(8), 25, "only 8 frames, the file 12"),
        (picture(12, 64, 32), 25, "the reference is 64x32, the file was made from 48x32"),
        (picture(5), 12, "only 10 frames, the file 12"),
    ],
    ids=["short", "size", "rate"],
)
def test_a_reference_that_cannot_be_the_original(home, tmp_path, frames, rate, message):
    write_clip(tmp_path / "other.y4m", frames, rate)
    with pytest.raises(MediaError, match=message):
        scale(home / "steered.vov", tmp_path / "other.y4m", tmp_path / "out.vov",
              ScaleOptions(target_bytes=900, device="cpu"), SilentListener())  # fmt: skip
    assert not (tmp_path / "out.vov").exists()


def test_a_still_is_no_reference_for_a_clip(home, tmp_path):
    write_clip(tmp_path / "still.png", picture(1), 0)
    with pytest.raises(MediaError, match=r"the file holds a video, the reference .* is a still"):
        scale(home / "steered.vov", tmp_path / "still.png", tmp_path / "out.vov",
              ScaleOptions(target_bytes=900, device="cpu"), SilentListener())  # fmt: skip


def test_another_frame_rate_is_resampled_as_encode_does_it(home, tmp_path):
    write_clip(tmp_path / "fast.y4m", picture(24), 50)
    header = read_vov(home / "steered.vov").header
    notes = Notes()
    with FrameSpool(header.coded_width, header.coded_height) as spool:
        read_reference(tmp_path / "fast.y4m", header, spool, notes)
        got = spool.read(0, spool.n_frames)
    with open_frames(tmp_path / "fast.y4m", frame_rate=Fraction(25)) as reader:
        wanted = np.stack(list(reader))
    assert np.array_equal(got, wanted)
    assert "50 frames per second, the file 25" in notes.lines[0]


def test_an_unlike_reference_is_warned_of(home, tmp_path):
    bright = np.full((N_FRAMES, HEIGHT, WIDTH, 3), 250, dtype=np.uint8)
    write_clip(tmp_path / "bright.y4m", bright)
    notes = Notes()
    scale(home / "steered.vov", tmp_path / "bright.y4m", tmp_path / "out.vov",
          ScaleOptions(target_bytes=500, device="cpu"), notes)  # fmt: skip
    assert any("does not look like" in line for line in notes.lines)


def test_refusals(home, tmp_path):
    def attempt(reference=None, source="steered", **options):
        from_file = None if reference is None else home / reference
        options = ScaleOptions(device="cpu", **options)
        scale(home / f"{source}.vov", from_file, tmp_path / "out.vov", options, SilentListener())

    with pytest.raises(UsageError, match="already"):
        attempt(target_bytes=100_000)
    with pytest.raises(UsageError, match="no atoms"):
        attempt(source="vector", target_bytes=100)
    with pytest.raises(UsageError, match="without any steering the file still has"):
        attempt(target_bytes=60)
    with pytest.raises(UsageError, match="--bytes"):
        attempt()
    with pytest.raises(UsageError, match="too few"):
        attempt("clip.y4m", target_bytes=100)
    with pytest.raises(UsageError, match="too few for 1000 steps"):
        attempt("clip.y4m", target_bytes=300, method="importance", steps=1000)
    with pytest.raises(UsageError, match="the bytes decide"):
        attempt("clip.y4m", steps=8)
    assert not (tmp_path / "out.vov").exists()
    (tmp_path / "out.vov").write_bytes(b"precious")
    with pytest.raises(OutputExistsError):
        attempt("clip.y4m", target_bytes=900)
    assert (tmp_path / "out.vov").read_bytes() == b"precious"


def test_another_model_is_refused_unless_forced(home, tmp_path, monkeypatch):
    save_tiny_pocket(tmp_path / "models" / "pocket", seed=1)
    monkeypatch.setenv("VOVCODEC_MODELS", str(tmp_path / "models"))
    with pytest.raises(ModelError, match="--force"):
        scaled(home, tmp_path, target_bytes=600)
    with pytest.raises(ModelError, match="is not the one here"):
        scaled(home, tmp_path, reference=None, target_bytes=400)
    _, after = scaled(home, tmp_path, target_bytes=600, force=True)
    # What is steered now belongs to the model at hand, and decodes with it without force.
    assert after.header.fingerprint != read_vov(home / "steered.vov").header.fingerprint
    assert decoded(home, tmp_path / "out.vov", tmp_path).shape[0] == N_FRAMES


def test_the_container_counts_positions_as_steering_does():
    for codebook, name in (("hadamard", "hadamard"), ("cyclic", "cyclic-shift")):
        for active_channels in (0, 3, 99):
            for shape in ((1, 5, 3, 4, 6), (1, 1, 1, 1, 1), (1, 8, 1, 4, 4)):
                plan = SteeringPlan(0, 40, 64, codebook=codebook, active_channels=active_channels)
                atoms = CodedAtoms(codebook=name, counts=(1,), active_channels=active_channels, words=b"")
                assert atoms.n_positions(shape) == plan.n_positions(shape)


def test_the_preset_is_found_by_its_digest():
    header = read_vov(Path(__file__).parent / "golden" / "v0.12-steering.vov").header
    medium = resolve(load_preset("pocket"), {}, "medium")
    found = preset_of_header(dataclasses.replace(header, preset_digest=preset_digest(medium)))
    assert found.steering == medium.steering and found.name == "pocket"
    assert preset_of_header(header).backbone.id == "pocket"

"""`edit` end to end on a tiny model of the real classes: what changes, what is kept, what is shown, what is refused."""

from __future__ import annotations

import dataclasses
import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_clips import HEIGHT, N_FRAMES, WIDTH, Notes, picture, write_clip
from tiny_models import save_tiny_pocket

from vovcodec.backbone.geometry import evaluations_of_steps
from vovcodec.codec.decode import decode
from vovcodec.codec.edit import edit
from vovcodec.codec.encode import encode
from vovcodec.codec.inspect import inspect
from vovcodec.codec.options import DecodeOptions, EditOptions, EncodeOptions, ScaleOptions
from vovcodec.codec.regenerate import Adapters, load_matching_backbone, regenerate_latents, segment_indices
from vovcodec.codec.reports import DecodeReport
from vovcodec.codec.scale import scale
from vovcodec.container import VovFile, read_vov, write_vov
from vovcodec.errors import FormatError, MediaError, ModelError, OutputExistsError, UsageError
from vovcodec.media import open_frames
from vovcodec.progress import SilentListener

PRESET = """
backbone: {id: pocket}
geometry: {short_side: 32, multiple: 16, segment_frames: 9, scene_frames: 9}
adaptation: {vector_length: 16}
sampler: {steps: 4, shift: 2.0, seed: 5}
steering: {method: atoms, snr_start: 0.01, snr_ratio: 2.5, scene: false}
fitting: {stage1: {steps: 2}, stage2: {steps: 2, warmup_steps: 1}}
rate: {bytes: 500}
efforts:
  other: {adaptation: {vector_length: 24, rank: 2, projection: offset-philox, targets: qkv}, sampler: {seed: 6}}
  atoms: {adaptation: {vector_length: 0}}
  plain: {steering: {method: none}}
  sampled: {adaptation: {vector_length: 0}, steering: {method: importance}}
"""
# How many injections a full grid has with these settings; all of them are evaluated, and the last estimate.
FULL = 15


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with the tiny model, a clip of 9 and 3 frames, and one file of each kind made from it."""
    folder = tmp_path_factory.mktemp("edit")
    save_tiny_pocket(folder / "pocket")
    (folder / "tiny.yaml").write_text(PRESET)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VOVCODEC_MODELS", str(folder))
        patch.setattr("vovcodec.codec.importance.MOST_LOG2_CANDIDATES", 5)
        write_clip(folder / "clip.y4m", picture())
        write_clip(folder / "still.png", picture(1), 0)
        for name, effort, caption in (
            ("steered", None, "waves"),
            ("other", "other", "a dog"),
            ("atoms", "atoms", "waves"),
            ("plain", "plain", "waves"),
            ("sampled", "sampled", "waves"),
        ):
            options = EncodeOptions(preset=folder / "tiny.yaml", effort=effort, caption=caption, target_bytes=500,
                                    device="cpu", resume=False, state_dir=folder / "state")  # fmt: skip
            encode(folder / "clip.y4m", folder / f"{name}.vov", options, SilentListener())
        encode(folder / "still.png", folder / "still.vov", options, SilentListener())
    return folder


@pytest.fixture(autouse=True)
def model(monkeypatch, home):
    monkeypatch.setenv("VOVCODEC_MODELS", str(home))


def edited(home, tmp_path, source="steered", name="out.vov", listener=None, **options) -> VovFile:
    path = home / f"{source}.vov" if isinstance(source, str) else source
    report = edit(path, tmp_path / name, EditOptions(overwrite=True, **options), listener)
    assert report.size_bytes == (tmp_path / name).stat().st_size == sum(report.sections.values())
    inspect(tmp_path / name, verify=True)
    return read_vov(tmp_path / name)


def frames_of(path: Path) -> np.ndarray:
    with open_frames(path) as reader:
        return np.stack(list(reader))


def decoded(path: Path, tmp_path) -> np.ndarray:
    decode(path, tmp_path / "out.y4m", DecodeOptions(device="cpu", overwrite=True), SilentListener())
    return frames_of(tmp_path / "out.y4m")


def captions(stream: VovFile) -> list[str]:
    return [stream.caption_of(segment) for segment in stream.segments]


def strengths(stream: VovFile) -> list[list[float]]:
    return [[each.adaptation.strength for each in s.updates(stream.header.adaptation)] for s in stream.segments]


# --- captions ------------------------------------------------------------------------------------------------------


def test_a_new_caption_holds_for_all_segments(home, tmp_path):
    (tmp_path / "words.txt").write_text("a red kite\n")
    before = read_vov(home / "steered.vov")
    for option in ("a red kite", f"@{tmp_path / 'words.txt'}"):
        after = edited(home, tmp_path, caption=option)
        assert captions(after) == ["a red kite"] * 2 and after.caption == "a red kite"
    assert after.header == before.header
    assert [s.vector for s in after.segments] == [s.vector for s in before.segments]
    assert captions(edited(home, tmp_path, caption="none")) == ["", ""]


def test_captions_of_segments_stay_apart(home, tmp_path):
    stream = read_vov(home / "steered.vov")
    own = (stream.segments[0], dataclasses.replace(stream.segments[1], caption="a dog and a dog"))
    write_vov(tmp_path / "own.vov", dataclasses.replace(stream, segments=own))
    substitutions = (("dog", "panda"), ("a panda and", "two pandas,"))
    after = edited(home, tmp_path, tmp_path / "own.vov", replacements=substitutions)
    assert captions(after) == ["waves", "two pandas, a panda"]
    with pytest.raises(UsageError, match="'cat' is not in the caption: 'waves', 'a dog and a dog'"):
        edited(home, tmp_path, tmp_path / "own.vov", replacements=(("cat", "panda"),))


@pytest.mark.parametrize("caption", ["x" * 8193, "\udcff", "auto"])
def test_captions_that_no_file_can_hold(home, tmp_path, caption):
    with pytest.raises(UsageError, match=r"at most 8192 bytes|not UTF-8|no frames to describe"):
        edited(home, tmp_path, caption=caption)
    assert not (tmp_path / "out.vov").exists()


# --- vectors -------------------------------------------------------------------------------------------------------


def layer_changes(stream: VovFile, segment: int) -> list[torch.Tensor]:
    """What every adaptable layer adds to its output for one input, as the decoder has it."""
    backbone = load_matching_backbone(stream.header, device="cpu", force=False)
    layers = [layer for _, layer in backbone.adaptable_linears("qkvo_mlp", 0)]
    inputs = [torch.randn(3, layer.in_features, generator=torch.Generator().manual_seed(i)) for i, layer in
              enumerate(layers)]  # fmt: skip
    with torch.no_grad():
        plain = [layer(x) for layer, x in zip(layers, inputs, strict=True)]
        with Adapters(backbone).velocity(stream.header, stream.segments[segment], ""):
            return [layer(x) - out for layer, x, out in zip(layers, inputs, plain, strict=True)]


@pytest.mark.parametrize(("strength", "weight"), [(None, 1.0), (0.5, -0.75), (1.5, 2.0)])
def test_a_merged_file_changes_the_layers_by_the_sum(home, tmp_path, strength, weight):
    ours, theirs = (read_vov(home / f"{name}.vov") for name in ("steered", "other"))
    both = edited(home, tmp_path, merge=home / "other.vov", merge_weight=weight, strength=strength)
    assert strengths(both) == [[strength or 1.0, weight]] * 2
    assert captions(both) == ["waves, a dog"] * 2
    for segment in (0, 1):
        parts = zip(layer_changes(ours, segment), layer_changes(theirs, segment), strict=True)
        sums = [(strength or 1.0) * a + weight * b for a, b in parts]
        changes = layer_changes(both, segment)
        assert max(float(change.abs().max()) for change in changes) > 5e-4
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(changes, sums, strict=True))
    assert "qkv" in {update.adaptation.targets for update in both.segments[0].merged}


def test_strength_zero_is_the_base_model(home, tmp_path):
    none = edited(home, tmp_path, strength=0.0)
    assert strengths(none) == [[], []] and none.header.adaptation is None
    bare = edited(home, tmp_path, "atoms", name="bare.vov", keep_structure=0.0)
    assert dataclasses.replace(none, history=()) == dataclasses.replace(
        bare, history=(), header=dataclasses.replace(bare.header, preset_digest=none.header.preset_digest)
    )
    assert np.array_equal(decoded(tmp_path / "out.vov", tmp_path), decoded(tmp_path / "bare.vov", tmp_path))


def test_edits_of_edits(home, tmp_path):
    edited(home, tmp_path, name="once.vov", strength=0.5)
    twice = edited(home, tmp_path, tmp_path / "once.vov", strength=0.5)
    at_once = edited(home, tmp_path, name="at_once.vov", strength=0.25)
    assert dataclasses.replace(twice, history=()) == dataclasses.replace(at_once, history=())
    assert twice.history == ({"edit": "strength", "by": 0.5}, {"edit": "strength", "by": 0.5})
    edited(home, tmp_path, merge=home / "other.vov", merge_weight=0.5)
    chain = edited(home, tmp_path, tmp_path / "out.vov", "chain.vov", merge=tmp_path / "once.vov", strength=2.0)
    assert strengths(chain) == [[2.0, 1.0, 0.5]] * 2
    assert captions(chain) == ["waves, a dog, waves"] * 2
    assert [entry["edit"] for entry in chain.history] == ["merge", "strength", "merge"]
    halved = edited(home, tmp_path, tmp_path / "chain.vov", strength=0.004)
    assert strengths(halved) == [[2 / 256, 1 / 256, 1 / 256]] * 2, "to the nearest of what a file holds"


def test_vectors_are_bounded(home, tmp_path):
    source = home / "steered.vov"
    for number in range(4):  # 2, 4, 8, 16 vectors
        edited(home, tmp_path, source, name=f"{number}.vov", merge=source, caption="many")
        source = tmp_path / f"{number}.vov"
    assert len(strengths(read_vov(source))[0]) == 16
    with pytest.raises(UsageError, match="32 vectors in one file are too many, at most 15 are merged"):
        edited(home, tmp_path, source, merge=source)
    assert decoded(source, tmp_path).shape == (N_FRAMES, HEIGHT, WIDTH, 3)


def test_files_without_vectors_can_be_merged(home, tmp_path):
    notes = Notes()
    after = edited(home, tmp_path, merge=home / "atoms.vov", listener=notes)
    assert strengths(after) == [[1.0]] * 2 and captions(after) == ["waves"] * 2
    assert "atoms.vov has no vector (vov encode --split 10:90): it can lend its caption only" in notes.lines
    assert any(line.startswith("nothing changes") for line in notes.lines)
    edited(home, tmp_path, "atoms", caption="a lake", name="lake.vov")
    after = edited(home, tmp_path, merge=tmp_path / "lake.vov", listener=notes)
    assert captions(after) == ["waves, a lake"] * 2
    assert "lake.vov has no vector (vov encode --split 10:90): it can lend its caption only" in notes.lines
    turned = edited(home, tmp_path, "atoms", merge=home / "other.vov")
    assert strengths(turned) == [[1.0]] * 2 and turned.header.adaptation is None
    with pytest.raises(UsageError, match="no vector whose strength"):
        edited(home, tmp_path, "atoms", strength=0.5)


@pytest.mark.parametrize("change", [{"caption": "waves"}, {"strength": 1.0}, {"frame_rate": Fraction(25)}])
def test_edits_that_change_nothing_keep_the_steering(home, tmp_path, change):
    before = read_vov(home / "steered.vov")
    if "frame_rate" in change:
        change = {"frame_rate": Fraction(before.header.frame_rate_num, before.header.frame_rate_den)}
    notes = Notes()
    after = edited(home, tmp_path, "steered", listener=notes, **change)
    assert after.segments == before.segments and after.header == before.header and after.extras == before.extras
    assert notes.lines == ["nothing changes: the file already is as it is wanted"]


def test_a_shorter_file_lends_its_last_vector(home, tmp_path):
    edited(home, tmp_path, "other", name="short.vov", n_frames=5)
    after = edited(home, tmp_path, merge=tmp_path / "short.vov")
    lent = read_vov(tmp_path / "short.vov").segments[0].vector
    assert [segment.merged[0].vector for segment in after.segments] == [lent, lent]


@pytest.mark.parametrize("factor", [200.0, -1000.0])
def test_strengths_beyond_what_a_file_holds(home, tmp_path, factor):
    with pytest.raises(UsageError, match="outside of -128"):
        edited(home, tmp_path, strength=factor)
    with pytest.raises(UsageError, match="outside of -128"):
        edited(home, tmp_path, merge=home / "other.vov", merge_weight=factor)


def test_another_model_cannot_be_merged(home, tmp_path):
    other = read_vov(home / "other.vov")
    write_vov(tmp_path / "foreign.vov", dataclasses.replace(other, header=dataclasses.replace(
        other.header, fingerprint=bytes(4))))  # fmt: skip
    mine = other.header.fingerprint.hex()
    with pytest.raises(ModelError, match=rf"made for pocket {mine}, foreign\.vov for pocket 00000000"):
        edited(home, tmp_path, merge=tmp_path / "foreign.vov")


# --- steering ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [None, 0.0, 0.25, 0.5, 1.0])
def test_the_first_steps_are_kept_and_the_rest_is_generated(home, tmp_path, share):
    before, notes = read_vov(home / "steered.vov"), Notes()
    after = edited(home, tmp_path, caption="a dog", keep_structure=share, listener=notes)
    for old, new in zip(before.segments, after.segments, strict=True):
        n_kept = int((share or 0) * len(old.atoms.counts) + 0.5)
        assert (new.atoms.counts if new.atoms else ()) == old.atoms.counts[:n_kept]
        assert new.generation.n_injections == FULL and new.check is None
        if new.atoms:
            assert new.atoms.last_q == (old.atoms.last_q if share == 1 else 16)
    if share is None:
        assert any("steering towards the original" in line and "--keep-structure" in line for line in notes.lines)
    else:
        assert not notes.lines
    shown = decode(tmp_path / "out.vov", tmp_path / "out.y4m", DecodeOptions(device="cpu"), SilentListener())
    assert shown.n_network_evaluations == 2 * evaluations_of_steps("pocket", FULL + 1, True)


def latents(stream: VovFile, n_evaluations: int | None = None) -> torch.Tensor:
    backbone = load_matching_backbone(stream.header, device="cpu", force=False)
    segment = stream.segments[0]
    return regenerate_latents(backbone, stream.header, segment, stream.caption_of(segment), Adapters(backbone),
                              n_coded_frames=9, n_steps=n_evaluations)  # fmt: skip


def test_kept_steps_are_those_of_the_original(home, tmp_path):
    before = read_vov(home / "steered.vov")
    after = edited(home, tmp_path, keep_structure=0.5)
    n_kept = len(after.segments[0].atoms.counts)
    assert 1 < n_kept < len(before.segments[0].atoms.counts)
    assert torch.equal(latents(after, n_kept + 1), latents(before, n_kept + 1))
    rest, stopped = latents(after), latents(after, n_kept + 1)
    assert not torch.allclose(rest, stopped, atol=1e-2), "the sampler goes on"
    again = edited(home, tmp_path, tmp_path / "out.vov", name="again.vov", keep_structure=1.0)
    assert torch.equal(latents(again), rest)


def test_a_file_without_a_vector_keeps_structure_too(home, tmp_path):
    after = edited(home, tmp_path, "atoms", caption="a dog", keep_structure=0.5)
    assert all(segment.atoms and segment.generation for segment in after.segments)
    notes = Notes()
    bare = edited(home, tmp_path, "atoms", caption="a dog", listener=notes)
    assert all(s.atoms is s.vector is None and s.generation for s in bare.segments)
    assert any("from the caption alone" in line for line in notes.lines)
    assert decoded(tmp_path / "out.vov", tmp_path).std() > 5
    notes = Notes()
    edited(home, tmp_path, "plain", caption="a dog", keep_structure=0.5, listener=notes)
    assert notes.lines == ["the file has no steering that could be kept"]


def test_files_on_a_shifted_grid_are_generated_as_they_are(home, tmp_path):
    before, after = read_vov(home / "plain.vov"), edited(home, tmp_path, "plain", caption="a dog")
    assert after.header.sampler == before.header.sampler
    assert all(segment.generation is None for segment in after.segments)
    assert decoded(tmp_path / "out.vov", tmp_path).shape == (N_FRAMES, HEIGHT, WIDTH, 3)


def test_importance_sampling_goes_on_with_random_candidates(home, tmp_path):
    before = read_vov(home / "sampled.vov")
    after = edited(home, tmp_path, "sampled", caption="a dog", keep_structure=0.5)
    for old, new in zip(before.segments, after.segments, strict=True):
        was, now = segment_indices(before.header, old), segment_indices(after.header, new)
        assert now == [*was[:2], 0], "2 of 3 steps: a half is rounded up"
    none = edited(home, tmp_path, "sampled", caption="a dog")
    assert all(segment.importance is None for segment in none.segments)
    assert decoded(tmp_path / "out.vov", tmp_path).shape == (N_FRAMES, HEIGHT, WIDTH, 3)


# --- size, frames, rate --------------------------------------------------------------------------------------------


def test_another_rate_keeps_everything(home, tmp_path):
    before, notes = read_vov(home / "steered.vov"), Notes()
    after = edited(home, tmp_path, frame_rate=Fraction(30000, 1001), listener=notes)
    assert after.segments == before.segments and not notes.lines
    assert (after.header.frame_rate_num, after.header.frame_rate_den) == (30000, 1001)
    assert after.history == ({"edit": "fps", "to": "30000/1001"},)


def test_another_size_is_generated_anew(home, tmp_path):
    notes = Notes()
    after = edited(home, tmp_path, size=(64, 48), listener=notes)
    assert all(s.atoms is None and s.generation and s.vector for s in after.segments)
    assert any("another size" in line for line in notes.lines)
    assert decoded(tmp_path / "out.vov", tmp_path).shape == (N_FRAMES, 48, 64, 3)
    for options in ({"size": (64, 48)}, {"n_frames": 5}):
        with pytest.raises(UsageError, match="leave out --keep-structure"):
            edited(home, tmp_path, keep_structure=0.5, **options)
    with pytest.raises(UsageError, match=r"multiples of 16, up to 8192; 65x56 is not one, the nearest is 64x64"):
        edited(home, tmp_path, size=(65, 56))
    with pytest.raises(UsageError, match="the nearest is 8192x32"):
        edited(home, tmp_path, size=(8208, 32))


@pytest.mark.parametrize(
    ("n_frames", "lengths", "steered", "checked"),
    [
        (11, [9, 2], [True, True], [True, False]),  # still 5 coded frames in the last
        (10, [9, 1], [True, False], [True, False]),
        (9, [9], [True], [True]),
        (4, [4], [False], [False]),
        (30, [9, 21], [True, False], [True, False]),
        (138, [9, 129], [True, False], [True, False]),
    ],
)
def test_other_numbers_of_frames(home, tmp_path, n_frames, lengths, steered, checked):
    after = edited(home, tmp_path, n_frames=n_frames)
    assert [segment.n_frames for segment in after.segments] == lengths
    assert after.header.n_frames == sum(lengths) and after.header.n_segments == len(lengths)
    assert [segment.atoms is not None for segment in after.segments] == steered
    assert [segment.generation is None for segment in after.segments] == steered
    assert [segment.check is not None for segment in after.segments] == checked
    if n_frames == 30:
        assert len(decoded(tmp_path / "out.vov", tmp_path)) == 30


def test_more_frames_than_the_model_makes(home, tmp_path):
    with pytest.raises(UsageError, match="139 frames are too many: pocket makes at most 129 at once, this file 138"):
        edited(home, tmp_path, n_frames=139)


def test_a_still_becomes_a_clip(home, tmp_path):
    with pytest.raises(UsageError, match="--frames and --fps together"):
        edited(home, tmp_path, "still", n_frames=5)
    after = edited(home, tmp_path, "still", n_frames=5, frame_rate=Fraction(10))
    assert (after.header.n_frames, after.header.segment_frames) == (5, 5)
    assert decoded(tmp_path / "out.vov", tmp_path).shape == (5, HEIGHT, WIDTH, 3)


# --- outputs -------------------------------------------------------------------------------------------------------


def test_media_show_what_the_file_would(home, tmp_path):
    settings = {"caption": "a dog", "keep_structure": 0.5, "strength": 0.5}
    report = edit(home / "steered.vov", tmp_path / "now.y4m", EditOptions(device="cpu", **settings))
    assert isinstance(report, DecodeReport)
    assert report.n_network_evaluations == 2 * evaluations_of_steps("pocket", FULL + 1, True)
    edited(home, tmp_path, **settings)
    assert np.array_equal(frames_of(tmp_path / "now.y4m"), decoded(tmp_path / "out.vov", tmp_path))
    preview = edit(home / "steered.vov", tmp_path / "preview.y4m", EditOptions(device="cpu", steps=3, **settings))
    assert preview.n_network_evaluations == 2 * evaluations_of_steps("pocket", 3, True)
    with pytest.raises(UsageError, match="go with a video or an image"):
        edit(home / "steered.vov", tmp_path / "x.vov", EditOptions(steps=3, caption="a dog"))


def test_an_edited_file_can_be_scaled(home, tmp_path):
    stream = edited(home, tmp_path, merge=home / "other.vov", keep_structure=1.0)
    size = (tmp_path / "out.vov").stat().st_size
    scale(tmp_path / "out.vov", None, tmp_path / "less.vov", ScaleOptions(target_bytes=size - 60), SilentListener())
    less = read_vov(tmp_path / "less.vov")
    assert [s.merged for s in less.segments] == [s.merged for s in stream.segments]
    assert [s.generation for s in less.segments] == [s.generation for s in stream.segments]
    assert decoded(tmp_path / "less.vov", tmp_path).shape == (N_FRAMES, HEIGHT, WIDTH, 3)
    options = ScaleOptions(target_bytes=800, device="cpu")
    report = scale(tmp_path / "out.vov", home / "clip.y4m", tmp_path / "anew.vov", options, SilentListener())
    anew = read_vov(tmp_path / "anew.vov")
    assert report.size_bytes <= 800
    assert [s.merged for s in anew.segments] == [s.merged for s in stream.segments] and anew.history == stream.history
    assert all(s.generation is None and s.atoms for s in anew.segments), "steering says where to stop"
    assert decode(tmp_path / "anew.vov", tmp_path / "v.y4m", DecodeOptions(device="cpu", verify=True)).drift_db > 40


def test_the_history_keeps_the_latest(home, tmp_path):
    stream = read_vov(home / "steered.vov")
    long = tuple({"edit": "caption", "to": f"{i}" + "x" * 8000} for i in range(8))
    write_vov(tmp_path / "long.vov", dataclasses.replace(stream, history=long))
    after = edited(home, tmp_path, tmp_path / "long.vov", caption="y" * 8000)
    assert after.history == (*long[1:], {"edit": "caption", "to": "y" * 8000})


def test_faulty_inputs(home, tmp_path):
    (tmp_path / "text.vov").write_text("this is not it")
    with pytest.raises(FormatError, match=r"not a \.vov file"):
        edited(home, tmp_path, tmp_path / "text.vov", caption="x")
    with pytest.raises(FormatError, match=r"not a \.vov file"):
        edited(home, tmp_path, merge=tmp_path / "text.vov")
    with pytest.raises(MediaError, match="No such file"):
        edited(home, tmp_path, merge=tmp_path / "missing.vov")
    (tmp_path / "there.vov").write_bytes(b"precious")
    with pytest.raises(OutputExistsError):
        edit(home / "steered.vov", tmp_path / "there.vov", EditOptions(caption="x"))
    assert (tmp_path / "there.vov").read_bytes() == b"precious"


def test_another_embedded_model_is_not_needed_for_captions(home, tmp_path, monkeypatch):
    save_tiny_pocket(tmp_path / "models" / "pocket", seed=1)
    monkeypatch.setenv("VOVCODEC_MODELS", str(tmp_path / "models"))
    edited(home, tmp_path, caption="a dog", strength=0.5)
    for options in ({"size": (64, 48)}, {"n_frames": 9}, {"keep_structure": 0.5}):
        with pytest.raises(ModelError, match="is not the one here"):
            edited(home, tmp_path, **options)


def test_editing_a_file_needs_no_torch(home, tmp_path):
    script = (
        "import sys\n"
        "from vovcodec.cli.app import run\n"
        "code = run(['edit', *sys.argv[1:]])\n"
        "print([code, 'torch' in sys.modules], file=sys.stderr)"
    )
    arguments = [str(home / "steered.vov"), "-o", str(tmp_path / "out.vov"), "--merge", f"{home / 'other.vov'}:0.5",
                 "--keep-structure", "0.5", "--fps", "30"]  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120)
    assert done.stderr.splitlines()[-1] == "[0, False]"
    assert "2" in done.stdout and strengths(read_vov(tmp_path / "out.vov")) == [[1.0, 0.5]] * 2


def test_guidance_exaggerates_the_caption_at_twice_the_evaluations(home, tmp_path, model):
    """v(empty) + g·(v(caption) − v(empty)): 1 is the plain picture, and what it changes grows with g."""
    shown = {}
    for guidance in (1.0, 0.0, 5.0, 50.0):
        path = tmp_path / f"{guidance}.y4m"
        options = EditOptions(device="cpu", caption="a dog", keep_structure=0.5, guidance=guidance)
        report = edit(home / "steered.vov", path, options)
        n_plain = shown.setdefault("n", report.n_network_evaluations)
        assert report.n_network_evaluations == (n_plain if guidance == 1 else 2 * n_plain)
        shown[guidance] = frames_of(path).astype(float)
    distance = [np.abs(shown[g] - shown[1.0]).mean() for g in (5.0, 50.0)]
    assert 0 < distance[0] < distance[1]
    empty = EditOptions(device="cpu", caption="none", keep_structure=0.5)
    edit(home / "steered.vov", tmp_path / "empty.y4m", empty)
    assert np.abs(frames_of(tmp_path / "empty.y4m") - shown[0.0]).max() <= 1
    with pytest.raises(UsageError, match="guidance and container go with"):
        edit(home / "steered.vov", tmp_path / "x.vov", EditOptions(caption="a dog", guidance=3))


def test_guidance_without_a_caption_says_so(home, tmp_path):
    edit(home / "steered.vov", tmp_path / "bare.vov", EditOptions(caption="none", keep_structure=1.0))
    notes = Notes()
    report = decode(tmp_path / "bare.vov", tmp_path / "out.y4m", DecodeOptions(device="cpu", guidance=4), notes)
    plain = decode(tmp_path / "bare.vov", tmp_path / "plain.y4m", DecodeOptions(device="cpu"), SilentListener())
    assert any("no caption" in note for note in notes.lines)
    assert report.n_network_evaluations == plain.n_network_evaluations
    for wrong in ({"guidance": -1.0}, {"guidance": math.nan}, {"guidance": 2.0, "verify": True}):
        with pytest.raises(UsageError, match="guidance"):
            DecodeOptions(**wrong)

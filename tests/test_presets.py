"""Presets: every shipped file is valid, every slip is reported with what was meant, precedence holds."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vovcodec.codec.plans import sampler_of_preset
from vovcodec.errors import UsageError
from vovcodec.presets import Preset, PresetError, list_presets, load_preset, preset_digest, resolve

MINIMAL = "backbone: {id: pocket}\n"


@pytest.fixture
def preset_file(tmp_path):
    def write(text: str) -> Path:
        path = tmp_path / "mine.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def problems_of(path: Path) -> list[str]:
    with pytest.raises(PresetError) as caught:
        load_preset(path)
    return caught.value.problems


def test_the_default_preset_is_shipped():
    assert "pocket" in list_presets()


@pytest.mark.parametrize("name", list_presets())
def test_every_shipped_preset_and_effort_resolves(name):
    preset = load_preset(name)
    assert preset.description and len(preset.description) < 80
    assert {"instant", "fast", "medium", "slow", "paper"} <= set(preset.efforts)
    digests = {preset_digest(resolve(preset, {}, effort)) for effort in preset.efforts}
    assert len(digests) == len(preset.efforts), "two efforts have the same settings"
    for effort in preset.efforts:
        resolved = resolve(preset, {}, effort)
        assert resolved.efforts == {}
        assert resolved.geometry.segment_frames % 4 == 1
        if effort not in ("instant", "paper"):
            assert resolved.adaptation.vector_length > 0, "from `fast` upward a file always carries a vector"


@pytest.mark.parametrize("name", list_presets())
def test_the_paper_effort_is_the_published_recipe(name):
    paper = resolve(load_preset(name), {}, "paper")
    assert paper.fitting.objective == "reference"
    published = {
        "qwen-image": (65536, 4, "qkvo"),
        "pocket": (5120, 1, "qkvo"),  # as many factor entries per vector entry as Wan's 737,280 for 131,072
    }.get(paper.backbone.id, (131072, 1, "qkvo"))
    assert (paper.adaptation.vector_length, paper.adaptation.rank, paper.adaptation.targets) == published
    assert paper.steering.method == "none"
    assert (paper.fitting.stage1.lr, paper.fitting.stage2.lr) == (2e-3, 1.5e-3)


@pytest.mark.parametrize(
    ("name", "vector_length", "rank", "short_side", "segment_frames", "steps", "batch", "script"),
    [
        # steps: of the two stages; script: those of effort slow, with a batch of 4.
        ("paper-video", 131072, 1, 480, 81, (1000, 1000), 64, (2000, 2000)),
        ("paper-image", 65536, 4, 512, 1, (5000, 1000), 32, (5000, 1000)),
    ],
)
def test_the_paper_presets_have_the_published_settings(
    name, vector_length, rank, short_side, segment_frames, steps, batch, script
):
    preset = load_preset(name)
    paper, slow = (resolve(preset, {}, effort) for effort in ("paper", "slow"))
    for each, n_steps, size in ((paper, steps, batch), (slow, script, 4)):
        fitting, adaptation, sampler = each.fitting, each.adaptation, each.sampler
        assert (fitting.stage1.steps, fitting.stage2.steps, fitting.batch) == (*n_steps, size)
        assert (fitting.stage1.lr, fitting.stage2.lr) == (2e-3, 1.5e-3)
        assert fitting.stage1.weight_decay == fitting.stage2.weight_decay == 1e-4
        assert fitting.stage2.warmup_steps == 500 and 3e-3 <= fitting.stage2.lambda_ <= 6e-3
        assert each.rate.lambda_ == fitting.stage2.lambda_ and fitting.objective == "reference"
        assert (adaptation.vector_length, adaptation.rank, adaptation.targets) == (vector_length, rank, "qkvo")
        assert (adaptation.projection, adaptation.last_blocks) == ("balanced-philox", None)
        assert 50 <= sampler.steps <= 100 and each.steering.method == "none"
        assert (each.geometry.short_side, each.geometry.segment_frames) == (short_side, segment_frames)
        assert (each.backbone.precision, each.geometry.multiple) == ("bfloat16", 16)


@pytest.mark.parametrize("name", [name for name in list_presets() if name != "pocket"])
@pytest.mark.parametrize("size", [(832, 480), (480, 832), (1280, 720), (768, 512), (1024, 1024)])
def test_the_flow_shift_follows_the_coded_size(name, size):
    paper = resolve(load_preset(name), {}, "paper")
    found = sampler_of_preset(paper, paper.backbone.id, size, is_still=size[0] < size[1]).shift_q8 / 256
    if paper.backbone.id == "qwen-image":
        expected = {(768, 512): 1.76, (1024, 1024): 2.0, (1280, 720): 1.95, (832, 480): 1.76, (480, 832): 1.76}[size]
        assert found == pytest.approx(expected, abs=0.01)
    else:
        assert found == (3.0 if 480 in size or 512 in size else 5.0)
    given = resolve(paper, {"sampler": {"shift": 7.0}})
    assert sampler_of_preset(given, paper.backbone.id, size, is_still=False).shift_q8 == 7 * 256


def test_defaults_fill_what_a_file_leaves_out(preset_file):
    preset = load_preset(preset_file(MINIMAL))
    assert preset == dataclasses.replace(Preset(name="mine", backbone=preset.backbone))


def test_precedence_is_defaults_then_preset_then_effort_then_flags(preset_file):
    own, effort = "sampler: {steps: 10, shift: 2.0, seed: 1}\n", "efforts: {fast: {sampler: {steps: 20, seed: 2}}}\n"
    preset = load_preset(preset_file(MINIMAL + own + effort))
    resolved = resolve(preset, {"sampler": {"seed": 3}}, "fast")
    assert (resolved.sampler.shift, resolved.sampler.steps, resolved.sampler.seed) == (2.0, 20, 3)
    assert resolve(preset, {}).sampler.steps == 10
    assert preset.sampler.seed == 1, "resolve must not change its input"


def test_a_rate_target_replaces_the_one_below_it():
    rate = resolve(load_preset("pocket"), {"rate": {"bpp": 0.01}}).rate
    assert (rate.bytes, rate.bpp, rate.lambda_) == (None, 0.01, None)
    rate = resolve(load_preset("pocket"), {"rate": {"split": [0.5, 0.5]}}).rate
    assert rate.bytes is not None, "a split alone keeps the target"


def test_all_problems_are_reported_at_once(preset_file):
    problems = problems_of(
        preset_file(
            "backbone: {}\n"
            "geometri: {short_side: 128}\n"
            "geometry: {segment_frames: 32, multiple: sixteen}\n"
            "sampler: {stps: 20, shift: .nan, method: odd}\n"
            "adaptation: {rank: 0}\n"
            "steering: {snr_ratoi: 2.0}\n"
            "fitting: {stage2: {lamda: 1.0}}\n"
            "efforts: {fast: {sampler: {steps: true}, fiting: {}}}\n"
        )
    )
    text = "\n".join(problems)
    for expected in (
        "backbone.id: missing",
        "geometri: unknown group; did you mean geometry?",
        "geometry.segment_frames: must be 4n+1",
        "nearest: 33",
        "geometry.multiple: must be a whole number, not 'sixteen'",
        "sampler.stps: unknown key; did you mean steps?",
        "sampler.shift: must be finite",
        "sampler.method: unknown key; did you mean steering.method?",
        "adaptation.rank: must be between 1 and 64, not 0",
        "steering.snr_ratoi: unknown key; did you mean snr_ratio?",
        "fitting.stage2.lamda: unknown key; did you mean lambda?",
        "efforts.fast.sampler.steps: must be a whole number",
        "efforts.fast.fiting: unknown group; did you mean fitting?",
    ):
        assert expected in text
    assert len(problems) == 12


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("steering: {method: atom}\n", "must be one of atoms, importance, none, not 'atom'; did you mean atoms?"),
        ("efforts: {fast: {backbone: {precision: float16}}}\n", "must be one of float32, bfloat16, int8-weights"),
        ("rate: {bytes: 100, bpp: 0.1}\n", "bytes and bpp exclude each other"),
        ("rate: {split: [0.5, 0.5]}\n", "gives steering a share"),
        ("rate: {split: [0.5, 0.6]}\n", "sum to 1"),
        ("rate: {split: 0.5}\n", "must be a list"),
        ("efforts: {fast: {rate: {split: [0.5, 0.5]}}}\n", "efforts.fast: rate.split gives steering a share"),
        ("efforts: 3\n", "efforts: must map"),
        ("efforts: {fast: 3}\n", "efforts.fast: must be a mapping"),
        ("description: 3\n", "description: must be text"),
        ("sampler: 3\n", "sampler: must be a mapping"),
        ("sampler: {steps: null}\n", "must not be empty"),
    ],
)
def test_contradictions_and_wrong_shapes(preset_file, text, expected):
    assert expected in "\n".join(problems_of(preset_file(MINIMAL + text)))


@pytest.mark.parametrize(
    "text",
    [
        "backbone: !!python/object/apply:os.system ['echo no']\n",
        "backbone: !!python/name:os.system {}\n",
        "backbone: &a {id: pocket}\nsampler: *a\n",
        "backbone: {id: pocket, id: wan}\n",
        "backbone: {id: pocket\n",
        "? [a, b]\n: 3\n",
        "[" * 20000,
        "sampler: {seed: " + "9" * 6000 + "}\n",
        "\x00",
        "",
        "- a\n",
        "backbone: {id: 2001-99-99}\n",
    ],
)
def test_hostile_yaml_is_a_preset_error(preset_file, text):
    assert problems_of(preset_file(text))


def test_exponents_without_a_dot_are_numbers(preset_file):
    assert load_preset(preset_file(MINIMAL + "fitting: {stage1: {lr: 2e-3}}")).fitting.stage1.lr == 2e-3


def test_missing_presets_and_efforts_name_the_nearest(tmp_path):
    with pytest.raises(UsageError, match="did you mean pocket"):
        load_preset("pockt")
    with pytest.raises(UsageError, match="cannot read preset"):
        load_preset(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="did you mean fast"):
        resolve(load_preset("pocket"), {}, "fsat")


def test_wrong_overrides_are_reported():
    with pytest.raises(PresetError, match="did you mean seed"):
        resolve(load_preset("pocket"), {"sampler": {"sed": 1}})


def test_the_digest_names_the_settings_and_nothing_else(preset_file):
    base = load_preset(preset_file(MINIMAL))
    digest = preset_digest(base)
    assert len(digest) == 2
    assert preset_digest(load_preset(preset_file(MINIMAL + "description: other\nsampler: {shift: 1}\n"))) == digest
    assert preset_digest(load_preset(preset_file("backbone: {id: pocket, path: /elsewhere}"))) == digest
    assert preset_digest(load_preset(preset_file(MINIMAL + "sampler: {shift: 1.5}\n"))) != digest


@pytest.fixture(scope="module")
def any_file(tmp_path_factory):
    return tmp_path_factory.mktemp("preset") / "any.yaml"


@given(st.text(max_size=200))
def test_any_text_is_valid_or_a_usage_error(any_file, text):
    any_file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with contextlib.suppress(UsageError):
        assert isinstance(load_preset(any_file), Preset)


def test_an_effort_has_a_name(preset_file):
    with pytest.raises(PresetError, match="name of an effort must be text"):
        load_preset(preset_file(MINIMAL + "efforts: {~: {}, fast: {}}\n"))

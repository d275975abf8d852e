"""Pre-training on a tiny corpus made on the fly: every stage, resumed runs, the exported model."""

from __future__ import annotations

import copy
import functools
import json
import shutil
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from vovcodec.backbone.pocket import block_transform
from vovcodec.backbone.pocket.backbone import PocketBackbone
from vovcodec.backbone.pocket.block_transform import BlockTransformAutoencoder
from vovcodec.backbone.pocket.clips import ClipNetwork
from vovcodec.backbone.pocket.detail import CompletedTransformer, DetailNetwork
from vovcodec.backbone.pocket.pictures import PictureNetwork
from vovcodec.backbone.pocket.precondition import precondition
from vovcodec.errors import MediaError, UsageError
from vovcodec.pretraining import autoencoder as autoencoder_module
from vovcodec.pretraining import captioning as captioning_module
from vovcodec.pretraining import completion as completion_module
from vovcodec.pretraining import detail as detail_module
from vovcodec.pretraining import joint as joint_module
from vovcodec.pretraining import shown as shown_module
from vovcodec.pretraining import spaces as spaces_module
from vovcodec.pretraining import transformer as transformer_module
from vovcodec.pretraining.autoencoder import fit_basis, reconstruction_psnr
from vovcodec.pretraining.batches import SHAPES, BatchShape, draw_batch
from vovcodec.pretraining.card import model_card
from vovcodec.pretraining.colour_words import colour_words, with_colours
from vovcodec.pretraining.completion import train_completion, trained_completion
from vovcodec.pretraining.corpus import Corpus, load_corpus
from vovcodec.pretraining.detail import train_detail
from vovcodec.pretraining.export import export_model
from vovcodec.pretraining.main import main
from vovcodec.pretraining.spaces import CLIPS, PICTURES, fit_clip_space, fit_picture_space
from vovcodec.pretraining.transformer import (
    TransformerRecipe,
    averaged_networks,
    caption_tokens,
    predict,
    train_transformer,
    validation_loss,
)

FIGURES = {"steps": 1, "hours": 0.1, "held_out_loss_without": 0.2, "held_out_loss": 0.1}
COMPLETING = {PICTURES: FIGURES, CLIPS: FIGURES}
TINY_SHAPES = (BatchShape(1, 32, 32, 1.0), BatchShape(5, 32, 48, 1.0))
RECIPE = TransformerRecipe(
    width=24, heads=2, layers=1, ffn=32, text_width=16, text_layers=1, steps=6, tokens_per_batch=24, warmup=2
)


def photograph(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    return (smooth + rng.integers(-20, 21, smooth.shape)).clip(0, 255).astype(np.uint8)


def write_clip(path: Path, n_frames: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 80, "yuv420p"
        big = photograph(99, 96, 160)
        for i in range(n_frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(big[:80, 2 * i : 2 * i + 96]), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    (root / "images").mkdir()
    (root / "clips").mkdir()
    for number in range(6):
        Image.fromarray(photograph(number)).save(root / "images" / f"{number}.png")
    write_clip(root / "clips" / "pan.mp4", 12)
    (root / "captions.tsv").write_text("images/0.png\ta red hill\nclips/pan.mp4\ta pan\nnot a pair\n", encoding="utf-8")
    with zipfile.ZipFile(root / "more.zip", "w") as archive:
        for number in range(2):
            Image.fromarray(photograph(10 + number)).save(root / "member.png")
            archive.write(root / "member.png", f"lakes/{number}.png")
        archive.writestr("captions.tsv", "lakes\ta lake\n")
    (root / "member.png").unlink()
    return root


@pytest.fixture(scope="module")
def corpus(folder):
    return load_corpus(folder, held_out_fraction=0.1)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(transformer_module, "SHAPES", TINY_SHAPES)
    monkeypatch.setattr(detail_module, "SHAPES", TINY_SHAPES)
    monkeypatch.setattr(shown_module, "SHAPES", TINY_SHAPES)


@pytest.fixture(scope="module")
def autoencoder(corpus, tmp_path_factory):
    torch.manual_seed(0)
    model = BlockTransformAutoencoder(latent_channels=16, damping=3.0)
    fit_basis(model, corpus, seed=0, n_batches=3)
    path = tmp_path_factory.mktemp("basis") / "basis"
    model.save_pretrained(path)
    return path


def test_a_folder_becomes_a_corpus(folder, corpus):
    items = corpus.images + corpus.held_out_images + corpus.clips + corpus.held_out_clips
    assert len(items) == 9
    captions = {item.name: item.caption for item in items}
    assert captions["images/0.png"] == "a red hill" and captions["images/1.png"] == ""
    assert captions["more.zip/lakes/1.png"] == "a lake"
    (pan,) = corpus.clips + corpus.held_out_clips
    assert pan.frames.shape == (12, 80, 96, 3) and pan.caption == "a pan"
    again = load_corpus(folder, held_out_fraction=0.1)
    assert [item.name for item in again.images] == [item.name for item in corpus.images]
    assert str(len(corpus.images)) in corpus.summary()


def test_empty_and_damaged_folders_are_typed_errors(tmp_path):
    with pytest.raises(MediaError, match="no photographs"):
        load_corpus(tmp_path)
    Image.fromarray(photograph(0)).save(tmp_path / "a.png")
    with pytest.raises(MediaError, match="held out"):
        load_corpus(tmp_path, held_out_fraction=1.0)
    (tmp_path / "b.jpg").write_bytes(b"not a photograph")
    with pytest.raises(MediaError, match="photograph"):
        load_corpus(tmp_path)
    (tmp_path / "b.jpg").unlink()
    (tmp_path / "c.mp4").write_bytes(b"not a clip")
    with pytest.raises(MediaError, match=r"c\.mp4"):
        load_corpus(tmp_path)


@pytest.mark.parametrize("shape", [SHAPES[0], *TINY_SHAPES, BatchShape(33, 32, 32, 1.0)], ids=str)
def test_a_batch_is_a_pure_function_of_seed_and_step(corpus, shape):
    def draw(seed, step):
        return draw_batch(corpus, seed=seed, step=step, tokens_per_batch=32, shapes=(shape,))

    first = draw(3, 17)
    draw(3, 18)
    np.random.seed(1)
    again = draw(3, 17)
    assert torch.equal(first.frames, again.frames) and first.captions == again.captions
    assert first.frames.shape[1:] == (3, shape.n_frames, shape.height, shape.width)
    assert first.frames.abs().max() <= 1 and first.frames.isfinite().all()
    assert not torch.equal(first.frames, draw(4, 17).frames) and not torch.equal(first.frames, draw(3, 18).frames)


@pytest.mark.parametrize("kind", ["photographs only", "clips only"])
def test_half_a_corpus_is_enough(corpus, kind):
    images, clips = corpus.images, corpus.clips + corpus.held_out_clips
    half = Corpus(images, [], [], []) if kind == "photographs only" else Corpus([], clips, [], [])
    for step in range(6):
        batch = draw_batch(half, seed=0, step=step, tokens_per_batch=8, shapes=TINY_SHAPES)
        assert batch.frames.isfinite().all()


def test_a_corpus_too_small_to_hold_out_validates_on_itself(corpus):
    small = Corpus(corpus.images, [], [], [])
    assert small.held_out() == small
    held = Corpus(corpus.images, [], corpus.images[:1], []).held_out()
    assert held.images == corpus.images[:1] and not held.clips


def test_captions_become_bytes():
    ids, mask = caption_tokens(["", "ab", "é" * 60])
    assert ids.shape == mask.shape == (3, 64)
    assert ids[1, :4].tolist() == [ord("a") + 3, ord("b") + 3, 1, 0]
    assert mask.sum(dim=1).tolist() == [1, 3, 64]


def test_colours_are_named_by_their_share_of_the_picture():
    def painted(*colours):
        stripes = [torch.tensor(colour).view(3, 1, 1).expand(3, 32, 48 // len(colours)) for colour in colours]
        return torch.cat(stripes, dim=2) / 127.5 - 1

    blue, green, grey = (70, 110, 200), (80, 140, 60), (120, 122, 125)
    assert colour_words(painted(green)) == "green" and colour_words(painted(blue, blue, green)) == "blue and green"
    assert colour_words(painted(grey, green)) == "grey and green", "a tone has to fill half of the picture"
    assert colour_words(painted(grey, blue, green)) == "green and blue"
    assert (
        colour_words(painted((20, 30, 110))) == "dark blue" and colour_words(painted((250, 250, 250))) == "bright white"
    )
    for caption, expected in [
        ("a photo of goldfish", "a photo of blue goldfish"),
        ("an apple rolling", "a blue apple rolling"),
        ("A dog", "a blue dog"),
        ("a photo of a dog", "a photo of a blue dog"),
        ("hands", "blue hands"),
        ("", "blue picture"),
    ]:
        assert with_colours(caption, "blue") == expected and with_colours(caption, "") == caption
    assert with_colours("a dog", "orange and blue") == "an orange and blue dog"


def test_the_basis_is_orthonormal_and_ordered(autoencoder, corpus):
    model = BlockTransformAutoencoder.from_pretrained(autoencoder)
    for basis in (model.intra_basis, model.inter_basis):
        assert torch.allclose(basis @ basis.T, torch.eye(16), atol=1e-5)
    assert (model.inter_std[:-1] >= model.inter_std[1:]).all() and model.inter_std.min() > 0
    frames = draw_batch(corpus, seed=1, step=0, tokens_per_batch=64, shapes=TINY_SHAPES[1:]).frames
    latents = model.encode(frames)
    measured = latents[:, :, 1:].square().mean(dim=(0, 2, 3, 4)).sqrt()
    assert float(measured[0] / model.inter_std[0]) == pytest.approx(1.0, abs=0.6)
    eye = BlockTransformAutoencoder(latent_channels=16)
    fitted_db, eye_db = (reconstruction_psnr(m, [frames[:1]]) for m in (model, eye))
    assert fitted_db > eye_db + 3


def test_detail_is_damped_below_the_water_level(autoencoder):
    """w² = λ/(λ + k·median λ) of the undamped variances λ = (std/w)²."""
    model = BlockTransformAutoencoder.from_pretrained(autoencoder)
    weights = torch.cat([model.intra_weight, model.inter_weight])
    powers = (torch.cat([model.intra_std, model.inter_std]) / weights).square()
    assert torch.allclose(weights.square(), powers / (powers + 3.0 * powers.median()), rtol=1e-3)
    assert weights.min() < 0.5 < 0.95 < weights.max()


def train(autoencoder, corpus, run_dir, recipe=RECIPE, **keywords):
    model = BlockTransformAutoencoder.from_pretrained(autoencoder)
    return train_transformer(model, corpus, recipe, run_dir, **keywords)


def test_a_resumed_transformer_run_is_the_uninterrupted_one(autoencoder, corpus, tmp_path, monkeypatch):
    *whole, log = train(autoencoder, corpus, tmp_path / "whole")
    steps_left = 3

    def draws(*arguments, **keywords):
        nonlocal steps_left
        if steps_left == 0:
            raise KeyboardInterrupt
        steps_left -= 1
        return draw_batch(*arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(transformer_module, "draw_batch", draws)
        with pytest.raises(KeyboardInterrupt):
            train(autoencoder, corpus, tmp_path / "parts", save_every_s=0.0)
    step = averaged_networks(tmp_path / "parts", RECIPE, 16)[2]
    assert 0 < step < RECIPE.steps
    *resumed, log_again = train(autoencoder, corpus, tmp_path / "parts")
    for one, two in zip(whole, resumed, strict=True):
        for name, value in one.state_dict().items():
            assert torch.equal(value, two.state_dict()[name]), name
    assert log == log_again == []
    states = [torch.load(tmp_path / name / "transformer.pt", weights_only=True) for name in ("whole", "parts")]
    assert states[0]["running"] == states[1]["running"] > 0
    with pytest.raises(UsageError, match="another recipe"):
        train(autoencoder, corpus, tmp_path / "parts", replace(RECIPE, beta=1.0))


def test_validation_is_the_same_every_time(autoencoder, corpus, monkeypatch):
    monkeypatch.setattr(transformer_module, "draw_batch", lambda *a, **k: draw_batch(*a, **k, shapes=TINY_SHAPES))
    model = BlockTransformAutoencoder.from_pretrained(autoencoder)
    networks = transformer_module.build_networks(RECIPE, 16)
    losses = [validation_loss(*networks, model, corpus, RECIPE, n_batches=2) for _ in range(2)]
    assert losses[0] == losses[1] > 0


def test_a_run_starts_from_a_model_folder_and_may_be_made_longer(autoencoder, corpus, tmp_path):
    longer = replace(RECIPE, steps=4)
    train(autoencoder, corpus, tmp_path / "run", replace(RECIPE, steps=2))
    train(autoencoder, corpus, tmp_path / "run", longer)
    transformer, text, n_steps, _ = averaged_networks(tmp_path / "run", longer, 16)
    assert n_steps == 4
    for name, network in (("transformer", transformer), ("text_encoder", text)):
        network.save_pretrained(tmp_path / "model" / name)
    started = train(autoencoder, corpus, tmp_path / "next", replace(RECIPE, steps=0), init=tmp_path / "model")
    for name, value in transformer.state_dict().items():
        assert torch.equal(started[0].state_dict()[name], value), name
    with pytest.raises(UsageError, match="this recipe's size"):
        train(autoencoder, corpus, tmp_path / "other", replace(RECIPE, width=48), init=tmp_path / "model")
    with pytest.raises(UsageError, match="no transformer"):
        train(autoencoder, corpus, tmp_path / "none", init=tmp_path)


def train_on(autoencoder, corpus, run_dir, networks, **keywords):
    run_dir.mkdir(exist_ok=True)
    model = BlockTransformAutoencoder.from_pretrained(autoencoder)
    return train_detail(model, corpus, RECIPE, run_dir, networks, width=8, layers=1, **keywords)


def test_a_resumed_detail_run_is_the_uninterrupted_one(autoencoder, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(transformer_module, "draw_batch", lambda *a, **k: draw_batch(*a, **k, shapes=TINY_SHAPES))
    networks = transformer_module.build_networks(RECIPE, 16)
    whole = train_on(autoencoder, corpus, tmp_path / "whole", networks, n_steps=4)
    ticks = iter([0.0, 0.0, 0.0, 0.0, 100.0])
    with monkeypatch.context() as patch:
        patch.setattr(detail_module.time, "monotonic", lambda: next(ticks, 100.0))
        train_on(autoencoder, corpus, tmp_path / "parts", networks, n_steps=4, stop_after_s=50)
    assert 0 < torch.load(tmp_path / "parts" / "detail.pt", weights_only=True)["step"] < 4
    resumed = train_on(autoencoder, corpus, tmp_path / "parts", networks, n_steps=4)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    figures = json.loads((tmp_path / "whole" / "detail.json").read_text())
    assert figures["steps"] == 4 and 0 < figures["held_out_loss"] != figures["held_out_loss_without"]


@pytest.fixture
def trained(autoencoder, corpus, tmp_path, monkeypatch):
    """A run whose transformer and detail network are trained."""
    for module in (transformer_module, joint_module, detail_module):
        monkeypatch.setattr(module, "draw_batch", lambda *a, **k: draw_batch(*a, **{**k, "shapes": TINY_SHAPES}))
    run = tmp_path / "trained"
    train(autoencoder, corpus, run, replace(RECIPE, steps=2))
    train_on(autoencoder, corpus, run, averaged_networks(run, RECIPE, 16)[:2], n_steps=2)
    return run


def train_together(autoencoder, corpus, run_dir, n_steps=4, **keywords):
    model = BlockTransformAutoencoder.from_pretrained(autoencoder)
    return joint_module.train_joint(model, corpus, replace(RECIPE, steps=2), run_dir, n_steps=n_steps, **keywords)


def test_a_resumed_joint_run_is_the_uninterrupted_one(autoencoder, corpus, trained, tmp_path, monkeypatch):
    before, nothing = joint_module.averaged_joint_networks(trained, RECIPE, 16)
    assert nothing == {"start": [2, 2]}
    parts = shutil.copytree(trained, tmp_path / "parts")
    whole = train_together(autoencoder, corpus, trained)
    ticks = iter([0.0] * 5)
    with monkeypatch.context() as patch:
        patch.setattr(joint_module.time, "monotonic", lambda: next(ticks, 100.0))
        train_together(autoencoder, corpus, parts, stop_after_s=50)
    assert 0 < torch.load(parts / "joint.pt", weights_only=True)["step"] < 4
    resumed = train_together(autoencoder, corpus, parts)
    for old, network, again in zip(before, whole, resumed, strict=True):
        for name, value in network.state_dict().items():
            assert torch.equal(value, again.state_dict()[name]), name
        assert any(not torch.equal(old.state_dict()[name], value) for name, value in network.state_dict().items())
    averages, figures = joint_module.averaged_joint_networks(trained, RECIPE, 16)
    assert torch.equal(averages[2].proj_in.weight, whole[2].proj_in.weight)
    assert figures["steps"] == 4 and [row["step"] for row in figures["log"]] == [0, 4]


def test_a_joint_run_may_go_on_at_other_times(autoencoder, corpus, trained):
    train_together(autoencoder, corpus, trained, n_steps=2)
    train_together(autoencoder, corpus, trained, times=(-1.0, 0.5))
    _, figures = joint_module.averaged_joint_networks(trained, RECIPE, 16)
    noted = [(row["step"], *row["times"]) for row in figures["log"]]
    assert noted == [(0, 0.0, 1.5), (2, 0.0, 1.5), (2, -1.0, 0.5), (4, -1.0, 0.5)]
    model = BlockTransformAutoencoder.from_pretrained(autoencoder)
    network = SMALL_STAGES["clips"].make(model)
    card = model_card(corpus, model, asdict(RECIPE), 2, [], figures, {}, {}, COMPLETING, network, trained)
    text = " ".join(card.split())
    assert "at times N(0.0, 1.5²): 2." in text and "; at times N(-1.0, 0.5²): 2." in text


@pytest.mark.slow
def test_captions_are_learnt_while_the_empty_one_stays(autoencoder, corpus, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(captioning_module, "_LR", 0.05)
    monkeypatch.setattr(captioning_module, "_SHAPES", TINY_SHAPES)
    model = BlockTransformAutoencoder.from_pretrained(autoencoder)
    transformer, text, detail = joint_module.averaged_joint_networks(trained, RECIPE, 16)[0]
    for parameter in (transformer.proj_out.weight, text.shared.weight):  # two steps of training hardly moved them
        torch.nn.init.normal_(parameter, std=0.3)
    completed = CompletedTransformer(transformer, detail)

    def learn(run_dir, **keywords):
        networks = copy.deepcopy((completed, text))
        settings = {"n_steps": 12} | keywords
        return captioning_module.train_captions(networks, model, corpus, RECIPE, run_dir, [2, 2, 0], **settings)

    @torch.no_grad()
    def predicted(networks, caption):
        x_t, t = torch.ones(1, 16, 1, 4, 4), torch.tensor([0.7])
        return predict(networks, x_t, t, [caption], precondition(t, model.channel_std(1)))

    parts = shutil.copytree(trained, tmp_path / "parts")
    whole = learn(trained)
    captions = ("", "a photo of blue sea")
    moved = [float((predicted(whole, c) - predicted((completed, text), c)).square().mean()) for c in captions]
    assert 0 < moved[0] < 0.2 * moved[1], moved
    ticks = iter([0.0] * 5)
    with monkeypatch.context() as patch:
        patch.setattr(captioning_module.time, "monotonic", lambda: next(ticks, 100.0))
        learn(parts, stop_after_s=50)
    assert 0 < torch.load(parts / "captions.pt", weights_only=True)["step"] < 12
    resumed = learn(parts)
    for network, expected in zip(resumed, whole, strict=True):
        assert all(torch.equal(value, network.state_dict()[name]) for name, value in expected.state_dict().items())
    loaded = copy.deepcopy((completed, text))
    figures = captioning_module.load_captions(trained, loaded, [2, 2, 0])
    for network, expected in zip(loaded, whole, strict=True):
        for name, value in expected.state_dict().items():
            assert torch.equal(value, network.state_dict()[name]), name
    assert figures["steps"] == 12 and figures["loss"] != figures["loss_before"]
    with pytest.raises(UsageError, match="started from other weights"):
        captioning_module.load_captions(trained, loaded, [2, 2, 4])


@pytest.mark.slow
def test_the_transformer_learns_what_the_spaces_show(autoencoder, corpus, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(shown_module, "_WARMUP", 2)
    for name, stage in SMALL_STAGES.items():
        monkeypatch.setattr(spaces_module, name.upper(), stage)
    model = BlockTransformAutoencoder.from_pretrained(autoencoder)
    transformer, text, detail = joint_module.averaged_joint_networks(trained, RECIPE, 16)[0]
    start = [6, 2, 0, 0]

    def learn(run_dir, **keywords):
        networks = copy.deepcopy((CompletedTransformer(transformer, detail), text))
        return shown_module.train_shown(networks, model, corpus, RECIPE, run_dir, start, n_steps=24, **keywords)

    parts = shutil.copytree(trained, tmp_path / "parts")
    whole = learn(trained)
    ticks = iter([0.0] * 9)
    with monkeypatch.context() as patch:
        patch.setattr(shown_module.time, "monotonic", lambda: next(ticks, 100.0))
        learn(parts, stop_after_s=50)
    assert 0 < torch.load(parts / "shown.pt", weights_only=True)["step"] < 24
    for network, expected in zip(learn(parts), whole, strict=True):
        for name, value in expected.state_dict().items():
            assert torch.equal(value, network.state_dict()[name]), name
    loaded = copy.deepcopy((CompletedTransformer(transformer, detail), text))
    figures = shown_module.load_shown(trained, loaded, start)
    assert figures["steps"] == 24 and figures["loss"] < figures["loss_before"]
    for name, value in whole[0].state_dict().items():
        assert torch.equal(value, loaded[0].state_dict()[name]), name
    assert all(torch.equal(a, b) for a, b in zip(loaded[1].parameters(), text.parameters(), strict=True))
    with pytest.raises(UsageError, match="started from other weights"):
        shown_module.load_shown(trained, loaded, [6, 2, 0, 1])
    assert shown_module.load_shown(tmp_path, loaded, start) == {}


def test_a_joint_run_belongs_to_the_weights_it_started_from(autoencoder, corpus, trained):
    train_together(autoencoder, corpus, trained)
    figures = json.loads((trained / "detail.json").read_text())
    (trained / "detail.json").write_text(json.dumps(figures | {"steps": 3}))
    with pytest.raises(UsageError, match="started from other weights"):
        joint_module.averaged_joint_networks(trained, RECIPE, 16)


def test_an_untrained_detail_network_adds_nothing_and_sees_one_clip_at_a_time():
    torch.manual_seed(0)
    network = DetailNetwork(6, width=8, layers=2)
    seen, known, t = torch.randn(2, 7, 3, 4, 5), torch.randn(2, 6, 3, 4, 5), torch.tensor([0.2, 0.9])
    assert not network(seen, known, t).any()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    together = network(seen, known, t)
    assert together.shape == known.shape
    assert torch.allclose(together[1:], network(seen[1:], known[1:], t[1:]), atol=1e-5)
    moved = seen.clone()
    moved[:, :, 2, 0, 0] += 1.0  # three taps and 3×3 twice: reaches all frames, not the far corner
    change = (network(moved, known, t) - together).abs().sum(dim=(0, 1))
    assert change[0, 0, 0] > 0 and change[:, 3, 4].max() == 0


SMALL = (8, 8, 8)
SMALL_STAGES = {
    "pictures": replace(
        PICTURES,
        make=lambda _: PictureNetwork(SMALL, (1, 1, 1)),
        fit_space=functools.partial(fit_picture_space, n_batches=3),
        shapes=(BatchShape(1, 32, 48, 1.0),),
        tokens_per_batch=12,
    ),
    "clips": replace(
        CLIPS,
        make=lambda model: ClipNetwork(SMALL, (1, 1, 1), block_channels=model.config.latent_channels),
        fit_space=functools.partial(fit_clip_space, n_batches=1),
        shapes=(BatchShape(5, 32, 32, 1.0),),
        tokens_per_batch=16,
    ),
}


def complete_on(stage, autoencoder, corpus, run_dir, networks, start, **keywords):
    run_dir.mkdir(exist_ok=True)
    model = BlockTransformAutoencoder.from_pretrained(autoencoder)
    return train_completion(stage, networks, model, corpus, RECIPE, run_dir, start, **keywords)


@pytest.mark.parametrize("name", SMALL_STAGES)
def test_a_resumed_completion_is_the_uninterrupted_one(autoencoder, corpus, tmp_path, monkeypatch, name):
    stage, networks, start = SMALL_STAGES[name], transformer_module.build_networks(RECIPE, 16), [1, 2, 3, 4]
    whole = complete_on(stage, autoencoder, corpus, tmp_path / "whole", networks, start, n_steps=4)
    ticks = iter([0.0] * 5)
    with monkeypatch.context() as patch:
        patch.setattr(completion_module.time, "monotonic", lambda: next(ticks, 100.0))
        complete_on(stage, autoencoder, corpus, tmp_path / "parts", networks, start, n_steps=4, stop_after_s=50)
    assert 0 < torch.load(tmp_path / "parts" / f"{name}.pt", weights_only=True)["step"] < 4
    resumed = complete_on(stage, autoencoder, corpus, tmp_path / "parts", networks, start, n_steps=4)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key
    kept, figures = trained_completion(tmp_path / "whole", stage, start)
    assert torch.equal(kept.proj_out.weight, whole.proj_out.weight)
    assert figures["steps"] == 4 and 0 < figures["held_out_loss"] != figures["held_out_loss_without"]
    with pytest.raises(UsageError, match="on top of other weights"):
        trained_completion(tmp_path / "whole", stage, [1, 2, 3, 5])
    with pytest.raises(UsageError, match="started from other weights"):
        complete_on(stage, autoencoder, corpus, tmp_path / "whole", networks, [1, 2, 3, 5], n_steps=4)
    with pytest.raises(UsageError, match=f"run the stage {name} first"):
        trained_completion(tmp_path, stage, start)


def test_the_relative_loss_is_that_of_the_estimate_where_nothing_is_learned(autoencoder, corpus):
    model, networks = (
        BlockTransformAutoencoder.from_pretrained(autoencoder),
        transformer_module.build_networks(RECIPE, 16),
    )
    network = SMALL_STAGES["clips"].make(model)
    batch = draw_batch(corpus, seed=3, step=0, tokens_per_batch=16, shapes=SMALL_STAGES["clips"].shapes)
    t = torch.full((len(batch.captions),), 0.2)
    losses = [
        completion_module._loss(networks, model, network, batch, t, torch.Generator().manual_seed(0), relative=relative)
        for relative in (True, False)
    ]
    assert losses[0][0].item() == pytest.approx(1.0) and losses[0][1] == 1.0
    assert losses[1][0].item() == pytest.approx(losses[1][1].item()) and losses[1][1] > 0


def test_the_spaces_follow_what_is_coded(autoencoder, corpus):
    model = BlockTransformAutoencoder.from_pretrained(autoencoder)
    for stage in SMALL_STAGES.values():
        network = stage.make(model)
        stage.fit_space(network, model, corpus, 0)
        assert torch.allclose(network.colours @ network.colours.T, torch.eye(3), atol=1e-5)
        batches = [draw_batch(corpus, seed=5, step=i, tokens_per_batch=96, shapes=stage.shapes) for i in (0, 1)]
        frames = torch.cat([batch.frames for batch in batches])
        energy = torch.einsum("ij,bjthw->bithw", network.colours, frames).square().mean((0, 2, 3, 4))
        assert energy[0] > energy[2], "the first colour is the one with most energy"
        assert network.variance > 0
    pictures, clips = (stage.make(model) for stage in SMALL_STAGES.values())
    SMALL_STAGES["pictures"].fit_space(pictures, model, corpus, 0)
    damping = pictures.damping(32, 32)
    assert damping.max() <= 1 and damping.min() >= 0.149
    assert damping[0, 0, 0] > damping[0, 16, 16] > damping[0, 31, 31]
    SMALL_STAGES["clips"].fit_space(clips, model, corpus, 0)
    luma, chroma = clips.damping(9, 32, 32)
    assert luma.shape == (9, 32, 32) and chroma.shape == (2, 9, 16, 16)
    assert luma.max() <= 1 and min(luma.min(), chroma.min()) >= 0.301
    assert luma[0, 0, 0] > luma[0, 31, 31] and luma[0, 3, 3] > luma[8, 3, 3], "detail and change are damped"
    assert (clips.block_gains[0] - 1).abs().mean() < 0.02, "without noise everything but fine chroma is restored"
    assert (clips.block_gains[-1] < clips.block_gains[0]).all() and (clips.block_gains > 0.05).all()


def test_the_export_is_a_pocket_model(autoencoder, corpus, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(UsageError, match="run the stage transformer first"):
        averaged_networks(run, RECIPE, 16)
    train(autoencoder, corpus, run, replace(RECIPE, steps=2))
    shutil.copytree(autoencoder, run / "basis")
    train_on(autoencoder, corpus, run, averaged_networks(run, RECIPE, 16)[:2], n_steps=1)
    with pytest.raises(UsageError, match="run the stage pictures first"):
        export_model(run, tmp_path / "model", corpus, replace(RECIPE, steps=2))
    networks, start = shown_module.finished_networks(run, replace(RECIPE, steps=2))
    assert start == [2, 1, 0, 0, 0]
    stages = SMALL_STAGES.values()
    pictures, _ = (complete_on(stage, autoencoder, corpus, run, networks, start, n_steps=2) for stage in stages)
    export_model(run, tmp_path / "model", corpus, replace(RECIPE, steps=2))
    backbone = PocketBackbone(tmp_path / "model")
    for frames in (photograph(0, 32, 48)[None], np.stack([photograph(0, 32, 48)] * 5)):
        latents = backbone.to_latents(frames)
        assert tuple(latents.shape) == backbone.geometry.latent_shape(len(frames), 48, 32)
        assert backbone.to_frames(latents).shape == frames.shape
    assert torch.equal(backbone._pictures.spectrum, pictures.spectrum), "what the space is stays exact"
    kept, trained = backbone._pictures.proj_in.weight, pictures.proj_in.weight
    error, scale = (kept - trained).flatten(1).abs().amax(1), trained.flatten(1).abs().amax(1) / 127
    assert (error > 0).any() and (error <= 0.501 * scale).all(), "stored in a byte"
    x_t = torch.randn(backbone.geometry.latent_shape(1, 48, 32))
    assert backbone.velocity(x_t, 1.0, backbone.embed_caption("a lake")).isfinite().all()
    average = averaged_networks(run, replace(RECIPE, steps=2), 16)[0]
    for name, value in average.state_dict().items():
        assert torch.equal(backbone.transformer.state_dict()[name], value.to(torch.bfloat16).float()), name
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "2 optimiser steps" in card and corpus.summary() in card
    assert not any(str(tmp_path) in path.read_text() for path in (tmp_path / "model").glob("*/config.json"))
    assert {oct(path.stat().st_mode & 0o777) for path in (tmp_path / "model").glob("*/*.safetensors")} == {"0o644"}
    export_model(run, tmp_path / "again", corpus, replace(RECIPE, steps=2))
    assert PocketBackbone(tmp_path / "again").fingerprint == backbone.fingerprint, "exporting twice is one model"


@pytest.mark.slow
def test_the_command_runs_all_stages(folder, tmp_path, monkeypatch, capsys):
    for name, stage in SMALL_STAGES.items():
        monkeypatch.setattr(spaces_module, name.upper(), stage)
    small = functools.partial(block_transform.BlockTransformAutoencoder, latent_channels=8)
    small.from_pretrained = block_transform.BlockTransformAutoencoder.from_pretrained
    monkeypatch.setattr(block_transform, "BlockTransformAutoencoder", small)
    monkeypatch.setattr(autoencoder_module, "fit_basis", functools.partial(fit_basis, n_batches=2))
    monkeypatch.setattr(transformer_module, "TransformerRecipe", lambda: RECIPE)
    arguments = [
        "--data",
        str(folder),
        "--run",
        str(tmp_path),
        "--steps",
        "1",
        "--detail-steps",
        "1",
        "--joint-steps",
        "1",
        "--caption-steps",
        "1",
        "--shown-steps",
        "1",
        "--picture-steps",
        "1",
        "--clip-steps",
        "1",
    ]
    assert main(arguments) == 0
    assert PocketBackbone(tmp_path / "model").vae.config.latent_channels == 8
    assert "held out" in capsys.readouterr().out
    assert main([*arguments, "--stage", "export", "--out", str(tmp_path / "again")]) == 0
    assert PocketBackbone(tmp_path / "again").fingerprint == PocketBackbone(tmp_path / "model").fingerprint
    continue_from(tmp_path / "model", folder, tmp_path / "next", arguments)


def continue_from(model: Path, folder: Path, run: Path, arguments: list[str]) -> None:
    """A run that continues a model folder: nothing trained changes nothing, then some stages change theirs."""
    common = [*arguments[:2], "--run", str(run), *arguments[4:]]
    started = PocketBackbone(model)
    assert main([*common, "--init", str(model), "--stage", "export"]) == 0
    untouched = PocketBackbone(run / "model")
    for name, value in started.transformer.state_dict().items():
        assert torch.equal(untouched.transformer.state_dict()[name], value), name
    for before, after in ((started._clips, untouched._clips), (started._pictures, untouched._pictures)):
        for name, value in before.state_dict().items():
            assert torch.allclose(after.state_dict()[name], value, atol=1e-6), name
    with pytest.raises(UsageError, match="run the stage transformer first"):
        main([*common, "--stage", "joint"])
    assert main([*common, "--stage", "shown"]) == 0 and main([*common, "--stage", "clips"]) == 0
    assert main([*common, "--stage", "export", "--out", str(run / "trained")]) == 0
    assert not (run / "joint.pt").exists()
    trained = PocketBackbone(run / "trained")
    assert trained.fingerprint != untouched.fingerprint
    assert torch.equal(trained._clips.spectrum, started._clips.spectrum), "the space stays"
    assert not torch.equal(trained._clips.proj_in.weight, started._clips.proj_in.weight)
    assert torch.allclose(trained._pictures.proj_in.weight, started._pictures.proj_in.weight, atol=1e-6)
    card = (run / "trained" / "README.md").read_text(encoding="utf-8")
    assert f"### Continued from {started.fingerprint.hex()}" in card and "The network of clips, on top" in card
    assert (model / "README.md").read_text(encoding="utf-8").partition("## Autoencoder")[0] in card
    with pytest.raises(UsageError, match="started from another model"):
        main([*common, "--init", str(run / "trained"), "--stage", "export"])
    assert "The network of pictures is that of" in card, "what was not trained on top is said"
    other = [*arguments[:2], "--run", str(run / "other"), *arguments[4:]]
    for missing in (folder, shutil.copytree(model, run / "half", ignore=shutil.ignore_patterns("model_index.json"))):
        with pytest.raises(UsageError, match="no model folder"):
            main([*other, "--init", str(missing), "--stage", "export"])
    with pytest.raises(UsageError, match="run the stage transformer first"):
        main([*other, "--stage", "shown"])  # forgot --init: a basis is there now
    with pytest.raises(UsageError, match="started from nothing"):
        main([*other, "--init", str(model), "--stage", "shown"])
    whole = [*arguments[:2], "--run", str(run / "whole"), *arguments[4:]]
    assert main([*whole, "--init", str(model)]) == 0, "all stages, from shown on"
    assert not (run / "whole" / "transformer.pt").exists() and (run / "whole" / "shown.pt").exists()
    card = (run / "whole" / "model" / "README.md").read_text(encoding="utf-8")
    assert "The network of pictures, on top" in card.partition("### Continued")[2]

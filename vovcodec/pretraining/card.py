"""The model card written next to the weights."""

from __future__ import annotations

import itertools
import json
import math
import textwrap
from pathlib import Path

from vovcodec.backbone.pocket.block_transform import BlockTransformAutoencoder
from vovcodec.backbone.pocket.clips import ClipNetwork
from vovcodec.errors import UsageError
from vovcodec.pretraining import captioning as caption_stage
from vovcodec.pretraining import detail as detail_stage
from vovcodec.pretraining import shown as shown_stage
from vovcodec.pretraining.autoencoder import reconstruction_psnr
from vovcodec.pretraining.batches import BatchShape, draw_batch
from vovcodec.pretraining.completion import EMA, CompletionStage
from vovcodec.pretraining.corpus import Corpus

__all__ = ["continued_card", "model_card"]

_PLACE = "\n## Autoencoder\n"  # what follows the recipe in a card
_CEILING_SHAPES = (BatchShape(9, 80, 80, 1.0),)

_SOURCES = """\
| data | licence as given by its source |
|---|---|
| photographs: ImageNet samples, BSDS500, Tiny ImageNet | research use |
| clips: Tears of Steel, Big Buck Bunny | CC BY 3.0 |
| clips: intel-iot-devkit sample videos | CC BY 4.0 |
| clips: MDN sample videos | CC0 and public domain |
| clips: nerfies and hypernerf pages | CC BY-SA 4.0 |
| clips: segment-anything-2 gallery | Apache-2.0 repository |
| clips: other short natural clips | research use |
"""


def _detail_text(figures: dict) -> str:
    nothing = float("nan")
    return (
        f"Detail network: {figures.get('steps', 0)} steps on top of the finished transformer, times "
        f"N({detail_stage.LOGIT_MEAN}, {detail_stage.LOGIT_STD}²), AdamW, average of weights 0.995. Held-out loss at "
        f"these times: {figures.get('held_out_loss_without', nothing):.4f} without it, "
        f"{figures.get('held_out_loss', nothing):.4f} with it."
    )


def _joint_text(joint: dict) -> str:
    log = joint["log"]
    restarts = [a["elapsed_s"] for a, b in itertools.pairwise(log) if b["elapsed_s"] < a["elapsed_s"]]
    hours = (sum(restarts) + log[-1]["elapsed_s"]) / 3600
    curves = [
        f"at times N({mean}, {std}²): " + ", ".join(f"{row['held_out_loss']:.4f} (step {row['step']})" for row in rows)
        for (mean, std), rows in itertools.groupby(log, key=lambda row: row["times"])
    ]
    return (
        f"Then all networks together: {joint['steps']} steps at half the learning rates, {hours:.1f} hours on the same "
        f"two cores. Training and held-out loss {'; '.join(curves)}."
    )


def _captions_text(captions: dict) -> str:
    return (
        f"After that text encoder and cross-attention, {captions['steps']} steps at times "
        f"N({caption_stage.LOGIT_MEAN}, {caption_stage.LOGIT_STD}²), captions completed by the colours of the picture, "
        f"predictions for the empty caption held. Held-out loss on such captions: "
        f"{captions.get('loss_before', math.nan):.4f} before, {captions.get('loss', math.nan):.4f} after; mean squared "
        f"change of the network's output without caption {captions.get('empty_change', math.nan):.1e}."
    )


def _shown_text(shown: dict) -> str:
    return (
        f"Then transformer and detail network on what the spaces of pictures and clips show them: {shown['steps']} "
        f"steps at a quarter of the learning rates, times N({shown_stage.LOGIT_MEAN}, {shown_stage.LOGIT_STD}²), "
        f"squared error in pixels, average of weights 0.998. Held-out loss on such states: "
        f"{shown.get('loss_before', math.nan):.4f} before, {shown.get('loss', math.nan):.4f} after."
    )


def _completion_text(stage: CompletionStage, figures: dict) -> str:
    muon = f"Muon for the blocks' convolutions (learning rate {stage.lr_matrices}) and " if stage.lr_matrices else ""
    up_to = f" up to {stage.most_noise}" if stage.most_noise < 1 else ""
    return (
        f"The network of {stage.name}, on top of all of these: {figures['steps']} steps of {stage.tokens_per_batch} "
        f"tokens, {stage.name} alone, times N({stage.logit_mean}, {stage.logit_std}²){up_to}, {muon}AdamW (learning "
        f"rate {stage.lr}), average of weights {EMA}, {figures['hours']:.1f} hours on the same two cores. Held-out "
        f"loss{', relative to that of the estimate' if stage.relative else ''}: "
        f"{figures['held_out_loss_without']:.4f} with the transformer's estimate alone, {figures['held_out_loss']:.4f} "
        f"with it."
    )


def continued_card(
    earlier: str,
    fingerprint: str,
    corpus: Corpus,
    captions: dict,
    shown: dict,
    completing: dict[CompletionStage, dict],
) -> str:
    """The card of a model whose run continues another model (initial.py): that one's card, with a section more.

    earlier, fingerprint: card and fingerprint of that model. Raises UsageError for a card that has no place for it.
    """
    before, place, after = earlier.partition(_PLACE)
    if not place:
        raise UsageError("the card of the model that the run started from is none that vov pretrain wrote")
    paragraphs = [f"What follows was trained after that, on top of weights {fingerprint}. Data: {corpus.summary()}."]
    paragraphs += [_captions_text(captions)] if captions else []
    paragraphs += [_shown_text(shown)] if shown else []
    for stage, figures in completing.items():
        unchanged = (
            f"The network of {stage.name} is that of {fingerprint} as it was: it was not trained on top of this."
        )
        paragraphs.append(_completion_text(stage, figures) if figures else unchanged)
    section = "\n\n".join(textwrap.fill(text, 120) for text in paragraphs)
    return f"{before}\n### Continued from {fingerprint}\n\n{section}\n{place}{after}"


def model_card(
    corpus: Corpus,
    autoencoder: BlockTransformAutoencoder,
    recipe: dict,
    n_steps: int,
    log: list[dict],
    joint: dict,
    captions: dict,
    shown: dict,
    completing: dict[CompletionStage, dict],
    clip_network: ClipNetwork,
    run_dir: Path,
) -> str:
    """Markdown text: what the model is, data and licences, recipe, curve, limits."""
    curve = "\n".join(
        f"| {row['step']} | {row['train_loss']:.4f} | {row['held_out_loss']:.4f} |"
        for row in log[:: max(1, len(log) // 16)]
    )
    held = corpus.held_out()
    clips = [draw_batch(held, seed=5, step=i, tokens_per_batch=1, shapes=_CEILING_SHAPES).frames for i in range(24)]
    ceiling, clip_ceiling = (reconstruction_psnr(space, clips) for space in (autoencoder, clip_network))
    detail_file = run_dir / "detail.json"
    detail = json.loads(detail_file.read_text()) if detail_file.is_file() else {}
    notes_file = run_dir / "notes.txt"
    notes = notes_file.read_text() if notes_file.is_file() else ""
    # Elapsed time starts anew whenever a run is continued.
    restarts = [a["elapsed_s"] for a, b in itertools.pairwise(log) if b["elapsed_s"] < a["elapsed_s"]]
    seconds = sum(restarts) + (log[-1]["elapsed_s"] if log else 0)
    paragraphs = [_detail_text(detail), *([_joint_text(joint)] if "steps" in joint else [])]
    if captions:
        paragraphs.append(_captions_text(captions))
    if shown:
        paragraphs.append(_shown_text(shown))
    paragraphs += [_completion_text(stage, figures) for stage, figures in completing.items()]
    stages = "\n\n".join(textwrap.fill(text, 120) for text in paragraphs)
    return f"""# pocket, the embedded model of vovcodec

A flow-matching video and image prior small enough to ship in a Python package: a block-transform autoencoder
(4×8×8 pixels, {autoencoder.config.latent_channels} channels), a Wan-architecture transformer
({recipe["layers"]} blocks of width {recipe["width"]}), a small convolutional network that completes its
prediction, two convolutional networks that complete it for single pictures and for clips in spaces of their own, at the
resolution of pixels, and a byte-level UMT5 text encoder. It exists so that the codec can be tried, tested and measured
on a laptop. It is a weak generator: without steering it produces coloured blobs, not pictures.

## Data

{corpus.summary()}; short side 64–386 pixels, captions of a few words. The split depends on file names alone.

{_SOURCES}
Because part of the data is for research use, treat these weights as research-use too.

## Recipe

Reproduce with `vov pretrain --data FOLDER --run FOLDER`. {n_steps} optimiser steps of
{recipe["tokens_per_batch"]} tokens, Muon for the blocks' matrices (learning rate {recipe["lr_matrices"]}) and AdamW
for the rest ({recipe["lr_rest"]}), logit-normal times N({recipe["logit_mean"]}, {recipe["logit_std"]}²), average of
weights {recipe["ema"]}, bfloat16 autocast, {seconds / 3600:.1f} hours
or a little more on two CPU cores shared with other work.
{notes}
| step | training loss (running) | held-out loss (averaged weights) |
|---|---|---|
{curve}

The loss of predicting nothing beyond the per-channel Wiener estimate is 1.00 on the same batches.

{stages}

These two networks are stored in one byte per weight with a scale per output, the others in bfloat16.

## Autoencoder

What is coded is all of a picture, and a clip less the upper half of its chroma's frequencies: held-out clips, PSNR of
encode and decode, {clip_ceiling:.2f} dB. The transformer sees both through a linear block transform, of which the same
clips have {ceiling:.2f} dB. Non-linear autoencoders were compared with that through steering, each with 45
minutes of training on one core and the same small prior on top (`python -m vovcodec.bench.autoencoders`): on three
clips of 33 frames in 400 to 1500 bytes a small Wan design is 0.3 dB ahead (21.4 against 21.2 dB in 400, SSIM .517
against .461), at 3000 bytes and on pictures it nears its ceiling of 22 to 23 dB, where the block transform's is 30 to
35; a space-to-depth design is a little behind it, a deep-compression one of 16×16 pixels (12 minutes) ends at 17 to 18
dB. With hours on a GPU such a design may well be the better one.

## Limits

Trained on at most 33 frames and 208×128 pixels; larger pictures work but the prior was not made for them. Text,
faces and fast motion are poor at low rates. A caption moves brightness and colours, visibly with guidance; it draws
nothing.
"""

"""Writes the model folder that the package ships: diffusers' layout, bfloat16 safetensors, a model card."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch

from vovcodec.pretraining.corpus import Corpus

__all__ = ["export_model"]


def export_model(run_dir: Path, out_dir: Path, corpus: Corpus, recipe) -> None:
    """Collect the averaged networks of a run into `out_dir`.

    Layout: model_index.json, transformer/, detail/, text_encoder/, vae/, pictures/, clips/ (config.json and safetensors
    each), README.md. The block transform and the spaces of pictures and clips keep float32, since what they lose does
    not come back; their networks are stored in one byte per weight (backbone/pocket/stored.py), the others in
    bfloat16. Raises UsageError when a stage is missing.
    """
    from vovcodec.backbone.pocket.block_transform import BlockTransformAutoencoder
    from vovcodec.pretraining.captioning import base_networks, load_captions
    from vovcodec.pretraining.card import continued_card, model_card
    from vovcodec.pretraining.completion import trained_completion
    from vovcodec.pretraining.initial import initial_model
    from vovcodec.pretraining.joint import averaged_joint_networks
    from vovcodec.pretraining.shown import load_shown
    from vovcodec.pretraining.spaces import CLIPS, PICTURES
    from vovcodec.pretraining.transformer import averaged_networks

    autoencoder = BlockTransformAutoencoder.from_pretrained(run_dir / "basis")
    networks, start = base_networks(run_dir, recipe)
    captions = load_captions(run_dir, networks, start)
    start = [*start, captions.get("steps", 0)]
    shown = load_shown(run_dir, networks, start)
    start = [*start, shown.get("steps", 0)]
    completing = {stage: trained_completion(run_dir, stage, start) for stage in (PICTURES, CLIPS)}
    autoencoder.save_pretrained(out_dir / "vae")
    networks[0].transformer.to(torch.bfloat16).save_pretrained(out_dir / "transformer")
    networks[0].detail.to(torch.bfloat16).save_pretrained(out_dir / "detail")
    networks[1].to(torch.bfloat16).save_pretrained(out_dir / "text_encoder")
    for stage, (network, _) in completing.items():
        network.save_pretrained(out_dir / stage.name, as_bytes=True)
    index = {
        "_class_name": "PocketModel",
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "detail": ["vovcodec", "DetailNetwork"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "vae": ["vovcodec", "BlockTransformAutoencoder"],
        "pictures": ["vovcodec", "PictureNetwork"],
        "clips": ["vovcodec", "ClipNetwork"],
    }
    (out_dir / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    for weights in out_dir.glob("*/*.safetensors"):
        weights.chmod(0o644)
    figures = {stage: figures for stage, (_, figures) in completing.items()}
    initial = initial_model(run_dir)
    if initial is not None:
        earlier = (initial / "README.md").read_text(encoding="utf-8")
        card = continued_card(earlier, f"{start[0]:08x}", corpus, captions, shown, figures)
    else:
        channels = autoencoder.config.latent_channels
        _, _, n_steps, log = averaged_networks(run_dir, recipe, channels)
        _, joint = averaged_joint_networks(run_dir, recipe, channels)
        clip_network = completing[CLIPS][0]
        card = model_card(
            corpus, autoencoder, asdict(recipe), n_steps, log, joint, captions, shown, figures, clip_network, run_dir
        )
    (out_dir / "README.md").write_text(card, encoding="utf-8")

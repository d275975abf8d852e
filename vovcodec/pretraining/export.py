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
    not come back; their networks are stored in one byte per weight (backbone/pocket/compact.py), the others in
    bfloat16. Raises UsageError when a stage is missing.
    """
    from vovcodec.backbone.pocket.block_transform import BlockTransformAutoencoder
    from vovcodec.backbone.pocket.compact import save_network
    from vovcodec.backbone.pocket.detail import CompletedTransformer
    from vovcodec.pretraining.captioning import load_captions
    from vovcodec.pretraining.card import model_card
    from vovcodec.pretraining.completion import trained_completion
    from vovcodec.pretraining.joint import averaged_joint_networks, steps_so_far
    from vovcodec.pretraining.shown import load_shown
    from vovcodec.pretraining.spaces import CLIPS, PICTURES
    from vovcodec.pretraining.transformer import averaged_networks

    autoencoder = BlockTransformAutoencoder.from_pretrained(run_dir / "basis")
    channels = autoencoder.config.latent_channels
    _, _, n_steps, log = averaged_networks(run_dir, recipe, channels)
    (transformer, text, detail), joint = averaged_joint_networks(run_dir, recipe, channels)
    networks, start = (CompletedTransformer(transformer, detail), text), steps_so_far(joint)
    captions = load_captions(run_dir, networks, start)
    start = [*start, captions.get("steps", 0)]
    shown = load_shown(run_dir, networks, start)
    start = [*start, shown.get("steps", 0)]
    completing = {stage: trained_completion(run_dir, stage, start) for stage in (PICTURES, CLIPS)}
    autoencoder.save_pretrained(out_dir / "vae")
    transformer.to(torch.bfloat16).save_pretrained(out_dir / "transformer")
    detail.to(torch.bfloat16).save_pretrained(out_dir / "detail")
    text.to(torch.bfloat16).save_pretrained(out_dir / "text_encoder")
    for stage, (network, _) in completing.items():
        save_network(network, out_dir / stage.name)
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
    for config in out_dir.glob("*/config.json"):
        # Where the weights came from on this machine is nobody's business, and would change the fingerprint.
        fields = json.loads(config.read_text())
        fields.pop("_name_or_path", None)
        config.write_text(json.dumps(fields, indent=2, sort_keys=True) + "\n")
    for weights in out_dir.glob("*/*.safetensors"):
        weights.chmod(0o644)
    (out_dir / "README.md").write_text(
        model_card(
            corpus,
            autoencoder,
            asdict(recipe),
            n_steps,
            log,
            joint,
            captions,
            shown,
            {stage: figures for stage, (_, figures) in completing.items()},
            completing[CLIPS][0],
            run_dir,
        ),
        encoding="utf-8",
    )

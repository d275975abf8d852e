"""The command that trains the embedded model: basis → transformer → detail network → both together → captions →
what the spaces show → pictures → clips → model folder.

    vov pretrain --data FOLDER --run FOLDER
        [--stage all|basis|transformer|detail|joint|captions|shown|pictures|clips|export]
        [--init FOLDER|pocket] [--device cuda]

Every stage keeps its state in the run folder and continues from it; `export` writes the model folder. A run may go on
from a finished model, the package's own for example: `--init pocket`; its stages are shown, pictures, clips and export.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from pathlib import Path

__all__ = ["main"]


_STAGES = ("basis", "transformer", "detail", "joint", "captions", "shown", "pictures", "clips", "export")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="vov pretrain", description="Train the embedded model 'pocket'.")
    parser.add_argument("--data", type=Path, required=True, help="folder of photographs and clips (see corpus.py)")
    parser.add_argument("--run", type=Path, required=True, help="folder that keeps the run's state")
    parser.add_argument("--stage", default="all", choices=["all", *_STAGES], help="all: with --init from shown on")
    parser.add_argument("--out", type=Path, help="model folder written by `export` (default: RUN/model)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--init", help="model folder that a new run starts from; `pocket` is the package's own")
    parser.add_argument("--steps", type=int, help="optimiser steps; may change when a run is continued")
    parser.add_argument("--detail-steps", type=int, default=2400, help="optimiser steps of the detail network")
    parser.add_argument("--joint-steps", type=int, default=3000, help="optimiser steps of both networks together")
    parser.add_argument(
        "--joint-times", type=float, nargs=2, metavar=("MEAN", "STD"), help="of logit(t) in that stage; may change, too"
    )
    parser.add_argument(
        "--caption-steps", type=int, default=600, help="optimiser steps of text encoder and cross-attention"
    )
    parser.add_argument(
        "--shown-steps", type=int, default=1200, help="optimiser steps on what the spaces show the transformer"
    )
    parser.add_argument("--picture-steps", type=int, default=4000, help="optimiser steps of the network of pictures")
    parser.add_argument("--clip-steps", type=int, default=10500, help="optimiser steps of the network of clips")
    parser.add_argument("--tokens-per-batch", type=int, help="tokens per optimiser step")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop each stage after this long")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="CPU threads")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Parse `arguments` (default: the process's) and run the stages asked for."""
    options = _parser().parse_args(arguments)
    import torch

    from vovcodec.backbone.pocket.block_transform import BlockTransformAutoencoder
    from vovcodec.pretraining.autoencoder import fit_basis
    from vovcodec.pretraining.corpus import load_corpus
    from vovcodec.pretraining.initial import initial_model, keep_initial
    from vovcodec.pretraining.transformer import TransformerRecipe, averaged_networks, train_transformer

    if options.threads:
        torch.set_num_threads(options.threads)
    options.run.mkdir(parents=True, exist_ok=True)
    corpus = load_corpus(options.data)
    print(corpus.summary(), flush=True)
    changes = {"steps": options.steps, "tokens_per_batch": options.tokens_per_batch, "seed": options.seed}
    recipe = dataclasses.replace(TransformerRecipe(), **{k: v for k, v in changes.items() if v is not None})
    running = {"device": options.device, "stop_after_s": 60 * options.minutes}
    if options.init:
        keep_initial(options.init, options.run)
    every = _STAGES[_STAGES.index("shown") :] if initial_model(options.run) else _STAGES
    wanted = set(every) if options.stage == "all" else {options.stage}
    begun, basis_dir = options.run / "init", options.run / "basis"
    if not basis_dir.exists() and begun.is_dir():
        BlockTransformAutoencoder.from_pretrained(begun / "vae").save_pretrained(basis_dir)
    elif not basis_dir.exists():
        autoencoder = BlockTransformAutoencoder()
        fit_basis(autoencoder, corpus, seed=options.seed)
        autoencoder.save_pretrained(basis_dir)
    if "transformer" in wanted:
        autoencoder = BlockTransformAutoencoder.from_pretrained(basis_dir)
        train_transformer(
            autoencoder,
            corpus,
            recipe,
            options.run,
            init=begun if begun.is_dir() else None,
            **running,
        )
    if "detail" in wanted:
        from vovcodec.pretraining.detail import train_detail

        autoencoder = BlockTransformAutoencoder.from_pretrained(basis_dir)
        transformer, text, _, _ = averaged_networks(options.run, recipe, autoencoder.config.latent_channels)
        train_detail(
            autoencoder,
            corpus,
            recipe,
            options.run,
            (transformer, text),
            n_steps=options.detail_steps,
            **running,
        )
    if "joint" in wanted:
        from vovcodec.pretraining.joint import LOGIT_MEAN, LOGIT_STD, train_joint

        train_joint(
            BlockTransformAutoencoder.from_pretrained(basis_dir),
            corpus,
            recipe,
            options.run,
            n_steps=options.joint_steps,
            times=tuple(options.joint_times or (LOGIT_MEAN, LOGIT_STD)),
            **running,
        )
    if "captions" in wanted:
        from vovcodec.pretraining.captioning import base_networks, train_captions

        networks, n_steps_before = base_networks(options.run, recipe)
        train_captions(
            networks,
            BlockTransformAutoencoder.from_pretrained(basis_dir),
            corpus,
            recipe,
            options.run,
            n_steps_before,
            n_steps=options.caption_steps,
            **running,
        )
    if "shown" in wanted:
        from vovcodec.pretraining.captioning import captioned_networks
        from vovcodec.pretraining.shown import train_shown

        networks, n_steps_before = captioned_networks(options.run, recipe)
        train_shown(
            networks,
            BlockTransformAutoencoder.from_pretrained(basis_dir),
            corpus,
            recipe,
            options.run,
            n_steps_before,
            n_steps=options.shown_steps,
            **running,
        )
    if {"pictures", "clips"} & wanted:
        from vovcodec.pretraining.completion import train_completion
        from vovcodec.pretraining.shown import finished_networks
        from vovcodec.pretraining.spaces import CLIPS, PICTURES

        networks, n_steps_before = finished_networks(options.run, recipe)
        for stage, n_steps in ((PICTURES, options.picture_steps), (CLIPS, options.clip_steps)):
            if stage.name in wanted:
                train_completion(
                    stage,
                    networks,
                    BlockTransformAutoencoder.from_pretrained(basis_dir),
                    corpus,
                    recipe,
                    options.run,
                    n_steps_before,
                    n_steps=n_steps,
                    **running,
                )
    if "export" in wanted:
        from vovcodec.pretraining.export import export_model

        export_model(options.run, options.out or options.run / "model", corpus, recipe)
    return 0

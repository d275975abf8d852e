"""Tiny, randomly initialised models of the real classes, saved in the exact layout of the hub's folders."""

from __future__ import annotations

import math
import string
from pathlib import Path

import torch

__all__ = ["save_tiny_captioner", "save_tiny_ltx_video", "save_tiny_pocket", "save_tiny_qwen_image", "save_tiny_wan"]

_LETTERS = string.ascii_letters + string.digits + ".,'-!?"


def _t5_tokenizer(folder: Path):
    """A unigram tokenizer of single characters, in T5's file format."""
    from transformers import T5TokenizerFast

    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocabulary = [*special, *((letter, -4.0) for letter in _LETTERS)]
    tokenizer = T5TokenizerFast(vocab=vocabulary, extra_ids=0)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _qwen_tokenizer(folder: Path, *extra: str):
    """Byte-level BPE without merges, with the chat tokens that Qwen's template uses."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2TokenizerFast

    vocabulary = {character: number for number, character in enumerate(sorted(ByteLevel.alphabet()))}
    special = ["<|im_start|>", "<|im_end|>", *extra]
    tokenizer = Qwen2TokenizerFast(vocab=vocabulary, merges=[], additional_special_tokens=special)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _save(pipeline, folder: Path) -> Path:
    """Transformer and text encoder in shards with an index, as the hub has them."""
    pipeline.save_pretrained(folder, safe_serialization=True)
    for name in ("transformer", "transformer_2", "text_encoder"):
        component = getattr(pipeline, name, None)
        if component is not None:
            for old in (folder / name).glob("*.safetensors"):
                old.unlink()
            size_bytes = sum(p.numel() * p.element_size() for p in component.parameters())
            component.save_pretrained(folder / name, max_shard_size=size_bytes // 2, safe_serialization=True)
            assert len(list((folder / name).glob("*-of-*.safetensors"))) >= 2
    return folder


def save_tiny_wan(folder: Path, *, seed: int = 0, kind: str = "2.1") -> Path:
    """A `WanPipeline`. kind: "2.1"; "2.2-14b" with two transformers; "2.2-5b" with the 16×16×4 autoencoder."""
    from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(seed)
    tokenizer = _t5_tokenizer(folder / "tokenizer")
    encoder_config = UMT5Config(
        vocab_size=len(tokenizer),
        d_model=24,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=3,
        feed_forward_proj="gated-gelu",
    )
    z_dim = 48 if kind == "2.2-5b" else 16
    latents = {
        "latents_mean": torch.linspace(-1, 1, z_dim).tolist(),
        "latents_std": torch.linspace(1, 3, z_dim).tolist(),
    }
    bigger = {"decoder_base_dim": 4, "in_channels": 12, "out_channels": 12, "is_residual": True, "patch_size": 2}
    autoencoder = AutoencoderKLWan(
        base_dim=4,
        z_dim=z_dim,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        **latents,
        **(bigger | {"scale_factor_spatial": 16} if kind == "2.2-5b" else {}),
    )

    def transformer() -> WanTransformer3DModel:
        return WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=z_dim,
            out_channels=z_dim,
            text_dim=24,
            freq_dim=16,
            ffn_dim=32,
            num_layers=2,
            rope_max_seq_len=32,
        )

    pipeline = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=UMT5EncoderModel(encoder_config),
        vae=autoencoder,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        transformer=transformer(),
        transformer_2=transformer() if kind == "2.2-14b" else None,
        boundary_ratio=0.875 if kind == "2.2-14b" else None,
        expand_timesteps=kind == "2.2-5b",
    )
    return _save(pipeline, folder)


def save_tiny_ltx_video(folder: Path, *, seed: int = 0) -> Path:
    """An `LTXPipeline`: 8 frames and 32×32 pixels per latent value, tokens of one latent value."""
    from diffusers import (
        AutoencoderKLLTXVideo,
        FlowMatchEulerDiscreteScheduler,
        LTXPipeline,
        LTXVideoTransformer3DModel,
    )
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(seed)
    tokenizer = _t5_tokenizer(folder / "tokenizer")
    pipeline = LTXPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLLTXVideo(
            latent_channels=16,
            block_out_channels=(4, 4, 4, 4),
            decoder_block_out_channels=(4, 4, 4, 4),
            layers_per_block=(1, 1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1, 1),
        ),
        text_encoder=T5EncoderModel(
            T5Config(vocab_size=len(tokenizer), d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=3)
        ),
        tokenizer=tokenizer,
        transformer=LTXVideoTransformer3DModel(
            in_channels=16,
            out_channels=16,
            num_attention_heads=2,
            attention_head_dim=12,
            cross_attention_dim=24,
            num_layers=2,
            caption_channels=24,
        ),
    )
    return _save(pipeline, folder)


def _separable_basis(n_channels: int, n_frames: int) -> torch.Tensor:
    """Rows of DCT-II in time, rows and columns times an orthonormal colour transform, by rising frequency."""

    def dct(n: int) -> torch.Tensor:
        k = torch.arange(n, dtype=torch.float64)
        basis = torch.cos(math.pi / n * (k[None] + 0.5) * k[:, None]) * math.sqrt(2 / n)
        basis[0] /= math.sqrt(2)
        return basis

    colour = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    colour = colour / colour.norm(dim=1, keepdim=True)
    rows = torch.kron(torch.kron(dct(n_frames), colour), torch.kron(dct(8), dct(8)))
    grid = torch.cartesian_prod(*(torch.arange(n) for n in (n_frames, 3, 8, 8))).double()
    order = (grid @ torch.tensor([2.0, 1.5, 1.0, 1.0], dtype=torch.float64)).argsort(stable=True)
    return rows[order[:n_channels]].float()


def save_tiny_pocket(folder: Path, *, seed: int = 0, n_channels: int = 24) -> Path:
    """A model folder for `PocketBackbone`: a real (separable DCT) block transform, random small networks."""
    from diffusers import WanTransformer3DModel
    from transformers import UMT5Config, UMT5EncoderModel

    from vovcodec.backbone.pocket.block_transform import BlockTransformAutoencoder
    from vovcodec.backbone.pocket.clips import ClipNetwork
    from vovcodec.backbone.pocket.detail import DetailNetwork
    from vovcodec.backbone.pocket.pictures import PictureNetwork

    torch.manual_seed(seed)
    autoencoder = BlockTransformAutoencoder(latent_channels=n_channels)
    autoencoder.intra_basis.copy_(_separable_basis(n_channels, 1))
    autoencoder.inter_basis.copy_(_separable_basis(n_channels, 4))
    falling = 4.0 / (1.0 + torch.arange(n_channels))
    autoencoder.intra_std.copy_(falling)
    autoencoder.inter_std.copy_(falling)
    transformer = WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=n_channels + 1,
        out_channels=n_channels,
        text_dim=16,
        freq_dim=16,
        ffn_dim=32,
        num_layers=2,
        rope_max_seq_len=64,
    )
    with torch.no_grad():
        transformer.proj_out.weight.mul_(0.3)  # near the linear estimate, as a trained model is at the start
    text = UMT5EncoderModel(
        UMT5Config(vocab_size=384, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, dropout_rate=0.0)
    )
    detail = DetailNetwork(n_channels, width=8, layers=1)
    torch.nn.init.normal_(detail.proj_out.weight, std=0.02)
    pictures = PictureNetwork(widths=(8, 8, 8), blocks=(1, 1, 1))
    torch.nn.init.normal_(pictures.proj_out.weight, std=0.02)
    pictures.save_pretrained(folder / "pictures")
    clips = ClipNetwork(widths=(8, 8, 8), blocks=(1, 1, 1), block_channels=n_channels)
    torch.nn.init.normal_(clips.proj_out.weight, std=0.02)
    clips.save_pretrained(folder / "clips")
    autoencoder.save_pretrained(folder / "vae")
    transformer.save_pretrained(folder / "transformer")
    detail.save_pretrained(folder / "detail")
    text.save_pretrained(folder / "text_encoder")
    (folder / "model_index.json").write_text('{"_class_name": "PocketModel"}\n')
    return folder


def _qwen_vl_config(tokenizer, **tokens):
    from transformers import Qwen2_5_VLConfig

    return Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "bos_token_id": None,
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "fullatt_block_indexes": [0],
        },
        **tokens,
    )


def save_tiny_qwen_image(folder: Path, *, seed: int = 0) -> Path:
    """A `QwenImagePipeline` with a Qwen2.5-VL text encoder."""
    from diffusers import (
        AutoencoderKLQwenImage,
        FlowMatchEulerDiscreteScheduler,
        QwenImagePipeline,
        QwenImageTransformer2DModel,
    )
    from transformers import Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(seed)
    tokenizer = _qwen_tokenizer(folder / "tokenizer")
    pipeline = QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, max_shift=0.9, max_image_seq_len=8192),
        vae=AutoencoderKLQwenImage(
            base_dim=4,
            z_dim=16,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            latents_mean=torch.linspace(-1, 1, 16).tolist(),
            latents_std=torch.linspace(1, 3, 16).tolist(),
        ),
        text_encoder=Qwen2_5_VLForConditionalGeneration(_qwen_vl_config(tokenizer)),
        tokenizer=tokenizer,
        transformer=QwenImageTransformer2DModel(
            in_channels=64,
            out_channels=16,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=(4, 6, 6),
        ),
    )
    return _save(pipeline, folder)


def save_tiny_captioner(folder: Path, *, seed: int = 0) -> Path:
    """A LLaVA model (CLIP vision tower, Llama text model) with processor and chat template."""
    from transformers import CLIPImageProcessorPil, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    torch.manual_seed(seed)
    tokenizer = _qwen_tokenizer(folder, "<image>")
    config = LlavaConfig(
        text_config={
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
        },
        vision_config={
            "model_type": "clip_vision_model",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 32,
            "patch_size": 16,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    template = (
        "{% for message in messages %}{% for part in message['content'] %}"
        "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    )
    images = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    )
    processor.save_pretrained(folder)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    return folder

"""vovcodec: a video or image as a small adaptation of a frozen generative model, in a real file.

    from vovcodec import EncodeOptions, encode, decode
    report = encode("in.mp4", "out.vov", EncodeOptions(effort="fast"))

Importing this package is cheap; the codec (and torch) load on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "BackboneCache": "vovcodec.codec.models",
    "DecodeLimits": "vovcodec.codec.options",
    "DecodeOptions": "vovcodec.codec.options",
    "DecodeReport": "vovcodec.codec.reports",
    "EditOptions": "vovcodec.codec.options",
    "EditReport": "vovcodec.codec.reports",
    "EncodeOptions": "vovcodec.codec.options",
    "EncodeReport": "vovcodec.codec.reports",
    "ProgressListener": "vovcodec.progress",
    "ScaleOptions": "vovcodec.codec.options",
    "ScaleReport": "vovcodec.codec.reports",
    "VovError": "vovcodec.errors",
    "decode": "vovcodec.codec.decode",
    "edit": "vovcodec.codec.edit",
    "encode": "vovcodec.codec.encode",
    "inspect": "vovcodec.codec.inspect",
    "scale": "vovcodec.codec.scale",
}

__all__ = ["BackboneCache", "DecodeLimits", "DecodeOptions", "DecodeReport", "EditOptions", "EditReport",
           "EncodeOptions", "EncodeReport", "ProgressListener", "ScaleOptions", "ScaleReport", "VovError",
           "decode", "edit", "encode", "inspect", "scale"]  # fmt: skip


def __getattr__(name: str) -> Any:
    """Loads a public name from its module on first use, so that `import vovcodec` does not load torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'vovcodec' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value

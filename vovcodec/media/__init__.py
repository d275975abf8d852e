"""Pictures in and out: clips, animations, images, image sequences and pipes, as upright RGB uint8 frames.

    source.py   what a path, pattern, pipe or file object is, and who reads it
    clip.py     video through PyAV            stills.py    images and animations through Pillow
    sequence.py numbered images               reader.py    selection and resampling in time: `open_frames`
    colour.py   H.273 code points, defaults   geometry.py  coded sizes, segments, resizing
    cuts.py     where scenes change           sheet.py     side-by-side contact sheets
    writer.py   which encoder an extension means; clip_, y4m_ and still_encoder.py, output.py do the work
    yuv.py      libswscale at its most exact  faults.py    one clear line for everything that can go wrong
    sound.py    parts of a sound track        sound_reader.py, sound_tracks.py, sound_writer.py: from and into clips
    profiles.py ICC profiles to sRGB

Names are imported on first use, so that `import vovcodec.media` costs nothing: PyAV and Pillow come with a file.
"""

from __future__ import annotations

from importlib import import_module

_HOMES = {
    "CutDetector": "cuts",
    "FrameReader": "reader",
    "FrameWriter": "writer",
    "MediaInfo": "info",
    "Segment": "geometry",
    "coded_size": "geometry",
    "contact_sheet": "sheet",
    "cut_notice": "sound",
    "cut_track": "sound",
    "open_frames": "reader",
    "open_writer": "writer",
    "pad_frames": "geometry",
    "probe": "reader",
    "resize_frames": "geometry",
    "segment_lengths": "geometry",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__

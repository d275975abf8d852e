"""Writes the conformance cases: python tests/make_conformance.py (from the project root; needs the embedded model).

Of each case: NAME.vov; NAME.json with every symbol and atom, which a decoder must find exactly, and the tolerance for
its pixels; NAME.png with the reference pixels at the coded size (float32 on a CPU), the frames of a clip one below the
other. To be run again, and its result committed, whenever the embedded model or the format changes.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from test_codec_roundtrip import clip, picture
from tiny_clips import write_clip

from vovcodec.backbone.geometry import known_geometry
from vovcodec.codec.chosen import segment_atoms
from vovcodec.codec.decode import decode
from vovcodec.codec.encode import encode
from vovcodec.codec.options import DecodeOptions, EncodeOptions
from vovcodec.container import Segment, VovFile, read_vov
from vovcodec.entropy.symbols import decode_symbols
from vovcodec.evaluation.pictures import read_media

FOLDER = Path(__file__).parent / "conformance"
# Grey levels of 0..255. Between float32 and bfloat16 on one machine the rms is 0.5 (bench/results/pocket_drift.tsv).
TOLERANCE = {"rms": 1.0, "peak": 16}
CASES = {
    "still-vector-atoms": {"n_frames": 0, "effort": "fast", "target_bytes": 260, "caption": "a bright disc"},
    "clip-atoms": {"n_frames": 9, "effort": "instant", "target_bytes": 300},
    "clip-scene": {"n_frames": 9, "effort": "instant", "target_bytes": 260, "still": {"speed": 0.1}},
    "clip-scene-moves": {"n_frames": 9, "effort": "instant", "target_bytes": 900, "still": {"speed": 0.4, "noise": 8}},
    "clip-camera": {"n_frames": 9, "effort": "instant", "target_bytes": 300, "pan": {"speed": 0.0, "noise": 10}},
    "clip-camera-moves": {"n_frames": 9, "effort": "instant", "target_bytes": 900, "pan": {"speed": 1.0, "noise": 12}},
    "clip-segments": {"n_frames": 41, "effort": "instant", "target_bytes": 420, "caption": "a moving disc"},
}


def entropy_of(stream: VovFile, segment: Segment) -> dict:
    """All symbols of a segment, and the path bits, or (positions, signs), of each injection."""
    header, found = stream.header, {}
    if segment.vector is not None:
        length = header.adaptation.vector_length
        found["symbols"] = decode_symbols(segment.vector.model, segment.vector.words, length).tolist()
    if segment.atoms is not None:
        geometry = known_geometry(header.backbone_id, header.fingerprint)
        chosen, found["n_positions"] = segment_atoms(header, segment, geometry)
        found["atoms"] = [[each.tolist() for each in choice] if isinstance(choice, tuple) else choice.tolist()
                          for choice in chosen]  # fmt: skip
    return found


def panned(n_frames: int, speed: float, noise: int) -> np.ndarray:
    """A camera that goes two pixels to the right from frame to frame."""
    wide = [picture(3 + speed * i, 64 + 2 * n_frames, 48, noise) for i in range(n_frames)]
    return np.stack([frame[:, 2 * i : 2 * i + 64] for i, frame in enumerate(wide)])


def decoded(path: Path, folder: Path) -> np.ndarray:
    """Frames of a file at the coded size, uint8 [F, H, W, 3], without loss on the way."""
    is_still = read_vov(path).header.frame_rate_num == 0
    target = folder / ("shown.png" if is_still else "%03d.png")
    decode(path, target, DecodeOptions(size="coded", device="cpu", overwrite=True))
    return read_media(target, n_frames=None).frames


def make(name: str, settings: dict, folder: Path) -> None:
    """One case. Raises what encoding and decoding raise."""
    settings = dict(settings)
    n_frames, still, pan = settings.pop("n_frames"), settings.pop("still", {}), settings.pop("pan", None)
    if pan is not None:
        source = write_clip(folder / "in.y4m", panned(n_frames, **pan))
    elif n_frames:
        source = clip(folder, n_frames, **still)
    else:
        source = folder / "in.png"
        Image.fromarray(picture(3)).save(source)
    coded = FOLDER / f"{name}.vov"
    encode(source, coded, EncodeOptions(size=(64, 48), state_dir=folder, device="cpu", overwrite=True, **settings))
    stream = read_vov(coded)
    expected = {"tolerance": TOLERANCE, "segments": [entropy_of(stream, segment) for segment in stream.segments]}
    (FOLDER / f"{name}.json").write_text(json.dumps(expected, separators=(",", ":")) + "\n")
    frames = decoded(coded, folder)
    Image.fromarray(frames.reshape(-1, *frames.shape[2:])).save(FOLDER / f"{name}.png", optimize=True)
    print(f"{name}: {coded.stat().st_size} bytes, {len(frames)} frames, {len(stream.segments)} segments")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for case, case_settings in CASES.items():
        with tempfile.TemporaryDirectory(prefix="vov-conformance-") as scratch:
            make(case, case_settings, Path(scratch))

"""Compressed text: captions (with a preset dictionary) and the edit history (FORMAT.md, sections 7 and 9)."""

from __future__ import annotations

import json
import zlib

from vovcodec.container.errors import FETCH_AGAIN, BadCaption, BadHistory
from vovcodec.container.layout import CAPTION_BYTES_MAX, HISTORY_BYTES_MAX

__all__ = ["CAPTION_DICTIONARY", "pack_caption", "pack_history", "unpack_caption", "unpack_history"]

# Part of the format: listed with its CRC-32 in FORMAT.md, section 7.2. Deflate reaches the end of a dictionary with the
# shortest distances, so the commonest phrases stand last.
CAPTION_DICTIONARY = (
    "cinematic lighting, shallow depth of field, bokeh, high contrast, soft natural light, golden hour, sunset, "
    "sunrise, at night, overcast, foggy, rainy, snowy, underwater, aerial view, drone footage, time-lapse, slow "
    "motion, hand-held camera, tracking shot, the camera pans slowly to the left, the camera pans to the right, the "
    "camera zooms in, zooms out, static camera, wide shot, medium shot, close-up of, low angle, high angle, top view, "
    "black and white, animation, cartoon, 3D render, oil painting, photograph of, portrait of, "
    "basketball, football, soccer player, tennis, horse, cat, bird, fish, flower, flowers, boat, ship, bridge, "
    "train, bus, bicycle, motorcycle, airplane, traffic, beach, ocean waves, lake, river, mountains, forest, "
    "garden, grass, snow, clouds, desert, kitchen, office, living room, stage, crowd, audience, "
    "children playing, a group of people, a young man, a young woman, an old man, a little girl, a boy, a baby, "
    "a person, a dog, a car driving on the road, a city street, buildings, a house, windows, trees, "
    "blue sky, red, green, yellow, orange, purple, brown, gray, pink, black, white, dark, bright, large, small, "
    "wearing a white shirt, a hat, glasses, jacket, dress, with long hair, holding a, looking at the camera, "
    "talking, smiling, dancing, running, walking, jumping, standing, sitting on, riding, swimming, flying, moving, "
    "from left to right, towards, through, between, behind, under, above, over, around, next to a, along the, "
    "surrounded by, in front of a, on top of, at the edge of the, in the background, in the foreground, in the middle "
    "of the, on the left, on the right, there is a, there are several, and the, with a, while, on the, of the, in the, "
    "The scene shows a view of the video A man in a woman in a "
).encode("ascii")


def _inflate(data: bytes | memoryview, limit: int, dictionary: bytes) -> bytes:
    """Raw deflate data of exactly one stream, at most `limit` bytes out (never more is produced); `zlib.error`."""
    stream = zlib.decompressobj(-15, zdict=dictionary) if dictionary else zlib.decompressobj(-15)
    text = stream.decompress(data, limit + 1)
    if len(text) > limit:
        raise zlib.error(f"more than {limit} bytes of text")
    if not stream.eof or stream.unused_data:
        raise zlib.error("the compressed text is cut short or followed by other bytes")
    return text


def _deflate(text: bytes, dictionary: bytes) -> bytes:
    extra = {"zdict": dictionary} if dictionary else {}
    stream = zlib.compressobj(9, zlib.DEFLATED, -15, 9, **extra)
    return stream.compress(text) + stream.flush()


def pack_caption(caption: str, section: str) -> tuple[bool, bytes]:
    """(compressed?, stored bytes), whichever form is smaller. `BadCaption` if it is not text or above the cap."""
    if not isinstance(caption, str):
        raise BadCaption(f"{section}: the caption must be text, not {type(caption).__name__}")
    try:
        text = caption.encode("utf-8")
    except UnicodeEncodeError:
        raise BadCaption(f"{section}: the caption holds a lone surrogate, which UTF-8 cannot store") from None
    if len(text) > CAPTION_BYTES_MAX:
        raise BadCaption(f"{section}: the caption has {len(text)} bytes, must be 0..{CAPTION_BYTES_MAX}; shorten it")
    packed = _deflate(text, CAPTION_DICTIONARY)
    return (True, packed) if len(packed) < len(text) else (False, text)


def unpack_caption(deflated: bool, stored: bytes | memoryview, section: str) -> str:
    """Inverse of `pack_caption`. At most 8 KiB are produced whatever the input. Raises `BadCaption`."""
    try:
        text = _inflate(stored, CAPTION_BYTES_MAX, CAPTION_DICTIONARY) if deflated else bytes(stored)
        if len(text) > CAPTION_BYTES_MAX:
            raise BadCaption(f"{section}: the caption has {len(text)} bytes, must be 0..{CAPTION_BYTES_MAX}")
        return text.decode("utf-8")
    except (zlib.error, UnicodeDecodeError) as error:
        raise BadCaption(f"{section}: the caption cannot be read ({error}); {FETCH_AGAIN}") from None


def pack_history(history: tuple[dict, ...]) -> bytes:
    """Raw deflate of one JSON object per line. `BadHistory` if it is not JSON or above the cap."""
    try:
        lines = [json.dumps(entry, ensure_ascii=False, allow_nan=False, separators=(",", ":")) for entry in history]
        text = "\n".join(lines).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise BadHistory(f"history: an entry cannot be stored as JSON ({error})") from None
    if not all(isinstance(entry, dict) for entry in history):
        raise BadHistory("history: every entry must be a JSON object")
    if len(text) > HISTORY_BYTES_MAX:
        raise BadHistory(f"history: {len(text)} bytes, must be 0..{HISTORY_BYTES_MAX}; drop the oldest entries")
    return _deflate(text, b"")


def unpack_history(payload: bytes | memoryview) -> tuple[dict, ...]:
    """Inverse of `pack_history`. At most 64 KiB of text are produced whatever the input. Raises `BadHistory`."""
    try:
        text = _inflate(payload, HISTORY_BYTES_MAX, b"").decode("utf-8")
        history = tuple(json.loads(line) for line in text.split("\n"))
        for entry in history:  # what JSON text can say but we could not write again: NaN, 1e999, lone surrogates
            json.dumps(entry, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (zlib.error, ValueError, RecursionError) as error:
        raise BadHistory(f"history: cannot be read ({error}); {FETCH_AGAIN}") from None
    if not all(isinstance(entry, dict) for entry in history):
        raise BadHistory(f"history: an entry is not a JSON object; {FETCH_AGAIN}")
    return history

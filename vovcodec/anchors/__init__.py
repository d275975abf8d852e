"""Classic codecs on the same frames, to compare with: x265 and SVT-AV1 for clips, WebP and AVIF for pictures.

    anchor.py  what an anchor is and what one encode of it gives
    clips.py   x265 and SVT-AV1 through PyAV      stills.py  WebP and AVIF through Pillow
    search.py  the best encode within a number of bytes, and the codec's floor

Every choice that is open is made in the anchor's favour: what is counted are payload bytes, without the container that
a user's file has; encoders run without what costs bytes for speed (wavefronts, frame threads) and without their
greeting message; pixel formats and tunings are those with the best PSNR on small pictures.
"""

from __future__ import annotations

from vovcodec.anchors.anchor import Anchor, Coded
from vovcodec.anchors.clips import SVT_AV1, X265, X265_444
from vovcodec.anchors.search import RateSearch
from vovcodec.anchors.stills import AVIF, WEBP
from vovcodec.errors import UsageError

__all__ = ["ANCHORS", "CLIP_ANCHORS", "STILL_ANCHORS", "Anchor", "Coded", "RateSearch", "find_anchor"]

ANCHORS: dict[str, Anchor] = {anchor.name: anchor for anchor in (X265, X265_444, SVT_AV1, WEBP, AVIF)}
CLIP_ANCHORS = ("x265", "x265-444", "svtav1")
STILL_ANCHORS = ("webp", "avif")


def find_anchor(name: str) -> Anchor:
    """The anchor called `name`. Raises UsageError with the names there are, and when this installation lacks it."""
    if name not in ANCHORS:
        raise UsageError(f"no codec called {name!r} to compare with; there are {', '.join(ANCHORS)}")
    missing = ANCHORS[name].missing()
    if missing:
        raise UsageError(f"cannot compare with {name}: {missing}")
    return ANCHORS[name]

"""Clips on a picture over which a camera moves (FORMAT.md, 6.6 and 22.2): how its path is coded, what it means, how an
encoder finds it, and whole files on a tiny model of the real classes.

`SecondCamera` is written from FORMAT.md alone, in NumPy and float64; it also films the clips that are coded here. Of
these `alone` becomes nothing but a picture with a camera, `moves` a picture with a camera and the clip that follows it.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace

import container_samples as samples
import numpy as np
import pytest
import second_reader as second
import torch
import torch.nn.functional as F
from fuzz_mutations import _joined, _split
from test_codec_roundtrip import frames_of
from test_scenes import PRESET, Progress, encoded, shown, tiny_home, with_atoms, written
from test_second_reader import ours
from tiny_clips import write_clip

from vovcodec.backbone.geometry import pocket_geometry
from vovcodec.backbone.pocket.backbone import PocketBackbone
from vovcodec.codec import resteer as resteer_module
from vovcodec.codec import segment as segment_module
from vovcodec.codec import view as view_module
from vovcodec.codec.chosen import segment_atoms
from vovcodec.codec.edit import edit
from vovcodec.codec.inspect import inspect
from vovcodec.codec.limits import decode_cost, require_within, steering_cost
from vovcodec.codec.measure import evaluations_by_length, n_evaluations_of
from vovcodec.codec.options import DecodeLimits, EditOptions, ScaleOptions
from vovcodec.codec.plans import camera_of_atoms
from vovcodec.codec.regenerate import seen_scene
from vovcodec.codec.registration import as_pixels, camera_of, picture_of, register
from vovcodec.codec.scale import scale
from vovcodec.codec.view import best_view
from vovcodec.container import CodedAtoms, Segment, VovFile, describe, layout, parse, read_vov, serialize
from vovcodec.container.bits import BitReader, BitWriter
from vovcodec.container.camera import PATH_ENTRY_MAX, camera_path_bits
from vovcodec.container.errors import FieldOutOfRange, LimitExceeded, NonCanonical
from vovcodec.container.framing import DEFAULT_LIMITS, Budget
from vovcodec.container.writer import scene_bits
from vovcodec.entropy.errors import BadCodedAtoms
from vovcodec.errors import FormatError, UsageError
from vovcodec.metrics import psnr
from vovcodec.progress import SilentListener
from vovcodec.sampling.camera import Camera, CameraPath
from vovcodec.sampling.schedule import REALISM_STEPS

EMPTY = ((),) * 6
NO_CROP = (0, 0, 0, 0)

# --- the second implementation -------------------------------------------------------------------------------------


def keys(distance: np.ndarray) -> np.ndarray:
    """Cubic convolution (Keys 1981), a = -3/4."""
    d, a = np.abs(distance), -0.75
    near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def interpolated(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Image [C, H, W] at x, y pixels from its middle."""
    height, width = image.shape[-2:]
    u, v = x + width / 2 - 0.5, y + height / 2 - 0.5
    left, top = np.floor(u).astype(int), np.floor(v).astype(int)
    in_x, in_y = ([keys(at - first - k) for k in range(-1, 3)] for at, first in ((u, left), (v, top)))
    total = 0.0
    for row, column in itertools.product(range(4), repeat=2):
        i, j = left + column - 1, top + row - 1
        taken = image[:, np.clip(j, 0, height - 1), np.clip(i, 0, width - 1)]
        total = total + in_y[row] * in_x[column] * taken
    return total


def maps_of(path: tuple[tuple[int, ...], ...], step_q: int, n: int) -> np.ndarray:
    """c[p][f], [6, n]."""
    maps, f = np.zeros((6, n)), np.arange(n)
    for p, row in enumerate(path):
        for k, q in enumerate(row, start=1):
            maps[p] += 2.0**-step_q * q * math.sqrt(2 / n) * np.cos(math.pi * k * (2 * f + 1) / (2 * n))
    return maps


@dataclass
class SecondCamera:
    """Section 22.2. maps: c[p][f]."""

    maps: np.ndarray
    width: int
    height: int
    margin: tuple[int, int] = (0, 0)
    crop: tuple[int, int, int, int] = NO_CROP

    @classmethod
    def of(cls, camera: Camera, n: int, width: int, height: int) -> SecondCamera:
        return cls(maps_of(camera.path, camera.step_q, n), width, height, camera.margin, camera.crop)

    @property
    def picture_size(self) -> tuple[int, int]:
        return self.width + 16 * self.margin[0], self.height + 16 * self.margin[1]

    @staticmethod
    def middles(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        y, x = np.mgrid[:height, :width]
        return x + 0.5 - width / 2, y + 0.5 - height / 2

    @property
    def h(self) -> np.ndarray:
        left, right, top, bottom = (quarters / 4 for quarters in self.crop)
        i, j = np.arange(self.width), np.arange(self.height)
        across = np.clip(np.minimum(i + 1 - left, self.width - i - right), 0, 1)
        return np.clip(np.minimum(j + 1 - top, self.height - j - bottom), 0, 1)[:, None] * across

    def looks(self, picture: np.ndarray) -> np.ndarray:
        """r of every frame, [n, C, H, W], of a picture [C, H', W']."""
        x, y = self.middles(self.width, self.height)
        in_x, in_y = 2 * x / self.width, 2 * y / self.height
        return np.stack([
            interpolated(picture, x + c[0] + c[1] * in_x + c[2] * in_y, y + c[3] + c[4] * in_x + c[5] * in_y)
            for c in self.maps.T
        ])  # fmt: skip

    def shown(self, picture: np.ndarray) -> np.ndarray:
        return -1 + self.h * (self.looks(picture) + 1)

    def seen(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """x, y in every frame of the picture's pixels."""
        found = []
        for c in self.maps.T:
            linear = np.eye(2) + np.array([[c[1], c[2]], [c[4], c[5]]]) * (2 / self.width, 2 / self.height)
            there = np.stack(self.middles(*self.picture_size)) - np.array([c[0], c[3]])[:, None, None]
            found.append(tuple(np.linalg.solve(linear, there.reshape(2, -1)).reshape(there.shape)))
        return found

    def weights(self) -> np.ndarray:
        left, right, top, bottom = (math.ceil(quarters / 4) for quarters in self.crop)
        every = []
        for x, y in self.seen():
            u, w = x + self.width / 2 - 0.5, y + self.height / 2 - 0.5
            beyond = [left - u, u - self.width + 1 + right, top - w, w - self.height + 1 + bottom]
            every.append(np.maximum(1 / 1024, np.minimum(1, 1 - np.max(beyond, axis=0))))
        return np.stack(every)

    def gathered(self, frames: np.ndarray) -> np.ndarray:
        """P, [C, H', W'], of frames [n, C, H, W]."""
        seen = np.stack([interpolated(frame, *place) for frame, place in zip(frames, self.seen(), strict=True)])
        weights = self.weights()[:, None]
        return (weights * seen).sum(axis=0) / weights.sum(axis=0)

    def still_part(self, e: np.ndarray) -> np.ndarray:
        return self.h * self.looks(self.gathered(e)) + (1 - self.h) * e


@functools.cache
def texture(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Smooth and random, [3, H, W] in (−1, 1)."""
    rng = np.random.default_rng(seed)
    picture = torch.zeros(1, 3, height, width)
    for cell, gain in ((32, 0.25), (8, 0.3), (4, 0.15)):
        grain = torch.from_numpy(rng.normal(size=(1, 3, -(-height // cell), -(-width // cell)))).float()
        picture += gain * F.interpolate(grain, size=(height, width), mode="bicubic", align_corners=False)
    return (0.1 + picture)[0].clamp(-0.9, 0.9).double().numpy()


def moved(kind: str, n: int, width: int, height: int) -> np.ndarray:
    """Maps [6, n] of a camera that pans, zooms or turns."""
    f, none = np.linspace(-1, 1, n), np.zeros(n)
    a = 0.08 * f
    rows = {
        "pan": [f * width / 8, none, none, f * height / 12, none, none],
        "zoom": [none, f * width / 16, none, none, none, f * height / 16],
        "turn": [3 * np.sin(2 * f), (np.cos(a) - 1) * width / 2, -np.sin(a) * height / 2,
                 none, np.sin(a) * width / 2, (np.cos(a) - 1) * height / 2],
    }[kind]  # fmt: skip
    maps = np.stack(rows)
    return maps - maps.mean(axis=1, keepdims=True)


def as_bytes(frames: np.ndarray) -> np.ndarray:
    """[n, 3, H, W] in [−1, 1] → uint8 [n, H, W, 3]."""
    return np.rint((np.moveaxis(frames, 1, -1) + 1) * 127.5).clip(0, 255).astype(np.uint8)


def filmed(kind: str, n: int, width: int, height: int, crop=NO_CROP, gain: float = 1.0, lift: float = 0.0):
    """A clip, uint8 [n, H, W, 3], and its maps."""
    maps = moved(kind, n, width, height)
    camera = SecondCamera(maps, width, height, (2, 2), crop)
    return as_bytes(camera.shown(gain * texture(*camera.picture_size) + lift)), maps


# --- the path in the file ------------------------------------------------------------------------------------------

SCENES = samples.scenes()
PANNED = SCENES.segments[2].atoms
FIELDS = {field.names[0]: field for field in layout.SEGMENT_FIELDS}
PATH_FIELD = FIELDS["atoms.camera_path"]
TAMED_BY_A_RULE = ((1, 2), (4, 5))


def most_linear(n: int, step_q: int, width: int, height: int) -> int:
    """The largest H a + W d that the rule for camera_path allows."""
    return math.isqrt(9 * n * 4**step_q * (width * height) ** 2 // 128)


def random_path(rng: random.Random, n: int, step_q: int, width: int, height: int) -> tuple[tuple[int, ...], ...]:
    """Valid: of any lengths, with entries of any magnitude."""
    rows = []
    for p in range(6):
        largest = PATH_ENTRY_MAX
        if p not in (0, 3):
            largest = min(largest, most_linear(n, step_q, width, height) // (width if p in (2, 5) else height) // 2)
        row, left = [], largest
        for _ in range(rng.choice((0, 1, 2, 4, min(63, n - 1)))):
            entry = int(min(left, math.exp(rng.uniform(-1, 11)))) if rng.random() < 0.8 else 0
            left -= entry if p not in (0, 3) else 0
            row.append(rng.choice((-1, 1)) * entry)
        while row and not row[-1]:
            row.pop()
        rows.append(tuple(row))
    return tuple(rows) if any(rows) else ((1,), (), (), (), (), ())


def spelled(path: tuple[tuple[int, ...], ...], force_long: bool = False) -> str:
    """Section 6.6 as a string of bits, by the text alone."""
    bits = "1" if path else "0"
    for row in path:
        bits += f"{len(row):06b}"
        a = 128
        for v in row:
            k = max(0, len(f"{a // 16:b}" if a >= 16 else "") - 1)
            e, rest = divmod(abs(v), 2**k)
            short = "1" * e + "0" + (f"{rest:0{k}b}" if k else "")
            bits += "1" * 15 + f"{abs(v):015b}" if e >= 15 or force_long else short
            bits += "" if v == 0 else str(int(v < 0))
            a = (a + 16 * abs(v)) // 2
    return bits


def as_payload(bits: str) -> bytes:
    return int(bits + "0" * (-len(bits) % 8), 2).to_bytes(-(-len(bits) // 8), "big")


def read_path(bits: str) -> tuple[tuple[int, ...], ...]:
    """By the package's reader."""
    values = {"has_atoms": True, "atoms.scene_injections": 1, "budget": Budget(DEFAULT_LIMITS)}
    PATH_FIELD.get(BitReader(as_payload(bits), "segment"), values)
    return values["atoms.camera_path"]


def one_segment(atoms: CodedAtoms, n_frames: int = 33, **header) -> VovFile:
    padded = layout.padded_frames(n_frames)
    head = samples.header(n_frames=n_frames, segment_frames=padded, **header)
    return VovFile(head, (Segment(index=0, n_frames=n_frames, atoms=atoms),))


def unruled(stream: VovFile, monkeypatch) -> bytes:
    """What a writer makes of it that knows no rules."""
    with monkeypatch.context() as patch:
        patch.setattr(layout, "SEGMENT_RULES", ())
        return serialize(stream)


def test_random_paths_survive_in_both_readers_and_take_the_bits_that_were_counted():
    rng = random.Random(1)
    n_long = 0
    for _ in range(250):
        n_frames, step_q = rng.choice((2, 5, 8, 30, 62, 64)), rng.randrange(4)
        width, height = rng.choice(((8, 8), (208, 120), (8191, 8), (8192, 8192)))
        path = random_path(rng, layout.padded_frames(n_frames), step_q, width, height)
        crops = {f"crop_{side}": rng.choice((0, 1, 255)) for side in ("left", "right", "top", "bottom")}
        margins = {"margin_x": rng.randrange(16), "margin_y": rng.randrange(16)}
        atoms = replace(PANNED, camera_path=path, camera_step_q=step_q, **crops, **margins)
        stream = one_segment(atoms, n_frames, coded_width=width, coded_height=height)
        data = serialize(stream)
        assert parse(data) == stream
        assert second.read(data) == ours(stream)
        bits = spelled(path)
        n_long += "1" * 15 in bits
        assert read_path(bits) == path
        assert camera_path_bits(path) == len(bits)
        out = BitWriter()
        PATH_FIELD.put(out, {"has_atoms": True, "atoms.scene_injections": 1, "atoms.camera_path": path}, "segment")
        assert out.to_bytes() == as_payload(bits)
    assert 50 < n_long < 250
    assert (camera_path_bits(()), spelled(())) == (1, "0")


def test_a_scene_costs_what_its_fields_take():
    """Besides its number of injections, which is paid for with the counts."""
    fields = layout.SEGMENT_FIELDS[list(FIELDS).index("atoms.scene_injections") :]
    others = ("atoms.counts", "atoms.last_q", "atoms.eta_scale_q")
    fields = [field for field in fields if field.names[0] not in others]
    rng, counts = random.Random(2), (2,) * 40
    for _ in range(200):
        atoms = CodedAtoms(
            counts=counts, words=bytes(10), scene_injections=rng.choice((1, 31, 32, 39, 40)),
            scene_ratio_q=rng.choice((24, 25)), camera_step_q=2, margin_x=0,
        )  # fmt: skip
        if atoms.has_scene_and_clip:
            atoms = replace(atoms, scene_last_q=rng.choice((16, 3)), clip_start_q=rng.choice((0, -5)))
        if rng.random() < 0.7:
            step_q = rng.randrange(4)
            atoms = replace(
                atoms, camera_path=random_path(rng, 33, step_q, 208, 120), camera_step_q=step_q,
                margin_x=rng.randrange(16), crop_left=rng.choice((0, 1)), crop_bottom=rng.choice((0, 255)),
            )  # fmt: skip
        values = {f"atoms.{name}": getattr(atoms, name) for name in CodedAtoms.__dataclass_fields__}
        values |= {"has_atoms": True, "n_frames": 33, "header": samples.header()}
        out = BitWriter()
        for field in fields:
            field.put(out, values, "segment")
        bits = second.Bits(out.to_bytes())
        found = {"codebook": "trellis", "active_channels": 0, "counts": counts}
        found |= second.read_scene(bits, found, 33, {"schedule": "snr"})
        found |= second.read_rest_of_scene(bits, found)
        assert found["camera_path"] == atoms.camera_path
        # One bit says of every clip whether it has a scene, seven are the number.
        assert scene_bits(atoms) == bits.at - 8
    assert scene_bits(replace(atoms, scene_injections=0)) == 0


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        ("1" + "000000" * 6, "stands still"),
        (spelled(((3, 0), (), (), (), (), ())), "ends with a zero"),
        (spelled(((), (), (), (), (), (0,))), "ends with a zero"),
        (spelled(((5,), (), (), (), (), ()), force_long=True), "5 in .* long form"),
        (spelled(((119,), (), (), (), (), ()), force_long=True), "119 in .* long form"),
        (spelled(((9, -0, 7), (), (), (), (), ()), force_long=True), "long form"),
    ],
)
def test_a_path_has_one_spelling(bits: str, message: str):
    with pytest.raises(NonCanonical, match=message) as caught:
        read_path(bits)
    assert "\n" not in str(caught.value)
    with pytest.raises(second.Refused):
        second.read_path(second.Bits(as_payload(bits)))
    assert read_path(spelled(((120,), (), (), (), (), ()), force_long=True))[0] == (120,), "where the long form begins"


@pytest.mark.parametrize(
    "path",
    [
        EMPTY, EMPTY[:5], (*EMPTY, ()), ((1,),), ((1, 0), *EMPTY[1:]), ((1,) * 64, *EMPTY[1:]),
        ((PATH_ENTRY_MAX + 1,), *EMPTY[1:]), ((-PATH_ENTRY_MAX - 1,), *EMPTY[1:]), ((1.5,), *EMPTY[1:]),
        (("1",), *EMPTY[1:]), 7, None, [],
    ],
)  # fmt: skip
def test_paths_that_no_file_has_are_not_written(path):
    with pytest.raises(FieldOutOfRange, match=r"segment 0: atoms\.camera_path is .*, must be \(\) or 6 rows"):
        serialize(one_segment(replace(PANNED, camera_path=path)))


def test_a_camera_needs_a_scene_and_its_fields_need_a_camera():
    still = CodedAtoms(counts=PANNED.counts, words=PANNED.words)
    with pytest.raises(FieldOutOfRange, match=r"camera_path is .*, must be \(\) unless scene_injections > 0"):
        serialize(one_segment(replace(still, camera_path=((1,), *EMPTY[1:]))))
    standing = replace(still, scene_injections=2)
    assert parse(serialize(one_segment(standing))).segments[0].atoms == standing
    for name, value in {"camera_step_q": 1, "margin_x": 1, "margin_y": 1, "crop_left": 1, "crop_bottom": 255}.items():
        with pytest.raises(FieldOutOfRange, match=rf"atoms\.{name} is {value}, must be . unless camera_path is not"):
            serialize(one_segment(replace(standing, **{name: value})))
        with pytest.raises(FieldOutOfRange, match=rf"atoms\.{name} is 256, must be 0\.\."):
            serialize(one_segment(replace(PANNED, **{name: 256})))


@pytest.mark.parametrize("n_frames", [2, 5, 6, 33, 63])
def test_rows_are_shorter_than_their_frames(monkeypatch, n_frames):
    longest = min(63, layout.padded_frames(n_frames) - 1)
    fits = one_segment(replace(PANNED, camera_path=(*EMPTY[:5], (1,) * longest)), n_frames)
    assert parse(serialize(fits)) == fits
    if longest == 63:
        return
    beyond = one_segment(replace(PANNED, camera_path=(*EMPTY[:5], (1,) * (longest + 1))), n_frames)
    data = unruled(beyond, monkeypatch)
    for attempt in (lambda: serialize(beyond), lambda: parse(data)):
        with pytest.raises(FieldOutOfRange, match=r"atoms\.camera_path is .*, must be of rows shorter than n coded"):
            attempt()
    with pytest.raises(second.Refused):
        second.read(data)


@pytest.mark.parametrize(("rows", "n_frames", "step_q"), [((1, 2), 6, 0), ((4, 5), 9, 1), ((4, 5), 33, 3)])
def test_the_linear_part_is_tame_up_to_an_exact_integer(monkeypatch, rows, n_frames, step_q):
    width, height = 9, 8  # of which all integers from 56 on are sums
    most = most_linear(layout.padded_frames(n_frames), step_q, width, height)
    for wanted, fits in ((most, True), (most + 1, False)):
        down = next(d for d in range(1, wanted) if (wanted - width * d) % height == 0)
        across = (wanted - width * down) // height
        path = [(), (), (), (), (), ()]
        path[rows[0]], path[rows[1]] = (1 - across, 0, 1), (0, -down)
        stream = one_segment(replace(PANNED, camera_path=tuple(path), camera_step_q=step_q), n_frames,
                             coded_width=width, coded_height=height)  # fmt: skip
        if fits:
            assert parse(serialize(stream)) == stream and second.read(serialize(stream)) == ours(stream)
            continue
        data = unruled(stream, monkeypatch)
        for attempt in (lambda stream=stream: serialize(stream), lambda data=data: parse(data)):
            with pytest.raises(FieldOutOfRange, match=r"camera_path is .*, must be such that 128"):
                attempt()
        with pytest.raises(second.Refused):
            second.read(data)


def test_what_is_described_is_plain_data():
    report = describe(parse(serialize(samples.scenes())))
    assert json.loads(json.dumps(report)) == report


def test_a_picture_with_margins_may_have_more_atoms_than_the_clip():
    margin = {"margin_x": 15, "margin_y": 15}
    size = {"coded_width": 48, "coded_height": 32}

    def chosen(counts: tuple[int, ...], n_scene: int, **margins):
        atoms = CodedAtoms(counts=counts, words=bytes(-(-sum(counts) // 8)), scene_injections=n_scene,
                           camera_path=((9,), *EMPTY[1:]), **margins)  # fmt: skip
        stream = parse(serialize(one_segment(atoms, 9, **size)))
        return segment_atoms(stream.header, stream.segments[0], pocket_geometry())

    many = (28, 192, 1280, 8192, 40_960)  # of 32,768 of the clip, 262,144 of the large picture, 8,192 of a small one
    assert [len(path) for path in chosen(many, 5, **margin)[0]] == list(many)
    for n_scene, margins in ((4, margin), (5, {"margin_x": 0, "margin_y": 0})):
        with pytest.raises(BadCodedAtoms):
            chosen(many, n_scene, **margins)


# --- what it means -------------------------------------------------------------------------------------------------

CAMERAS = {
    "pan": (Camera(((30, -4, 0, 2), (), (), (-9, 3), (), ()), 2, (1, 0)), 9, 32, 16),
    "everything": (Camera(((-17, 5), (11, 0, -3), (6,), (8, 0, 0, 9), (-7, 2), (4,)), 1, (1, 2), (9, 2, 0, 7)), 13,
                   24, 32),
    "odd size": (Camera(((50,), (-20,), (13,), (1,), (9,), (-25,)), 3, (0, 1), (1, 3, 5, 6)), 5, 19, 13),
    "nothing but bars": (Camera(((3,), (), (), (), (2,), ()), 0, (0, 0), (63, 63, 0, 1)), 5, 16, 16),
    "far away": (Camera(((32767,), (), (), (), (), ()), 0, (2, 0)), 5, 16, 16),
}  # fmt: skip


@pytest.mark.parametrize("name", CAMERAS)
def test_maps_bars_and_projections_are_those_of_the_format(name):
    camera, n, width, height = CAMERAS[name]
    path, expected = CameraPath(camera, n, width, height, "cpu"), SecondCamera.of(camera, n, width, height)
    assert path.picture_size == expected.picture_size
    rng = np.random.default_rng(5)
    picture = rng.uniform(-1, 1, (2, *reversed(path.picture_size)))
    frames = rng.normal(size=(n, 2, height, width))
    as_tensors = torch.from_numpy(picture)[None].float(), torch.from_numpy(frames).float()
    # Positions are exact to 2^-24 of the distance from the middle.
    tolerance = 1e-4 if name != "far away" else 1e-2
    for found, wanted in (
        (path.cover[0, 0], expected.h),
        (path.looks(as_tensors[0]), expected.looks(picture)),
        (path.shown(as_tensors[0]), expected.shown(picture)),
        (path.weights[:, 0], expected.weights()),
        (path.gathered(as_tensors[1])[0], expected.gathered(frames)),
        (path.still_part(as_tensors[1]), expected.still_part(frames)),
    ):
        np.testing.assert_allclose(found.numpy(), wanted, atol=tolerance)


def test_the_largest_linear_part_can_be_undone():
    """At the bound the map keeps a quarter of each direction."""
    n, width, height = 9, 48, 32
    most = most_linear(n, 2, width, height)
    for rows, sign in itertools.product(TAMED_BY_A_RULE, (-1, 1)):
        path = [(), (), (), (), (), ()]
        path[rows[0]] = (sign * (most // height),)
        camera = CameraPath(Camera(tuple(path), 2, (1, 1)), n, width, height, "cpu")
        assert 0.2 < float(torch.linalg.svdvals(camera.linear).amin()) < 0.9
        assert camera.still_part(torch.randn(n, 1, height, width)).isfinite().all()


def test_a_pan_by_whole_pixels_shows_parts_of_the_picture():
    # Of four frames √(2/4)·cos(π/4·(2f + 1)) is ±½.
    path = CameraPath(Camera(((0, 10), (), (), (0, -6), (), ()), 0, (1, 1), (6, 0, 0, 8)), 4, 24, 16, "cpu")
    picture = torch.from_numpy(texture(40, 32)).float()[None]
    frames = path.shown(picture)
    for frame, (x, y) in zip(frames, ((5, -3), (-5, 3), (-5, 3), (5, -3)), strict=True):
        part = picture[0, :, 8 + y : 24 + y, 8 + x : 32 + x]
        assert torch.allclose(frame[:, :14, 2:], part[:, :14, 2:], atol=1e-5)
        assert (frame[:, :, 0] == -1).all() and (frame[:, 14:] == -1).all()
        assert torch.allclose(frame[:, :14, 1], (part[:, :14, 1] - 1) / 2, atol=1e-5), "half of a pixel is cut off"


def test_a_path_of_many_frames_takes_no_square_of_memory():
    path = CameraPath(Camera(((0, 10), (), (3,), (), (), ())), 1_000_001, 24, 16, "cpu")
    assert path.linear.shape == (1_000_001, 2, 2) and path.offset.abs().max() > 0


def test_what_stands_still_is_a_linear_part_that_a_picture_gives_back():
    camera, n, width, height = CAMERAS["everything"]
    path = CameraPath(camera, n, width, height, "cpu")
    one, other = (torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    mixed = path.still_part(0.7 * one - 2.5 * other)
    assert torch.allclose(mixed, 0.7 * path.still_part(one) - 2.5 * path.still_part(other), atol=1e-4)
    smooth = F.interpolate(torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(3)),
                           size=path.picture_size[::-1], mode="bicubic")  # fmt: skip
    frames = path.looks(smooth)
    assert float((path.still_part(frames) - frames).abs().mean()) < 0.02 * float(frames.abs().mean())
    assert torch.allclose(path.gathered(torch.ones(n, 1, height, width)), torch.ones(1), atol=1e-5)
    black = path.shown(smooth)
    where = (path.cover == 0).expand(n, 3, -1, -1)
    assert (black[where] == -1).all() and where.any()
    assert torch.equal(path.still_part(one)[where], one[where]), "bars stand still as they are"


def test_a_camera_that_hardly_moves_is_one_that_stands_still():
    picture, frames = torch.rand(1, 3, 16, 32) * 2 - 1, torch.randn(9, 3, 16, 32)
    for path, tolerance in ((EMPTY, 1e-5), (((1,), (), (), (), (), ()), 0.1)):
        still = CameraPath(Camera(path, 3), 9, 32, 16, "cpu")
        assert torch.allclose(still.shown(picture), picture.expand(9, -1, -1, -1), atol=tolerance)
        inner = still.still_part(frames)[..., 1:-1, 1:-1]
        mean = frames.mean(dim=0, keepdim=True)[..., 1:-1, 1:-1].expand_as(inner)
        assert torch.allclose(inner, mean, atol=2 * tolerance)


# --- how an encoder finds it ---------------------------------------------------------------------------------------


def shown_again(frames: np.ndarray, camera: Camera) -> np.ndarray:
    """The clip as its picture and the camera show it."""
    path = CameraPath(camera, len(frames), frames.shape[2], frames.shape[1], "cpu")
    picture = picture_of(as_pixels(frames), path)
    assert picture.shape[:1:-1] == path.picture_size and picture.isfinite().all() and float(picture.abs().max()) <= 1
    return as_bytes(path.shown(picture).numpy())


@pytest.mark.parametrize(("kind", "n"), [("pan", 9), ("zoom", 13), ("turn", 17)])
def test_a_clips_picture_and_path_show_it_again(kind, n):
    frames, maps = filmed(kind, n, 96, 64)
    motion = register(frames)
    assert motion.crop == NO_CROP
    assert np.abs(motion.maps.numpy() - maps).max() < 0.1, "px at the border"
    n_bits, quality = [], []
    for step_q in (3, 2, 1, 0):
        camera = camera_of(motion, step_q)
        assert np.abs(maps_of(camera.path, step_q, n) - maps).max() < 1.5 * 2**-step_q
        n_bits.append(camera_path_bits(camera.path))
        quality.append(psnr(frames, shown_again(frames, camera)))
        atoms = replace(PANNED, camera_path=camera.path, camera_step_q=step_q, margin_x=camera.margin[0])
        stream = one_segment(atoms, n, coded_width=96, coded_height=64)
        assert parse(serialize(stream)) == stream, "a path that a file can have"
    assert n_bits == sorted(set(n_bits), reverse=True)
    assert quality == sorted(quality, reverse=True)
    assert quality[0] > 48 and quality[1] > 44 and quality[-1] > 35


def test_what_moves_by_itself_does_not_move_the_camera():
    frames, maps = filmed("pan", 9, 96, 64)
    y, x = np.mgrid[:64, :96]
    for f, frame in enumerate(frames):
        frame[(x - 30 - 3 * f) ** 2 + (y - 30) ** 2 < 60] = (200, 180, 60)
    assert np.abs(register(frames).maps.numpy() - maps).max() < 0.5


@pytest.mark.parametrize("crop", [(9, 30, 0, 0), (4, 8, 12, 0), (2, 0, 0, 3), (0, 0, 40, 41), (62, 0, 0, 63)])
def test_black_bars_are_found_to_a_quarter_of_a_pixel(crop):
    frames, _ = filmed("pan", 9, 96, 64, crop)
    motion = register(frames)
    assert motion.crop == crop
    assert psnr(frames, shown_again(frames, camera_of(motion, 3))) > 42


@pytest.mark.parametrize(("gain", "lift"), [(1.0, 0.0), (0.1, -0.75), (1.0, 0.8)])
def test_there_are_no_bars_where_the_scene_goes_to_the_border(gain, lift):
    frames, _ = filmed("turn", 9, 96, 64, gain=gain, lift=lift)
    assert register(frames).crop == NO_CROP
    frames[:, :, 0] = 0.7 * frames[:, :, 1]
    assert register(frames).crop == NO_CROP, "a darker edge is none"


def letterboxed(bar_px: int) -> np.ndarray:
    frames, _ = filmed("pan", 9, 64, 64)
    frames[:, :bar_px] = frames[:, -bar_px:] = 0
    return frames


@pytest.mark.parametrize("bar_px", [16, 20, 30])
def test_bars_are_what_a_file_can_say(bar_px):
    motion = register(letterboxed(bar_px))
    top, bottom = motion.crop[2:]
    assert (top, bottom) == ((4 * bar_px,) * 2 if bar_px < 24 else (0, 0)), "more is a dark scene"
    camera = camera_of(motion, 2)
    if camera is None:  # a slit of few pixels
        assert bar_px > 16
        return
    atoms = replace(PANNED, camera_path=camera.path, crop_left=0, crop_top=top, crop_bottom=bottom)
    assert parse(serialize(one_segment(atoms, 9, coded_width=64, coded_height=64)))


class Blind:
    """As much of a backbone as `best_view` needs."""

    device = "cpu"

    def __init__(self) -> None:
        self.scene = SimpleNamespace(seen_by=lambda path: path)


def test_a_view_is_only_for_clips_that_one_picture_shows():
    rng = np.random.default_rng(0)
    for size in ((9, 32, 48, 3), (5, 16, 16, 3)):
        noise = rng.integers(0, 256, size).astype(np.uint8)
        other = noise.copy()
        other[size[0] // 2 :] = noise[0]
        other[: size[0] // 2] = noise[1]
        flashes = np.broadcast_to(noise[:, :1, :1], size).copy()
        for clip in (noise, other, flashes):
            assert best_view(Blind(), clip, 300) is None
        black = best_view(Blind(), np.zeros(size, dtype=np.uint8), 300)
        assert black.camera is None, "nothing is seen to move"


def test_the_fewer_bytes_the_coarser_the_path():
    frames, _ = filmed("turn", 9, 48, 32)
    views = [best_view(Blind(), frames, size_bytes) for size_bytes in (20, 60, 3000)]
    steps = [view.camera.step_q for view in views]
    assert steps == sorted(steps) and steps[0] < steps[-1]
    n_bits = [camera_path_bits(view.camera.path) for view in views]
    assert n_bits == sorted(n_bits) and n_bits[0] < n_bits[-1]
    assert all(psnr(frames, np.rint(view.shown.clip(0, 255)).astype(np.uint8)) > 33 for view in views)


# --- whole files ---------------------------------------------------------------------------------------------------

WIDTH, HEIGHT, N_FRAMES = 48, 32, 9
SIZES = {"alone": 220, "moves": 260}
KINDS = pytest.mark.parametrize("kind", SIZES)


def with_disc(frames: np.ndarray) -> np.ndarray:
    """The clip behind a disc that moves by itself."""
    y, x = np.mgrid[: frames.shape[1], : frames.shape[2]]
    for f, frame in enumerate(frames):
        frame[(x - 10 - 2.5 * f) ** 2 + (y - 16) ** 2 < 25] = (230, 220, 40)
    return frames


@contextmanager
def preferring(kind: str) -> Iterator[None]:
    """The encoder takes every clip for one of a camera that moves, and codes it in this way."""
    alone_db = {"alone": 99.0, "moves": -99.0}[kind]
    values = {"_BETTER_DB": -99.0, "_LEAST_GAINED_DB": -99.0, "_ALONE_DB": alone_db, "_ALONE_SPREAD_DB": alone_db}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setattr(view_module, name, value)
        yield


@contextmanager
def watched(kept: list[np.ndarray]) -> Iterator[None]:
    """Keeps the frames that encoders saw, segment by segment."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (segment_module, resteer_module):
            finish = module.finished_segment

            def watching(*inputs, finish=finish, **named):
                coded = finish(*inputs, **named)
                kept.append(coded.frames)
                return coded

            patch.setattr(module, "finished_segment", watching)
        yield


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the tiny model, which is loaded once for all; of each kind a clip, a file, its stream, what
    encoding reported and the frames that it saw."""
    folder = tmp_path_factory.mktemp("camera")
    with tiny_home(folder, PRESET) as found:
        found.streams, found.seen = {}, {}
        for kind in SIZES:
            frames, _ = filmed("pan", N_FRAMES, WIDTH, HEIGHT, crop=(0, 0, 0, 6))
            found.sources[kind] = write_clip(folder / f"{kind}.y4m", with_disc(frames) if kind == "moves" else frames)
            found.files[kind], seen = folder / f"{kind}.vov", []
            with preferring(kind), watched(seen):
                found.reports[kind] = encoded(found, found.files[kind], found.sources[kind], SIZES[kind])
            (found.seen[kind],) = seen
            found.streams[kind] = read_vov(found.files[kind])
        yield found


def atoms_of(path) -> list[CodedAtoms]:
    return [segment.atoms for segment in read_vov(path).segments]


def has_camera(path) -> list[bool]:
    return [bool(atoms and atoms.camera_path) for atoms in atoms_of(path)]


def scaled(source, target, size_bytes: int, reference=None):
    options = ScaleOptions(target_bytes=size_bytes, device="cpu", overwrite=True)
    return scale(source, reference, target, options, SilentListener())


@KINDS
def test_a_decoder_shows_what_the_encoder_saw_to_the_bit(home, tmp_path, kind):
    (atoms,), report = atoms_of(home.files[kind]), home.reports[kind]
    assert atoms.camera_path and min(atoms.margin_x, atoms.camera_path[0][0] != 0) > 0
    assert atoms.has_scene_and_clip == (kind == "moves")
    assert atoms.crop_bottom == 6
    found = inspect(home.files[kind], verify=True)
    assert (found["summary"]["cameras"], found["summary"]["scenes"]) == (1, 1)
    assert found["check"]["atoms"] == sum(atoms.counts)
    listener = Progress()
    frames, decoded = shown(home.files[kind], tmp_path, listener, verify=True)
    assert np.array_equal(frames, home.seen[kind]) and frames.shape == (N_FRAMES, HEIGHT, WIDTH, 3)
    assert decoded.drift_db == math.inf and not any("warning" in line for line in listener.lines)
    assert psnr(frames_of(home.sources[kind]), frames) == pytest.approx(report.psnr_db, abs=1e-6)
    if kind == "alone":
        flat = np.zeros_like(frames) + frames_of(home.sources[kind]).mean(axis=(0, 1, 2)).astype(np.uint8)
        assert report.psnr_db > psnr(frames_of(home.sources[kind]), flat) + 1, "the scene is recognised"
        wanted = moved("pan", N_FRAMES, WIDTH, HEIGHT)[0]
        assert np.corrcoef(register(frames).maps[0], wanted)[0, 1] > 0.99, "and goes by"
        assert (frames[:, -1] == 0).all(), "the bar is black"


class SecondScene:
    """Scenes by FORMAT.md, with the backbone's own spaces of pictures and clips."""

    def __init__(self, backbone: PocketBackbone, path: CameraPath) -> None:
        self.backbone = backbone
        self.camera = SecondCamera.of(path.camera, path.n_frames, path.width, path.height)

    def _y(self, latents: torch.Tensor) -> np.ndarray:
        picture = self.backbone._pictures.decode(latents)[0, :, 0].clamp(-1, 1)
        return self.camera.shown(picture.double().numpy())

    def _encoded(self, frames: np.ndarray) -> torch.Tensor:
        return self.backbone._clips.encode(torch.from_numpy(frames).float().transpose(0, 1)[None])

    @torch.no_grad()
    def shown(self, latents: torch.Tensor, n_frames: int) -> np.ndarray:
        return as_bytes(self._y(latents))[:n_frames]

    @torch.no_grad()
    def standing(self, latents: torch.Tensor, n_frames: int) -> torch.Tensor:
        assert n_frames == self.camera.maps.shape[1]
        return self._encoded(self._y(latents))

    @torch.no_grad()
    def impose(self, x0: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        e = self.backbone._clips.decode(y - x0)[0].transpose(0, 1).double().numpy()
        return x0 + self._encoded(self.camera.still_part(e))

    @torch.no_grad()
    def along_motion(self, x0: torch.Tensor, t: float) -> torch.Tensor:
        return self.backbone._clips.along_motion(x0, t)


@KINDS
def test_a_decoder_does_what_the_format_says(home, tmp_path, monkeypatch, kind):
    """The camera seen to by the second implementation, in steps that end in parts and with other bars."""
    changes = {"crop_left": 7, "crop_right": 1, "margin_y": 2, "camera_step_q": 1, "last_q": 5}
    path = written(tmp_path / "changed.vov", with_atoms(home.streams[kind], **changes))
    first, _ = shown(path, tmp_path)
    made = []

    def seen_by(path: CameraPath) -> SecondScene:
        made.append(SecondScene(home.backbone, path))
        return made[-1]

    monkeypatch.setattr(home.backbone, "scene", SimpleNamespace(seen_by=seen_by))
    other, _ = shown(path, tmp_path)
    difference = np.abs(first.astype(int) - other)
    assert made and difference.max() <= 1 and difference.mean() < 0.02


@pytest.mark.parametrize(("kind", "target_bytes"), [("alone", 124), ("alone", 402), ("moves", 203)])
def test_byte_targets_are_hit_from_below(home, tmp_path, kind, target_bytes):
    with preferring(kind):
        report = encoded(home, tmp_path / "out.vov", home.sources[kind], target_bytes)
    assert target_bytes - 5 <= report.size_bytes == (tmp_path / "out.vov").stat().st_size <= target_bytes
    (atoms,) = atoms_of(tmp_path / "out.vov")
    assert atoms.camera_path and atoms.has_scene_and_clip == (kind == "moves")


def test_a_letterboxed_clip_can_be_coded(home, tmp_path):
    source = write_clip(tmp_path / "in.y4m", letterboxed(16))
    with preferring("alone"):
        encoded(home, tmp_path / "out.vov", source, 400, size=(64, 64))
    assert shown(tmp_path / "out.vov", tmp_path, verify=True)[1].drift_db == math.inf


@pytest.mark.parametrize(("kind", "n_frames"), [("moves", 6), ("alone", 2)])
def test_clips_shorter_than_what_is_coded(home, tmp_path, kind, n_frames):
    source, seen = write_clip(tmp_path / "in.y4m", filmed("pan", n_frames, WIDTH, HEIGHT)[0]), []
    with preferring(kind), watched(seen):
        encoded(home, tmp_path / "out.vov", source, 250)
    assert has_camera(tmp_path / "out.vov") == [True]
    frames, report = shown(tmp_path / "out.vov", tmp_path, verify=True)
    assert np.array_equal(frames, seen[0]) and len(frames) == n_frames and report.drift_db == math.inf
    edit(tmp_path / "out.vov", tmp_path / "one.vov", EditOptions(n_frames=layout.padded_frames(n_frames)))
    longer, _ = shown(tmp_path / "one.vov", tmp_path)
    assert np.array_equal(longer[:n_frames], frames) and len(longer) == layout.padded_frames(n_frames)


def test_several_segments_share_the_bytes(home, tmp_path, kind="moves"):
    frames, seen = filmed("pan", 17, 32, 32)[0], []
    source = write_clip(tmp_path / "in.y4m", frames)
    with preferring(kind), watched(seen):
        report = encoded(home, tmp_path / "out.vov", source, 440, size=(32, 32))
    assert has_camera(tmp_path / "out.vov") == [True, True] and 0.97 * 440 <= report.size_bytes <= 440
    paths = [atoms.camera_path for atoms in atoms_of(tmp_path / "out.vov")]
    assert paths[0] != paths[1]
    again, decoded = shown(tmp_path / "out.vov", tmp_path, verify=True)
    assert np.array_equal(again, np.concatenate(seen)) and decoded.drift_db == math.inf
    part, _ = shown(tmp_path / "out.vov", tmp_path, start_s=0.4)
    assert np.array_equal(part, again[10:])
    assert inspect(tmp_path / "out.vov")["summary"]["cameras"] == 2
    with preferring(kind):
        report = scaled(tmp_path / "out.vov", tmp_path / "scaled.vov", 365, source)
    assert has_camera(tmp_path / "scaled.vov") == [True, True] and 0.97 * 365 <= report.size_bytes <= 365


@KINDS
def test_evaluations_and_progress_are_as_announced(home, tmp_path, kind, calls):
    """Of everything, of previews around the border of picture and clip, with realism, with guidance."""
    (segment,), header = home.streams[kind].segments, home.streams[kind].header
    s, m = segment.atoms.scene_injections, len(segment.atoms.counts)
    for steps in sorted({2, s + 1, min(s + 2, m + 1)}):
        calls.clear()
        listener = Progress()
        preview, report = shown(home.files[kind], tmp_path, listener, steps=steps)
        assert report.n_network_evaluations == len(calls) == n_evaluations_of(header, segment, steps)
        assert listener.advanced == listener.announced == steps
        assert evaluations_by_length(header, segment, steps)[1] == calls.count(1)
        assert preview.shape == (N_FRAMES, HEIGHT, WIDTH, 3)
        assert not np.array_equal(preview[0], preview[-1]), "the camera moves in a preview too"
    for options, n_more in (({}, 0), ({"realism": 0.5}, REALISM_STEPS), ({"guidance": 3.0}, 0)):
        calls.clear()
        listener = Progress()
        _, report = shown(home.files[kind], tmp_path, listener, **options)
        told = {"realism": options.get("realism", 0.0), "is_guided": "guidance" in options}
        assert report.n_network_evaluations == len(calls) == n_evaluations_of(header, segment, **told)
        assert listener.advanced == listener.announced == m + 1 + n_more
    assert decode_cost(header, [segment]).n_evaluations == n_evaluations_of(header, segment)


@KINDS
def test_realism_is_seen_through_the_camera(home, tmp_path, kind):
    none, half, all_ = (shown(home.files[kind], tmp_path, realism=r)[0].astype(float) for r in (0.0, 0.5, 1.0))
    assert np.abs(half - (none + all_) / 2).mean() < 1 < np.abs(none - all_).mean()
    if kind == "alone":
        assert (all_[:, -1] == 0).all(), "bars stay black"


@KINDS
def test_scaling_repeats_what_encode_does_and_estimates_it(home, tmp_path, kind, calls, monkeypatch):
    estimates, source = [], home.sources[kind]
    monkeypatch.setattr(resteer_module, "steering_cost", lambda *a: estimates.append(steering_cost(*a)) or estimates[0])
    with preferring(kind):
        calls.clear()
        scaled(home.files[kind], tmp_path / "again.vov", SIZES[kind], source)
        assert (tmp_path / "again.vov").read_bytes() == home.files[kind].read_bytes()
        assert home.reports[kind].n_network_evaluations == len(calls) <= estimates[0].n_evaluations
        report = scaled(home.files[kind], tmp_path / "more.vov", 377, source)
    assert 372 <= report.size_bytes <= 377 and has_camera(tmp_path / "more.vov") == [True]
    frames, decoded = shown(tmp_path / "more.vov", tmp_path, verify=True)
    assert decoded.drift_db == math.inf and psnr(frames_of(source), frames) == pytest.approx(report.psnr_db, abs=1e-6)


@KINDS
def test_a_shorter_file_shows_the_preview_of_as_many_steps(home, tmp_path, kind):
    (atoms,) = atoms_of(home.files[kind])
    s, m = atoms.scene_injections, len(atoms.counts)
    size_bytes, kept = home.files[kind].stat().st_size, []
    while True:
        try:
            report = scaled(home.files[kind], tmp_path / "less.vov", size_bytes - 1)
        except UsageError:
            break
        assert report.size_bytes < size_bytes
        size_bytes = report.size_bytes
        (less,) = atoms_of(tmp_path / "less.vov")
        if less is None:
            continue
        n = len(less.counts)
        kept.append(n)
        assert less.counts == atoms.counts[:n] and less.scene_injections == min(s, n)
        assert camera_of_atoms(less) == camera_of_atoms(atoms)
        if n in {m - 1, s + 1, s, 2}:
            short, _ = shown(tmp_path / "less.vov", tmp_path)
            assert np.array_equal(short, shown(home.files[kind], tmp_path, steps=n + 1)[0])
            assert inspect(tmp_path / "less.vov", verify=True)["summary"]["cameras"] == 1
    assert kept == list(range(m - 1, m - 1 - len(kept), -1)) and kept[-1] <= 2


@pytest.mark.parametrize(("kind", "share"), [("alone", None), ("alone", 1.0), ("moves", 0.5), ("moves", 1.0)])
def test_a_new_caption_goes_on_in_the_picture_under_the_camera(home, tmp_path, kind, share, calls):
    (old,) = atoms_of(home.files[kind])
    edit(home.files[kind], tmp_path / "out.vov", EditOptions(caption="a dog", keep_structure=share))
    after = read_vov(tmp_path / "out.vov")
    (new,), n_kept = after.segments, min(old.scene_injections, int((share or 0) * len(old.counts) + 0.5))
    assert new.generation.n_injections > n_kept
    assert new.atoms is None if share is None else camera_of_atoms(new.atoms) == camera_of_atoms(old)
    frames, report = shown(tmp_path / "out.vov", tmp_path)
    assert report.n_network_evaluations == len(calls) == n_evaluations_of(after.header, new)
    assert frames.shape == (N_FRAMES, HEIGHT, WIDTH, 3)
    if share:
        assert new.atoms.scene_injections == len(new.atoms.counts) == n_kept
        assert (frames[:, -1] == 0).all()
        before, _ = shown(home.files[kind], tmp_path, steps=n_kept + 1)
        kept, _ = shown(tmp_path / "out.vov", tmp_path, steps=n_kept + 1)
        assert np.abs(kept.astype(float) - before).mean() < 25 and not np.array_equal(kept, frames)


@KINDS
def test_other_lengths_and_sizes(home, tmp_path, kind):
    whole, _ = shown(home.files[kind], tmp_path)
    (old,) = atoms_of(home.files[kind])
    edit(home.files[kind], tmp_path / "7.vov", EditOptions(n_frames=7))
    assert atoms_of(tmp_path / "7.vov") == [old], "as many coded frames"
    assert np.array_equal(shown(tmp_path / "7.vov", tmp_path)[0], whole[:7])
    for name, options, shape in (
        ("5", {"n_frames": 5}, (5, HEIGHT, WIDTH, 3)),
        ("size", {"size": (32, 48)}, (N_FRAMES, 48, 32, 3)),
    ):
        edit(home.files[kind], tmp_path / f"{name}.vov", EditOptions(**options))
        assert atoms_of(tmp_path / f"{name}.vov") == [None], "the camera goes with the picture"
        assert shown(tmp_path / f"{name}.vov", tmp_path)[0].shape == shape
        with pytest.raises(UsageError, match="leave out --keep-structure"):
            edit(home.files[kind], tmp_path / "no.vov", EditOptions(keep_structure=0.5, **options))
    with pytest.raises(UsageError, match="no vector"):
        edit(home.files[kind], tmp_path / "no.vov", EditOptions(strength=2.0))


def test_a_merged_vector_of_any_strength_acts_under_the_camera(home, tmp_path):
    with preferring("alone"):
        encoded(home, tmp_path / "vector.vov", home.sources["alone"], 300, "vector", split=(0.5, 0.5))
    merge = EditOptions(merge=tmp_path / "vector.vov", merge_weight=50, keep_structure=1.0)
    edit(home.files["moves"], tmp_path / "both.vov", merge)
    edit(tmp_path / "both.vov", tmp_path / "less.vov", EditOptions(strength=0.01, keep_structure=1.0))
    both, less = (shown(tmp_path / f"{name}.vov", tmp_path)[0] for name in ("both", "less"))
    assert has_camera(tmp_path / "both.vov") == has_camera(tmp_path / "less.vov") == [True]
    assert not np.array_equal(both, less) and (both[:, -1] == 0).all()
    with preferring("moves"):
        report = scaled(tmp_path / "both.vov", tmp_path / "anew.vov", 420, home.sources["moves"])
    (anew,) = read_vov(tmp_path / "anew.vov").segments
    assert anew.merged and anew.atoms.camera_path and report.size_bytes <= 420
    assert shown(tmp_path / "anew.vov", tmp_path, verify=True)[1].drift_db == math.inf


def test_the_picture_counts_for_limits_and_cost(home, tmp_path):
    for kind in SIZES:
        stream = home.streams[kind]
        small, large = (with_atoms(stream, margin_x=m, margin_y=m) for m in (1, 15))
        require_within(large, DecodeLimits(side=WIDTH + 240))
        with pytest.raises(LimitExceeded, match=f"--limit side={WIDTH + 240}"):
            require_within(large, DecodeLimits(side=WIDTH + 239))
        path = written(tmp_path / "large.vov", large)
        with pytest.raises(LimitExceeded):
            shown(path, tmp_path, limits=DecodeLimits(side=100))
        costs = [decode_cost(each.header, each.segments) for each in (small, large)]
        assert costs[0].n_evaluations == costs[1].n_evaluations
        assert costs[0].flop < costs[1].flop and costs[0].memory_bytes < costs[1].memory_bytes
    assert shown(path, tmp_path)[0].shape == (N_FRAMES, HEIGHT, WIDTH, 3)


@KINDS
def test_a_camera_is_nothing_that_another_model_knows(home, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(home.backbone, "scene", None)
    with pytest.raises(FormatError, match=rf"{kind}\.vov: .*picture of their scene .* pocket") as caught:
        shown(home.files[kind], tmp_path)
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("shown*"))
    with pytest.raises(FormatError):
        shown(home.files[kind], tmp_path, steps=2)


@KINDS
def test_another_model_refuses_before_it_computes(home, tmp_path, monkeypatch, calls, kind):
    monkeypatch.setattr(home.backbone, "scene", None)
    with pytest.raises(FormatError):
        shown(home.files[kind], tmp_path)
    assert not calls


@KINDS
def test_damaged_cameras_are_refused_or_shown(home, tmp_path, kind):
    """Bits of the fields changed, behind right checksums: both readers agree, and only FormatError comes."""
    data = home.files[kind].read_bytes()
    for place in range(0, len(data), 3):
        with pytest.raises(FormatError):
            parse(data[:place] + bytes([data[place] ^ 0x20]) + data[place + 1 :])
    (prefix, sections), (atoms,) = _split(data), atoms_of(home.files[kind])
    number = next(i for i, (type_, _) in enumerate(sections) if type_ == layout.SEGMENT)
    payload, n_read, n_shown, n_refused = sections[number][1], 0, 0, 0
    geometry = home.backbone.geometry
    for bit in range(kind == "moves", 8 * (len(payload) - len(atoms.words)), 2):
        changed = bytearray(payload)
        changed[bit // 8] ^= 0x80 >> bit % 8
        sections[number] = (layout.SEGMENT, bytes(changed))
        damaged = _joined(prefix, sections, random.Random(0))
        try:
            stream = parse(damaged)
        except FormatError:
            with pytest.raises(second.Refused):
                second.read(damaged)
            n_refused += 1
            continue
        assert second.read(damaged) == ours(stream)
        (segment,), header = stream.segments, stream.header
        camera = camera_of_atoms(segment.atoms)
        if camera is None:
            continue
        n_read += 1
        if n_read % 4:
            continue
        size = segment.atoms.picture_size(header.coded_width, header.coded_height)
        latents = torch.zeros(geometry.latent_shape(1, *size))
        scene = seen_scene(home.backbone, segment.atoms, N_FRAMES, WIDTH, HEIGHT)
        assert scene.shown(latents, N_FRAMES).shape == (N_FRAMES, HEIGHT, WIDTH, 3)
        if n_read % 20:
            continue
        try:
            frames, _ = shown(written(tmp_path / "damaged.vov", stream), tmp_path)
        except FormatError as error:
            assert "\n" not in str(error)
        else:
            n_shown += frames.shape == (N_FRAMES, HEIGHT, WIDTH, 3)
    assert n_read > 40 and n_refused > 10 and n_shown > 1

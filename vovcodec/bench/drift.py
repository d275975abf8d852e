"""How far decodes of one file differ between thread counts, precisions and devices, step by step.

    python -m vovcodec.bench.drift FILE.vov CLIP.mp4 ... --out FILE.tsv [--bytes 800] [--frames 33] [--threads 1,2]

A clip or picture is first encoded with the effort `instant`. The first decode, float32 on one CPU thread, is what the
others are compared with. Every step has the ratio of signal to difference of the sampler's state x_t and of the
estimate x̂₀, in dB: where steering amplified drift, it would fall from step to step. The last row of a decode, without
a step, has the PSNR between the decoded frames and the distance between their thumbnail and the file's, which is what
`decode --verify` looks at. The control is a decode with other noise: a fault that `--verify` has to notice.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vovcodec.bench.points import names
from vovcodec.bench.steering_schemes import write_rows
from vovcodec.container import VovFile, read_vov
from vovcodec.errors import VovError
from vovcodec.metrics import psnr

__all__ = ["Decode", "DriftRow", "Setting", "compare", "main", "settings_here"]


@dataclass(frozen=True)
class Setting:
    """One way to decode. control: with the noise of another seed."""

    device: str
    precision: str
    threads: int
    control: bool = False


@dataclass(frozen=True)
class DriftRow:
    """One step of one decode of one segment, or (step None) its frames. Differences in dB, inf where equal."""

    item: str
    segment: int
    device: str
    precision: str
    threads: int
    control: bool
    step: int | None
    t: float | None
    state_db: float | None
    estimate_db: float | None
    psnr_db: float | None = None
    thumbnail_db: float | None = None


@dataclass(frozen=True)
class Decode:
    """What one decode of a segment went through: (t, x_t, x̂₀) of every step on the CPU, and uint8 frames."""

    steps: list
    frames: object


def settings_here(threads: Sequence[int]) -> list[Setting]:
    """The reference, every thread count and precision of the CPU and of the first CUDA device, then the control."""
    import torch

    chosen = [Setting("cpu", precision, n) for precision in ("float32", "bfloat16") for n in threads]
    if torch.cuda.is_available():
        chosen += [Setting("cuda:0", precision, threads[0]) for precision in ("float32", "bfloat16")]
    reference = Setting("cpu", "float32", 1)
    others = [setting for setting in chosen if setting != reference]
    return [reference, *others, replace(reference, control=True)]


def compare(item: str, stream: VovFile, settings: Sequence[Setting], *, force: bool = False) -> list[DriftRow]:
    """Every segment of a file decoded in every setting, compared with the first one.

    force: although the model at hand is another one than the file's. Raises ModelError and FormatError.
    """
    rows: list[DriftRow] = []
    for segment in stream.segments:
        reference: Decode | None = None
        for setting in settings:
            decoded = _decode(stream, segment, setting, force)
            reference = reference or decoded
            rows += _rows(item, segment, setting, reference, decoded)
            last = rows[-1]
            label = f"{setting.device} {setting.precision} {setting.threads} threads" + " control" * setting.control
            print(
                f"{item} {segment.index}: {label}: {last.psnr_db:.1f} dB between the frames, thumbnail "
                f"{math.nan if last.thumbnail_db is None else last.thumbnail_db:.1f} dB",
                file=sys.stderr,
                flush=True,
            )
    return rows


def _decode(stream: VovFile, segment, setting: Setting, force: bool) -> Decode:
    import torch

    from vovcodec.codec.regenerate import Adapters, load_matching_backbone, regenerate_latents, shown_frames

    header = replace(stream.header, precision=setting.precision)
    if setting.control:
        header = replace(header, sampler=replace(header.sampler, seed=header.sampler.seed ^ 1))
    torch.set_num_threads(setting.threads)
    backbone = load_matching_backbone(header, device=setting.device, force=force)
    steps = []
    latents = regenerate_latents(
        backbone,
        header,
        segment,
        stream.caption_of(segment),
        Adapters(backbone),
        n_coded_frames=backbone.geometry.coded_frames(segment.n_frames),
        on_step=lambda t, x_t, clean: steps.append((t, x_t.cpu(), clean.cpu())),
    )
    return Decode(steps, shown_frames(backbone, latents, segment.atoms, segment.n_frames))


def _rows(item: str, segment, setting: Setting, reference: Decode, decoded: Decode) -> list[DriftRow]:
    from vovcodec.codec.check import drift_db

    where = (item, segment.index, setting.device, setting.precision, setting.threads, setting.control)
    rows = [
        DriftRow(*where, number, round(t, 5), _ratio_db(x_0, x_t), _ratio_db(clean_0, clean))
        for number, ((t, x_0, clean_0), (_, x_t, clean)) in enumerate(zip(reference.steps, decoded.steps, strict=True))
    ]
    thumbnail = drift_db(decoded.frames, segment.check) if segment.check else None
    between = round(psnr(reference.frames, decoded.frames), 2)
    shown = None if thumbnail is None else round(thumbnail, 2)
    return [*rows, DriftRow(*where, None, None, None, None, between, shown)]


def _ratio_db(reference, other) -> float:
    """10·log₁₀ of the energy of `reference` over that of the difference."""
    energy = float((reference - other).double().square().sum())
    return round(10 * math.log10(float(reference.double().square().sum()) / energy), 2) if energy else math.inf


def _stream_of(path: Path, options: argparse.Namespace, folder: Path) -> VovFile:
    """A `.vov` file as it is; a clip or picture after an instant encode."""
    if path.suffix == ".vov":
        return read_vov(path)
    from vovcodec.codec.encode import encode
    from vovcodec.codec.options import EncodeOptions

    coded = folder / f"{path.stem}.vov"
    encode(
        path,
        coded,
        EncodeOptions(
            preset=options.preset,
            effort="instant",
            n_frames=options.frames,
            target_bytes=options.bytes,
            threads=options.threads[0],
            device="cpu",
        ),
    )
    return read_vov(coded)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m vovcodec.bench.drift", description="Drift between decodes.")
    parser.add_argument("sources", nargs="+", type=Path, help=".vov files, clips or pictures")
    parser.add_argument("--out", type=Path, required=True, help="the table, TSV")
    parser.add_argument("--bytes", type=int, default=800, help="of the instant encode of a clip")
    parser.add_argument("--frames", type=int, default=33, help="of each clip")
    parser.add_argument("--preset", default="pocket")
    parser.add_argument("--threads", type=lambda text: [int(n) for n in names(text)], default=[1, 2])
    parser.add_argument("--force", action="store_true", help="although a file was made with another model")
    options = parser.parse_args(arguments)
    rows: list[DriftRow] = []
    try:
        settings = settings_here(options.threads)
        with tempfile.TemporaryDirectory(prefix="vov-drift-") as folder:
            for path in options.sources:
                stream = _stream_of(path, options, Path(folder))
                rows += compare(path.stem, stream, settings, force=options.force)
                write_rows(options.out, DriftRow, rows)
    except VovError as error:
        print(f"drift: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

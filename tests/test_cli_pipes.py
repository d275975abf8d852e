"""Pipelines of real processes."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

from event_clips import flash_and_click, write_event_clip

from vovcodec.container import read_vov

VOV = [sys.executable, "-m", "vovcodec"]
GOLDEN = Path(__file__).parent / "golden" / "v0.12-pocket.vov"


def pipeline(data: bytes, *commands: list[str]) -> tuple[bytes, list[int], str]:
    """DATA | vov … | vov …: what comes out at the end, every exit code, standard error of all."""
    processes, source = [], subprocess.PIPE
    for arguments in commands:
        process = subprocess.Popen(
            [*VOV, *map(str, arguments)], stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        if processes:
            source.close()  # the next process has it
        source = process.stdout
        processes.append(process)
    processes[0].stdin.write(data)
    processes[0].stdin.close()
    out = processes[-1].stdout.read()
    errors = b"".join(process.stderr.read() for process in processes)
    return out, [process.wait() for process in processes], errors.decode()


def test_encode_and_decode_in_one_pipeline(tmp_path, tiny_preset):
    clip = write_event_clip(tmp_path / "in.mkv").read_bytes()
    out, codes, errors = pipeline(
        clip,
        ["encode", "-", "-o", "-", "-q", "--preset", tiny_preset, "--bytes", "9k"],
        ["decode", "-", "-o", "-", "-q", "--container", "mkv"],
    )
    assert codes == [0, 0] and "Traceback" not in errors, errors
    (tmp_path / "out.mkv").write_bytes(out)
    flash_s, click_s = flash_and_click(tmp_path / "out.mkv")
    assert abs(click_s - flash_s) <= 0.003


def test_scale_and_info_in_one_pipeline():
    size_bytes = GOLDEN.stat().st_size * 3 // 4
    out, codes, errors = pipeline(
        GOLDEN.read_bytes(), ["scale", "-", "-o", "-", "-q", "--bytes", size_bytes], ["info", "-", "--json"]
    )
    assert codes == [0, 0], errors
    assert json.loads(out)["summary"]["size_bytes"] <= size_bytes
    out, codes, errors = pipeline(GOLDEN.read_bytes(), ["scale", "-", "-o", "-", "-q", "--bytes", size_bytes])
    assert read_vov(io.BytesIO(out)).header == read_vov(GOLDEN).header

"""`vov doctor`: what this installation consists of, which models it has, and what would run where."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

import click

from vovcodec import __version__
from vovcodec.cli.report import format_mapping
from vovcodec.errors import ModelError

__all__ = ["command", "examine"]

_NEEDED = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "av", "constriction", "numpy", "pillow")


@click.command(short_help="Report versions, devices, models and what would run.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(as_json: bool) -> None:
    """Report versions, devices, models and what would run; exit code 5 when something needed is missing."""
    findings, missing = examine()
    print(json.dumps(findings | {"missing": missing}) if as_json else format_mapping(findings), flush=True)
    if missing:
        raise ModelError(f"missing: {', '.join(missing)}")


def examine() -> tuple[dict[str, dict[str, str]], list[str]]:
    """Findings in groups, as text, and the names of what is needed but missing."""
    from importlib import metadata  # 15 ms that the other commands need not pay

    from vovcodec.codec.models import captioner_status, embedded_weights_bytes, model_report
    from vovcodec.container import VERSION

    versions = {"vovcodec": __version__, "format": "{}.{}".format(*VERSION), "python": platform.python_version()}
    missing = []
    for name in _NEEDED:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "missing"
            missing.append(name)
    weights_bytes = embedded_weights_bytes()
    if not weights_bytes:
        missing.append("embedded model")
    embedded = f"embedded, {weights_bytes / 1e6:.1f} MB, runs on any device" if weights_bytes else "missing"
    found = {"versions": versions}
    if "torch" in missing:
        return found | {"models": {"pocket": embedded}}, missing
    devices = _devices()
    best = "cuda:0" if "cuda:0" in devices else "cpu"
    reports = model_report(best)
    return found | {
        "devices": devices,
        "models": {"pocket": embedded} | {name: state for name, (state, _) in reports.items()},
        "captions": {"auto": captioner_status()},
        f"would run on {best}": {name: memory for name, (_, memory) in reports.items()},
        "caches": _caches(),
    }, missing


def _devices() -> dict[str, str]:
    import torch

    devices = {"cpu": f"{platform.machine()}, {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"}
    driver = _driver()
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            facts = torch.cuda.get_device_properties(index)
            capability = f"compute capability {facts.major}.{facts.minor}"
            memory = f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
            devices[f"cuda:{index}"] = f"{facts.name}, {memory}, {capability}"
        devices["cuda"] = f"torch for CUDA {torch.version.cuda}, driver {driver or 'unknown'}"
        has_nccl = torch.distributed.is_available() and torch.distributed.is_nccl_available()
        devices["several devices"] = f"workers for segments; torchrun {'with nccl' if has_nccl else 'needs nccl'}"
    elif torch.version.cuda is None:
        hint = f" although there is a driver ({driver}): install torch for CUDA" if driver else ""
        devices["cuda"] = f"none: this torch is built without CUDA{hint}"
    else:
        devices["cuda"] = f"none found: torch for CUDA {torch.version.cuda}, driver {driver or 'not found'}"
    return devices


def _driver() -> str | None:
    """Version of the NVIDIA driver, None without one."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.split()
    return lines[0] if done.returncode == 0 and lines else None


def _caches() -> dict[str, str]:
    """Where things are kept between runs, and how large that has become."""
    from vovcodec.codec.models import cache_folders

    return {name: f"{folder}, {_size_text(folder)}" for name, folder in cache_folders().items()}


def _size_text(folder: Path) -> str:
    if not folder.is_dir():
        return "not there yet"
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return f"{len(files)} file(s), {sum(path.stat().st_size for path in files) / 1e6:.1f} MB"

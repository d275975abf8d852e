"""`vov doctor`: what this installation consists of and what it can run on."""

from __future__ import annotations

import json
import os
import platform

import click

from vovcodec import __version__
from vovcodec.cli.presets import embedded_weights_bytes
from vovcodec.cli.report import format_mapping
from vovcodec.errors import ModelError

__all__ = ["command", "examine"]

_NEEDED = ("torch", "diffusers", "transformers", "safetensors", "av", "constriction", "numpy", "pillow")


@click.command(short_help="Report versions, devices and the embedded model.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def command(as_json: bool) -> None:
    """Report versions, devices and the embedded model; exit code 5 when something needed is missing."""
    findings, missing = examine()
    print(json.dumps(findings | {"missing": missing}) if as_json else format_mapping(findings), flush=True)
    if missing:
        raise ModelError(f"missing: {', '.join(missing)}")


def examine() -> tuple[dict[str, dict[str, str]], list[str]]:
    """Findings in groups, as text, and the names of what is needed but missing."""
    from importlib import metadata  # 15 ms that the other commands need not pay

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
    return {
        "versions": versions,
        "devices": _devices() if "torch" not in missing else {},
        "memory": _memory() if "torch" not in missing else {},
        "models": {"embedded (pocket)": f"{weights_bytes / 1e6:.1f} MB" if weights_bytes else "missing"},
    }, missing


def _memory() -> dict[str, str]:
    from vovcodec.codec.models import memory_report

    return memory_report("auto")


def _devices() -> dict[str, str]:
    import torch

    devices = {"cpu": f"{platform.machine()}, {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"}
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            name = torch.cuda.get_device_name(index)
            devices[f"cuda:{index}"] = f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"
    else:
        devices["cuda"] = "none (torch without CUDA)" if torch.version.cuda is None else "none found"
    return devices

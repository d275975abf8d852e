"""The built wheel, installed in a fresh environment, works without the source tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = sorted((ROOT / "tests" / "golden").glob("*.vov"))[0]


def call(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that succeeds, run away from the source tree."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    pytest.importorskip("hatchling", reason="the wheel is built with hatchling (dev extra)")
    folder = tmp_path_factory.mktemp("wheel")
    # A copy, so that nothing is left in the tree and nothing outside the project's own files gets in.
    tree = folder / "tree"
    tree.mkdir()
    for name in ("vovcodec", "presets"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tree / name)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    call(*build, "-w", folder, tree, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The bin folder of a fresh environment with the wheel in it and this environment's libraries in sight."""
    home = tmp_path_factory.mktemp("fresh")
    venv.create(home, with_pip=False, symlinks=os.name == "posix")
    fresh = {"base": str(home), "platbase": str(home)}
    site_packages = Path(sysconfig.get_path("purelib", scheme="venv", vars=fresh))
    scripts = Path(sysconfig.get_path("scripts", scheme="venv", vars=fresh))
    python = scripts / ("python.exe" if os.name == "nt" else "python")
    call(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, cwd=home)
    # Paths from a .pth file come after site-packages, and .pth files there are not read: the editable install of this
    # project, if there is one, stays out of sight.
    (site_packages / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return scripts


def test_the_wheel_has_everything_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert "vovcodec/container/FORMAT.md" in names
    assert "vovcodec/presets_data/pocket.yaml" in names
    shipped = {path.relative_to(ROOT).as_posix() for path in (ROOT / "vovcodec").rglob("*") if path.is_file()}
    expected = {name for name in shipped if "__pycache__" not in name and not name.endswith(".tmp")}
    assert expected <= set(names), "every file of the package is in the wheel, weights and tables included"
    assert not [name for name in names if not name.startswith(("vovcodec/", "vovcodec-"))]


def test_the_installed_command_works(installed, tmp_path):
    vov = installed / ("vov.exe" if os.name == "nt" else "vov")
    assert call(vov, "--version", cwd=tmp_path).startswith("vovcodec ")
    assert "encode" in call(vov, "--help", cwd=tmp_path)
    for golden in sorted(GOLDEN.parent.glob("*.vov")):
        assert f"{golden.stat().st_size:,} bytes" in call(vov, "info", golden, cwd=tmp_path)
    assert "pocket" in call(vov, "presets", cwd=tmp_path)
    where = call(installed / "python", "-c", "import vovcodec; print(vovcodec.__file__)", cwd=tmp_path).strip()
    assert Path(where).is_relative_to(installed.parent), "the installed package is the one in use"

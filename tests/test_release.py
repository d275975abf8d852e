"""What is released: the same bytes from the same sources, and everything in them that is needed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from vovcodec import __version__

ROOT = Path(__file__).resolve().parent.parent
TOP = (".github", "presets", "tests", "vovcodec", "pyproject.toml", "README.md", "LICENSE", "Makefile",
       "constraints.txt", ".gitignore")  # fmt: skip
EPOCH = "1735689600"


def build(tree: Path, out: Path) -> dict[str, str]:
    """SHA-256 of wheel and sdist, built offline from a tree."""
    environment = os.environ | {"SOURCE_DATE_EPOCH": EPOCH}
    command = [sys.executable, "-m", "build", "--no-isolation", "--sdist", "--wheel", "-o", str(out), str(tree)]
    done = subprocess.run(command, env=environment, cwd=out, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.iterdir()}


def copy_to(tree: Path) -> Path:
    tree.mkdir(parents=True)
    for name in TOP:
        source = ROOT / name
        if source.is_dir():
            leftovers = shutil.ignore_patterns("__pycache__", ".hypothesis", ".pytest_cache", "*.tmp")
            shutil.copytree(source, tree / name, ignore=leftovers, copy_function=shutil.copyfile)
        else:
            shutil.copyfile(source, tree / name)
    return tree


@pytest.mark.slow
def test_two_builds_have_the_same_bytes_and_the_sdist_builds_the_same_wheel(tmp_path):
    pytest.importorskip("build", reason="needs the dev extra")
    outs = [tmp_path / name for name in ("one", "two", "three")]
    for out in outs:
        out.mkdir()
    first = build(copy_to(tmp_path / "a"), outs[0])
    # Another place and other times of change.
    elsewhere = copy_to(tmp_path / "somewhere" / "else")
    for path in elsewhere.rglob("*"):
        os.utime(path, (1e9, 1e9))
    assert build(elsewhere, outs[1]) == first
    assert sorted(first) == [f"vovcodec-{__version__}-py3-none-any.whl", f"vovcodec-{__version__}.tar.gz"]
    with tarfile.open(outs[0] / f"vovcodec-{__version__}.tar.gz") as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {"tests/test_release.py", "presets/pocket.yaml", "Makefile", ".github/CHANGELOG.md", "constraints.txt"}
    assert needed <= names
    wheel = next(name for name in first if name.endswith(".whl"))
    assert build(tmp_path / "unpacked" / f"vovcodec-{__version__}", outs[2])[wheel] == first[wheel]


def test_the_changes_name_this_version():
    text = (ROOT / ".github" / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = [line.removeprefix("## ").split()[0] for line in text.splitlines() if line.startswith("## ")]
    assert headings[0] == "Unreleased" and __version__ in headings


def test_what_the_documents_point_to_is_there():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        text = (ROOT / ".github" / name).read_text(encoding="utf-8")
        for quoted in text.split("`")[1::2]:
            for word in quoted.split():
                if word.startswith(("tests/", "vovcodec/")):
                    assert (ROOT / word).exists(), f"{name}: {word}"
            if quoted.startswith("make ") and "\n" not in quoted:
                assert f"\n{quoted.split()[1]}:" in makefile, f"{name}: {quoted}"
            elif "/" in quoted and " " not in quoted and quoted.endswith((".py", "/")) and quoted != "dist/":
                folders = ("", "vovcodec", "tests")
                assert any((ROOT / folder / quoted).exists() for folder in folders), f"{name}: {quoted}"

"""Rules of the house, enforced: which way imports go, what loads torch, docstrings, no machine's paths."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "vovcodec"
MODULES = sorted(PACKAGE.rglob("*.py"))

PARTS = {"adaptation", "backbone", "container", "entropy", "fitting", "media", "metrics", "sampling"}
# Besides itself, what a room may import from this package. Everybody may import `atomic`, `errors` and `progress`.
ALLOWED = {
    "adaptation": set(),
    "container": set(),
    "entropy": set(),
    "media": set(),
    "metrics": set(),
    "backbone": set(),
    "sampling": set(),
    # Fitting is the one part that works on others' parts: what it adapts, samples and codes.
    "fitting": {"adaptation", "entropy", "sampling", "backbone"},
    "preset_groups": set(),
    "presets": {"preset_groups"},
    "codec": PARTS | {"presets"},
    "pretraining": PARTS,
    # Classic codecs work on the same frames through the same exact colour conversion.
    "anchors": {"media"},
    # Evaluation looks at what the whole codec makes, from outside.
    "evaluation": {"anchors", "codec", "container", "media", "metrics"},
    # Benches look at every part and at the whole, and train networks to compare.
    "bench": PARTS | {"anchors", "codec", "evaluation", "preset_groups", "presets", "pretraining"},
    "cli": {"codec", "container", "evaluation", "media", "presets", "pretraining"},
    "demo": {"media", "metrics"},
}
FREE = {"atomic", "errors", "progress"}
# Plain functions of the format that several parts need: the named random streams, and for steering, which spends a
# budget of bytes, what counts and choices of atoms cost. How a camera sees a picture: models show it, encoders find it.
# And plain data that media reads and writes: sound tracks.
SHARED_MODULES = (
    "sampling.noise",
    "sampling.camera",
    "container.camera",
    "container.counts",
    "container.audio",
    "entropy.choices",
    "entropy.positions",
)
HEAVY = {"torch", "diffusers", "transformers"}
# Rooms that must be usable without torch, even deep inside a function.
WITHOUT_TORCH = FREE | {"anchors", "container", "demo", "media", "metrics", "preset_groups", "presets"}


def room(path: Path) -> str:
    """`container` for vovcodec/container/reader.py, `presets` for vovcodec/presets.py."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST, *, top_level: bool = False) -> Iterator[str]:
    """Dotted names of everything imported; at top level only, those that run when the module is imported."""
    pending = list(ast.iter_child_nodes(tree))
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written out in full"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        if not (top_level and (is_function or _is_type_checking(node))):
            pending += ast.iter_child_nodes(node)


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_go_one_way(path):
    here = room(path)
    if here in ("__init__", "__main__") or here in FREE:
        return
    assert here in ALLOWED, f"vovcodec/{here} is a new room: say in this test what it may import"
    for imported in imports(parse(path)):
        package, _, rest = imported.partition(".")
        if package == "vovcodec" and rest and not rest.startswith(("__", *SHARED_MODULES)):
            there = rest.split(".")[0]
            assert there in {here} | FREE | ALLOWED[here], f"{name(path)}: {here} must not import {there}"


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) in WITHOUT_TORCH | {"cli", "codec"}], ids=name)
def test_torch_stays_out(path):
    only_at_the_top = room(path) in ("cli", "codec")
    if room(path) == "codec" and path.name not in ("options.py", "inspect.py", "__init__.py"):
        return  # encode and decode are torch through and through
    found = {imported.split(".")[0] for imported in imports(parse(path), top_level=only_at_the_top)}
    assert not found & HEAVY


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) == "container"], ids=name)
def test_the_container_needs_only_the_standard_library_and_numpy(path):
    found = {imported.split(".")[0] for imported in imports(parse(path))}
    assert found <= set(sys.stdlib_module_names) | {"numpy", "vovcodec"}


def test_decoding_does_not_load_the_fitting_code():
    script = (
        "import sys, vovcodec.codec.decode\n"
        "print([m for m in sys.modules if m.startswith(('vovcodec.fitting', 'vovcodec.pretraining', 'vovcodec.cli'))])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr


def public_definitions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Functions and classes of a module without a leading underscore, `__getattr__` of lazy packages apart."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_what_is_public_is_described(path):
    tree = parse(path)
    assert ast.get_docstring(tree) or path.name == "__init__.py", f"{name(path)} has no docstring"
    missing = [node.name for node in public_definitions(tree) if not ast.get_docstring(node)]
    assert not missing, f"{name(path)}: no docstring: {', '.join(missing)}"


def tracked_text() -> Iterator[tuple[str, str]]:
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    for each in filter(None, listed.stdout.decode().split("\0")):
        content = (ROOT / each).read_bytes() if (ROOT / each).is_file() else b""
        if b"\0" not in content[:4096]:
            yield each, content.decode("utf-8", "replace")


def test_no_file_names_a_place_on_somebodys_machine():
    # An absolute path into a home, temporary, mounted or optional folder.
    machine_path = re.compile(r"(?<![\w./:-])/(?:home|root|tmp|Users|opt|mnt|srv|work)/[\w.-]+")
    found = [
        f"{each}:{number}: {line.strip()[:100]}"
        for each, text in tracked_text()
        for number, line in enumerate(text.splitlines(), 1)
        if machine_path.search(line) and each != "tests/test_house.py"
    ]
    assert not found, "\n".join(found)

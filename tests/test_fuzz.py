"""The short side of fuzzing: every crash ever found is replayed, and each target sees some fresh inputs.

The long run is `make fuzz`; what it finds is kept in crashes/, named by target.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import fuzz
import pytest
from fuzz_mutations import corpus, mutate
from fuzz_targets import TARGETS
from hypothesis import given, settings
from hypothesis import strategies as st

CRASHES = sorted(path for path in fuzz.CRASHES.iterdir() if not path.name.startswith("."))


@pytest.mark.parametrize("path", CRASHES, ids=lambda path: path.name)
def test_what_once_crashed_does_not(path: Path) -> None:
    TARGETS[path.name.partition("-")[0]](path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_good_inputs_are_valid(name: str) -> None:
    outcomes = [TARGETS[name](data) for data in corpus(name)]
    # The payloads of the container's samples are made up.
    assert outcomes.count("valid") >= {"file": 4}.get(name, len(outcomes))


@pytest.mark.parametrize(
    ("name", "n_inputs"), [("file", 400), ("symbols", 200), ("atoms", 60), ("path", 100), ("preset", 100)]
)
def test_changed_inputs_give_typed_errors_or_valid_content(name: str, n_inputs: int) -> None:
    rng, pool = random.Random(2024), corpus(name)
    outcomes = {TARGETS[name](mutate(name, rng.choice(pool), rng.choice(pool), rng)) for _ in range(n_inputs)}
    # Changes reach the deep layers: many different reasons to refuse, and content that passes.
    assert any("valid" in outcome for outcome in outcomes)
    assert len(outcomes) >= {"file": 30, "symbols": 6, "atoms": 5, "path": 3, "preset": 9}[name]


@settings(max_examples=150)
@given(name=st.sampled_from(sorted(TARGETS)), data=st.binary(max_size=300), follow=st.booleans())
def test_any_bytes_give_typed_errors_or_valid_content(name: str, data: bytes, follow: bool) -> None:
    TARGETS[name](corpus("file")[0][:41] + data if name == "file" and follow else data)


def test_a_run_keeps_what_crashes_and_fails(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib, fuzz, fuzz_targets\n"
        "def broken(data):\n"
        "    raise KeyError('not typed')\n"
        "fuzz_targets.TARGETS['symbols'] = broken\n"
        "fuzz.CRASHES = pathlib.Path(sys.argv[1])\n"
        "sys.argv[1:] = ['--inputs', '5', '--targets', 'symbols']\n"
        "sys.exit(fuzz.main())\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    assert "KeyError: 'not typed'" in done.stdout and "5 inputs" in done.stdout and "1 crashes" in done.stdout
    assert len(list(tmp_path.glob("symbols-*"))) == 1

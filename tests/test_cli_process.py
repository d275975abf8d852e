"""The command as a process: what it loads, pipes, signals, and readers that leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.vov"))[0]

# A codec that copies its input to its output, so that pipes can be tested without a model.
COPYING_CODEC = """
import signal, sys, time, types
# A shell starts background jobs with SIGINT ignored, and the suite may run in one.
signal.signal(signal.SIGINT, signal.default_int_handler)
from fractions import Fraction
from pathlib import Path
from vovcodec.codec.reports import DecodeReport

def decode(source, target, options, listener, backbones):
    listener.stage("copying", 1)
    data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    if target == "-":
        # With PYTHONUNBUFFERED this is a raw file, which may take less than it is given.
        while data:
            data = data[sys.stdout.buffer.write(data):]
        sys.stdout.buffer.flush()
    else:
        Path(target).write_bytes(data)
    listener.advance()
    return DecodeReport(str(target), 1, (2, 2), Fraction(25), 0.1, 1, 1)

def sleep(source, target, options, listener, backbones):
    listener.note("asleep")
    time.sleep(60)

module = types.ModuleType("vovcodec.codec.decode")
module.decode = {verb}
sys.modules["vovcodec.codec.decode"] = module
from vovcodec.cli.app import main
main()
"""


def start(verb: str, *arguments: str, **pipes) -> subprocess.Popen:
    """`vov decode ARGUMENTS` with the pretended codec."""
    script = COPYING_CODEC.replace("{verb}", verb)
    command = [sys.executable, "-c", script, "decode", *arguments]
    return subprocess.Popen(command, **({"stderr": subprocess.PIPE} | pipes))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["encode", "--help"],
        ["--version"],
        ["info", str(GOLDEN)],
        ["encode", "missing.mp4", "-o", "out.vov", "--size", "nonsense"],
        ["encode", "missing.mp4", "-o", "out.vov"],
        ["edit", "--help"],
        ["edit", str(GOLDEN), "-o", "out.vov", "--strength", "much"],
        ["presets"],
    ],
    ids=lambda arguments: " ".join(arguments[:2])[:20],
)
def test_quick_commands_load_nothing_heavy(arguments):
    script = textwrap.dedent(
        """
        import sys
        from vovcodec.cli.app import run
        run(sys.argv[1:])
        heavy = {"torch", "diffusers", "transformers", "numpy", "av", "PIL", "scipy", "rich", "typer", "pydantic"}
        print(sorted(heavy & set(sys.modules)), file=sys.stderr)
        """
    )
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=60)
    assert done.stderr.splitlines()[-1] == "[]"


def test_bytes_pass_through_both_pipes_untouched():
    data = bytes(range(256)) * 1000
    process = start("decode", "-", "-o", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    out, err = process.communicate(data, timeout=60)
    assert process.returncode == 0
    assert out == data
    assert b"frames" in err, "the report goes to stderr"


def test_a_reader_that_leaves_is_not_a_crash(tmp_path):
    large = tmp_path / "large"
    large.write_bytes(bytes(4_000_000))
    process = start("decode", str(large), "-o", "-", stdout=subprocess.PIPE)
    process.stdout.read(10)
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(timeout=60) == 3
    assert b"Traceback" not in err and b"BrokenPipe" not in err


@pytest.fixture(params=["full", "closed"])
def lost_stdout(request):
    """A standard output that takes nothing, and what is said of it."""
    if request.param == "full":
        if not Path("/dev/full").exists():
            pytest.skip("no such device here")
        descriptor, reason = os.open("/dev/full", os.O_WRONLY), "No space left on device"
    else:
        reader, descriptor = os.pipe()
        os.close(reader)  # before the command begins, so that it cannot be quicker
        reason = "the other side closed the pipe"
    yield descriptor, reason
    os.close(descriptor)


def test_a_batch_goes_on_where_its_reports_cannot_be_printed(tmp_path, lost_stdout):
    inputs = [tmp_path / f"{name}.vov" for name in "abc"]
    for each in inputs:
        each.write_bytes(b"x")
    descriptor, reason = lost_stdout
    process = start("decode", *map(str, inputs), "-o", f"{tmp_path}/out/", "-q", stdout=descriptor)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err.decode()) == (3, f"vov: standard output: {reason}\n")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mp4", "b.mp4", "c.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_with_130(number, tmp_path):
    source = tmp_path / "in.vov"
    source.write_bytes(b"x")
    process = start("sleep", str(source), "-o", str(tmp_path / "out.mp4"), stdout=subprocess.PIPE)
    assert process.stderr.readline() == b"asleep\n"
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, b"", b"vov: interrupted\n")


@pytest.mark.parametrize(
    ("load", "given", "expected"),
    [
        ("1.83 1.69 1.82 3/79 22487\n", {}, "1000"),
        ("1.83 1.69 1.82 1/79 22487\n", {}, "None"),
        ("1.83 1.69 1.82 3/79 22487\n", {"GOMP_SPINCOUNT": "5"}, "5"),
        ("1.83 1.69 1.82 3/79 22487\n", {"OMP_WAIT_POLICY": "ACTIVE"}, "None"),
        ("1.83 1.69 1.82\n", {}, "None"),
        ("1.83 1.69 1.82 many 22487\n", {}, "None"),
        (None, {}, "None"),
    ],
)
def test_beside_others_waiting_threads_spin_for_a_moment_only(tmp_path, load, given, expected):
    """Set before torch loads; what the user says counts."""
    if load is not None:
        (tmp_path / "loadavg").write_text(load)
    script = "import os, sys; from pathlib import Path; from vovcodec.cli import app\n"
    script += f"sys.argv = ['vov', '--version']; app._LOAD = Path({str(tmp_path / 'loadavg')!r})\n"
    script += "try: app.main()\nexcept SystemExit: print(os.environ.get('GOMP_SPINCOUNT'), 'torch' in sys.modules)"
    bare = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run([sys.executable, "-c", script], env=bare | given, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == [expected, "False"]

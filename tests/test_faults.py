"""What goes wrong around a job, and what comes of it: nothing lost, nothing half-written, one clear line.

| fault | outcome | exit code |
|---|---|---|
| disk full under the `.vov` file | no file; the finished segments are kept, the same command finishes at once | 3 |
| disk full under the decoded media or a device | no file (a device keeps what it took) | 3 |
| disk full under the frames waiting in $TMPDIR | said at once, with the variable that moves them | 3 |
| disk full or closed reader under standard output | one line | 3 |
| disk full or closed reader under standard error | the job goes on without progress | 0 |
| output folder read-only, not there, or special | said before the work begins | 3 |
| output on another file system, or a link to one | written there, whole; the link stays | 0 |
| input vanishes before or while it is read | one line with its name; a file that is open is read to its end | 3 or 0 |
| input grows while it is read | what is whole is used; a partial frame at the end is an error or left out | 0 or 3 |
| Ctrl-C, SIGTERM, SIGHUP | state kept, command to continue printed; ignored signals stay ignored (nohup) | 130 |
| kill -9 | the output is the old one or none; state up to the last minute; a hidden .tmp file may stay | – |
| standard output closed by the parent | `-o -` is refused; other commands do their work | 3 or 0 |
| standard error closed by the parent | nothing that belongs there lands in an output | as ever |
| two encodes to one output without -y | the second fails; its work is kept | 6 |
| two encodes of one job (shared state folder) | both finish; a state thrown away by one costs the other time only | 0 |
| state or cache folder cannot be written | the job goes on, and says so when it is interrupted | 0 |
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import container_samples as samples
import numpy as np
import pytest
from test_cli_process import GOLDEN, start
from test_codec_roundtrip import clip, model, picture, preset, y4m  # noqa: F401 - fixtures

from vovcodec import atomic
from vovcodec.atomic import write_atomically
from vovcodec.codec import segment_worker
from vovcodec.codec.encode import encode
from vovcodec.codec.options import EncodeOptions
from vovcodec.codec.output import require_writable
from vovcodec.codec.spool import FrameSpool
from vovcodec.container import parse, read_vov, serialize, write_vov
from vovcodec.errors import MediaError, OutputExistsError
from vovcodec.fitting.checkpoint import StateFolder
from vovcodec.media import open_frames, open_writer

FULL = Path("/dev/full")
posix = pytest.mark.skipif(os.name != "posix", reason="signals, devices and descriptors of POSIX")
has_full = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")


def shell(command: str) -> subprocess.CompletedProcess:
    """A command line with `vov` in it, run by the shell, which can close and redirect descriptors."""
    vov = f'"{sys.executable}" -m vovcodec'
    line = command.replace("vov ", f"{vov} ", 1)
    return subprocess.run(["sh", "-c", line], capture_output=True, timeout=60)


# --- the disk ------------------------------------------------------------------------------------------------------


def no_space(*args, **kwargs):
    raise OSError(28, "No space left on device")


def test_a_full_disk_under_the_output_costs_nothing_but_the_command(preset, tmp_path, monkeypatch):  # noqa: F811
    source, coded = clip(tmp_path, 5), tmp_path / "out.vov"
    options = EncodeOptions(preset=preset, effort="instant", state_dir=tmp_path / "states", target_bytes=500)
    with monkeypatch.context() as broken:
        broken.setattr("vovcodec.codec.writing.write_vov", lambda *a, **k: write_vov_on_full_disk(*a, **k))
        with pytest.raises(MediaError, match=r"No space left.*the work so far is kept") as caught:
            encode(source, coded, options)
    assert "\n" not in str(caught.value)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith((".out", "out"))]
    # The same command again: nothing is encoded a second time.
    monkeypatch.setattr(segment_worker, "encode_segment", no_space)
    encode(source, tmp_path / "elsewhere.vov", options)
    assert read_vov(tmp_path / "elsewhere.vov").segments
    assert not any((tmp_path / "states").rglob("*.*"))


def write_vov_on_full_disk(*args, **kwargs):
    with pytest.MonkeyPatch.context() as full:
        full.setattr(os, "fsync", no_space)
        return write_vov(*args, **kwargs)


@has_full
def test_frames_that_find_no_room_say_which_variable_moves_them(monkeypatch):
    monkeypatch.setattr("tempfile.TemporaryFile", lambda **settings: FULL.open("r+b", buffering=0))
    with FrameSpool(32, 16) as spool, pytest.raises(MediaError, match=r"No space left.*\$TMPDIR"):
        spool.append(np.zeros((16, 32, 3), dtype=np.uint8))


@has_full
def test_frames_held_back_in_a_buffer_do_too():
    spool = FrameSpool(4, 4)
    spool._file = os.fdopen(os.open(FULL, os.O_RDWR), "wb", buffering=1 << 16)
    spool.append(np.zeros((4, 4, 3), dtype=np.uint8))
    with pytest.raises(MediaError, match=r"No space left.*\$TMPDIR"):
        spool.read(0, 1)
    with contextlib.suppress(OSError):
        spool._file.close()


@has_full
@pytest.mark.parametrize("container", ["y4m", "mp4", "png"])
def test_media_onto_a_full_device_is_one_clear_line(container):
    rate = 0 if container == "png" else 25
    writer = open_writer(FULL, width=32, height=16, frame_rate=rate, container=container, overwrite=True)
    with pytest.raises(MediaError, match="no space left"):
        for _ in range(1 if container == "png" else 40):
            writer.write(np.random.default_rng(0).integers(0, 255, (16, 32, 3)).astype(np.uint8))
        writer.close()


@has_full
def test_a_full_disk_under_standard_output():
    done = shell(f"vov info {GOLDEN} > {FULL}")
    assert (done.returncode, done.stderr.count(b"\n")) == (3, 1), done.stderr
    assert b"No space left" in done.stderr and b"bug" not in done.stderr


@has_full
def test_a_full_disk_under_the_log_does_not_stop_the_job(tmp_path):
    with FULL.open("wb") as full:
        process = start("decode", str(GOLDEN), "-o", "-", stdout=subprocess.PIPE, stderr=full)
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, GOLDEN.read_bytes())


# --- places --------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder in which nobody can write")
def test_a_folder_that_takes_no_files_shows_before_the_work():
    with pytest.raises(MediaError, match="cannot write in /proc"):
        require_writable("/proc/self/out.vov", overwrite=False)


def test_a_read_only_folder_shows_before_the_work(tmp_path, monkeypatch):
    def read_only(*args, **kwargs):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    with pytest.raises(MediaError, match="Read-only file system"):
        require_writable(tmp_path / "out.vov", overwrite=True)


def test_looking_leaves_nothing_behind(tmp_path):
    require_writable(tmp_path / "out.vov", overwrite=False)
    assert not list(tmp_path.iterdir())


@posix
def test_a_link_to_another_file_system(tmp_path):
    other = Path("/dev/shm")
    if not other.is_dir() or other.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    real = other / f"vov-test-{os.getpid()}.vov"
    link = tmp_path / "out.vov"
    link.symlink_to(real)
    try:
        write_vov(link, samples.vector_only())
        assert link.is_symlink() and read_vov(real) == samples.vector_only()
        with pytest.raises(OutputExistsError):
            write_vov(link, samples.steering_only())
    finally:
        real.unlink(missing_ok=True)


# --- input ---------------------------------------------------------------------------------------------------------


@posix
def test_a_file_that_vanishes_while_it_is_open_is_read_to_its_end(tmp_path):
    source = clip(tmp_path, 6)
    with open_frames(source) as reader:
        frames = iter(reader)
        next(frames)
        source.unlink()
        assert len(list(frames)) == 5


def test_a_numbered_picture_that_vanishes_is_named(tmp_path):
    from PIL import Image

    for number in range(1, 5):
        Image.fromarray(picture(number)).save(tmp_path / f"{number:03d}.png")
    with open_frames(tmp_path / "%03d.png", frame_rate=25) as reader:
        frames = iter(reader)
        next(frames)
        (tmp_path / "003.png").unlink()
        with pytest.raises(MediaError, match=r"003\.png"):
            list(frames)


def test_a_clip_that_grows_gives_its_whole_frames_or_one_clear_line(tmp_path):
    source = clip(tmp_path, 4)
    found = []
    with contextlib.suppress(MediaError), open_frames(source) as reader:
        for frame in reader:
            if not found:
                with source.open("ab") as file:  # one more frame and a part of another, as a recorder would
                    file.write(y4m(2).partition(b"\n")[2][:-100])
            found.append(frame)
    assert 4 <= len(found) <= 5
    assert all(np.array_equal(frame.shape, found[0].shape) for frame in found)


# --- signals -------------------------------------------------------------------------------------------------------


@posix
def test_a_closing_terminal_ends_a_job_like_ctrl_c_unless_that_is_ignored(tmp_path):
    source = tmp_path / "in.vov"
    source.write_bytes(b"x")
    # The suite itself may run under nohup.
    usual = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)}
    process = start("sleep", str(source), "-o", str(tmp_path / "out.mp4"), stdout=subprocess.PIPE, **usual)
    assert process.stderr.readline() == b"asleep\n"
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=60)[1] == b"vov: interrupted\n"
    assert process.returncode == 130
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    process = start("sleep", str(source), "-o", str(tmp_path / "out.mp4"), stdout=subprocess.PIPE, **ignoring)
    assert process.stderr.readline() == b"asleep\n"
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.vov"]


KILLED = """
import sys
sys.path.insert(0, sys.argv[2])
import container_samples as samples
from vovcodec.container import write_vov
print("ready", flush=True)
while True:
    write_vov(sys.argv[1], samples.steering_only(20_000), overwrite=True)
    write_vov(sys.argv[1], samples.vector_only(30_000), overwrite=True)
"""


@posix
def test_kill_9_leaves_one_whole_file(tmp_path):
    target = tmp_path / "out.vov"
    whole = {serialize(samples.steering_only(20_000)), serialize(samples.vector_only(30_000))}
    for delay_ms in (1, 7, 30):
        command = [sys.executable, "-c", KILLED, str(target), str(Path(__file__).parent)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        process.stdout.readline()
        while not target.exists():
            time.sleep(0.001)
        time.sleep(delay_ms / 1000)
        process.kill()
        process.communicate(timeout=60)
        assert target.read_bytes() in whole
        parse(target.read_bytes())
        left = [path.name for path in tmp_path.iterdir() if path != target]
        assert all(name.startswith(".out.vov.") and name.endswith(".tmp") for name in left)


# --- standard streams ----------------------------------------------------------------------------------------------


@posix
def test_a_closed_standard_output_is_no_place_for_data(tmp_path):
    done = shell(f"vov decode {GOLDEN} -o - >&-")
    assert (done.returncode, done.stderr) == (3, b"vov: -o -: standard output is closed\n")
    assert shell(f"vov info {GOLDEN} >&-").returncode == 0
    done = shell("vov info - <&-")
    assert (done.returncode, done.stderr) == (3, b"vov: -: standard input is closed\n")


@posix
def test_a_closed_standard_error_never_ends_up_in_the_data():
    process = start("decode", str(GOLDEN), "-o", "-", stdout=subprocess.PIPE, preexec_fn=lambda: os.close(2))
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, GOLDEN.read_bytes())


@posix
def test_a_log_that_nobody_reads_any_more_does_not_stop_the_job():
    process = start("decode", "-", "-o", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stderr.close()
    process.stderr = None
    data = bytes(range(256)) * 20
    out, _ = process.communicate(data, timeout=60)
    assert (process.returncode, out) == (0, data)


# --- two at once ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", [True, False], ids=["links", "no links"])
def test_of_two_writers_of_one_output_the_second_fails(tmp_path, monkeypatch, links):
    target = tmp_path / "out.vov"
    first, second = samples.vector_only(), samples.steering_only()
    if not links:
        monkeypatch.setattr(os, "link", lambda *a: (_ for _ in ()).throw(PermissionError(1, "no links here")))
    # The first one finishes after the second has looked and before it gives its file the name.
    give_name = atomic.give_name

    def overtaken(temporary, path, *, overwrite):
        monkeypatch.setattr(atomic, "give_name", give_name)
        write_vov(target, first)
        give_name(temporary, path, overwrite=overwrite)

    monkeypatch.setattr(atomic, "give_name", overtaken)
    with pytest.raises(OutputExistsError, match="exists by now"):
        write_vov(target, second)
    assert read_vov(target) == first
    assert os.listdir(tmp_path) == ["out.vov"]


def test_of_two_decodes_to_one_output_the_second_fails(tmp_path):
    target = tmp_path / "out.png"
    frame = np.zeros((16, 32, 3), dtype=np.uint8)
    writers = [open_writer(target, width=32, height=16, frame_rate=0) for _ in range(2)]
    for number, writer in enumerate(writers):
        writer.write(frame + np.uint8(100 * number))
    writers[0].close()
    first = target.read_bytes()
    with pytest.raises(OutputExistsError):
        writers[1].close()
    assert target.read_bytes() == first
    assert os.listdir(tmp_path) == ["out.png"]


def test_writers_of_one_file_never_mix(tmp_path, monkeypatch):
    """Containers that share a cache folder often share the process number too."""
    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    target = tmp_path / "state"
    contents = [bytes([letter]) * 30_000 for letter in b"abc"]

    def write(content: bytes) -> None:
        for _ in range(12):
            write_atomically(target, content)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        with contextlib.suppress(FileNotFoundError):
            assert target.read_bytes() in contents
        time.sleep(0.001)  # or the writers hardly get their turn
    for thread in threads:
        thread.join()
    assert os.listdir(tmp_path) == ["state"]


def test_two_encodes_of_one_job_both_finish(preset, tmp_path, monkeypatch):  # noqa: F811
    source = clip(tmp_path, 40)
    options = EncodeOptions(preset=preset, effort="instant", state_dir=tmp_path / "states", target_bytes=700)
    first, second = tmp_path / "first.vov", tmp_path / "second.vov"
    encode_segment = segment_worker.encode_segment
    other = iter([lambda: encode(source, second, options)])

    def overtaken(*args, **kwargs):
        # While the first encode is at its second segment, the other one runs through and throws the state away.
        if kwargs["index"] == 1 and (run_through := next(other, None)):
            run_through()
            assert not any((tmp_path / "states").rglob("*.part"))
        return encode_segment(*args, **kwargs)

    monkeypatch.setattr(segment_worker, "encode_segment", overtaken)
    encode(source, first, options)
    assert first.read_bytes() == second.read_bytes()
    assert not any((tmp_path / "states").rglob("*.*"))


def test_a_state_that_can_be_written_again_is_no_problem_any_more(tmp_path):
    (tmp_path / "states").write_bytes(b"a file in the way")
    state = StateFolder(tmp_path / "states", "ab")
    state.write_part(0, b"x")
    assert state.problem
    (tmp_path / "states").unlink()
    state.write_part(0, b"x")
    assert state.problem is None and state.read_part(0) == b"x"

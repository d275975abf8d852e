"""Files on disk are whole or untouched; pipes work in both directions."""

from __future__ import annotations

import io
import os
import stat
import threading
from pathlib import Path

import container_samples as samples
import pytest

from vovcodec import atomic
from vovcodec.container import Limits, read_vov, serialize, write_vov
from vovcodec.container.errors import FieldOutOfRange, LimitExceeded, NotAVovFile
from vovcodec.errors import MediaError, OutputExistsError

CONTENT = samples.vector_only()


def test_write_then_read(tmp_path: Path) -> None:
    target = tmp_path / "clip.vov"
    size = write_vov(target, CONTENT)
    assert target.stat().st_size == size
    assert read_vov(target) == read_vov(str(target)) == CONTENT
    assert os.listdir(tmp_path) == ["clip.vov"]


def test_an_existing_file_needs_permission(tmp_path: Path) -> None:
    target = tmp_path / "clip.vov"
    target.write_bytes(b"old")
    with pytest.raises(OutputExistsError):
        write_vov(target, CONTENT)
    assert target.read_bytes() == b"old"
    target.chmod(0o640)
    write_vov(target, CONTENT, overwrite=True)
    assert read_vov(target) == CONTENT
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.vov", tmp_path / "link.vov"
    real.write_bytes(b"old")
    link.symlink_to(real)
    write_vov(link, CONTENT, overwrite=True)
    assert link.is_symlink()
    assert read_vov(real) == CONTENT


def fail(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("owner", "name", "action", "error"),
    [
        (atomic, "write_all", fail, MediaError),
        (os, "fsync", fail, MediaError),
        (Path, "replace", fail, MediaError),
        (os, "fsync", interrupt, KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize("existing", [None, b"old"])
def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, name: str, action: object, error: type, existing
) -> None:
    target = tmp_path / "clip.vov"
    if existing is not None:
        target.write_bytes(existing)
    monkeypatch.setattr(owner, name, action)
    with pytest.raises(error):
        write_vov(target, CONTENT, overwrite=True)
    monkeypatch.undo()
    left = [path.name for path in tmp_path.iterdir()]
    assert left == ([] if existing is None else ["clip.vov"])
    assert existing is None or target.read_bytes() == existing


def test_bad_content_touches_nothing(tmp_path: Path) -> None:
    target = tmp_path / "clip.vov"
    target.write_bytes(b"old")
    bad = type(CONTENT)(samples.header(source_width=0), CONTENT.segments)
    with pytest.raises(FieldOutOfRange):
        write_vov(target, bad, overwrite=True)
    assert target.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_missing_folder_and_missing_file_are_media_errors(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match="No such file"):
        write_vov(tmp_path / "nowhere" / "clip.vov", CONTENT)
    with pytest.raises(MediaError, match="No such file"):
        read_vov(tmp_path / "clip.vov")
    with pytest.raises(MediaError):
        read_vov(tmp_path)


class Trickle(io.RawIOBase):
    """A pipe that gives and takes a few bytes at a time."""

    def __init__(self, data: bytes = b"") -> None:
        self.left, self.taken, self.n_reads = data, b"", 0

    def read(self, size: int = -1) -> bytes:
        self.n_reads += 1
        chunk, self.left = self.left[:7], self.left[7:]
        return chunk

    def write(self, data: bytes) -> int:
        self.taken += bytes(data[:7])
        return min(7, len(data))


def test_streams_that_give_and_take_little() -> None:
    out = Trickle()
    assert write_vov(out, CONTENT) == len(out.taken)
    assert out.taken == serialize(CONTENT)
    assert read_vov(Trickle(out.taken)) == CONTENT


def test_a_real_pipe(tmp_path: Path) -> None:
    readable, writable = os.pipe()
    with os.fdopen(readable, "rb") as source:

        def write() -> None:
            with os.fdopen(writable, "wb") as sink:
                write_vov(sink, CONTENT)

        thread = threading.Thread(target=write)
        thread.start()
        assert read_vov(source) == CONTENT
        thread.join()


def test_a_named_pipe_is_written_into_not_replaced(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    thread = threading.Thread(target=write_vov, args=(fifo, CONTENT))
    thread.start()
    assert read_vov(fifo) == CONTENT
    thread.join()
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_long_input_of_another_kind_is_refused_at_once() -> None:
    source = Trickle(b"\0\0\0\x20ftypisom" + bytes(10_000))
    with pytest.raises(NotAVovFile, match="MP4"):
        read_vov(source)
    assert source.n_reads == 3, "as soon as there are enough bytes to tell one kind from another"


def test_input_above_the_limit_is_refused() -> None:
    source = Trickle(serialize(CONTENT))
    with pytest.raises(LimitExceeded):
        read_vov(source, limits=Limits(max_file_bytes=100))
    assert source.n_reads == 15

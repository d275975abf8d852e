"""Worker processes: order, errors, one that disappears, and segments that are spread over them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from vovcodec.codec.devices import device_of_rank, listed_devices, process_rank, threads_per_worker
from vovcodec.codec.pool import DevicePool
from vovcodec.errors import ModelError, UsageError
from vovcodec.presets import PresetError
from vovcodec.progress import SilentListener

TIMEOUT_S = 120.0


class Notes(SilentListener):
    def __init__(self) -> None:
        self.messages = []

    def note(self, message: str) -> None:
        self.messages.append(message)


def make_doubler(device, folder):
    """Doubles numbers; what it does at some of them is what the tests are about."""
    made_in = os.getpid()

    def double(task, listener):
        assert os.getpid() == made_in != int((folder / "parent").read_text())
        if task == "wait for the other":
            (folder / f"{made_in}.ready").touch()
            started = time.monotonic()
            while len(list(folder.glob("*.ready"))) < 2:
                assert time.monotonic() - started < TIMEOUT_S
                time.sleep(0.01)
            return made_in
        if task == "first, but slowly":
            while not (folder / "second").exists():
                time.sleep(0.01)
            return "one"
        if task == "second":
            (folder / "second").touch()
            return "two"
        if task == "wrong":
            raise PresetError("the task", ["is wrong"])
        if task == "bug":
            raise ZeroDivisionError("oops")
        if task == "vanish":
            os.kill(os.getpid(), signal.SIGKILL)
        if task == "stay":
            try:
                (folder / "started").touch()
                time.sleep(TIMEOUT_S)
            except KeyboardInterrupt:
                (folder / "kept").touch()
                raise
        listener.note(f"{device} has {task}")
        return 2 * task

    return double


def pool(folder, devices, listener=None) -> DevicePool:
    (folder / "parent").write_text(str(os.getpid()))
    return DevicePool(devices, make_doubler, (folder,), listener or SilentListener())


def test_results_come_in_order_and_notes_reach_the_listener(tmp_path):
    notes, seen = Notes(), []
    with pool(tmp_path, ["a", "b"], notes) as workers:
        assert list(workers.map(range(5), lambda number, result: seen.append((number, result)))) == [0, 2, 4, 6, 8]
        assert len(set(workers.map(["wait for the other"] * 2))) == 2, "two tasks at a time, in two processes"
        assert list(workers.map(["first, but slowly", "second"])) == ["one", "two"]
    assert sorted(seen) == [(i, 2 * i) for i in range(5)]
    assert sorted(message.split(" has ")[1] for message in notes.messages) == list("01234")
    assert {message[0] for message in notes.messages} <= {"a", "b"}


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        ("wrong", UsageError, "the task: is wrong"),
        ("bug", RuntimeError, "(?s)the worker on b failed.*ZeroDivisionError: oops"),
        (
            "vanish",
            ModelError,
            r"the worker on b \(process \d+\) was ended by SIGKILL; memory may.*same command",
        ),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_worker_that_fails_stops_the_others_which_keep_their_state(tmp_path, task, error, message):
    def tasks():
        yield "stay"
        wait_for(tmp_path / "started")
        yield task

    started = time.monotonic()
    with pytest.raises(error, match=message) as caught, pool(tmp_path, ["a", "b"]) as workers:
        list(workers.map(tasks()))
    assert type(caught.value) is error
    assert (tmp_path / "kept").exists() and time.monotonic() - started < TIMEOUT_S
    assert not any(worker.process.is_alive() for worker in workers._workers)


def test_device_lists():
    assert listed_devices("cuda:0,1") == ["cuda:0", "cuda:1"]
    assert listed_devices("cpu,cpu") == ["cpu", "cpu"]
    for one in ("auto", "cpu", "cuda", "cuda:3"):
        assert listed_devices(one) == [one]
    assert threads_per_worker(["cpu", "cpu"], 3) == 3
    assert threads_per_worker(["cpu"] * 1000, None) == 1


def test_ranks_come_from_the_environment(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert process_rank() == (0, 1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert process_rank() == (0, 1), "somebody else's variables"
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    assert process_rank() == (1, 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device_of_rank("cuda:2,5") == "cuda:5" and device_of_rank("cpu") == "cpu"
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(UsageError, match="too few devices"):
        device_of_rank("cuda:0,1")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_workers_end_with_a_parent_that_was_killed(tmp_path):
    script = (
        "import sys; from pathlib import Path; from test_codec_pool import pool\n"
        "with pool(Path(sys.argv[1]), ['a']) as workers: list(workers.map(['stay']))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    wait_for(tmp_path / "started")
    parent.kill()
    parent.wait()
    wait_for(tmp_path / "kept")


def wait_for(path):
    started = time.monotonic()
    while not path.exists():
        assert time.monotonic() - started < TIMEOUT_S
        time.sleep(0.01)

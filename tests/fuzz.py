"""The long fuzzing run: python tests/fuzz.py [--inputs N] [--seconds S] [--seed N] [--targets file,atoms] [--coverage]

Feeds changed inputs (fuzz_mutations.py) to every place that interprets foreign bytes (fuzz_targets.py). Without
`--coverage` it is seeded and steered by outcomes: an input that fails, or passes, in a way not seen before joins the
inputs to be changed. With `--coverage` atheris (the extra `fuzz`) measures which lines ran and steers by that.

Whatever is not a typed error is a crash: an exception of another kind, more than 10 s of processor time or 3 GiB. It
is kept in tests/crashes/, which the fast suite replays, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
CRASHES = HERE / "crashes"
WEIGHTS = {"file": 16, "symbols": 4, "atoms": 2, "path": 2, "preset": 1}
MEMORY_BYTES, SECONDS = 3 << 30, 10
POOL_MOST = 4000


class TooLong(BaseException):
    """One input took more than `SECONDS` of processor time."""


def guarded() -> None:
    """From here on too much memory is a MemoryError and too long an input can be stopped by an alarm."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.RLIM_INFINITY))

    def stop(number: int, frame: object) -> None:
        raise TooLong(f"more than {SECONDS} s of processor time")

    signal.signal(signal.SIGPROF, stop)


def keep(target: str, data: bytes) -> Path:
    """A crashing input as a file that the fast suite replays."""
    path = CRASHES / f"{target}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


class OutcomeRun:
    """A run steered by outcomes: inputs, what came of them, and the different crashes so far."""

    def __init__(self, names: list[str], seed: int) -> None:
        from fuzz_mutations import corpus

        self.names, self.rng = names, random.Random(seed)
        self.originals = {name: corpus(name) for name in names}
        self.pools = {name: list(self.originals[name]) for name in names}
        self.seen: dict[str, Counter[str]] = {name: Counter() for name in names}
        self.crashes: set[str] = set()
        self.started_s, self.n_done = time.monotonic(), 0

    def feed(self, n_inputs: int, seconds: float) -> None:
        """Until so many inputs or seconds are used up, or Ctrl-C."""
        last_s = self.started_s
        with contextlib.suppress(KeyboardInterrupt):
            while self.n_done < n_inputs and time.monotonic() - self.started_s < seconds:
                self.one()
                if time.monotonic() - last_s > 60:
                    last_s = time.monotonic()
                    print(self.progress(), flush=True)

    def one(self) -> None:
        """One input; what is new joins the inputs to be changed."""
        from fuzz_mutations import mutate
        from fuzz_targets import TARGETS

        rng = self.rng
        (name,) = rng.choices(self.names, [WEIGHTS[name] for name in self.names])
        pool = self.pools[name]
        # What failed in a new way is worth changing further, but most of what comes of it fails in the same way.
        data = mutate(name, rng.choice(self.originals[name] if rng.random() < 0.6 else pool), rng.choice(pool), rng)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of processor time: the machine may be busy or this be stopped
        try:
            outcome = TARGETS[name](data)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic of the range coder is no Exception
            place = "".join(traceback.format_exception(error)[-2:])
            if place not in self.crashes:
                self.crashes.add(place)
                print(f"{name}: {type(error).__name__}: {error}\n  kept: {keep(name, data)}\n{place}", flush=True)
            outcome = "crash"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        self.n_done += 1
        self.seen[name][outcome] += 1
        if self.seen[name][outcome] == 1 and len(pool) < POOL_MOST and len(data) < 20_000:
            pool.append(data)

    def progress(self) -> str:
        """One line: inputs, time, outcomes and crashes so far."""
        elapsed_s = time.monotonic() - self.started_s
        n_outcomes = sum(len(counter) for counter in self.seen.values())
        rate = self.n_done / max(elapsed_s, 1e-9)
        figures = f"{self.n_done:,} inputs in {elapsed_s:.0f} s ({rate:.0f}/s)"
        return f"{figures}, {n_outcomes} outcomes, {len(self.crashes)} crashes"

    def summary(self) -> str:
        """The commonest outcomes of every target."""
        lines = [self.progress()]
        for name, counter in self.seen.items():
            lines.append(f"{name}: {counter.total():,} inputs, {len(counter)} different outcomes")
            lines += [f"  {count:9,}  {what}" for what, count in counter.most_common(12)]
        return "\n".join(lines)


def steered_by_coverage(names: list[str], n_inputs: int, seconds: float, seed: int) -> None:
    """atheris (libFuzzer) with our changes as its mutator; it ends the process at the first crash."""
    try:
        import atheris
    except ImportError:
        sys.exit("--coverage needs atheris: pip install 'vovcodec[fuzz]' (Linux, x86-64)")
    import tempfile

    with atheris.instrument_imports(include=["vovcodec"]):
        from fuzz_targets import TARGETS
    from fuzz_mutations import corpus, mutate

    def one_input(data: bytes) -> None:
        if not data:
            return
        name = names[data[0] % len(names)]
        try:
            TARGETS[name](data[1:])
        except BaseException:
            print(f"kept: {keep(name, data[1:])}", flush=True)
            raise

    def mutated(data: bytes, max_size: int, number: int) -> bytes:
        rng = random.Random(number)
        which = data[0] % len(names) if data else rng.randrange(len(names))
        original = rng.choice(pools[which])
        changed = mutate(names[which], data[1:] or original, original, rng)
        return bytes([which]) + changed[: max_size - 1]

    pools = [corpus(name) for name in names]
    with tempfile.TemporaryDirectory(prefix="vov-fuzz-") as folder:
        for which, pool in enumerate(pools):
            for number, data in enumerate(pool):
                Path(folder, f"{which}-{number}").write_bytes(bytes([which]) + data)
        flags = [f"-runs={n_inputs}", f"-max_total_time={int(seconds)}", f"-seed={seed}", "-max_len=20000"]
        flags += [f"-timeout={SECONDS}", f"-rss_limit_mb={MEMORY_BYTES >> 20}", f"-artifact_prefix={folder}/"]
        atheris.Setup([sys.argv[0], *flags, folder], one_input, custom_mutator=mutated)
        atheris.Fuzz()


def main() -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(description="Fuzz every place that interprets foreign bytes.")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--targets", default=",".join(WEIGHTS))
    parser.add_argument("--coverage", action="store_true", help="steer by covered lines, with atheris")
    options = parser.parse_args()
    names = [name for name in WEIGHTS if name in options.targets.split(",")]
    if options.coverage:
        steered_by_coverage(names, options.inputs, min(options.seconds, 2**31 - 1), options.seed)
        return 0
    guarded()
    run = OutcomeRun(names, options.seed)
    run.feed(options.inputs, options.seconds)
    print(run.summary())
    return 1 if run.crashes else 0


if __name__ == "__main__":
    sys.exit(main())

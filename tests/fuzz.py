"""The long fuzzing run: python tests/fuzz.py [--inputs N] [--seconds S] [--seed N] [--targets file,atoms] [--coverage]

Feeds changed inputs (fuzz_mutations.py) to every place that interprets foreign bytes (fuzz_targets.py). Without
`--coverage` it is seeded and steered by outcomes: an input that fails, or passes, in a way not seen before joins the
inputs to be changed. With `--coverage` atheris (the extra `fuzz`) measures which lines ran and steers by that.

Whatever is not a typed error is a crash: an exception of another kind, more than 10 s or 3 GiB. It is kept in
tests/crashes/, which the fast suite replays, and the exit code is 1.
"""

from __future__ import annotations

import argparse
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
    """One input took more than `SECONDS`."""


def guarded() -> None:
    """From here on too much memory is a MemoryError and too long an input can be stopped by an alarm."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.RLIM_INFINITY))

    def stop(number: int, frame: object) -> None:
        raise TooLong(f"more than {SECONDS} s")

    signal.signal(signal.SIGALRM, stop)


def keep(target: str, data: bytes) -> Path:
    """A crashing input as a file that the fast suite replays."""
    path = CRASHES / f"{target}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return path


def steered_by_outcomes(names: list[str], n_inputs: int, seconds: float, seed: int) -> int:
    """Runs until the inputs or the time are used up; returns the number of different crashes."""
    from fuzz_mutations import corpus, mutate
    from fuzz_targets import TARGETS

    rng = random.Random(seed)
    originals = {name: corpus(name) for name in names}
    pools = {name: list(originals[name]) for name in names}
    seen: dict[str, Counter[str]] = {name: Counter() for name in names}
    crashes: set[str] = set()
    started = last_s = time.monotonic()
    n_done = 0
    while n_done < n_inputs and time.monotonic() - started < seconds:
        (name,) = rng.choices(names, [WEIGHTS[name] for name in names])
        pool = pools[name]
        # What failed in a new way is worth changing further, but most of what comes of it fails in the same way.
        data = mutate(name, rng.choice(originals[name] if rng.random() < 0.6 else pool), rng.choice(pool), rng)
        signal.alarm(SECONDS)
        try:
            outcome = TARGETS[name](data)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                break
            place = "".join(traceback.format_exception(error)[-2:])
            if place not in crashes:
                crashes.add(place)
                print(f"{name}: {type(error).__name__}: {error}\n  kept: {keep(name, data)}\n{place}", flush=True)
            outcome = "crash"
        finally:
            signal.alarm(0)
        n_done += 1
        seen[name][outcome] += 1
        if seen[name][outcome] == 1 and len(pool) < POOL_MOST and len(data) < 20_000:
            pool.append(data)
        if time.monotonic() - last_s > 60:
            last_s = time.monotonic()
            print(progress(n_done, started, seen, crashes), flush=True)
    print(progress(n_done, started, seen, crashes))
    for name in names:
        total = seen[name].total()
        listed = "\n".join(f"  {count:9,}  {what}" for what, count in seen[name].most_common(12))
        print(f"{name}: {total:,} inputs, {len(seen[name])} different outcomes\n{listed}")
    return len(crashes)


def progress(n_done: int, started: float, seen: dict[str, Counter[str]], crashes: set[str]) -> str:
    """One line: inputs, time, outcomes and crashes so far."""
    elapsed_s = time.monotonic() - started
    n_outcomes = sum(len(counter) for counter in seen.values())
    rate = n_done / max(elapsed_s, 1e-9)
    return f"{n_done:,} inputs in {elapsed_s:.0f} s ({rate:.0f}/s), {n_outcomes} outcomes, {len(crashes)} crashes"


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
    return 1 if steered_by_outcomes(names, options.inputs, options.seconds, options.seed) else 0


if __name__ == "__main__":
    sys.exit(main())

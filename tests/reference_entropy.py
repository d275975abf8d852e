"""A second decoder for symbols, atoms and paths, written from FORMAT.md alone: slow, plain integers, no constriction.

It exists so that the tests check the bytes against the specification and not against the encoder's own code.
"""

from __future__ import annotations

from decimal import Decimal, getcontext

getcontext().prec = 60
TOTAL = 1 << 24


class ReferenceRangeDecoder:
    """FORMAT.md, "Range coder"."""

    def __init__(self, data: bytes) -> None:
        self.digits = iter(data)
        self.range = (1 << 64) - 1
        self.offset = self.take(8)

    def take(self, n_bytes: int) -> int:
        return int.from_bytes(bytes(next(self.digits, 0) for _ in range(n_bytes)), "big")

    def value(self, freqs: list[int]) -> int:
        assert sum(freqs) == TOTAL and min(freqs) >= 1
        scale = self.range >> 24
        target = self.offset // scale
        assert target < TOTAL, "not a message of this model"
        below, symbol = 0, 0
        while below + freqs[symbol] <= target:
            below += freqs[symbol]
            symbol += 1
        self.advance(scale, below, freqs[symbol])
        return symbol

    def plain_uniform(self, size: int) -> int:
        if size == 1:
            return 0
        scale, each = self.range >> 24, TOTAL // size
        symbol = min(self.offset // scale // each, size - 1)
        self.advance(scale, symbol * each, each if symbol < size - 1 else TOTAL - each * (size - 1))
        return symbol

    def advance(self, scale: int, below: int, frequency: int) -> None:
        self.offset -= scale * below
        self.range = scale * frequency
        if self.range < 1 << 32:
            self.range <<= 32
            self.offset = self.offset << 32 | self.take(4)

    def uniforms(self, sizes: list[int]) -> list[int]:
        low_bits = [max(0, size.bit_length() - 12) for size in sizes]
        low = [self.plain_uniform(1 << bits) for bits in low_bits]
        high = [self.plain_uniform(((size - 1) >> bits) + 1) for size, bits in zip(sizes, low_bits, strict=True)]
        return [h << bits | v for h, bits, v in zip(high, low_bits, low, strict=True)]


def reference_frequencies(weights: list[int]) -> list[int]:
    shift = max(0, sum(weights).bit_length() - 38)
    weights = [w >> shift for w in weights]
    freqs = [1 + w * (TOTAL - len(weights)) // sum(weights) for w in weights]
    freqs[weights.index(max(weights))] += TOTAL - sum(freqs)
    return freqs


def reference_decode_symbols(model: bytes, words: bytes, n: int) -> list[int]:
    """FORMAT.md, "Symbol model"."""
    if not model:
        return [0] * n
    packed = model[0] | model[1] << 8
    scale, shape, zero, adaptation = packed & 127, packed >> 7 & 7, packed >> 10 & 7, packed >> 13 & 3
    limit = 128 * (1 + (model[2] if len(model) == 3 else 0))
    e = (16, 17, 19, 21, 23, 25, 27, 29)[scale % 8] << scale // 8
    power = (2, 3, 4, 5, 6, 7, 8, 10)[shape]
    exponents = [8192 - 512 * (-4, -2, 0, 2, 4, 8, 12, 16)[zero]]
    exponents += [8192 + (e * int((Decimal(k**power) * 65536).sqrt().sqrt()) >> 8) for k in range(1, limit + 1)]
    weights = [int(Decimal(2) ** (40 - Decimal(x % 2048) / 2048)) >> min(62, x // 2048) for x in exponents]
    weights = weights[:0:-1] + weights
    prior = [(w << 22) // sum(weights) for w in weights]
    worth = (0, 32, 256, 2048)[adaptation]
    decoder, counts, symbols = ReferenceRangeDecoder(words), [0] * len(prior), []
    while len(symbols) < n:
        if worth:
            freqs = reference_frequencies([p * worth + (c << 22) for p, c in zip(prior, counts, strict=True)])
            run = min(n - len(symbols), max(32, len(symbols) // 4))
        else:
            freqs, run = reference_frequencies(prior), n
        for index in [decoder.value(freqs) for _ in range(run)]:
            counts[index] += 1
            symbols.append(index - limit)
    return symbols


def reference_left_count(decoder: ReferenceRangeDecoder, a: int, b: int, m: int, width: int) -> tuple[int, int]:
    """The first part of a left count: (coded outcome, t)."""
    t = max(0, (m.bit_length() - 5) // 2)
    a, b, m = -(-a // 4**t), -(-b // 4**t), m // 4**t
    low, high = max(0, m - b), min(m, a)
    weights, weight = [0.0] * width, 1.0
    for k in range(low, high + 1):
        if k > low:
            weight *= ((a - k + 1) * (m - k + 1)) / (k * (b - m + k))
        weights[k] = weight
    top = max(weights)
    return decoder.value(reference_frequencies([int(w / top * 2.0**30) for w in weights])), t


def reference_decode_atoms(words: bytes, counts: list[int], n_positions: int) -> list[list[tuple[int, int]]]:
    """FORMAT.md, "Atom positions": per step the list of (position, sign)."""
    decoder = ReferenceRangeDecoder(words)
    intervals = [(step, 0, n_positions, m) for step, m in enumerate(counts)]
    singles, found = [], []
    while intervals:
        divided = []
        for step, start, size, m in intervals:
            if m == size:
                found += [(step, start + i) for i in range(size)]
            elif m == 1:
                singles.append((step, start, size))
            elif m:
                divided.append((step, start, size, m))
        left = {}
        for low, high, width in ((0, 3, 5), (4, 15, 17), (16, 1 << 24, 65)):
            # The format's batches of 32768 intervals are more than this decoder is used for: one batch per class.
            rows = [i for i, (_, _, _, m) in enumerate(divided) if low <= m <= high]
            parts = []
            for i in rows:
                _, _, size, m = divided[i]
                parts.append(reference_left_count(decoder, size // 2, size - size // 2, m, width))
            escapes = [coded == (divided[i][3] >> 2 * t) + 1 for i, (coded, t) in zip(rows, parts, strict=True)]
            sizes = [divided[i][3] + 1 if e else 1 << t for i, e, (_, t) in zip(rows, escapes, parts, strict=True)]
            tails = decoder.uniforms(sizes)
            for i, e, (coded, t), tail in zip(rows, escapes, parts, tails, strict=True):
                m = divided[i][3]
                left[i] = tail if e else m // 2 + ((coded - (m >> 2 * t) // 2) << t) + tail
        intervals = []
        for i, (step, start, size, m) in enumerate(divided):
            half = size // 2
            intervals += [(step, start, half, left[i]), (step, start + half, size - half, m - left[i])]
    offsets = decoder.uniforms([size for _, _, size in singles])
    found += [(step, start + offset) for (step, start, _), offset in zip(singles, offsets, strict=True)]
    found.sort()
    signs = [1 - 2 * decoder.plain_uniform(2) for _ in found]
    per_step: list[list[tuple[int, int]]] = [[] for _ in counts]
    for (step, position), sign in zip(found, signs, strict=True):
        per_step[step].append((position, sign))
    return per_step


def reference_philox(key: tuple[int, int], counter: tuple[int, int, int, int]) -> list[int]:
    """Philox4x64-10, Salmon et al. 2011: one block of four 64-bit outputs."""
    mask = (1 << 64) - 1
    k0, k1 = key
    x0, x1, x2, x3 = counter
    for _ in range(10):
        p0, p1 = 0xD2E7470EE14C6C93 * x0, 0xCA5A826395121157 * x2
        x0, x1, x2, x3 = p1 >> 64 ^ x1 ^ k0, p1 & mask, p0 >> 64 ^ x3 ^ k1, p0 & mask
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return [x0, x1, x2, x3]


def reference_raw(seed: int, purpose: int, indices: list[int], i: int) -> int:
    """FORMAT.md, "Random streams": output r_i of one stream."""
    i0, i1, i2, i3 = (*indices, 0, 0, 0, 0)[:4]
    return reference_philox((seed | purpose << 32, i0 | i1 << 32), (i // 4 + 1, i2 | i3 << 32, 0, 0))[i % 4]


def reference_decode_paths(words: bytes, counts: list[int], n_atoms: int) -> list[list[int]]:
    """FORMAT.md, "Codebooks", trellis: the path bits of each injection."""
    bits = [byte >> 7 - i & 1 for byte in words for i in range(8)]
    assert max(counts) <= n_atoms < 1 << 24, "more bits than atoms"
    assert len(words) == -(-sum(counts) // 8), "words of another size"
    assert not any(bits[sum(counts) :]), "a bit after the last one"
    return [[bits.pop(0) for _ in range(count)] for count in counts]


def reference_path_atoms(path: list[int], seed: int, memory: int, n_atoms: int) -> list[tuple[int, int]]:
    """FORMAT.md, "Codebooks", trellis: (atom, sign) for each bit of a path."""
    length, atoms = n_atoms // max(1, len(path)), []
    for i in range(len(path)):
        raw = reference_raw(seed, 7, [], sum(path[i - j] << j for j in range(min(memory, i) + 1)))
        atoms.append((i * length + ((raw >> 32) * length >> 32), -1 if raw & 1 else 1))
    return atoms

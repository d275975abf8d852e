"""The range coder under symbols and atoms: integer frequencies in, bytes out.

FORMAT.md, "Range coder". constriction's queue coder (32-bit words, 64-bit state, 24-bit frequencies) does the work.
Its Categorical model rounds float probabilities p to frequencies floor(cumulative p * (2^24 - A) / sum p) + symbol;
given p = frequency - 1 exactly, the factor is exactly 1, so the coder uses our integers and nothing is rounded.

The bytes are the shortest that decode: the code is a number in an interval, bytes are its digits in base 256, most
significant first, and digits after the last byte are zero. So no payload ends with a zero byte.
"""

from __future__ import annotations

import constriction
import numpy as np

from vovcodec.errors import FormatError

__all__ = ["FREQUENCY_TOTAL", "RangeReader", "RangeWriter", "frequencies"]

Categorical = constriction.stream.model.Categorical
Uniform = constriction.stream.model.Uniform
RangeEncoder = constriction.stream.queue.RangeEncoder
RangeDecoder = constriction.stream.queue.RangeDecoder

FREQUENCY_BITS = 24
FREQUENCY_TOTAL = 1 << FREQUENCY_BITS
WEIGHT_BITS = 38  # largest width of a weight sum whose product with 2^24 still fits a signed 64-bit integer
UNIFORM_BITS = 12  # a uniform value is split so that its coded part has at most this many bits


def frequencies(weights: np.ndarray) -> np.ndarray:
    """Integer frequencies proportional to integer weights, each at least 1, summing to exactly 2^24.

    W = sum w; if W >= 2^38, shift every w right by the bits of W beyond 38 and sum again;
    f = 1 + floor(w * (2^24 - A) / W); what is missing to 2^24 goes to the first largest w.

    Args:
        weights: int64 [..., A], non-negative, A < 2^24; each row has a positive entry and sums to less than 2^62.

    Returns:
        int64 [..., A].
    """
    weights = np.asarray(weights, dtype=np.int64)
    n_symbols = weights.shape[-1]
    totals = weights.sum(axis=-1, keepdims=True)
    weights = weights >> bit_length(totals >> WEIGHT_BITS)
    totals = weights.sum(axis=-1, keepdims=True)
    result = 1 + weights * (FREQUENCY_TOTAL - n_symbols) // totals
    largest = weights.argmax(axis=-1, keepdims=True)
    missing = FREQUENCY_TOTAL - result.sum(axis=-1, keepdims=True)
    np.put_along_axis(result, largest, np.take_along_axis(result, largest, -1) + missing, -1)
    return result


def bit_length(values: np.ndarray) -> np.ndarray:
    """Number of bits of non-negative integers below 2^53, elementwise, int64; 0 for 0."""
    return np.frexp(np.asarray(values).astype(np.float64))[1].astype(np.int64)


def categorical(freqs: np.ndarray) -> Categorical:
    """constriction's model with exactly these frequencies, int64 [A], A >= 2."""
    return Categorical((freqs - 1).astype(np.float64), perfect=False)


def split_uniform(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Low bits to send raw and number of high parts, for uniform values below `sizes` (1 .. 2^24 - 1)."""
    low_bits = np.maximum(bit_length(sizes) - UNIFORM_BITS, 0)
    return low_bits, ((sizes - 1) >> low_bits) + 1


class RangeWriter:
    """Encodes batches of integers; `finish` gives the bytes."""

    def __init__(self) -> None:
        self._encoder = RangeEncoder()

    def identical(self, freqs: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Encode `values` [n], all with the frequencies `freqs` [A]. Returns them."""
        self._encoder.encode(np.ascontiguousarray(values, dtype=np.int32), categorical(freqs))
        return values

    def individual(self, freqs: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Encode `values` [n], the i-th with the frequencies `freqs[i]`, [n, A]. Returns them."""
        probabilities = (freqs - 1).astype(np.float64)
        self._encoder.encode(np.ascontiguousarray(values, dtype=np.int32), Categorical(perfect=False), probabilities)
        return values

    def uniform(self, sizes: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Encode `values` [n], the i-th uniform in 0 .. sizes[i] - 1. Returns them."""
        low_bits, n_high = split_uniform(sizes)
        low = low_bits > 0
        self._plain_uniform(1 << low_bits[low], values[low] & ((1 << low_bits[low]) - 1))
        high = n_high > 1
        self._plain_uniform(n_high[high], (values >> low_bits)[high])
        return values

    def _plain_uniform(self, sizes: np.ndarray, values: np.ndarray) -> None:
        if sizes.size:
            self._encoder.encode(values.astype(np.int32), Uniform(), sizes.astype(np.int32))

    def finish(self) -> bytes:
        """The shortest bytes that decode to everything encoded."""
        n_words, (lower, interval) = self._encoder.pos()
        words = self._encoder.get_compressed()
        if not words.size:
            return b""
        # `words` is a point of the final interval, rounded up to its first n_words + 1 words; `lower` is the interval's
        # start modulo 2^64. Together they give the start including a carry into words already produced.
        point = int.from_bytes(words[: n_words + 1].astype(">u4").tobytes(), "big") << 32
        start = point - ((point - lower) & ((1 << 64) - 1))
        for zero_bits in range(64, -1, -8):
            code = -(-start >> zero_bits) << zero_bits
            if code < start + interval:
                break
        return code.to_bytes(4 * (n_words + 2), "big").rstrip(b"\0")


class RangeReader:
    """Decodes what a RangeWriter encoded, given the same models in the same order.

    Args:
        data: the bytes.
        error: the FormatError to raise when the bytes cannot have been written with the models asked for.
    """

    def __init__(self, data: bytes, error: type[FormatError]) -> None:
        if data.endswith(b"\0"):
            raise error("coded data ends with a zero byte, which no encoder writes")
        self._error = error
        words = np.frombuffer(data + bytes(-len(data) % 4), dtype=">u4").astype(np.uint32)
        # The coder reads zeros after the last word, which is what the format asks for.
        self._decoder = RangeDecoder(words)

    def identical(self, freqs: np.ndarray, n: int) -> np.ndarray:
        """Decode `n` values that share the frequencies `freqs` [A]; int32 [n]."""
        return self._decode(categorical(freqs), n)

    def individual(self, freqs: np.ndarray, values: None = None) -> np.ndarray:
        """Decode one value for each row of `freqs` [n, A]; int64 [n]."""
        return self._decode(Categorical(perfect=False), (freqs - 1).astype(np.float64)).astype(np.int64)

    def uniform(self, sizes: np.ndarray, values: None = None) -> np.ndarray:
        """Decode one value in 0 .. sizes[i] - 1 for each i; int64 [n]."""
        low_bits, n_high = split_uniform(sizes)
        low = low_bits > 0
        result = np.zeros(sizes.size, dtype=np.int64)
        result[low] = self._plain_uniform(1 << low_bits[low])
        high = n_high > 1
        result[high] += self._plain_uniform(n_high[high]) << low_bits[high]
        if (result >= sizes).any():
            raise self._error("a coded offset lies outside its interval")
        return result

    def _plain_uniform(self, sizes: np.ndarray) -> np.ndarray:
        if not sizes.size:
            return np.zeros(0, dtype=np.int64)
        return self._decode(Uniform(), sizes.astype(np.int32)).astype(np.int64)

    def _decode(self, model: object, parameter: object) -> np.ndarray:
        try:
            return self._decoder.decode(model, parameter)
        except AssertionError as error:  # constriction's only complaint: a code outside every symbol's interval
            raise self._error("coded data is not a message of its entropy model") from error

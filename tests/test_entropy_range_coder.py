"""The range coder: exact frequencies, shortest termination, and agreement with a plain-integer decoder."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_entropy import ReferenceRangeDecoder, reference_frequencies

from vovcodec.entropy.errors import BadCodedSymbols
from vovcodec.entropy.range_coder import FREQUENCY_TOTAL, RangeReader, RangeWriter, bit_length, frequencies


@given(st.lists(st.integers(0, 2**52), min_size=2, max_size=40).filter(any))
def test_frequencies_are_positive_exact_and_as_specified(weights):
    freqs = frequencies(np.array(weights))
    assert freqs.sum() == FREQUENCY_TOTAL and freqs.min() >= 1
    assert freqs.tolist() == reference_frequencies(weights)


def test_frequencies_of_rows_are_those_of_each_row():
    rows = np.random.default_rng(0).integers(0, 1 << 45, (20, 7))
    assert np.array_equal(frequencies(rows), [frequencies(row) for row in rows])


def test_bit_length():
    values = [0, 1, 2, 3, 4, 255, 256, (1 << 38) - 1, 1 << 38, (1 << 52) - 1]
    assert bit_length(np.array(values)).tolist() == [v.bit_length() for v in values]


messages = st.lists(
    st.tuples(
        st.lists(st.integers(0, 2**30), min_size=2, max_size=9).filter(any), st.lists(st.integers(0, 8), max_size=30)
    ),
    max_size=6,
)


@given(messages)
def test_reference_decoder_reads_what_constriction_wrote(message):
    writer, expected = RangeWriter(), []
    for weights, values in message:
        values = [v % len(weights) for v in values]
        writer.identical(frequencies(np.array(weights)), np.array(values, dtype=int))
        expected += values
    data = writer.finish()
    assert not data.endswith(b"\0")
    reader, reference, decoded, plain = RangeReader(data, BadCodedSymbols), ReferenceRangeDecoder(data), [], []
    for weights, values in message:
        freqs = frequencies(np.array(weights))
        decoded += reader.identical(freqs, len(values)).tolist()
        plain += [reference.value(freqs.tolist()) for _ in values]
    assert decoded == expected and plain == expected


@given(st.lists(st.tuples(st.integers(1, (1 << 24) - 1), st.integers(0, 1 << 24)), min_size=1, max_size=40))
def test_uniform_values_of_any_size(pairs):
    sizes = np.array([size for size, _ in pairs])
    values = np.array([value % size for size, value in pairs])
    writer = RangeWriter()
    writer.uniform(sizes, values)
    data = writer.finish()
    assert RangeReader(data, BadCodedSymbols).uniform(sizes).tolist() == values.tolist()
    assert ReferenceRangeDecoder(data).uniforms(sizes.tolist()) == values.tolist()
    assert 8 * len(data) <= np.log2(sizes).sum() * 1.001 + 8.1


def test_one_model_for_each_value():
    rng = np.random.default_rng(1)
    freqs = frequencies(rng.integers(0, 1000, (300, 6)) + 1)
    values = rng.integers(0, 6, 300)
    writer = RangeWriter()
    writer.individual(freqs, values)
    data = writer.finish()
    assert RangeReader(data, BadCodedSymbols).individual(freqs).tolist() == values.tolist()
    reference = ReferenceRangeDecoder(data)
    assert [reference.value(row.tolist()) for row in freqs] == values.tolist()


@given(st.integers(0, 2**32 - 1), st.integers(0, 400))
def test_termination_wastes_less_than_a_byte(seed, n):
    rng = np.random.default_rng(seed)
    freqs = frequencies(rng.integers(1, 100, 5))
    values = rng.integers(0, 5, n)
    writer = RangeWriter()
    writer.identical(freqs, values)
    bits = -np.log2(freqs[values] / FREQUENCY_TOTAL).sum()
    # The shortest number in an interval of width 2^-bits has at most one byte more than the bits need.
    assert len(writer.finish()) <= bits * 1.0001 / 8 + 1


def test_no_shorter_data_decodes():
    freqs = frequencies(np.array([5, 1, 9]))
    values = np.random.default_rng(2).integers(0, 3, 200)
    writer = RangeWriter()
    writer.identical(freqs, values)
    data = writer.finish()
    for last in range(256):
        shorter = data[:-2] + bytes([last])
        reference = ReferenceRangeDecoder(shorter)
        try:
            decoded = [reference.value(freqs.tolist()) for _ in values]
        except AssertionError:
            continue
        assert decoded != values.tolist()


def test_zeros_follow_the_last_byte():
    # The first symbol's interval starts at 0, so any number of them needs no byte at all.
    freqs = frequencies(np.array([1, 1]))
    writer = RangeWriter()
    writer.identical(freqs, np.zeros(1000, dtype=int))
    assert writer.finish() == b""
    assert not RangeReader(b"", BadCodedSymbols).identical(freqs, 1000).any()


def test_a_final_zero_byte_is_refused():
    with pytest.raises(BadCodedSymbols, match="zero byte"):
        RangeReader(b"\x01\x00", BadCodedSymbols)


def test_data_outside_every_interval_is_refused():
    freqs = frequencies(np.array([1, 1, 1]))
    with pytest.raises(BadCodedSymbols, match="not a message"):
        RangeReader(b"\xff" * 100, BadCodedSymbols).identical(freqs, 200)

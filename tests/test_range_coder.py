import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from underpar.entropy import freqs
from underpar.entropy.range_coder import (
    LEAST,
    TOTAL,
    WHOLE,
    Decoder,
    Encoder,
    decode_rows,
    encode_rows,
)
from underpar.errors import ArtifactError


def twin_encode(pieces):
    """The format with an endless ``low``: nothing leaves it early, so nothing is ever carried."""
    low, width, words = 0, 1 << 64, 0
    for below, freq in pieces:
        start, end = (edge * width // TOTAL for edge in (below, below + freq))
        low, width = low + start, end - start
        while width < 1 << 48:
            low, width, words = low << 16, width << 16, words + 1
    for count in range(3):
        unit = 1 << (64 - 8 * count)
        first = (low + unit - 1) // unit
        if first * unit < low + width:
            break
    return first.to_bytes(2 * words + count, "big")


def twin_decode(data, tables):
    """The same from the other end: the whole stream, with enough zeros, is one long number."""
    length = 4 * len(tables) + 8  # a symbol shifts by two words at most
    value = int.from_bytes(data[:length].ljust(length, b"\0"), "big")
    low, width, shift = 0, 1 << 64, 8 * length - 64
    symbols = []
    for table in tables:
        symbol, below = 0, 0
        while low + ((below + table[symbol]) * width // TOTAL << shift) <= value:
            below += table[symbol]
            symbol += 1
        start, end = (edge * width // TOTAL for edge in (below, below + table[symbol]))
        low, width = low + (start << shift), end - start
        while width < 1 << 48:
            width, shift = width << 16, shift - 16
        symbols.append(symbol)
    return symbols


def encode(pieces):
    encoder = Encoder()
    for below, freq in pieces:
        encoder.encode(below, freq)
    return encoder.finish()


def check_decoding(data, pieces):
    decoder = Decoder(data)
    for below, freq in pieces:
        assert below <= decoder.slot() < below + freq
        decoder.take(below, freq)
    decoder.finish()


def pieces_of(cumulative, symbols):
    return [(int(row[s]), int(row[s + 1] - row[s])) for row, s in zip(cumulative, symbols)]


def skewed_rows(seed, n_rows, n_symbols, sharpness=3.0):
    """Cumulative tables and symbols drawn from them, or the rarest there are in every 8th row."""
    rng = np.random.default_rng(seed)
    weights = np.exp(sharpness * rng.standard_normal((n_rows, n_symbols)))
    table = freqs.from_probabilities(weights / weights.sum(axis=1, keepdims=True))
    sums = freqs.cumulative(table)
    points = rng.integers(0, TOTAL, n_rows)
    symbols = (sums[:, 1:] <= points[:, None]).sum(axis=1)
    symbols[::8] = table[::8].argmin(axis=1)
    return sums, symbols.astype(np.uint16)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 60),
    st.sampled_from([1, 2, 5, 300]),
    st.sampled_from([0.0, 3.0, 12.0]),
)
def test_round_trip_and_twin(seed, n_rows, n_symbols, sharpness):
    sums, symbols = skewed_rows(seed, n_rows, n_symbols, sharpness)
    encoder = Encoder()
    for first in range(0, n_rows, 7):  # as in lockstep: a few rows at a time
        encode_rows(encoder, sums[first : first + 7], symbols[first : first + 7])
    data = encoder.finish()
    assert data == twin_encode(pieces_of(sums, symbols))
    decoder = Decoder(data)
    parts = [decode_rows(decoder, sums[first : first + 7]) for first in range(0, n_rows, 7)]
    assert all(part.dtype == np.uint16 for part in parts)
    assert [s for part in parts for s in part] == symbols.tolist()
    decoder.finish()


pieces = st.integers(0, TOTAL - 1).flatmap(
    lambda below: st.tuples(st.just(below), st.integers(1, TOTAL - below) | st.just(TOTAL - below))
)


@settings(max_examples=200, deadline=None)
@given(st.lists(pieces, max_size=80))
def test_any_pieces_round_trip(chosen):
    data = encode(chosen)
    assert data == twin_encode(chosen)
    check_decoding(data, chosen)


@given(st.integers(LEAST, WHOLE), st.integers(1, TOTAL - 1))
def test_a_point_begins_at_its_boundary(range_, point):
    decoder = Decoder(b"")
    decoder._range, decoder._code = range_, point * range_ // TOTAL
    assert decoder.slot() == point
    decoder._code -= 1
    assert decoder.slot() == point - 1


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 2**32 - 1))
def test_any_bytes_decode_as_the_twin_decodes_them(data, seed):
    sums, _ = skewed_rows(seed, 40, 9)
    symbols = decode_rows(Decoder(data), sums)
    assert symbols.tolist() == twin_decode(data, np.diff(sums).astype(object).tolist())


def test_the_emitted_bytes_are_a_contract():
    """A change of these is a change of format: bump the version of the text format."""
    sums = np.tile(freqs.cumulative(np.array([[TOTAL - 3000, 2000, 999, 1]])), (12, 1))
    encoder = Encoder()
    encode_rows(encoder, sums, np.array([0, 1, 3, 0, 0, 2, 0, 3, 3, 1, 0, 0]))
    assert encoder.finish().hex() == "fffff060002dc6bfff48dd3b217f0275ffffffff"


MIDDLE = TOTAL // 2


@pytest.mark.parametrize("length", [1, 2, 3, 50, 400])
@pytest.mark.parametrize(
    ("last", "head"), [((0, 1), b"\x7f\xff"), ((MIDDLE, 1), b"\x80\0"), ((TOTAL - 1, 1), b"\x80\0")]
)
def test_a_carry_runs_through_all_that_is_written(length, last, head):
    """Pieces around the middle keep both 0x7FFF.. and 0x8000.. open until the last one decides."""
    chosen = [(MIDDLE - 1, 2)] * length + [last]
    data = encode(chosen)
    assert data == twin_encode(chosen)
    assert data[: 2 * length] == head + head[1:] * (2 * length - 2)
    check_decoding(data, chosen)


@pytest.mark.parametrize("length", [1, 2, 3, 50, 400])
def test_the_end_may_carry_too(length):
    chosen = [(MIDDLE - 1, 2)] * length
    data = encode(chosen)
    assert data == twin_encode(chosen)
    assert data == b"\x80" + bytes(len(data) - 1)
    check_decoding(data, chosen)


@pytest.mark.parametrize("freq", [1, 2, 255, 65_535, TOTAL // 3, TOTAL - 1])
def test_all_highest_and_all_lowest(freq):
    for below in (TOTAL - freq, 0):
        chosen = [(below, freq)] * 400
        data = encode(chosen)
        assert data == twin_encode(chosen)
        check_decoding(data, chosen)


def test_nothing_costs_nothing():
    assert Encoder().finish() == b""
    Decoder(b"").finish()
    sums = freqs.cumulative(np.full((1, 1), TOTAL))
    certain = Encoder()
    encode_rows(certain, np.repeat(sums, 1000, axis=0), np.zeros(1000, np.uint16))
    assert certain.finish() == b""
    assert decode_rows(Decoder(b""), np.empty((0, 9), np.int64)).shape == (0,)


def test_the_last_of_65536_symbols():
    sums = freqs.cumulative(np.full((5, 65_536), TOTAL // 65_536))
    symbols = np.array([65_535, 0, 65_535, 1, 65_534], np.uint16)
    encoder = Encoder()
    encode_rows(encoder, sums, symbols)
    data = encoder.finish()
    assert data == symbols.astype(">u2").tobytes()  # at equal shares, the words are the symbols
    assert np.array_equal(decode_rows(Decoder(data), sums), symbols)


def test_symbols_without_a_share():
    sums = freqs.cumulative(np.array([[0, TOTAL - 1, 0, 0, 1, 0]]))
    for symbol in (1, 4):
        encoder = Encoder()
        encode_rows(encoder, sums, np.array([symbol]))
        assert decode_rows(Decoder(encoder.finish()), sums)[0] == symbol
    with pytest.raises(AssertionError, match="without a share"):
        encode_rows(Encoder(), sums, np.array([2]))


@pytest.fixture(scope="module")
def skewed_stream():
    """20,000 symbols of a skewed 2,048-symbol alphabet: (table [V], symbols, the stream)."""
    rng = np.random.default_rng(0)
    weights = np.exp(3.0 * rng.standard_normal((1, 2048)))
    table = freqs.from_probabilities(weights / weights.sum())
    sums = freqs.cumulative(table)
    symbols = np.searchsorted(sums[0], rng.integers(0, TOTAL, 20_000), "right") - 1
    encoder = Encoder()
    encode_rows(encoder, np.broadcast_to(sums, (20_000, 2049)), symbols)
    return table[0], symbols, encoder.finish()


def test_the_rate_is_the_ideal(skewed_stream):
    table, symbols, data = skewed_stream
    ideal = freqs.cost_bits(np.bincount(symbols, minlength=2048), table) / 8
    assert ideal - 1 < len(data) < 1.0001 * ideal + 8
    sums = np.broadcast_to(freqs.cumulative(table[None]), (1000, 2049))
    decoder = Decoder(data)
    decoded = [decode_rows(decoder, sums) for _ in range(20)]
    assert np.array_equal(np.concatenate(decoded), symbols)
    decoder.finish()


def test_the_rate_is_that_of_constriction(skewed_stream):
    constriction = pytest.importorskip("constriction")
    table, symbols, data = skewed_stream
    model = constriction.stream.model.Categorical(table / TOTAL, lazy=True)
    oracle = constriction.stream.queue.RangeEncoder()
    oracle.encode(symbols.astype(np.int32), model)
    assert len(data) == pytest.approx(4 * len(oracle.get_compressed()), rel=1e-3)


def noticed(data, sums):
    decoder = Decoder(data)
    decode_rows(decoder, sums)
    try:
        decoder.finish()
    except ArtifactError as error:
        return str(error).startswith("damaged text stream")
    return False


@pytest.fixture(scope="module")
def short_stream():
    sums, symbols = skewed_rows(0, 200, 50)
    encoder = Encoder()
    encode_rows(encoder, sums, symbols)
    return sums, encoder.finish()


def test_bytes_too_many_are_an_error(short_stream):
    sums, data = short_stream
    assert not noticed(data, sums)
    for extra in (b"\0", b"\0\0", b"\1", b"\xff", bytes(100), data):
        assert noticed(data + extra, sums)


def test_another_number_of_the_same_interval_is_an_error():
    assert encode([(MIDDLE, MIDDLE)]) == b"\x80"
    check_decoding(b"\x80", [(MIDDLE, MIDDLE)])
    with pytest.raises(ArtifactError, match="damaged text stream"):
        check_decoding(b"\x81", [(MIDDLE, MIDDLE)])


def test_most_damage_is_an_error(short_stream):
    sums, data = short_stream
    cuts = [data[:length] for length in range(len(data))]
    flips = []
    for bit in range(0, 8 * len(data), 5):
        flipped = bytearray(data)
        flipped[bit >> 3] ^= 1 << (bit & 7)
        flips.append(bytes(flipped))
    for damaged in (cuts, flips):
        assert sum(noticed(d, sums) for d in damaged) > 0.8 * len(damaged)
